"""Inside: what a network lets one do with single layers."""

import types
from typing import Any

import numpy as np

from nnet._atomic import AtWork, set_untrained
from nnet.layers.arguments import as_count
from nnet.layers.base import Layer
from nnet.layers.hints import with_hints
from nnet.layers.program import Program
from nnet.layers.tree import describe, find, frozen_in, layers_in, numbered
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
            At most so many images are computed at once: more need more memory.

        Returns
        -------
        array (n_imgs, ...) of the network's dtype
            Whatever it computes: NaN is no error here. Signals, as X has them then, have no
            height: (n_imgs, n_channels, length).

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

    @with_hints("one list of them, such as network.layers[:-2]")
    def freeze(self, layers):
        """Let training leave layers, and those inside of them, as they are.

        `fit` keeps their arrays, if they have some already, also where it starts afresh: they are
        no longer drawn, and no step changes them.

        Parameters
        ----------
        layers : int, str, Layer, or list of these
            Their numbers in `layers`, their names as in `state_dict`, such as "5.shortcut", or
            the layers themselves: `network.freeze(network.layers[:-2])`.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For what is no layer of the network: before any change.
        RuntimeError
            While the network is being trained.
        """
        return self._set_trainable(layers, False)

    @with_hints("one list of them")
    def unfreeze(self, layers=None):
        """Let training change layers again; None: all of them.

        What is around a layer that is named is no longer frozen as a whole then, only what else
        is in it. Parameters, errors and what is returned are those of `freeze`.
        """
        return self._set_trainable(range(len(self._layers)) if layers is None else layers, True)

    def _set_trainable(self, layers, trainable):
        chosen = [layer for _, layer in find_all(self._layers, layers, "layers")]
        children = numbered(self._layers)
        ids = {id(layer) for each in chosen for layer in [each, *layers_in(each.children)]}
        frozen = frozen_in(children)
        if trainable:
            around = {id(layer) for layer in layers_in(children) if holds(layer, ids)}
            frozen = frozen - ids - around
        else:
            frozen = frozen | ids
        changes = [
            (vars(layer), "trainable", id(layer) not in frozen) for layer in layers_in(children)
        ]
        set_untrained(self, [*changes, (vars(self), "_is_changed", True)])
        return self


def find_all(layers, which, argument):
    """`find` for one layer or for a list of them."""
    if isinstance(which, (str, Layer)) or not np.iterable(which):
        which = [which]
    return [find(layers, each, argument) for each in which]


def holds(layer, ids):
    """Whether some of these are inside of the layer."""
    return any(id(each) in ids for each in layers_in(layer.children))


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
            if model.signals and output.shape[2:3] == (1,) and output.ndim == 4:
                output = output[:, :, 0]
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
