"""Inside: what a network lets one do with single layers."""

import types
from typing import Any

import numpy as np

from nnet._atomic import AtWork
from nnet.layers.arguments import as_count
from nnet.layers.program import Program
from nnet.layers.tree import describe, find, numbered
from nnet.training.data import Images
from nnet.training.fitted import Fitted


class Inside(Fitted):
    """The methods of a network that take layers, by name, by number or themselves."""

    def outputs(self, X, layer=None, batch_size=256):
        """What a layer puts out, in prediction: features for another model, or to look at.

        Parameters
        ----------
        X : array (n_imgs, ...), each image of the shape that `fit` saw
        layer : None, int, str or Layer
            Its number in `layers`, its name as in `state_dict`, such as "5.shortcut.0", or the
            layer itself, also inside of others. None: the last one before the loss.
        batch_size : int
            At most so many images are computed at once; it changes no bit.

        Returns
        -------
        array (n_imgs, ...) of the network's dtype
            Whatever it computes: NaN is no error here.

        Raises
        ------
        ValueError, TypeError
            As `predict` does, and for what is no layer of the network.
        """
        batch_size = as_count(batch_size, "batch_size")
        name, _ = find(self._layers, -2 if layer is None else layer)
        model = self._copied_model()
        images = Images(X, model.dtype, model.input_shape)
        return outputs_of(model, name, images, batch_size)


# --- outputs ----------------------------------------------------------------------------------


def outputs_of(model, name, images, batch_size):
    """What the named layer puts out. The model is the caller's own: it is of no use after it."""
    _, layer = find(model.layers, name)
    last, seen = int(name.partition(".")[0]), watch(layer)
    model.plan(model.layers, visit=None)
    program = Program(numbered(model.layers[: last + 1]), "", model.trace, need_input_grad=False)
    results = None
    at_work = AtWork(model)
    try:
        at_work.begin()
        at_work.lend(model.loans(training=False))
        for rows in model.batches(len(images), batch_size):
            batch = images.checked_batch(rows)
            program.fprop(batch.reshape(len(batch), *model.image_shape))
            if not seen:
                raise ValueError(
                    f"{describe(name, layer)} was not called, expected the one around it to do so"
                )
            output = np.asarray(seen[-1], model.dtype)
            if results is None:
                results = np.empty((len(images), *output.shape[1:]), model.dtype)
            results[rows] = output
            seen.clear()
    except (TypeError, ValueError):
        model.check()
        raise
    finally:
        at_work.end()
    return results


def watch(layer):
    """A list to which the layer will add its outputs.

    It becomes an object of a derived class, which takes part in no fusion.
    """
    kind: Any = type(layer)
    seen: list[np.ndarray] = []

    def fprop(self, input):
        output = kind.fprop(self, input)
        seen.append(output)
        return output

    attributes = {"fprop": fprop, "__module__": kind.__module__}
    layer.__class__ = types.new_class(
        kind.__name__, (kind,), {}, lambda body: body.update(attributes)
    )
    return seen
