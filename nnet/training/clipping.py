"""Clipping: gradients that are too large are cut down, before weight decay is added."""

import numpy as np

from nnet._atomic import clamp_all, norm_of, scale_all
from nnet.layers.arguments import as_positive
from nnet.layers.base import ParamMixin
from nnet.layers.tree import collect, is_own

EPSILON = 1e-6  # added to a norm that is divided by, as in PyTorch


class Clipping:
    """How `fit` clips gradients: by the norm of all together, or each value, or not at all.

    Pascanu et al. 2013, "On the difficulty of training recurrent neural networks", algorithm 1,
    in the form of PyTorch's clip_grad_norm_; `clip_value` is its clip_grad_value_.

    Parameters
    ----------
    clip_norm, clip_value : None or float
        One of them at most.
    """

    def __init__(self, clip_norm, clip_value):
        if clip_norm is not None and clip_value is not None:
            raise ValueError(
                f"clip_norm is {clip_norm!r} and clip_value is {clip_value!r}, expected one of them"
            )
        self.norm = None if clip_norm is None else as_positive(clip_norm, "clip_norm")
        self.value = None if clip_value is None else as_positive(clip_value, "clip_value")

    def incs(self, layers):
        """What `param_incs` of these layers gives for clipped gradients, as one list.

        The arrays of nnet's own layers are clipped in place; those of custom layers too if
        `param_incs` is theirs and finds them again.
        """
        if self.norm is None and self.value is None:
            return collect(layers, "param_incs")
        found = [Gradients(layer) for layer in layers]
        self.clip([grad for gradients in found for grad in gradients.clipped])
        return [inc for gradients in found for inc in gradients.incs()]

    def clip(self, grads):
        """Clip arrays in place; one that is there twice counts twice, and is clipped once."""
        arrays = list({id(grad): grad for grad in grads}.values())
        if self.norm is not None:
            factor = self.norm / (norm_of(grads) + EPSILON)
            if not factor >= 1:  # NaN makes all NaN
                scale_all(arrays, factor)
        if self.value is not None:
            clamp_all(arrays, self.value)


class Gradients:
    """The gradients of one layer, as arrays that may be written to."""

    def __init__(self, layer):
        self.layer, self.grads = layer, layer.param_grads()
        self.adds_nothing = type(layer).param_incs is ParamMixin.param_incs
        self.in_place = is_own(layer) or not self.adds_nothing and are_kept(layer, self.grads)
        self.clipped = self.grads if self.in_place else list(map(copied, self.grads))

    def incs(self):
        if self.in_place:
            return self.layer.param_incs()
        if self.adds_nothing:
            return self.clipped
        return [  # what the layer adds to its gradients, now added to the clipped ones
            np.subtract(inc, grad, dtype=float) + clipped
            for inc, grad, clipped in zip(self.layer.param_incs(), self.grads, self.clipped)
        ]


def are_kept(layer, grads):
    """Whether these are arrays that the layer will find changed, if they are."""
    return all(
        isinstance(grad, np.ndarray)
        and grad.dtype.kind == "f"
        and grad.flags.writeable
        and grad is again
        for grad, again in zip(grads, layer.param_grads())
    )


def copied(grad):
    """A copy in floating point."""
    grad = np.asarray(grad)
    return np.array(grad, np.result_type(grad, np.float32))
