"""What a layer is: the bases of all layers, yours included."""

import copy
import inspect
import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from nnet._atomic import set_untrained
from nnet.layers.arguments import as_bool, check_is_array


class Trainable:
    """Whether training changes a layer; True where it was never set."""

    def __get__(self, layer, owner):
        return True if layer is None else vars(layer).get("trainable", True)

    def __set__(self, layer, value):
        value, network = as_bool(value, "trainable"), layer._network()
        if network is None or value == layer.trainable:
            vars(layer)["trainable"] = value
        else:
            set_untrained(network, [(vars(layer), "trainable", value)])
        layer._option_changed()


def sees_all(layer):
    """The `reach` of layers of which each output sees the whole image."""
    return (math.inf, math.inf), (1, 1)


class Layer(ABC):
    """One step of a network. Shapes include the batch axis, which comes first.

    A layer of your own needs `fprop`, `bprop` and `output_shape`, and `_setup`
    if it has something to prepare. Batches differ in length: the last one of
    an epoch may be smaller than the `input_shape` that `_setup` saw.

    Attributes
    ----------
    dtype : numpy.dtype
        Of parameters and activations; a network sets it before `_setup`.
    signals : bool
        Whether the images of height 1 are signals, which have no height; a network
        sets it before `_setup`.
    training : bool
        A network sets it to False while it predicts: `fprop` then keeps
        nothing for `bprop`.
    need_input_grad : bool
        A network sets it to False for its first layer with parameters, whose
        `bprop` may then return None: nobody reads its input gradient.
    trainable : bool
        False freezes the layer, and those inside of it: training leaves its arrays as they are.
        It changes between trainings, not during one.
    children : dict of str to Layer, read-only
        The layers inside of this one, by the names that their arrays have in a
        network's `state_dict`. A layer of your own that has some defines the property.
    """

    dtype = np.dtype(np.float32)
    signals = False
    training = True
    need_input_grad = True
    trainable = Trainable()

    _kept: Any = None  # what fprop keeps for bprop; a network drops it after each step
    _work: Any = None  # the Work that a network lends the layer
    _owner: Any = None  # a weak reference to the network that has set it up
    _TRANSIENT: tuple[str, ...] = ("training", "need_input_grad", "_kept", "_work", "_owner")

    @property
    def children(self):
        return {}

    _is_container = False  # whether a network sets up and runs the layers inside by itself

    def _is_row(self):
        """Whether the layer does nothing but call its children in turn."""
        return False

    def _setup(self, input_shape, rng):
        """Check the input's shape and start afresh, with random numbers from `rng`."""

    @abstractmethod
    def fprop(self, input):
        """The output for a batch, which it must not write to."""

    @abstractmethod
    def bprop(self, output_grad):
        """The gradient by the last `fprop`'s input, from that by its output: per image, undivided.

        A layer with parameters computes their gradients too: means over the images.
        """

    @abstractmethod
    def output_shape(self, input_shape):
        """The shape of `fprop`'s output."""

    # --- what a summary tells ---------------------------------------------------------

    def multiply_adds(self, input_shape, output_shape):
        """Of its own arrays, for a batch of these shapes: what convolutions and the like count."""
        return 0

    def reach(self):
        """How far an output pixel sees: extents (y, x) in pixels of the input, and strides (y, x).

        math.inf is the extent of what sees all. Asked of nnet's own layers alone.
        """
        return (1, 1), (1, 1)

    # --- arrays by name -----------------------------------------------------------

    def param_names(self):
        """Attributes that hold trained arrays; `NAME_grad` holds the gradient of each."""
        return []

    def state_names(self):
        """Attributes that hold arrays which follow from the images that training has seen."""
        return []

    def nonnegative_names(self):
        """Which of these arrays cannot have values below 0, such as a variance."""
        return []

    def decaying_names(self):
        """Which of the trained arrays weight decay is for: None is those of two axes or more."""
        return None

    def array_shapes(self, input_shape):
        """The shape of each of these arrays, by name, for this input."""
        return {}

    def _set_arrays(self, arrays):
        """Take arrays by name, as if training had made them, and new ones for the gradients."""
        vars(self).update(arrays | {f"{name}_grad": None for name in self.param_names()})
        self._make_grads()

    def _make_grads(self):
        """An array for the gradient of each trained array, where there is none that fits."""
        attributes = vars(self)
        for name in self.param_names():
            array, grad = attributes[name], attributes.get(f"{name}_grad")
            if grad is None or (grad.shape, grad.dtype) != (array.shape, array.dtype):
                attributes[f"{name}_grad"] = np.zeros(array.shape, array.dtype)

    # --- options --------------------------------------------------------------------

    def config(self):
        """The constructor's arguments, by name: JSON can hold them."""
        given = vars(self).get("_numbers", {})
        names = inspect.signature(type(self)).parameters
        return {name: given.get(name, getattr(self, name)) for name in names}

    def _network(self):
        """The one that has set it up, if that is still there."""
        return None if self._owner is None else self._owner()

    def _option_changed(self):
        network = self._network()
        if network is not None:
            network._is_changed = True

    def __repr__(self):
        arguments = [
            f"{name}={value}"
            for name, parameter in inspect.signature(type(self)).parameters.items()
            # Once: with two calls for each, layers in layers would take exponential time.
            if (value := repr(getattr(self, name, parameter.default))) != repr(parameter.default)
        ]
        return f"{type(self).__name__}({', '.join(arguments)})"

    # --- memory -----------------------------------------------------------------------

    def _array(self, name, shape, dtype):
        """An uninitialised array: new, or inside a network's fit or predict the same every time."""
        if self._work is None:
            return np.empty(shape, dtype)
        return self._work.array(name, shape, dtype)

    def _scratch(self, shape, dtype):
        """An uninitialised array for what only the next layers read."""
        if self._work is None:
            return np.empty(shape, dtype)
        return self._work.scratch(shape, dtype)

    def _output(self, input):
        """The array for the output of a batch; a network knows its shape."""
        work = self._work
        if work is None:
            check_is_array(input, "input")
            return np.empty(self.output_shape(input.shape), input.dtype)
        shape = work.output_shape
        shape = self.output_shape(input.shape) if shape is None else (len(input), *shape)
        return work.output(shape, input.dtype)

    # --- copies -------------------------------------------------------------------------

    def __getstate__(self):
        """All but what is only of use while a network works."""
        attributes = dict(vars(self))  # at one moment: a network may be at work
        return {name: v for name, v in attributes.items() if name not in self._TRANSIENT}

    def __deepcopy__(self, memo):
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        vars(twin).update(self._copied_attributes(memo))
        return twin

    def _copied_attributes(self, memo):
        """Deep copies, but what cannot be copied: a lock, say, in a layer of the user's."""
        copies = {}
        for name, value in self.__getstate__().items():
            try:
                copies[name] = copy.deepcopy(value, memo)
            except MemoryError:
                raise
            except Exception:  # of what the user's class holds, in whatever way it fails
                copies[name] = value
        return copies


class ParamMixin(ABC):
    """A layer with parameters: three lists of arrays in the same order."""

    @abstractmethod
    def params(self):
        """The parameters themselves: training changes these arrays in place."""

    @abstractmethod
    def param_grads(self):
        """The loss's gradients by the parameters, means over the last batch's images."""

    def param_incs(self):
        """The directions to step against: the gradients, and weight decay if the layer has it."""
        return self.param_grads()
