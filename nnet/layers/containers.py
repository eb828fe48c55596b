"""Layers of layers: Sequential, Residual and Parallel.

They hold each other, up to `tree.MAX_DEPTH` levels deep.
"""

from reprlib import recursive_repr
from typing import Any

import numpy as np

from nnet._dense import add_arrays
from nnet.layers.arguments import Option, as_word, check_is_array, check_like
from nnet.layers.base import Layer
from nnet.layers.hints import layer_for, with_hints
from nnet.layers.loss import LossMixin
from nnet.layers.program import Program
from nnet.layers.streams import as_streams
from nnet.layers.tree import Trace, check_inside, describe, follow, held, layers_in, numbered

FLOAT64 = np.dtype(np.float64)


def as_layers(layers, name):
    """A list of layers, none of which is a loss."""
    if isinstance(layers, Layer) or not hasattr(layers, "__iter__"):
        raise TypeError(f"{name} is {layers!r}, expected a list of layers")
    layers = list(layers)
    for i, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise TypeError(f"{name}[{i}] is {layer!r}, expected {layer_for(layer)}")
        if isinstance(layer, LossMixin):
            raise ValueError(
                f"{name}[{i}] is a {type(layer).__name__}, expected a loss to be the last layer of "
                "a network, and nowhere else"
            )
    return layers


class Container(Layer):
    """What containers share: programs that run the layers inside."""

    _is_container = True
    _programs: Any = None  # those that a network has made
    _running: Any = None  # those of the last forward pass
    _TRANSIENT = (*Layer._TRANSIENT, "_programs", "_running")

    def __init_subclass__(cls, **options):
        """A class that redefines how it is set up is like any other layer of the user's own."""
        super().__init_subclass__(**options)
        if vars(cls).keys() & {"_setup", "output_shape"}:
            cls._is_container = False

    def _rows(self):
        """The layers in rows, each a dict by their names."""
        return [self.children]

    def _trace(self, trace, name, input_shape):
        """The output's shape; `trace` follows the input through the layers inside."""
        prefix = f"{name}." if name else ""
        return self._join(name, [follow(row, prefix, trace, input_shape) for row in self._rows()])

    def _join(self, name, shapes):
        """The output's shape, from those of the rows' outputs."""
        (shape,) = shapes
        return shape

    def _compile(self, prefix, trace, need_input_grad):
        self._programs = [Program(row, prefix, trace, need_input_grad) for row in self._rows()]

    def _setup(self, input_shape, rng):
        """Set the layers inside up, outside of a network: it does that itself."""
        check_inside(self, "", {})
        layers = layers_in(self.children)
        streams = dict(zip(map(id, layers), as_streams(rng).of_layers(layers, "layer")))
        for layer in layers + held(layers):
            layer.dtype, layer.signals = self.dtype, self.signals
        self._trace(
            Trace(lambda name, layer, shape: layer._setup(shape, streams[id(layer)]())),
            "",
            input_shape,
        )

    def _start(self, input):
        """The programs for a forward pass, and for the backward pass after it.

        Outside of a network, or inside of a layer of the user's own, nobody tells when an option
        changes: they are made anew.
        """
        programs = self._programs
        if programs is None or self._work is None:
            check_is_array(input, "input")
            trace = Trace()
            self._trace(trace, "", input.shape)
            programs = [
                Program(row, "", trace, self.need_input_grad, alone=True) for row in self._rows()
            ]
        self._running = programs
        return programs

    def _joined(self, shape, dtype):
        """The array for the output; that of a derived class may have another shape."""
        return np.empty(shape, dtype) if self._work is None else self._work.output(shape, dtype)

    def output_shape(self, input_shape):
        return self._trace(Trace(), "", input_shape)

    @recursive_repr()
    def __repr__(self):
        try:
            return super().__repr__()
        except RecursionError:  # far deeper than any network takes
            return f"{type(self).__name__}(...)"

    # --- copies -------------------------------------------------------------------------

    def __getstate__(self):
        """First the layers inside, the deepest before all: each finds its own copied already.

        From layer to layer, copies and pickles take a dozen of Python's calls for one level.
        """
        return {"_inside": layers_in(self.children)[::-1]} | super().__getstate__()

    def __setstate__(self, state):
        vars(self).update(state)
        vars(self).pop("_inside", None)

    def _copied_attributes(self, memo):
        copies = super()._copied_attributes(memo)
        copies.pop("_inside", None)
        return copies


class Sequential(Container):
    """Layers one after the other. Without any, the output is the input.

    Parameters
    ----------
    layers : list of Layer
    """

    layers = Option(as_layers)

    @with_hints()
    def __init__(self, layers=()):
        self.layers = layers

    def _is_row(self):
        return type(self) is Sequential

    @property
    def children(self):
        return numbered(self.layers)

    def fprop(self, input):
        return self._start(input)[0].fprop(input)

    def bprop(self, output_grad):
        return self._running[0].bprop(output_grad)


class Residual(Container):
    """x + f(x): what layers in a row add to their input.

    He et al. 2016, "Deep residual learning for image recognition", eqs. 1 and 2.

    Parameters
    ----------
    layers : list of Layer
        f.
    shortcut : None or list of Layer
        In place of the x that is added: layers that give it f's shape, such as a
        convolution of 1x1 with strides.
    """

    _COMPUTES_RELU = True
    layers = Option(as_layers)

    @with_hints()
    def __init__(self, layers, shortcut=None):
        self.layers = layers
        self.shortcut = shortcut

    @property
    def shortcut(self):
        return self._shortcut and self._shortcut.layers

    @shortcut.setter
    def shortcut(self, layers):
        layers = layers if layers is None else as_layers(layers, "shortcut")
        self._shortcut = layers if layers is None else Sequential(layers)
        self._option_changed()

    @property
    def children(self):
        shortcut = {} if self._shortcut is None else {"shortcut": self._shortcut}
        return numbered(self.layers) | shortcut

    def _rows(self):
        return [numbered(self.layers), {"shortcut": self._shortcut} if self._shortcut else {}]

    def _join(self, name, shapes):
        f_shape, x_shape = shapes
        if f_shape != x_shape:
            raise ValueError(
                f"{describe(name, self)} adds {f_shape[1:]} and {x_shape[1:]} for each image, "
                "expected one shape: give shortcut=[Conv(...)] that changes that of its input"
            )
        return f_shape

    def fprop(self, input, activation=None):
        f, shortcut = self._start(input)
        f_output, x = f.fprop(input), shortcut.fprop(input)
        output = self._joined(f_output.shape, input.dtype)
        return add_arrays(f_output, x, output, activation=activation)

    def bprop(self, output_grad):
        f, shortcut = self._running
        f_grad, x_grad = f.bprop(output_grad), shortcut.bprop(output_grad)
        if f_grad is None:
            return None
        return add_arrays(f_grad, x_grad, self._scratch(f_grad.shape, f_grad.dtype))


class Parallel(Container):
    """Branches side by side, each from the same input.

    Parameters
    ----------
    branches : list of lists of Layer, or of Layer
        An empty list is the input itself.
    mode : {'sum', 'concat', 'mul'}
        Sum or product of the branches' outputs, or one after the other along the channels.
        An output (n_imgs, n_channels) counts as images of one pixel; sums and products repeat
        what has length 1 along an axis, as NumPy does.
    """

    mode = Option(as_word, ("sum", "concat", "mul"))

    @with_hints()
    def __init__(self, branches, mode="sum"):
        self.branches = branches
        self.mode = mode

    @property
    def branches(self):
        return tuple(
            branch.layers if type(branch) is Sequential else branch for branch in self._branches
        )

    @branches.setter
    def branches(self, branches):
        if isinstance(branches, Layer) or not hasattr(branches, "__iter__"):
            raise TypeError(f"branches is {branches!r}, expected a list of lists of layers")
        branches = [
            as_layers([branch], "branches")[0]
            if isinstance(branch, Layer)
            else Sequential(as_layers(branch, f"branches[{i}]"))
            for i, branch in enumerate(branches)
        ]
        if not branches:
            raise ValueError("branches is empty, expected at least one branch")
        self._branches = branches
        self._option_changed()

    @property
    def children(self):
        return numbered(self._branches)

    def _rows(self):
        return [{key: branch} for key, branch in self.children.items()]

    def _join(self, name, shapes):
        try:
            if self.mode == "concat":
                return concatenated(shapes)
            return np.broadcast_shapes(*spread(shapes))
        except ValueError:
            advice = ""
            if len({len(shape) for shape in shapes}) == 1 < len({shape[2:] for shape in shapes}):
                advice = (
                    ": sides that strides divide and multiply again have to be multiples of these, "
                    "as of 2**depth for zoo.small_unet"
                )
            raise ValueError(
                f"{describe(name, self)} joins {[shape[1:] for shape in shapes]} for each image by "
                f"mode {self.mode!r}, expected shapes that fit{advice}"
            ) from None

    def fprop(self, input):
        outputs = [program.fprop(input) for program in self._start(input)]
        if self.training:
            self._kept = outputs
        out = self._joined(self._join("", [output.shape for output in outputs]), input.dtype)
        if self.mode == "concat":
            return np.concatenate(outputs, axis=1, out=out)
        function = np.add if self.mode == "sum" else np.multiply
        first, *others = [o.reshape(s) for o, s in zip(outputs, spread_of(outputs))]
        np.copyto(out, first)
        for other in others:
            function(out, other, out=out)
        return out

    def bprop(self, output_grad):
        shape = self._join("", [output.shape for output in self._kept])
        check_like(output_grad, "output_grad", shape, self._kept[0].dtype)
        grads = [
            program.bprop(grad)
            for program, grad in zip(self._running, self._branch_grads(output_grad), strict=True)
        ]
        if any(grad is None for grad in grads):
            return None
        total = self._copy(grads[0])
        for grad in grads[1:]:
            total += grad
        return total

    def _branch_grads(self, output_grad):
        """The gradient by each branch's output."""
        outputs = self._kept
        if self.mode == "concat":
            ends = np.cumsum([output.shape[1] for output in outputs])
            return [self._copy(grad) for grad in np.split(output_grad, ends[:-1], axis=1)]
        shapes = spread_of(outputs)
        grads = [output_grad] * len(outputs)
        if self.mode == "mul":
            outputs = [output.reshape(shape) for output, shape in zip(outputs, shapes)]
            grads = [
                self._product(output_grad, outputs[:i] + outputs[i + 1 :])
                for i in range(len(outputs))
            ]
        return [
            self._gathered(grad, shape).reshape(output.shape)
            for grad, shape, output in zip(grads, shapes, self._kept)
        ]

    def _gathered(self, grad, shape):
        """The gradient by an array of this shape that was repeated: sums, in double precision."""
        axes = tuple(
            axis for axis, length in enumerate(shape) if axis > 0 and length < grad.shape[axis]
        )
        if not axes:
            return grad
        sums = self._scratch(shape, FLOAT64)
        np.sum(grad, axis=axes, keepdims=True, out=sums)
        return sums if grad.dtype == FLOAT64 else self._copy(sums, grad.dtype)

    def _copy(self, array, dtype=None):
        copy = self._scratch(array.shape, dtype or array.dtype)
        np.copyto(copy, array, "same_kind")
        return copy

    def _product(self, first, others):
        product = self._copy(first)
        for other in others:
            product *= other
        return product


def concatenated(shapes):
    """The shape of arrays one after the other along their second axis."""
    (first, *others) = shapes
    for other in others:
        if len(other) != len(first) or other[2:] != first[2:]:
            raise ValueError
    return first[0], sum(shape[1] for shape in shapes), *first[2:]


def spread(shapes):
    """The shapes with as many axes as the longest; of one of two axes these are the first."""
    n_axes = max(map(len, shapes))
    if any(len(shape) not in (2, n_axes) for shape in shapes):
        raise ValueError
    return [(*shape, *[1] * (n_axes - len(shape))) for shape in shapes]


def spread_of(outputs):
    return spread([output.shape for output in outputs])
