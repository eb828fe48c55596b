"""Summary: the layers of a network as a table, and the same as data."""

import re
from inspect import signature
from math import ceil, isfinite
from operator import itemgetter
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np

from nnet.geometry import receptive_field
from nnet.layers.base import ParamMixin
from nnet.layers.tree import (
    frozen_in,
    inner_name,
    is_own,
    layers_within,
    numbered,
    trained_arrays,
    walk,
)
from nnet.layers.windows import WindowMixin

NARROWEST = 24  # characters of the column of layers, however narrow the terminal is
FROZEN = " (frozen)"
HEADS = "layer", "output", "params", "state", "multiply-adds", "sees"


class Row(NamedTuple):
    """One layer, for one image. Of layers with others inside, numbers are those of all inside."""

    name: str  # as in state_dict
    layer: Any
    output_shape: tuple[int, ...]
    n_params: int
    n_state: int  # values that follow from the images of training, such as running means
    multiply_adds: int
    receptive_field: tuple[float, float] | None  # (height, width), inf: all; None: not known
    is_frozen: bool


class Summary:
    """The layers of a network that is set up, as a table when it is printed.

    The table is as wide as the terminal at most: long descriptions of layers are cut.

    Attributes
    ----------
    rows : list of Row
        All layers, those inside of others after these.
    input_shape : tuple
        Of one image.
    n_params, n_frozen, n_state, multiply_adds : int
        Of all layers, for one image; frozen are parameters that training does not change.
        multiply_adds are those of convolutions and dense layers.
    """

    def __init__(self, model):
        children = numbered(model.layers)
        fields: dict[int, Any] = {}
        follow_fields(children, ((1, 1), (1, 1)) if len(model.input_shape) > 1 else None, fields)
        frozen = frozen_in(children)
        self.input_shape, self._signals = model.input_shape, model.signals
        self._dtype = model.dtype
        self.rows = [
            row_of(name, layer, model, fields.get(id(layer)), id(layer) in frozen)
            for name, layer in walk(children)
        ]
        whole = [row for row in self.rows if "." not in row.name]
        self.n_params = sum(row.n_params for row in whole)
        trained = trained_arrays(children, frozen).values()
        self.n_frozen = self.n_params - sum(array.size for array in trained)
        self.n_state = sum(row.n_state for row in whole)
        self.multiply_adds = sum(row.multiply_adds for row in whole)

    def __repr__(self):
        cells = [HEADS, *[self._cells(row) for row in self.rows]]
        used = [i for i in range(len(HEADS)) if i < 2 or any(row[i] for row in cells[1:])]
        widths = [max(len(row[i]) for row in cells) for i in used]
        widths[0] = room = min(
            widths[0], max(NARROWEST, columns() - sum(widths[1:]) - 2 * len(used) + 2)
        )
        lines = [
            "  ".join(
                cut(row[i], room).ljust(width) if i < 2 else row[i].rjust(width)
                for i, width in zip(used, widths)
            ).rstrip()
            for row in cells
        ]
        rule = "-" * max(map(len, lines))
        return "\n".join([lines[0], rule, *lines[1:], rule, *self._totals()])

    def _totals(self):
        frozen = f" ({self.n_frozen:,} of them frozen)" if self.n_frozen else ""
        state = f", {self.n_state:,} values of state" if self.n_state else ""
        what = f"{'a signal' if self._signals else 'an image'} {self.input_shape}"
        if len(self.input_shape) == 1:
            what = f"a row of {self.input_shape[0]} values"
        yield f"{self.n_params:,} parameters{frozen}{state}"
        yield f"{self.multiply_adds:,} multiply-adds for {what} of {self._dtype}"

    def _cells(self, row):
        shape = row.output_shape
        if self._signals and len(shape) == 3:
            shape = shape[0], shape[2]
        counts = row.n_params, row.n_state, row.multiply_adds
        return (
            f"{branch(row.name, row.layer)}{FROZEN * row.is_frozen}",
            "x".join(map(str, shape)),
            *[f"{count:,}" if count else "" for count in counts],
            self._seen(row.receptive_field),
        )

    def _seen(self, field):
        if field is None:
            return ""
        lengths = [str(ceil(length)) if isfinite(length) else "all" for length in field]
        return lengths[1] if self._signals or lengths[0] == "all" else "x".join(lengths)


def outline(layers, reason):
    """The tree of layers that are not set up, and why there is no more of it."""
    lines = [cut(branch(name, layer), columns()) for name, layer in walk(numbered(layers))]
    rule = "-" * max(map(len, lines))
    return "\n".join([*lines, rule, *wrap(f"no shapes and numbers: {reason}", columns())])


def columns():
    """How wide the terminal is, or 80 where there is none."""
    return get_terminal_size().columns


def cut(text, room):
    """As much of a layer's line as there is room for; that it is frozen is always told."""
    if len(text) <= room:
        return text
    end = f"...{FROZEN * text.endswith(FROZEN)}"
    return f"{text[: room - len(end)]}{end}"


def branch(name, layer):
    """The line of a layer in the tree."""
    return f"{'  ' * name.count('.')}{name} {words_of(layer)}"


def words_of(layer):
    """The call that makes a layer, without the names of what comes first and the layers inside."""
    words = " ".join(repr(layer).split())
    if layer.children or layer._is_container:
        options = [
            f"{name}={value!r}"
            for name, parameter in signature(type(layer)).parameters.items()
            if not holds_lists(value := getattr(layer, name, parameter.default))
            and not any(layers_within(value))
            and repr(value) != repr(parameter.default)
        ]
        words = f"{type(layer).__name__}({', '.join(options)})"
    elif isinstance(layer, WindowMixin) and f"{layer._WINDOW}=" not in words:
        words = words.replace("(", f"({getattr(layer, layer._WINDOW)}, ", 1).replace(", )", ")")
    words = re.sub(r"\b(n_feats|filter_shape|pool_shape|n_out|n_groups|type)=", "", words)
    return re.sub(r"\((\d+), \1\)", r"\1", words)  # pairs of the same number, as they are given


def row_of(name, layer, model, field, is_frozen):
    inside = [(name, layer), *walk({inner_name(name, k): c for k, c in layer.children.items()})]
    shapes = model.trace.shapes
    arrays = [sizes_of(each) for _, each in inside]
    products = [
        each.multiply_adds(*((1, *shape) for shape in shapes[id(each)]))
        for _, each in inside
        if id(each) in shapes
    ]
    return Row(
        name,
        layer,
        shapes[id(layer)][1] if id(layer) in shapes else (),
        sum(n for n, _ in arrays),
        sum(n for _, n in arrays),
        sum(products),
        field and tuple(size for size, _ in field),
        is_frozen,
    )


def sizes_of(layer):
    """How many values its own trained arrays have, and its state."""
    params = layer.params() if isinstance(layer, ParamMixin) else []
    state = [np.asarray(getattr(layer, name)) for name in layer.state_names()]
    return sum(array.size for array in params), sum(array.size for array in state)


def holds_lists(value):
    """Whether it is a list, or a tuple of some: those of layers, which may be empty."""
    return isinstance(value, list) or isinstance(value, tuple) and any(map(holds_lists, value))


# --- receptive fields: (size, jump) along both axes -----------------------------------------


def follow_fields(children, field, fields):
    """What an output pixel of layers in a row sees of the image; that of each layer by its id.

    None stands for what nobody knows: layers of the user's own, or inputs that are no images.
    """
    for layer in children.values():
        if field is None:
            continue
        if layer._is_container:
            found = [follow_fields(row, field, fields) for row in layer._rows()]
            field = None if None in found else hull(found)
        elif is_own(layer):
            reach = layer.reach()
            field = tuple(
                receptive_field([(extent, stride, 1)], *start)
                for extent, stride, start in zip(*reach, field)
            )
        else:
            field = None
        fields[id(layer)] = field
    return field


def hull(fields):
    """That of layers side by side, whose outputs meet in the same places."""
    return tuple(max(axis, key=itemgetter(0)) for axis in zip(*fields))
