"""What `nnet.explain` says: which implementations of a kernel accept a call, and which is taken."""

import copy
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from nnet import dispatch
from nnet._conv import bprop_conv_bc01, conv_bc01
from nnet._pool import bprop_pool_bc01, pool_bc01
from nnet.layers.conv import ConvLayer
from nnet.layers.conv_transpose import ConvTranspose
from nnet.layers.pool import MAX_PLACES, GlobalPool, Pool
from nnet.layers.tree import numbered, walk
from nnet.training.network import NeuralNetwork
from nnet.training.summary import branch, columns, cut

OPERATIONS = FORWARD, IMGS_GRAD, FILTERS_GRAD = "forward", "imgs_grad", "filters_grad"
NARROWEST = 24  # characters of the column of layers, however narrow the terminal is


class Choice(NamedTuple):
    """One implementation, for one operation of a call or of a layer."""

    layer: str  # its line in the summary of a network; '' for a call
    operation: str  # 'forward', 'imgs_grad' or 'filters_grad'
    implementation: str  # what `algorithm=` calls it
    cycles: float | None  # that it should take for an image; None: it does not accept this
    taken: bool


class Explanation:
    """Which implementations compute something: a table when it is printed.

    Attributes
    ----------
    rows : list of Choice
        For each operation those that accept it, the fastest first, then the others.
    target : str
        The instruction set that they are built for.
    """

    def __init__(self, rows):
        self.rows, self.target = rows, dispatch.TARGET

    def __repr__(self):
        lines: dict[tuple[str, str], list[str]] = {}
        for row in self.rows:
            texts = lines.setdefault(row[:2], [])
            if row.taken:
                texts[:0] = [f"{row.implementation} {row.cycles:,.0f}"]
            elif row.cycles is not None:
                texts.append(f"{row.implementation} {row.cycles:,.0f}")
        cells: list[tuple[str, ...]] = [("layer", "operation", "taken: cycles", "others")]
        before = None
        for (layer, operation), (taken, *others) in lines.items():
            cells.append((layer if layer != before else "", operation, taken, ", ".join(others)))
            before = layer
        if not any(layer for layer, *_ in cells[1:]):
            cells = [cell[1:] for cell in cells]
        return "\n".join(aligned(cells))


def aligned(cells):
    """Lines of a table, whose columns are cut where the terminal ends."""
    widths = [max(map(len, column)) for column in zip(*cells)]
    room = columns() - sum(widths[1:]) - 2 * len(widths) + 2
    if len(widths) == 4:
        widths[0] = min(widths[0], max(NARROWEST, room))
    for row in cells:
        texts = [cut(text, width).ljust(width) for text, width in zip(row, widths)]
        yield cut("  ".join(texts).rstrip(), max(columns(), NARROWEST))


def explain(what, *args, dtype="float32", **options):
    """Which implementations of a kernel accept a call, their estimated cycles, and which is taken.

    Parameters
    ----------
    what : NeuralNetwork or one of the kernels
        `conv_bc01`, `bprop_conv_bc01`, `pool_bc01` or `bprop_pool_bc01`. Matrix products have but
        one implementation.
    *args
        Of a network: the shape of an image, or images; one that is set up needs neither.
        Of a convolution: the shapes of images and filters. Of a pooling: the shape of images,
        then `pool_h, pool_w, stride_y, stride_x`.
    dtype : {'float32', 'float64'}
        Of a call.
    **options
        As the kernel takes them: `strides`, `padding_mode`, `mode` and so on; `switches` of a
        pooling are 'pairs' or 'offsets'.

    Returns
    -------
    Explanation
        It prints as a table; its `rows` are the same as data. The numbers of images and of
        threads decide nothing.

    Raises
    ------
    ValueError, TypeError
        As the kernel does, for shapes and options that do not fit.

    Examples
    --------
    >>> import nnet
    >>> found = nnet.explain(nnet.conv_bc01, (1, 64, 16, 16), (64, 64, 3, 3))
    >>> [row.implementation for row in found.rows if row.taken]
    ['winograd']
    """
    if isinstance(what, NeuralNetwork):
        return Explanation(rows_of_network(what, *args, **options))
    module, operations = OF_KERNELS.get(what, ("", ())) if callable(what) else ("", ())
    if not operations:
        names = ", ".join(kernel.__name__ for kernel in OF_KERNELS)
        raise TypeError(f"what is {what!r}, expected a NeuralNetwork or one of {names}")
    if module == "_pool":
        args = args[0], args[1:]
    calls = [Call(each, module, each, args, options) for each in operations]
    return Explanation([Choice("", *row) for call in calls for row in call.rows(np.dtype(dtype))])


class Call(NamedTuple):
    """What a kernel is asked for."""

    operation: str
    module: str
    direction: str  # of the kernel; a transposed convolution's is another than its operation
    arguments: tuple
    options: dict[str, Any]

    def rows(self, dtype):
        """(operation, implementation, cycles, taken), the fastest that accepts it first."""
        found = EXPLAIN[self.module](self.direction, *self.arguments, dtype, **self.options)
        for row in sorted(found, key=lambda row: (row[1] is None, row[1])):
            yield self.operation, *row


def explain_conv(direction, imgs_shape, filters_shape, dtype, **options):
    kernels = dispatch.module("_conv")
    if direction == FILTERS_GRAD:
        return kernels.explain_filters_gradient(imgs_shape, filters_shape, dtype, **options)
    options["backward"] = direction == IMGS_GRAD
    return kernels.explain_conv(imgs_shape, filters_shape, dtype, **options)


def explain_pool(direction, imgs_shape, sizes, dtype, *, need_switches=True, **options):
    """Switches are 'pairs', as a call has them that is given none, or 'offsets'."""
    options["switches"] = options.get("switches", "pairs")
    return dispatch.module("_pool").explain_pool(
        imgs_shape, sizes, dtype, direction=direction, need_switches=need_switches, **options
    )


EXPLAIN: dict[str, Callable[..., Iterable[tuple]]] = {"_conv": explain_conv, "_pool": explain_pool}
OF_KERNELS: dict[Any, tuple[str, tuple[str, ...]]] = {
    conv_bc01: ("_conv", (FORWARD,)),
    bprop_conv_bc01: ("_conv", (IMGS_GRAD, FILTERS_GRAD)),
    pool_bc01: ("_pool", (FORWARD,)),
    bprop_pool_bc01: ("_pool", (IMGS_GRAD,)),
}


# --- networks -------------------------------------------------------------------


def rows_of_network(network, images=None):
    """Of the network, or of a copy that is set up for images of this shape."""
    if images is not None:
        shape = tuple(images if isinstance(images, (tuple, list)) else np.shape(images)[1:])
        if shape != network.input_shape_:
            network = copy.deepcopy(network).build(shape)
    elif network.input_shape_ is None:
        raise ValueError("the network is not set up, expected the shape of an image as well")
    shapes = network._model.trace.shapes
    return [
        Choice(branch(name, layer), *row)
        for name, layer in walk(numbered(network.layers))
        for call in calls_of(layer, *shapes.get(id(layer), ()))
        for row in call.rows(network.dtype_)
    ]


def calls_of(layer, input_shape=(), output_shape=()):
    """The calls of a layer for images of a shape; none, where it does without these kernels."""
    imgs = (1, *input_shape)
    if isinstance(layer, ConvLayer):
        arguments = imgs, layer.array_shapes(imgs)["W"]
        options = {**layer._geometry(), "groups": layer.groups}
        return [Call(each, "_conv", each, arguments, options) for each in OPERATIONS]
    if isinstance(layer, ConvTranspose):
        n_channels, n_feats, *size = layer.array_shapes(imgs)["W"]
        reached = layer._reached(np.empty((1, *output_shape), bool), imgs).shape
        arguments, options = (reached, (n_feats, n_channels, *size)), layer._options(imgs)
        directions = zip(OPERATIONS, (IMGS_GRAD, FORWARD, FILTERS_GRAD))
        return [Call(each, "_conv", other, arguments, options) for each, other in directions]
    if isinstance(layer, Pool):
        return pool_calls(imgs, *layer._geometry())
    if isinstance(layer, GlobalPool):
        return pool_calls(imgs, (*imgs[2:], *imgs[2:]), layer._WHOLE)
    return []


def pool_calls(imgs, sizes, options):
    """Forward as in a prediction, without switches; and backward by those that layers keep."""
    options = {**options, "switches": "offsets" if sizes[0] * sizes[1] <= MAX_PLACES else "pairs"}
    forward = {**options, "need_switches": False}
    return [
        Call(FORWARD, "_pool", FORWARD, (imgs, sizes), forward),
        Call(IMGS_GRAD, "_pool", IMGS_GRAD, (imgs, sizes), options),
    ]
