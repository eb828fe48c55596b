"""Sizes and padding against windows counted one by one, and every refusal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnet.geometry import MAX_SIZE, as_pair, conv_geometry, pool_geometry, receptive_field

BORDERS = ["zeros", "nearest", "reflect", "wrap", "symmetric"]


def starts(size, before, after, window, stride=1, dilation=1):
    """Where windows start, counted one by one: as long as the last tap is within the padding."""
    found, start = [], -before
    while start + dilation * (window - 1) < size + after:
        found.append(start)
        start += stride
    return found


def axes(g, *sizes):
    """out, before, after, stride, dilation of each axis, followed by its own sizes."""
    vertical = (g.out_h, g.top, g.bottom, g.stride_y, g.dilation_y)
    horizontal = (g.out_w, g.left, g.right, g.stride_x, g.dilation_x)
    return zip((vertical, horizontal), *sizes)


small = st.integers(1, 12)
pads = st.integers(0, 9)


# --- convolution --------------------------------------------------------------


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    img=st.tuples(small, small),
    fil=st.tuples(small, small),
    strides=st.tuples(small, small),
    dilation=st.tuples(*[st.integers(1, 4)] * 2),
    padding_mode=st.sampled_from(["same", "valid", "full"])
    | st.tuples(st.tuples(pads, pads), st.tuples(pads, pads)),
)
def test_conv_geometry_counts_windows(img, fil, strides, dilation, padding_mode):
    try:
        g = conv_geometry(*img, *fil, strides, padding_mode, "zeros", dilation)
    except ValueError as error:
        assert "larger than the padded image" in str(error)
        assert padding_mode == "valid" or not isinstance(padding_mode, str)
        given_pads = ((0, 0), (0, 0)) if padding_mode == "valid" else padding_mode
        counts = [
            len(starts(*each)) for each in zip(img, *zip(*given_pads), fil, strides, dilation)
        ]
        assert 0 in counts
        return
    assert all(type(value) is int for value in g)
    assert (g.stride_y, g.stride_x, g.dilation_y, g.dilation_x) == strides + dilation
    for (out, before, after, stride, step), size, window in axes(g, img, fil):
        assert out == len(starts(size, before, after, window, stride, step)) >= 1
        reach = step * (window - 1)
        if padding_mode == "same":
            assert out == len(range(0, size, stride))  # every stride-th pixel has its window
            assert before <= after <= before + 1
            shorter = starts(size, before, after - 1, window, stride, step)
            assert after == 0 or len(shorter) < out  # no more padding than needed
        if padding_mode == "valid":
            assert before == after == 0
        if padding_mode == "full":
            assert before == after == reach
            assert stride > 1 or out == size + reach
    if not isinstance(padding_mode, str):
        assert ((g.top, g.bottom), (g.left, g.right)) == padding_mode


@pytest.mark.parametrize(
    ("arguments", "out", "pads"),
    [
        ((28, 28, 5, 5, (1, 1), "valid"), (24, 24), (0, 0, 0, 0)),
        ((5, 5, 3, 3, (1, 1), "valid"), (3, 3), (0, 0, 0, 0)),
        ((5, 5, 3, 3, (1, 1), 1), (5, 5), (1, 1, 1, 1)),
        ((5, 5, 3, 3, (2, 2), 1), (3, 3), (1, 1, 1, 1)),
        ((5, 5, 3, 3, (2, 2), "same"), (3, 3), (1, 1, 1, 1)),
        ((6, 6, 3, 3, (2, 2), "same"), (3, 3), (0, 1, 0, 1)),  # the smaller half first
        ((4, 5, 2, 4), (4, 5), (0, 1, 1, 2)),
        ((4, 5, 2, 4, (1, 1), "full"), (5, 8), (1, 1, 3, 3)),
        ((9, 9, 3, 3, (1, 1), "same", "zeros", (2, 3)), (9, 9), (2, 2, 3, 3)),
        ((9, 9, 3, 3, (1, 1), "full", "zeros", (2, 3)), (13, 15), (4, 4, 6, 6)),
        ((3, 4, 1, 1, (5, 7)), (1, 1), (0, 0, 0, 0)),
        ((2, 2, 5, 3, (1, 1), ((2, 1), (1, 0))), (1, 1), (2, 1, 1, 0)),
        ((1, 1, 1, 1), (1, 1), (0, 0, 0, 0)),
    ],
)
def test_known_convolutions(arguments, out, pads):
    g = conv_geometry(*arguments)
    assert (g.out_h, g.out_w) == out
    assert (g.top, g.bottom, g.left, g.right) == pads


def test_5x5_convolution_from_1_to_10_features():
    filters, bias = np.zeros((1, 10, 5, 5)), np.zeros(10)
    assert filters.size + bias.size == 260
    g = conv_geometry(28, 28, *filters.shape[2:], padding_mode="valid")
    assert (128, filters.shape[1], g.out_h, g.out_w) == (128, 10, 24, 24)


def test_forms_of_one_geometry():
    expected = conv_geometry(9, 8, 3, 3, (2, 2), ((1, 1), (1, 1)), "zeros", (1, 1))
    for strides, pad in (
        (2, 1),
        ([2, 2], [1, 1]),
        (np.array([2, 2]), np.array([[1, 1], [1, 1]])),
        (np.int32(2), np.int64(1)),
        (np.array(2), np.array(1)),
        ((np.uint8(2), 2), (1, [1, 1])),
    ):
        g = conv_geometry(9, 8, np.int64(3), 3, strides, pad)
        assert g == expected and all(type(value) is int for value in g)
    words = np.str_("same"), np.str_("wrap")
    assert conv_geometry(9, 8, 3, 3, 1, *words) == conv_geometry(9, 8, 3, 3, 1, "same", "wrap")


@pytest.mark.parametrize("border_mode", BORDERS)
def test_borders_hold_as_much_as_the_image_can_fill(border_mode):
    """'reflect' does not repeat the edge, so it has one pixel less to offer than 'symmetric'."""
    limit = {"reflect": 3, "wrap": 4, "symmetric": 4}.get(border_mode)
    for axis, name in enumerate(("height 4", "width 4")):
        for side in range(2):
            for pad in range(8):
                padding = [[0, 0], [0, 0]]
                padding[axis][side] = pad
                if limit is None or pad <= limit:
                    conv_geometry(4, 4, 1, 1, 1, padding, border_mode)
                    continue
                expected = f"'{border_mode}' can pad an image of {name} by at most {limit}, got"
                with pytest.raises(ValueError, match=expected):
                    conv_geometry(4, 4, 1, 1, 1, padding, border_mode)
    conv_geometry(1, 1, 1, 1, 1, "same", border_mode)  # nothing to fill


# --- pooling ------------------------------------------------------------------


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    img=st.tuples(small, small),
    pool=st.tuples(small, small),
    strides=st.tuples(small, small),
    padding_mode=st.sampled_from(["centered", "same", "valid", "full"])
    | st.tuples(st.tuples(pads, pads), st.tuples(pads, pads)),
)
def test_pool_geometry_counts_windows(img, pool, strides, padding_mode):
    try:
        g = pool_geometry(*img, *pool, *strides, padding_mode)
    except ValueError as error:
        if padding_mode == "centered":
            assert "is larger than the image" in str(error)
            assert strides[0] > img[0] or strides[1] > img[1]
        elif padding_mode == "valid":
            assert "larger than the padded image" in str(error)
            assert pool[0] > img[0] or pool[1] > img[1]
        else:
            sides = [(before, after, window) for (before, after), window in zip(padding_mode, pool)]
            if "must be smaller than the window" in str(error):
                assert any(max(before, after) >= window for before, after, window in sides)
            else:
                assert "larger than the padded image" in str(error)
                assert any(b + size + a < window for (b, a, window), size in zip(sides, img))
        return
    assert all(type(value) is int for value in g)
    assert (g.stride_y, g.stride_x, g.dilation_y, g.dilation_x) == strides + (1, 1)
    for (out, before, after, stride, _), size, window in axes(g, img, pool):
        first_pixels = [i * stride - before for i in range(out)]
        assert out >= 1 and before >= 0 and after >= 0
        for start in first_pixels:  # every window has a pixel to take the maximum of
            assert start < size and start + window > 0
            assert start + window <= size + after
        if padding_mode == "centered":
            assert out == size // stride and before == (window - 1) // 2
        else:
            assert first_pixels == starts(size, before, after, window, stride)


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        ((28, 28, 2, 2, 2, 2), (14, 14)),
        ((28, 28, 2, 2, 2, 2, "valid"), (14, 14)),
        ((28, 30, 2, 2, 2, 2, "same"), (14, 15)),
        ((7, 9, 2, 2, 2, 2), (3, 4)),
        ((7, 9, 3, 3, 1, 1), (7, 9)),
        ((7, 9, 3, 3, 2, 2, "same"), (4, 5)),
        ((7, 9, 3, 3, 2, 2, "full"), (5, 6)),
        ((7, 9, 3, 3, 2, 2, ((1, 0), (2, 2))), (3, 6)),
        ((2, 3, 9, 9, 1, 1), (2, 3)),
    ],
)
def test_known_poolings(arguments, out):
    g = pool_geometry(*arguments)
    assert (g.out_h, g.out_w) == out


# --- receptive fields ---------------------------------------------------------


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3)), max_size=4))
def test_receptive_field_counts_inputs(windows):
    """Traces which inputs two neighbouring outputs see, one layer after the other."""
    regions = [{0}, {1}]
    for window, stride, dilation in reversed(windows):
        regions = [
            {i * stride + dilation * tap for i in region for tap in range(window)}
            for region in regions
        ]
    size, jump = receptive_field(windows)
    assert max(regions[0]) - min(regions[0]) + 1 == size
    assert min(regions[1]) - min(regions[0]) == jump


def test_known_receptive_fields():
    assert receptive_field([]) == (1, 1)
    assert receptive_field([(3, 1, 1), (3, 1, 1)]) == (5, 1)  # two 3x3 see as much as one 5x5
    assert receptive_field([(5, 1, 1), (2, 2, 1), (5, 1, 1), (2, 2, 1)]) == (16, 4)
    assert receptive_field([(3, 1, 2)]) == (5, 1)


# --- refusals -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"strides": 0}, ValueError, r"strides is \(0, 0\), expected values of at least 1"),
        ({"strides": (1, -2)}, ValueError, r"strides is \(1, -2\), expected values of at least 1"),
        ({"strides": (1, 2, 3)}, ValueError, r"strides is \(1, 2, 3\), expected an int or a pair"),
        ({"strides": []}, ValueError, r"strides is \[\], expected an int or a pair"),
        ({"strides": 1.0}, TypeError, "strides is 1.0, expected an int or a pair"),
        ({"strides": (1, 1.0)}, TypeError, r"strides is \(1, 1.0\), expected an int or a pair"),
        ({"strides": "11"}, TypeError, "strides is '11', expected an int or a pair"),
        ({"strides": b"11"}, TypeError, "strides is b'11', expected an int or a pair"),
        ({"strides": {1, 2}}, TypeError, r"strides is \{1, 2\}, expected an int or a pair"),
        ({"strides": {1: 1, 2: 2}}, TypeError, "strides is .* expected an int or a pair"),
        ({"strides": None}, TypeError, "strides is None, expected an int or a pair"),
        ({"strides": 2**31}, ValueError, "expected values of at most 2147483647"),
        ({"dilation": 0}, ValueError, r"dilation is \(0, 0\), expected values of at least 1"),
        ({"dilation": (2, 2**70)}, ValueError, "expected values of at most 2147483647"),
        ({"dilation": 2**30}, ValueError, "padded height .* must be at most 2147483647"),
        ({"dilation": (5, 1), "padding_mode": 1}, ValueError,
         "filter of height 3 spans 11 pixels, larger than the padded image of height 10"),
        ({"dilation": (1, 5), "padding_mode": 1}, ValueError,
         "filter of width 3 spans 11 pixels, larger than the padded image of width 9"),
        ({"padding_mode": "centered"}, ValueError, r"expected one of \('same', 'valid'"),
        ({"padding_mode": "Same"}, ValueError, "padding_mode is 'Same', expected one of"),
        ({"padding_mode": -1}, ValueError, "padding_mode is -1, expected no negative padding"),
        ({"padding_mode": ((0, 1), (-1, 0))}, ValueError, "expected no negative padding"),
        ({"padding_mode": (1, 2, 3)}, ValueError, r"padding_mode is \(1, 2, 3\), expected one of"),
        ({"padding_mode": ((1, 2), (3,))}, ValueError, r"expected one of .* an int, \(y, x\) or"),
        ({"padding_mode": None}, TypeError, "padding_mode is None, expected one of"),
        ({"padding_mode": 1.0}, TypeError, "padding_mode is 1.0, expected one of"),
        ({"padding_mode": ((1, 1), (1, 1.0))}, TypeError, "padding_mode is .*, expected one of"),
        ({"padding_mode": ("a", "b")}, TypeError, "padding_mode is .*, expected one of"),
        ({"padding_mode": b"same"}, TypeError, "padding_mode is b'same', expected one of"),
        ({"padding_mode": {1: 2, 3: 4}}, TypeError, "padding_mode is .*, expected one of"),
        ({"padding_mode": 2**40}, ValueError, "padded height .* must be at most 2147483647"),
        ({"border_mode": "mirror"}, ValueError, r"'mirror', expected one of \('zeros'"),
        ({"border_mode": None}, TypeError, "border_mode is None, expected one of"),
        ({"border_mode": ["zeros"]}, TypeError, "border_mode is .*, expected one of"),
    ],
)  # fmt: skip
def test_conv_geometry_refuses(options, error, message):
    for _ in range(2):  # refused again, not cached
        with pytest.raises(error, match=message):
            conv_geometry(8, 7, 3, 3, **options)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 7, 3, 3), ValueError, r"image size is \(0, 7\), expected values of at least 1"),
        ((8, 7, 3, 0), ValueError, r"filter size is \(3, 0\), expected values of at least 1"),
        ((8.0, 7, 3, 3), TypeError, r"image size is \(8.0, 7\), expected an int or a pair"),
        ((8, 7, "3", 3), TypeError, r"filter size is \('3', 3\), expected an int or a pair"),
        ((2**31, 7, 3, 3), ValueError, "image size .* expected values of at most 2147483647"),
        ((4, 4, 5, 3, 1, "valid"), ValueError,
         "filter of height 5 spans 5 pixels, larger than the padded image of height 4"),
    ],
)  # fmt: skip
def test_conv_geometry_refuses_sizes(arguments, error, message):
    with pytest.raises(error, match=message):
        conv_geometry(*arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 7, 2, 2, 2, 2), ValueError, r"image size is \(0, 7\)"),
        ((8, 7, 0, 2, 2, 2), ValueError, r"\(pool_h, pool_w\) is \(0, 2\), expected values"),
        ((8, 7, 2, -2, 2, 2), ValueError, r"\(pool_h, pool_w\) is \(2, -2\)"),
        ((8, 7, 2, 2, 0, 2), ValueError, r"\(stride_y, stride_x\) is \(0, 2\), expected values"),
        ((8, 7, 2, 2.0, 2, 2), TypeError, r"\(pool_h, pool_w\) is \(2, 2.0\), expected an int"),
        ((8, 7, None, None, 2, 2), TypeError, r"\(pool_h, pool_w\) is \(None, None\)"),
        ((8, 7, (2, 2), 2, 2, 2), TypeError, r"\(pool_h, pool_w\) is \(\(2, 2\), 2\)"),
        ((8, 7, 2, 2, 9, 2), ValueError, "pooling stride 9 is larger than the image height 8"),
        ((8, 7, 2, 2, 2, 8), ValueError, "pooling stride 8 is larger than the image width 7"),
        ((8, 7, 9, 2, 1, 1, "valid"), ValueError, "pool of height 9 spans 9 pixels, larger than"),
        ((8, 7, 2, 2, 1, 1, 2), ValueError,
         r"pooling padding \(2, 2\) must be smaller than the window 2"),
        ((8, 7, 3, 3, 1, 1, ((0, 0), (0, 3))), ValueError, r"padding \(0, 3\) must be smaller"),
        ((8, 7, 2, 2, 1, 1, -1), ValueError, "expected no negative padding"),
        ((8, 7, 2, 2, 1, 1, "center"), ValueError, r"expected one of \('centered', 'same'"),
        ((8, 7, 2, 2, 1, 1, None), TypeError, r"None, expected one of \('centered', 'same'"),
        ((8, 7, MAX_SIZE, 2, 1, 1), ValueError, "padded height .* must be at most 2147483647"),
    ],
)  # fmt: skip
def test_pool_geometry_refuses(arguments, error, message):
    for _ in range(2):
        with pytest.raises(error, match=message):
            pool_geometry(*arguments)


# --- pairs and the cache ------------------------------------------------------


def test_as_pair():
    assert as_pair(3, "name") == as_pair((3, 3), "name") == as_pair([3, 3], "name") == (3, 3)
    assert as_pair((0, 5), "name", minimum=0) == (0, 5)
    assert as_pair(range(1, 3), "name") == (1, 2)
    for value in (True, (True, 1), np.int8(1), np.array([1, 1], np.uint16)):
        pair = as_pair(value, "name")
        assert pair == (1, 1) and type(pair[0]) is type(pair[1]) is int
    for value in (1.0, (1, 1.0), np.float32(1), np.array([1.0, 1.0]), (None, 1), ((1, 1), (1, 1))):
        with pytest.raises(TypeError, match="name is .* expected an int or a pair of ints"):
            as_pair(value, "name")
    with pytest.raises(ValueError, match=r"name is \(1, 2\), expected values of at least 2"):
        as_pair((1, 2), "name", minimum=2)


@pytest.mark.parametrize("ints_first", [True, False])
def test_the_cache_does_not_confuse_equal_values_of_other_types(ints_first):
    """1, 1.0 and True are one key to a dictionary: what came first must not matter."""
    size = 101 + ints_first  # not in the cache yet
    calls = [
        lambda one: conv_geometry(size, size, one, 3),
        lambda one: conv_geometry(size, size, 3, 3, (one, 2)),
        lambda one: conv_geometry(size, size, 3, 3, 1, ((one, 2), (3, 4))),
        lambda one: conv_geometry(size, size, 3, 3, 1, 1, "zeros", (one, 2)),
        lambda one: pool_geometry(size, size, one, 3, 2, 2),
        lambda one: pool_geometry(size, size, 3, 3, one, 2),
        lambda one: pool_geometry(size, size, 3, 3, 2, 2, (one, 2)),
    ]
    for call in calls:
        if ints_first:
            call(1)
        for _ in range(2):
            with pytest.raises(TypeError):
                call(1.0)
        assert all(type(value) is int for value in call(True))
        assert call(True) == call(1) == call(np.int64(1))


def test_a_geometry_is_computed_once():
    assert conv_geometry(31, 33, 3, 3) is conv_geometry(31, 33, 3, 3)
    assert conv_geometry(31, 33, 3, 3, 2, 1) is conv_geometry(
        31, 33, 3, 3, (2, 2), ((1, 1), (1, 1))
    )
    assert pool_geometry(31, 33, 3, 3, 2, 2) is pool_geometry(31, 33, 3, 3, 2, 2)
