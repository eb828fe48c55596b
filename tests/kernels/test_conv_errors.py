"""Every wrong call of the convolution kernels: what it raises, says and leaves alone."""

import re

import numpy as np
import pytest

F32, F64 = np.float32, np.float64
IMGS, FILTERS, CONVOUT = (2, 4, 6, 7), (4, 3, 3, 3), (2, 3, 6, 7)
SENTINEL = -7


def ones(*shape, dtype=F32):
    return np.ones(shape, dtype)


def filled(shape, dtype=F32):
    return np.full(shape, SENTINEL, dtype)


def read_only(shape):
    array = filled(shape)
    array.flags.writeable = False
    return array


def forward(kernels, **changes):
    """A right call of conv_bc01, but for the changes; the output must come back untouched."""
    call = {"imgs": ones(*IMGS), "filters": ones(*FILTERS), "convout": filled(CONVOUT), **changes}
    try:
        return kernels.conv_bc01(**call)
    except Exception:
        assert_untouched(call["convout"])
        raise


def backward(kernels, **changes):
    """The same for bprop_conv_bc01."""
    call = {
        "imgs": ones(*IMGS),
        "convout_grad": ones(*CONVOUT),
        "filters": ones(*FILTERS),
        "imgs_grad": filled(IMGS),
        "filters_grad": filled(FILTERS),
        "bias_grad": filled(FILTERS[1]),
        **changes,
    }
    try:
        return kernels.bprop_conv_bc01(**call)
    except Exception:
        assert_untouched(call["imgs_grad"], call["filters_grad"], call["bias_grad"])
        raise


def assert_untouched(*outputs):
    """Outputs hold the sentinel still; those that share memory with an input hold its ones."""
    for output in outputs:
        if isinstance(output, np.ndarray) and output.dtype.kind in "fiu":
            assert np.isin(output, (SENTINEL, 1)).all()


SHAPES = {
    "imgs": IMGS,
    "filters": FILTERS,
    "convout_grad": CONVOUT,
    "convout": CONVOUT,
    "imgs_grad": IMGS,
    "filters_grad": FILTERS,
    "bias": FILTERS[1:2],
    "bias_grad": FILTERS[1:2],
}
ARGUMENTS = {
    forward: ("imgs", "filters", "convout", "bias"),
    backward: ("imgs", "filters", "convout_grad", "imgs_grad", "filters_grad", "bias_grad"),
}


def test_the_calls_below_are_right_but_for_one_change(kernels):
    assert forward(kernels).shape == CONVOUT
    assert backward(kernels)[0].shape == IMGS


# --- arrays that are no arrays, or of a wrong type ----------------------------


@pytest.mark.parametrize("value", [None, "imgs", 3, [[[[1.0]]]], (1.0,), b"1", {}, np.float32(1)],
                         ids=lambda value: type(value).__name__)  # fmt: skip
@pytest.mark.parametrize("name", ["imgs", "filters", "convout_grad"])
def test_inputs_that_are_no_arrays(kernels, name, value):
    match = rf"{name} is (a {type(value).__name__}|None), expected a NumPy array"
    for call in (backward,) if name == "convout_grad" else (forward, backward):
        with pytest.raises(TypeError, match=match):
            call(kernels, **{name: value})


@pytest.mark.parametrize("value", ["out", 3, [[[[1.0]]]]], ids=["str", "int", "list"])
@pytest.mark.parametrize("name", ["convout", "imgs_grad", "filters_grad", "bias", "bias_grad"])
def test_outputs_and_biases_that_are_no_arrays(kernels, name, value):
    call = forward if name in ("convout", "bias") else backward
    with pytest.raises(TypeError, match=rf"{name} is a {type(value).__name__}, expected a NumPy"):
        call(kernels, **{name: value})


@pytest.mark.parametrize("name", ["imgs", "filters", "convout_grad"])
def test_torch_tensors(kernels, name):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    with pytest.raises(TypeError, match=rf"{name} is a Tensor, expected a NumPy array"):
        backward(kernels, **{name: torch.ones(IMGS)})


BAD_DTYPES = ["int32", "int64", "uint8", "bool", "float16", "complex64", "complex128", "object",
              "str", "longdouble", ">f4", ">f8"]  # fmt: skip


@pytest.mark.parametrize("dtype", BAD_DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_dtypes(kernels, name, dtype):
    array = np.ones(SHAPES[name], dtype)
    for call in (forward, backward):
        if name in ARGUMENTS[call]:
            with pytest.raises(TypeError, match=rf"{name} has dtype .*, expected .*float32"):
                call(kernels, **{name: array})


@pytest.mark.parametrize("name", SHAPES)
def test_a_mix_of_dtypes_names_both(kernels, name):
    for call, arguments in ARGUMENTS.items():
        if name in arguments:
            with pytest.raises(TypeError, match="float64.*float32|float32.*float64"):
                call(kernels, **{name: np.ones(SHAPES[name], F64)})


@pytest.mark.parametrize("option", ["strides", "dilation", "padding_mode", "groups"])
def test_an_earlier_call_lets_no_wrong_type_through(kernels, option):
    """1 and 1.0 are equal, also inside of tuples."""
    pair = option != "groups"
    forward(kernels, filters=ones(4, 3, 1, 1), **{option: (0, 0) if "pad" in option else 1})
    for right, wrong in (((1, 1), (1.0, 1)), (1, 1.0))[0 if pair else 1 :]:
        changes = {} if option != "padding_mode" else {"convout": None}
        forward(kernels, **changes, **{option: right})
        with pytest.raises(TypeError, match=option):
            forward(kernels, **changes, **{option: wrong})


# --- shapes -------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (4,), (4, 6, 7), (1, 2, 4, 6, 7)], ids=len)
@pytest.mark.parametrize("name", ["imgs", "filters", "convout_grad"])
def test_input_rank(kernels, name, shape):
    match = rf"{name} has shape \({', '.join(map(str, shape))},?\), expected 4 axes"
    for call, arguments in ARGUMENTS.items():
        if name in arguments:
            with pytest.raises(ValueError, match=match):
                call(kernels, **{name: ones(*shape)})


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
@pytest.mark.parametrize("change", [-1, 1])
@pytest.mark.parametrize("name", ["convout_grad", "convout", "imgs_grad", "filters_grad"])
def test_shapes_that_follow_from_others(kernels, name, axis, change):
    """Batch, channels or features, height and width: one too few or one too many."""
    right = SHAPES[name]
    wrong = tuple(size + change * (i == axis) for i, size in enumerate(right))
    call = forward if name == "convout" else backward
    with pytest.raises(ValueError) as error:
        call(kernels, **{name: filled(wrong)})
    assert f"{name} has shape {wrong}, expected {right}" in str(error.value)


@pytest.mark.parametrize("name", ["convout", "imgs_grad", "filters_grad"])
@pytest.mark.parametrize("shape", [(), (3,), (3, 6, 7), (2, 3, 6, 7, 1)], ids=len)
def test_output_rank(kernels, name, shape):
    call = forward if name == "convout" else backward
    with pytest.raises(ValueError, match=rf"{name} has shape .*, expected \("):
        call(kernels, **{name: filled(shape)})


@pytest.mark.parametrize("shape", [(), (2,), (4,), (3, 1), (1, 3, 1, 1)], ids=str)
def test_bias_shape(kernels, shape):
    with pytest.raises(ValueError, match=r"bias has shape \(.*\), expected .*(3,|n_feats)"):
        forward(kernels, bias=ones(*shape))
    with pytest.raises(ValueError, match=r"bias_grad has shape \(.*\), expected .*(3,|n_feats)"):
        backward(kernels, bias_grad=filled(shape))


@pytest.mark.parametrize("call", [forward, backward])
@pytest.mark.parametrize("n_channels, groups", [(3, 1), (5, 1), (1, 1), (4, 2), (2, 4)])
def test_channels_of_images_and_filters(kernels, call, n_channels, groups):
    """imgs has 4 channels, or filters of 4 per group ask for groups times as many."""
    filters = ones(n_channels, 4, 3, 3)
    changes = {"convout": None}
    if call is backward:
        changes = {"filters_grad": None, "bias_grad": None, "convout_grad": ones(2, 4, 6, 7)}
    with pytest.raises(ValueError, match="channels.*expected|expected.*channels|filters.*expected"):
        call(kernels, filters=filters, groups=groups, **changes)


@pytest.mark.parametrize("call", [forward, backward])
@pytest.mark.parametrize(
    "name, axis",
    [("imgs", axis) for axis in (1, 2, 3)] + [("filters", axis) for axis in (0, 1, 2, 3)],
)
def test_empty_axes(kernels, call, name, axis):
    shape = tuple(0 if i == axis else size for i, size in enumerate(SHAPES[name]))
    with pytest.raises(ValueError, match=rf"{name} has shape .*, expected"):
        call(kernels, **{name: ones(*shape)})


# --- geometry -----------------------------------------------------------------

GEOMETRY_ERRORS = [
    *[({name: value}, ValueError, rf"{name} is .*, expected .*at least 1")
      for name in ("strides", "dilation")
      for value in (0, -1, (0, 1), (1, 0), (-2, 1), (1, -2))],
    *[({name: value}, ValueError, rf"{name} is .*, expected an int or a pair of ints")
      for name in ("strides", "dilation") for value in ((), (1,), (1, 1, 1))],
    *[({name: value}, TypeError, rf"{name} is .*, expected an int or a pair of ints")
      for name in ("strides", "dilation")
      for value in (1.0, (1.0, 1), (1, "1"), "11", None, (None, 1), (1, [1]))],
    ({"strides": 2**40}, ValueError, "strides is .*, expected values of at most"),
    ({"dilation": (1, 2**70)}, ValueError, "dilation is .*, expected values of at most"),
    ({"groups": 0}, ValueError, "groups is 0, expected .*at least 1"),
    ({"groups": -1}, ValueError, "groups is -1, expected .*at least 1"),
    ({"groups": 2**70}, ValueError, "groups is .*expected"),
    *[({"groups": value}, TypeError, "groups is .*, expected an int")
      for value in (1.0, "1", None, (1, 1))],
    *[({"padding_mode": value}, ValueError, "padding_mode is .*, expected no negative padding")
      for value in (-1, (-1, 0), (0, -1), ((0, -1), (0, 0)), ((0, 0), (-3, 0)))],
    *[({"padding_mode": value}, TypeError, "padding_mode is .*, expected one of")
      for value in (None, 1.0, (1, 1.5), ((1, 1), (1, None)))],
    *[({"padding_mode": value}, ValueError, "padding_mode is .*, expected one of")
      for value in ("centre", "SAME", "", (1, 2, 3), ((1, 2, 3), (1, 2)))],
    ({"padding_mode": b"same"}, (TypeError, ValueError), "padding_mode is .*, expected one of"),
    *[({"border_mode": value}, ValueError, "border_mode is .*, expected one of")
      for value in ("mirror", "ZEROS", "")],
    *[({"border_mode": value}, TypeError, "border_mode is .*, expected one of")
      for value in (None, 0, b"zeros", ("zeros",))],
    ({"border_mode": "reflect", "padding_mode": (6, 0)}, ValueError, "height 6 by at most 5, got"),
    ({"border_mode": "reflect", "padding_mode": ((0, 0), (0, 7))}, ValueError,
     "width 7 by at most 6, got"),
    ({"border_mode": "wrap", "padding_mode": ((7, 0), (0, 0))}, ValueError,
     "height 6 by at most 6, got"),
    ({"border_mode": "wrap", "padding_mode": (0, 8)}, ValueError, "width 7 by at most 7, got"),
    ({"border_mode": "symmetric", "padding_mode": (7, 0)}, ValueError,
     "height 6 by at most 6, got"),
    ({"padding_mode": "valid", "dilation": (3, 1)}, ValueError,
     "filter of height 3 spans 7 pixels, larger than the padded image of height 6"),
    ({"padding_mode": "valid", "dilation": (1, 4)}, ValueError,
     "filter of width 3 spans 9 pixels, larger than the padded image of width 7"),
    ({"padding_mode": 2**30}, ValueError, "expected|at most|too large"),
    ({"padding_mode": 2**29}, ValueError, "expected|at most|too large"),
    ({"padding_mode": 2**70}, ValueError, "expected|at most|too large"),
    ({"dilation": 2**30}, ValueError, "at most"),
    ({"n_threads": 0}, ValueError, "n_threads is 0, expected .*at least 1"),
    ({"n_threads": -3}, ValueError, "n_threads is -3, expected .*at least 1"),
    ({"n_threads": 2**40}, ValueError, "n_threads is .*, expected"),
    *[({"n_threads": value}, TypeError, "n_threads is .*, expected an int")
      for value in (1.0, "2", (1,))],
]  # fmt: skip


@pytest.mark.parametrize("call", [forward, backward])
@pytest.mark.parametrize("changes, error, match", GEOMETRY_ERRORS, ids=lambda v: str(v)[:60])
def test_geometry(kernels, call, changes, error, match):
    outputs = {"convout": None} if call is forward else {"imgs_grad": None, "filters_grad": None}
    for kept in ({}, outputs):
        with pytest.raises(error, match=match):
            call(kernels, **changes, **kept)


@pytest.mark.parametrize("call", [forward, backward])
@pytest.mark.parametrize("shape, groups", [((1, 3, 3, 3), 3), ((2, 3, 3, 3), 2), ((1, 6, 3, 3), 5)])
def test_groups_that_do_not_divide(kernels, call, shape, groups):
    """4 channels into 3 groups; 3 features into 2; neither 4 nor 6 into 5."""
    changes = {"filters": ones(*shape), "groups": groups}
    with pytest.raises(ValueError, match=rf"groups.*{groups}|{groups}.*groups"):
        call(kernels, **changes)


@pytest.mark.parametrize("call", [forward, backward])
@pytest.mark.parametrize("size", [(7, 1), (1, 8), (9, 9)])
def test_filter_larger_than_the_image(kernels, call, size):
    with pytest.raises(ValueError, match="larger than the padded image"):
        call(kernels, filters=ones(4, 3, *size), padding_mode="valid")


@pytest.mark.parametrize("value", ["tanh", "RELU", "", 1, True, ("relu",)], ids=str)
def test_unknown_activation(kernels, value):
    with pytest.raises((ValueError, TypeError), match="activation is .*, expected .*relu"):
        forward(kernels, activation=value)


@pytest.mark.parametrize("call", [forward, backward])
def test_algorithm(kernels, call):
    for value in ("", "Winograd", "fft", "direct ", "None"):
        match = f"algorithm is '{value}', expected None or one of .*winograd"
        with pytest.raises(ValueError, match=match):
            call(kernels, algorithm=value)
    for value in (0, 1, True, 2.0, b"direct", ["direct"], ("planes",), np.array("pixels")):
        with pytest.raises(TypeError, match=r"algorithm is .*, expected None or one of .*wino"):
            call(kernels, algorithm=value)


@pytest.mark.parametrize("strides, dilation", [((1, 1), (2, 3)), ((2, 1), (1, 2)), ((2, 2), (1, 1)),
                                               ((2, 1), (2, 1)), ((1, 3), (1, 1))])  # fmt: skip
@pytest.mark.parametrize("size", [(3, 3), (2, 4), (1, 3), (3, 1)])
@pytest.mark.parametrize("call", [forward, backward])
def test_winograd_where_it_does_not_fit(kernels, call, size, strides, dilation):
    out = (2, 3, -(-6 // strides[0]), -(-7 // strides[1]))
    changes = {"filters": ones(4, 3, *size), "strides": strides, "dilation": dilation}
    changes["algorithm"] = "winograd"
    if call is forward:
        changes["convout"] = filled(out)
    else:
        changes |= {"convout_grad": ones(*out), "filters_grad": filled((4, 3, *size))}
    if min(size) > 1 and all(s * d < 3 or s == 1 for s, d in zip(strides, dilation)):
        call(kernels, **changes)
        return
    match = (
        "'winograd', expected filters of at least 2 x 2, and strides of 1, or 2 without dilation; "
        f"got filters of {size}, "
    )
    with pytest.raises(ValueError, match=re.escape(match)):
        call(kernels, **changes)


def test_unknown_keywords_and_too_many_arguments(kernels):
    with pytest.raises(TypeError):
        forward(kernels, padding="same")
    with pytest.raises(TypeError):
        backward(kernels, activation="relu")
    with pytest.raises(TypeError):
        kernels.conv_bc01(ones(*IMGS), ones(*FILTERS), None, (1, 1))


def test_imgs_grad_that_is_not_needed(kernels):
    with pytest.raises(ValueError, match="imgs_grad.*need_imgs_grad"):
        backward(kernels, need_imgs_grad=False)


def test_filters_grad_that_is_not_needed(kernels):
    for name in ("filters_grad", "bias_grad"):
        given = {"filters_grad": None, "bias_grad": None, name: filled(FILTERS)}
        with pytest.raises(ValueError, match=f"{name} is given, expected None .*need_filters_grad"):
            backward(kernels, need_filters_grad=False, **given)
    unread = {"imgs": None, "filters_grad": None, "need_filters_grad": False}
    with pytest.raises(TypeError, match="imgs_grad is None, expected a NumPy array"):
        backward(kernels, imgs_grad=None, bias_grad=None, **unread)
    for changes in ({}, {"need_filters_grad": False, "need_imgs_grad": False, "imgs_grad": None}):
        with pytest.raises(TypeError, match="imgs is None, expected a NumPy array"):
            backward(kernels, bias_grad=None, **{"filters_grad": None, "imgs": None, **changes})


# --- outputs that cannot be written -------------------------------------------


@pytest.mark.parametrize("name", ["convout", "imgs_grad", "filters_grad", "bias_grad"])
def test_read_only_outputs(kernels, name):
    call = forward if name == "convout" else backward
    with pytest.raises(ValueError, match=rf"{name} is read-only, expected a writable array"):
        call(kernels, **{name: read_only(SHAPES[name])})


@pytest.mark.parametrize("name", ["convout", "imgs_grad", "filters_grad", "bias_grad"])
def test_outputs_that_overlap_themselves(kernels, name):
    call = forward if name == "convout" else backward
    shape = SHAPES[name]
    same = np.lib.stride_tricks.as_strided(filled((1000,)), shape, [0] * len(shape))
    shifted = np.lib.stride_tricks.as_strided(filled((1000,)), shape, [4] * len(shape))
    for output in (same, shifted) if len(shape) > 1 else (same,):
        with pytest.raises(ValueError, match=rf"{name} has elements that share memory, expected"):
            call(kernels, **{name: output})


# (output, other array): each output may overlap neither an input nor another output
OVERLAPS = [
    ("convout", "imgs"),
    ("convout", "filters"),
    ("convout", "bias"),
    ("imgs_grad", "imgs"),
    ("imgs_grad", "convout_grad"),
    ("imgs_grad", "filters"),
    ("filters_grad", "imgs"),
    ("filters_grad", "convout_grad"),
    ("filters_grad", "filters"),
    ("bias_grad", "imgs"),
    ("bias_grad", "convout_grad"),
    ("bias_grad", "filters"),
    ("imgs_grad", "filters_grad"),
    ("imgs_grad", "bias_grad"),
    ("filters_grad", "bias_grad"),
]


@pytest.mark.parametrize("shift", ["first elements", "last and first"])
@pytest.mark.parametrize("output, other", OVERLAPS)
def test_overlapping_arrays(kernels, output, other, shift):
    """Two views of one memory, from the same address or with one element in common."""
    a, b = (int(np.prod(SHAPES[name])) for name in (output, other))
    start = 0 if shift == "first elements" else a - 1
    memory = np.ones(start + max(a, b), F32)
    views = {
        output: memory[:a].reshape(SHAPES[output]),
        other: memory[start : start + b].reshape(SHAPES[other]),
    }
    call = forward if output == "convout" else backward
    with pytest.raises(ValueError, match=rf"({output} overlaps {other}|{other} overlaps {output})"):
        call(kernels, **views)
    assert (memory == 1).all()


def test_output_that_is_an_input(kernels):
    imgs = ones(2, 4, 6, 7)
    with pytest.raises(ValueError, match="convout overlaps imgs"):
        kernels.conv_bc01(imgs, ones(4, 4, 3, 3), imgs)
    with pytest.raises(ValueError, match="convout overlaps imgs"):
        kernels.conv_bc01(imgs, ones(4, 4, 3, 3), imgs[::-1])
    assert (imgs == 1).all()


def test_interleaved_views_do_not_overlap(kernels):
    """Even and odd channels of one array share a range of memory, but no element."""
    memory = ones(2, 8, 6, 7)
    imgs, convout = memory[:, ::2], memory[:, 1::2]
    expected = kernels.conv_bc01(imgs.copy(), ones(4, 4, 3, 3))
    kernels.conv_bc01(imgs, ones(4, 4, 3, 3), convout)
    np.testing.assert_array_equal(convout, expected)
    memory = ones(2, 4, 6, 14)
    imgs, imgs_grad = memory[..., ::2], memory[..., 1::2]
    kernels.bprop_conv_bc01(imgs, ones(*CONVOUT), ones(*FILTERS), imgs_grad)
    assert (imgs == 1).all() and imgs_grad.max() == 27


# --- sizes beyond any memory --------------------------------------------------


def test_sizes_whose_product_overflows(kernels):
    """Neither a crash nor a wrapped-around size: an error."""
    one = ones(1, 1, 1, 1)
    huge = np.broadcast_to(one, (2**20, 2**10, 2**15, 2**15))
    filters = np.broadcast_to(one, (2**10, 2**20, 3, 3))
    for imgs in (huge, np.broadcast_to(one, (2**40, 2**10, 3, 3))):
        with pytest.raises((ValueError, MemoryError)):
            kernels.conv_bc01(imgs, filters)
        with pytest.raises((ValueError, MemoryError)):
            kernels.bprop_conv_bc01(imgs, one, filters)
    with pytest.raises(ValueError, match="too large|at most"):
        kernels.conv_bc01(ones(1, 1, 1, 1), ones(1, 1, 1, 1), padding_mode=(2**30 - 2, 2**30 - 2))
    with pytest.raises(ValueError, match="at most"):
        kernels.conv_bc01(np.broadcast_to(one, (1, 1, 2**31 - 1, 1)), ones(1, 1, 3, 3))


def test_masked_arrays_are_refused(kernels):
    """Their mask would be ignored."""
    imgs = np.ma.MaskedArray(np.ones((1, 1, 4, 4)), mask=False)
    with pytest.raises(TypeError, match="imgs is a MaskedArray, expected an array without a mask"):
        kernels.conv_bc01(imgs, np.ones((1, 1, 3, 3)))
    with pytest.raises(TypeError, match="imgs is a MaskedArray"):
        kernels.pool_bc01(imgs, None, None, 2, 2, 2, 2)


def test_the_shape_is_the_arrays_own(kernels):
    """Not what a subclass says it is: memory of others would be read."""

    class Boaster(np.ndarray):
        shape = property(lambda self: (1, 1, 8, 8))

    imgs = np.ones((1, 1, 4, 4)).view(Boaster)
    assert np.asarray(kernels.conv_bc01(imgs, np.ones((1, 1, 1, 1)))).shape == (1, 1, 4, 4)


@pytest.mark.parametrize(
    "activation, error", [(1, TypeError), (["relu"], TypeError), ("x", ValueError)]
)
def test_activations_are_words(kernels, activation, error):
    with pytest.raises(error, match="activation is .*, expected None or 'relu'"):
        kernels.conv_bc01(np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3)), activation=activation)
