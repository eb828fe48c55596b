"""Walks through layers and the layers inside of them: names, arrays, shapes."""

from operator import index

import numpy as np

from nnet.layers.base import Layer, ParamMixin
from nnet.layers.loss import LossMixin

MAX_DEPTH = 100  # levels of layers: shapes pass each in 5 of the 1,000 calls that Python nests


def is_own(layer):
    """Whether it is of nnet's own classes, not of a class of the user's."""
    return type(layer).__module__.startswith("nnet.layers.")


def numbered(layers):
    """Children by their numbers."""
    return {str(i): layer for i, layer in enumerate(layers)}


def walk(children):
    """(name, layer) of all layers, depth first: "5", "5.0", "5.shortcut", "5.shortcut.0".

    What is inside of a layer is asked for with the next pair: it may be checked before.
    """
    waiting = [*children.items()][::-1]
    while waiting:
        name, layer = waiting.pop()
        check_depth(name, layer)
        yield name, layer
        waiting += [(inner_name(name, key), each) for key, each in layer.children.items()][::-1]


def layers_in(children):
    """All layers, depth first."""
    return [layer for _, layer in walk(children)]


def find(layers, which, argument="layer"):
    """(name, layer) of one layer among these and those inside of them.

    Parameters
    ----------
    layers : list of Layer
    which : int, str or Layer
        Its number, from the end if negative; its name; or itself.
    argument : str
        What errors call it.
    """
    named = dict(walk(numbered(layers)))
    if isinstance(which, Layer):
        for name, layer in named.items():
            if layer is which:
                return name, layer
    elif isinstance(which, str):
        if which in named:
            return which, named[which]
    else:
        try:
            number = index(which)
        except TypeError:
            raise TypeError(
                f"{argument} is {which!r}, expected a number, a name or a layer of the network"
            ) from None
        if isinstance(which, bool):
            raise TypeError(f"{argument} is {which}, expected the number of a layer")
        if not -len(layers) <= number < len(layers):
            raise ValueError(
                f"{argument} is {number}, expected {-len(layers)} to {len(layers) - 1}"
            )
        return str(number % len(layers)), layers[number]
    known = ", ".join(describe(name, layer).removeprefix("layer ") for name, layer in named.items())
    raise ValueError(f"{argument} is {which!r}, expected one of the network's: {known}")


def describe(name, layer):
    """A layer, as errors name it; a container that is at work alone has no name."""
    return f"layer {name} ({type(layer).__name__})" if name else type(layer).__name__


def inner_name(name, key):
    """That of a layer inside of the named one."""
    return f"{name}.{key}" if name else key


def check_depth(name, layer):
    """Refuse a layer inside of too many others."""
    depth = 1 + name.count(".")
    if depth > MAX_DEPTH:
        raise ValueError(
            f"{describe(name, layer)} is {depth} levels deep, expected at most {MAX_DEPTH}"
        )


def check_inside(layer, name, seen):
    """Refuse what is no layer, a loss, or an object twice among the layers inside of one.

    Parameters
    ----------
    layer : Layer
    name : str
    seen : dict of int to str
        The names of all layers so far, by their ids.
    """
    for inner, each in walk({name: layer}):
        if seen.setdefault(id(each), inner) != inner:
            raise ValueError(
                f"layers has the same object twice: {describe(inner, each)} is also "
                f"layer {seen[id(each)]}, expected one object per layer"
            )
        children, which = each.children, describe(inner, each)
        if not isinstance(children, dict):
            raise TypeError(f"{which}.children is {children!r}, expected a dict of layers by name")
        for key, child in children.items():
            if not isinstance(key, str) or not isinstance(child, Layer):
                raise TypeError(
                    f"{which} has {child!r} inside by the name {key!r}, expected an instance of "
                    "Layer by a string"
                )
            if isinstance(child, LossMixin):
                raise ValueError(
                    f"{describe(inner_name(inner, key), child)} is inside of another layer, "
                    "expected a loss to be the last layer of a network, and nowhere else"
                )


def held(layers):
    """Layers that the user's own among these keep in attributes, and don't name as children.

    What another network lists among its layers is not theirs: they may read it.
    """
    found, known = [], set(map(id, layers))
    waiting = [layer for layer in layers if not is_own(layer)]
    for keeper in waiting:
        for item in layers_within(vars(keeper)):
            if id(item) not in known and not is_listed(item):
                inside = [item, *layers_in(item.children)]
                found += inside
                known.update(map(id, inside))
                waiting += [layer for layer in inside if not is_own(layer)]
    return found


def layers_within(value):
    """The layers in lists, tuples and dicts, also inside of each other."""
    waiting, seen = [value], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Layer):
            yield value
        elif isinstance(value, (list, tuple, dict)) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value


def is_listed(layer):
    """Whether it is among the layers, or the layers inside of these, of a network."""
    owner = layer._network()
    return owner is not None and any(layer is other for other in layers_in(numbered(owner.layers)))


def has_params(layer):
    """Whether it, or a layer inside of it, has parameters."""
    return any(isinstance(each, ParamMixin) for _, each in walk({"": layer}))


def learns(layer):
    """Whether it, or a layer inside of it, has parameters that training changes."""
    return layer.trainable and (
        isinstance(layer, ParamMixin) or any(map(learns, layer.children.values()))
    )


def frozen_in(children):
    """The ids of the layers that training does not change, and of all that are inside of these."""
    frozen = set()
    for layer in children.values():
        inside = layer.children
        if layer.trainable:
            frozen |= frozen_in(inside)
        else:
            frozen.update(map(id, [layer, *layers_in(inside)]))
    return frozen


def trained_arrays(children, frozen=()):
    """{name: array} of all that training changes by gradients, such as "5.0.gamma"."""
    return {
        f"{prefix}.{name}": array
        for prefix, layer in walk(children)
        if isinstance(layer, ParamMixin) and id(layer) not in frozen
        for name, array in zip(_names(layer), layer.params())
    }


def state_arrays(children):
    """{name: array} of all that follows from the images that training has seen."""
    return {
        f"{prefix}.{name}": getattr(layer, name)
        for prefix, layer in walk(children)
        for name in layer.state_names()
    }


def named_arrays(children):
    """{name: array} of both: trained arrays, then state."""
    return trained_arrays(children) | state_arrays(children)


def _names(layer):
    """Of the arrays in `params()`: those of the attributes that hold them, if there are any."""
    if is_own(layer):
        return layer.param_names()
    attributes = {id(value): name for name, value in vars(layer).items()}
    arrays = list(layer.params())
    numbers = [f"param{i}" for i in range(len(arrays))]
    names = [attributes.get(id(array), number) for array, number in zip(arrays, numbers)]
    return names if len(set(names)) == len(names) else numbers


def collect(layers, method):
    """The lists that a method of these layers returns, as one list."""
    return [array for layer in layers for array in getattr(layer, method)()]


def decaying(layers):
    """For each array of these layers' `params()`: whether weight decay is for it."""
    flags = []
    for layer in layers:
        names = layer.decaying_names()
        weights = None if names is None else {id(getattr(layer, name)) for name in names}
        flags += [
            array.ndim >= 2 if weights is None else id(array) in weights for array in layer.params()
        ]
    return flags


class Trace:
    """Follows the shape of a batch through layers.

    Parameters
    ----------
    visit : callable (name, layer, input_shape), or None
        Called for each layer but containers, before its output's shape is asked for.

    Attributes
    ----------
    shapes : dict of int to (tuple, tuple)
        By the id of each layer: the shapes of one image before and after it.
    needs : dict of int to bool
        Likewise, whether the gradient of its input is needed; a `Program` finds that out.
    """

    def __init__(self, visit=None):
        self.visit = visit
        self.shapes, self.needs = {}, {}

    def __call__(self, name, layer, input_shape):
        """The shape of the layer's output. Errors name the layer."""
        check_depth(name, layer)
        if layer._is_container:
            shape = layer._trace(self, name, input_shape)
        else:
            try:
                if self.visit is not None:
                    self.visit(name, layer, input_shape)
                shape = tuple(layer.output_shape(input_shape))
            except (TypeError, ValueError) as error:
                if str(error).startswith(describe(name, layer)):  # of one of its arrays
                    raise
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(
                    f"{describe(name, layer)} cannot take an input of shape {input_shape}: {error}"
                ) from error
        self.shapes[id(layer)] = input_shape[1:], shape[1:]
        return shape


def follow(children, prefix, trace, shape):
    """The output's shape of layers one after the other."""
    for key, layer in children.items():
        shape = trace(prefix + key, layer, shape)
    return shape


def check_arrays(name, layer, input_shape):
    """Refuse arrays of a layer that are not what its options and this input call for."""
    for key, shape in layer.array_shapes(input_shape).items():
        array = getattr(layer, key, None)
        which = f"{describe(name, layer)}.{key}"
        if array is None:
            raise ValueError(
                f"{which} is None, expected an array of shape {shape}: fit gives a new layer "
                "its arrays, but not with warm_start; freeze(...) keeps those of others"
            )
        check_array(array, which, shape, layer.dtype)


def check_all_arrays(layers, image_shape):
    """The same for all layers of a network, which gets images of this shape."""
    follow(numbered(layers), "", Trace(check_arrays), (1, *image_shape))


def check_values(children, arrays, name_of=None):
    """Refuse named arrays of layers with values that no training leaves.

    Parameters
    ----------
    children : dict of str to Layer
    arrays : dict of str to array
        As from `named_arrays`.
    name_of : None or callable (str) -> str
        What errors call an array. None: by its layer, as `describe` does.
    """
    layers = dict(walk(children))
    for name, array in arrays.items():
        prefix, _, attribute = name.rpartition(".")
        layer = layers[prefix]
        if not np.isfinite(array).all():
            problem = "NaN or infinite values, expected finite ones"
        elif attribute in layer.nonnegative_names() and (array < 0).any():
            problem = "negative values, expected at least 0"
        else:
            continue
        which = name_of(name) if name_of else f"{describe(prefix, layer)}.{attribute}"
        raise ValueError(f"{which} has {problem}")


def check_array(array, which, shape, dtype):
    """Refuse another shape, or another dtype or byte order."""
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        kind = type(array).__name__
        raise TypeError(f"{which} is a {kind}, expected a NumPy array of shape {shape}")
    if array.shape != shape:
        raise ValueError(f"{which} has shape {array.shape}, expected {shape}")
    if array.dtype != dtype:
        raise TypeError(f"{which} has dtype {array.dtype.str}, expected {dtype.str}: {dtype}")
