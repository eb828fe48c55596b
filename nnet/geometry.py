"""Output sizes, padding and receptive fields: the one place that does this arithmetic.

One axis at a time, the rule of every convolution and pooling is

    out = floor((size + before + after - dilation * (window - 1) - 1) / stride) + 1

after Dumoulin and Visin, "A guide to convolution arithmetic for deep learning"
(2016), relationships 6 and 15. What differs is only how the padding `before`
and `after` follows from a `padding_mode`.
"""

from functools import lru_cache
from operator import index
from typing import NamedTuple

BORDER_MODES = ("zeros", "nearest", "reflect", "wrap", "symmetric")
PADDING_WORDS = ("same", "valid", "full")
MAX_SIZE = 2**31 - 1  # one padded axis; the kernels' index arithmetic relies on it


class Geometry(NamedTuple):
    """Where the windows of a convolution or pooling lie on an image."""

    out_h: int
    out_w: int
    top: int
    bottom: int
    left: int
    right: int
    stride_y: int
    stride_x: int
    dilation_y: int = 1
    dilation_x: int = 1


def as_pair(value, name, minimum=1):
    """A pair of ints from an int or a pair, each at least `minimum`.

    Raises
    ------
    ValueError
        For another number of values than one or two, or values out of range.
    TypeError
        For values that are not integers: 1.0 is none, True is 1.
    """
    if type(value) is tuple and len(value) == 2:  # the hot path
        y, x = value
        if type(y) is type(x) is int and minimum <= y <= MAX_SIZE and minimum <= x <= MAX_SIZE:
            return value
    y, x = _two(value, name)
    try:
        y, x = index(y), index(x)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, expected an int or a pair of ints") from None
    if y < minimum or x < minimum:
        raise ValueError(f"{name} is {(y, x)}, expected values of at least {minimum}")
    if y > MAX_SIZE or x > MAX_SIZE:
        raise ValueError(f"{name} is {(y, x)}, expected values of at most {MAX_SIZE}")
    return y, x


def conv_geometry(
    img_h,
    img_w,
    fil_h,
    fil_w,
    strides=(1, 1),
    padding_mode="same",
    border_mode="zeros",
    dilation=(1, 1),
):
    """The `Geometry` of a convolution.

    Parameters
    ----------
    img_h, img_w, fil_h, fil_w : int
        Size of the images and of the filters.
    strides, dilation : int or (int, int)
        Steps between output pixels and between filter taps, in pixels: (y, x).
    padding_mode : {'same', 'valid', 'full'}, int, (y, x) or ((top, bottom), (left, right))
    border_mode : {'zeros', 'nearest', 'reflect', 'wrap', 'symmetric'}
        What the padding holds; 'symmetric' repeats the edge pixel, 'reflect' does not.

    Raises
    ------
    ValueError
        For values out of range, a filter larger than the padded image, or more
        'reflect', 'wrap' or 'symmetric' padding than the image can fill.
    TypeError
        For values of the wrong type.
    """
    if not isinstance(border_mode, str):
        raise TypeError(f"border_mode is {border_mode!r}, expected one of {BORDER_MODES}")
    # Only ints reach the cache: to it, 1.0 and True are keys equal to 1.
    return _conv_geometry(
        as_pair((img_h, img_w), "image size"),
        as_pair((fil_h, fil_w), "filter size"),
        as_pair(strides, "strides"),
        as_padding(padding_mode, PADDING_WORDS),
        border_mode,
        as_pair(dilation, "dilation"),
    )


def conv_transpose_geometry(
    img_h,
    img_w,
    fil_h,
    fil_w,
    strides=(1, 1),
    padding_mode="same",
    output_padding=(0, 0),
    dilation=(1, 1),
):
    """The `Geometry` of a transposed convolution: of the convolution whose gradient it is.

    The images that go in are of the size of that convolution's output, and `out_h` and `out_w`
    are the size of its images: of what comes out here. Along each axis, with
    extent = dilation * (fil - 1) + 1 and n pixels in, there come out

    - 'same': n * stride
    - 'valid': (n - 1) * stride + max(extent, stride)
    - 'full': (n - 1) * stride - extent + 2
    - explicit padding: (n - 1) * stride + extent - before - after + output_padding

    The first two are Keras's sizes, the last are PyTorch's. (Dumoulin and Visin 2016,
    relationships 13 and 14.) `bottom` and `right` are less than 0 where an output_padding of at
    least the stride adds so many rows and columns that no pixel reaches.

    Parameters
    ----------
    img_h, img_w, fil_h, fil_w : int
    strides, dilation, padding_mode
        As for `conv_geometry`: padding is cut from the full output.
    output_padding : int or (int, int)
        Rows and columns to add at the end, fewer than the strides or the dilation; for explicit
        padding only.

    Raises
    ------
    ValueError
        For values out of range, or padding that leaves nothing.
    TypeError
        For values of the wrong type.
    """
    return _conv_transpose_geometry(
        as_pair((img_h, img_w), "image size"),
        as_pair((fil_h, fil_w), "filter size"),
        as_pair(strides, "strides"),
        as_padding(padding_mode, PADDING_WORDS),
        as_pair(output_padding, "output_padding", 0),
        as_pair(dilation, "dilation"),
    )


def pool_geometry(
    img_h, img_w, pool_h, pool_w, stride_y, stride_x, padding_mode="centered", ceil_mode=False
):
    """The `Geometry` of a pooling.

    `padding_mode='centered'` is the default: out = size // stride, and windows
    start at `i * stride - (pool - 1) // 2`. The other modes are those of
    `conv_geometry`. Every window covers at least one real pixel: padding must
    be smaller than the window.

    `ceil_mode`, for explicit padding only, rounds the number of outputs up, but for
    windows that would start in the padding at the end, or beyond it: as PyTorch does.

    Raises
    ------
    ValueError, TypeError
        As `conv_geometry` does.
    """
    if ceil_mode is not True and ceil_mode is not False:
        raise TypeError(f"ceil_mode is {ceil_mode!r}, expected True or False")
    return _pool_geometry(
        as_pair((img_h, img_w), "image size"),
        as_pair((pool_h, pool_w), "(pool_h, pool_w)"),
        as_pair((stride_y, stride_x), "(stride_y, stride_x)"),
        as_padding(padding_mode, ("centered", *PADDING_WORDS)),
        ceil_mode,
    )


def receptive_field(windows, size=1, jump=1):
    """Size and jump of the input region that one output pixel of stacked windows sees.

    Parameters
    ----------
    windows : iterable of (window, stride, dilation)
        One axis of each layer, first layer first.
    size, jump
        Those before the first layer.

    Returns
    -------
    size, jump : int
        The region's extent, and the distance between the regions of two
        neighbouring outputs, in input pixels. (Dumoulin and Visin 2016;
        Araujo et al., "Computing receptive fields", Distill 2019, eq. 2.)
    """
    for window, stride, dilation in windows:
        size += dilation * (window - 1) * jump
        jump *= stride
    return size, jump


def _two(value, name):
    """The two entries of a pair; one value twice."""
    if type(value) is int:
        return value, value
    if isinstance(value, (str, bytes, dict, set)):  # can be unpacked, but are no pairs
        raise TypeError(f"{name} is {value!r}, expected an int or a pair of ints")
    try:
        pair = tuple(value)
    except TypeError:
        return value, value
    if len(pair) != 2:
        raise ValueError(f"{name} is {value!r}, expected an int or a pair of ints")
    return pair


def as_padding(padding_mode, words):
    """One of the words, or ((top, bottom), (left, right)) from any form of explicit padding."""
    if isinstance(padding_mode, str):
        if padding_mode not in words:
            raise ValueError(_bad_pads(padding_mode, words))
        return padding_mode
    try:
        y, x = _two(padding_mode, "padding_mode")
        (top, bottom), (left, right) = _two(y, "padding_mode"), _two(x, "padding_mode")
        pads = (index(top), index(bottom)), (index(left), index(right))
    except (TypeError, ValueError) as error:
        raise type(error)(_bad_pads(padding_mode, words)) from None
    if min(*pads[0], *pads[1]) < 0:
        raise ValueError(f"padding_mode is {padding_mode!r}, expected no negative padding")
    return pads


def _bad_pads(padding_mode, words):
    forms = f"{words}, an int, (y, x) or ((top, bottom), (left, right))"
    return f"padding_mode is {padding_mode!r}, expected one of {forms}"


@lru_cache(maxsize=1024)
def _conv_geometry(img_size, fil_size, strides, padding_mode, border_mode, dilation):
    if border_mode not in BORDER_MODES:
        raise ValueError(f"border_mode is {border_mode!r}, expected one of {BORDER_MODES}")
    pads, outs = [], []
    for axis, (name, size, window, stride, step) in enumerate(
        zip(("height", "width"), img_size, fil_size, strides, dilation)
    ):
        before, after = _axis_pads(padding_mode, axis, size, window, stride, step)
        allowed = {"reflect": size - 1, "wrap": size, "symmetric": size}.get(border_mode)
        if allowed is not None and max(before, after) > allowed:
            raise ValueError(
                f"border_mode {border_mode!r} can pad an image of {name} {size} by at most "
                f"{allowed}, got {(before, after)}"
            )
        outs.append(_axis_out(name, size, before, after, window, stride, step, "filter"))
        pads += [before, after]
    return Geometry(*outs, *pads, *strides, *dilation)


@lru_cache(maxsize=1024)
def _conv_transpose_geometry(img_size, fil_size, strides, padding_mode, output_padding, dilation):
    if isinstance(padding_mode, str) and output_padding != (0, 0):
        raise ValueError(
            f"output_padding is {output_padding}, expected 0 for padding_mode {padding_mode!r}: "
            "it adds to explicit padding, such as padding_mode=1"
        )
    if any(extra >= max(pair) for extra, *pair in zip(output_padding, strides, dilation)):
        raise ValueError(
            f"output_padding is {output_padding}, expected less than strides = {strides} or than "
            f"dilation = {dilation}"
        )
    pads, outs = [], []
    for axis, (name, n, window, stride, extra, step) in enumerate(
        zip(("height", "width"), img_size, fil_size, strides, output_padding, dilation)
    ):
        extent = step * (window - 1) + 1
        if padding_mode == "same":
            size = n * stride
            before, after = _axis_pads("same", axis, size, window, stride, step)
        else:
            before, after = _axis_pads(padding_mode, axis, 0, window, stride, step)
            size = (n - 1) * stride + extent - before - after + extra
            if padding_mode == "valid":
                size += max(stride - extent, 0)
            after -= extra // stride * stride
        if min(size, size + after) < 1:
            raise ValueError(
                f"padding {(before, after)} leaves nothing of an output of {name} "
                f"{size + before + after}"
            )
        _check_max(name, size + before + max(after, 0), extent, "filter")
        outs.append(size)
        pads += [before, after]
    return Geometry(*outs, *pads, *strides, *dilation)


@lru_cache(maxsize=1024)
def _pool_geometry(img_size, pool_size, strides, padding_mode, ceil_mode):
    if ceil_mode and isinstance(padding_mode, str):
        raise ValueError(
            "ceil_mode is True, expected explicit padding such as padding_mode=0, got "
            f"{padding_mode!r}"
        )
    pads, outs = [], []
    for axis, (name, size, window, stride) in enumerate(
        zip(("height", "width"), img_size, pool_size, strides)
    ):
        if padding_mode == "centered":
            if size < stride:
                raise ValueError(f"pooling stride {stride} is larger than the image {name} {size}")
            before = (window - 1) // 2
            out = size // stride
            after = max((out - 1) * stride + window - before - size, 0)
            _check_max(name, size + before + after, window, "pool")
        else:
            before, after = _axis_pads(padding_mode, axis, size, window, stride, 1)
            if max(before, after) >= window:
                raise ValueError(
                    f"pooling padding {(before, after)} must be smaller than the window {window}"
                )
            out = _axis_out(name, size, before, after, window, stride, 1, "pool", ceil_mode)
        outs.append(out)
        pads += [before, after]
    return Geometry(*outs, *pads, *strides)


def _axis_pads(padding_mode, axis, size, window, stride, dilation):
    """Padding before and after one axis."""
    reach = dilation * (window - 1)
    if padding_mode == "valid":
        return 0, 0
    if padding_mode == "full":
        return reach, reach
    if padding_mode == "same":
        out = -(-size // stride)
        total = max((out - 1) * stride + reach + 1 - size, 0)
        return total // 2, total - total // 2
    return padding_mode[axis]


def _axis_out(name, size, before, after, window, stride, dilation, kind, ceil_mode=False):
    """Output size along one axis."""
    padded = size + before + after
    extent = dilation * (window - 1) + 1
    _check_max(name, padded, extent, kind)
    out = (padded - extent + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (out - 1) * stride >= size + before:  # no window starts behind the image
        out -= 1
    if out < 1:
        raise ValueError(
            f"{kind} of {name} {window} spans {extent} pixels, larger than the padded image "
            f"of {name} {padded}"
        )
    return out


def _check_max(name, padded, extent, kind):
    if padded > MAX_SIZE or extent > MAX_SIZE:
        raise ValueError(
            f"padded {name} {padded} and {kind} extent {extent} must be at most {MAX_SIZE}"
        )
