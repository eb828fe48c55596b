"""Every wrong call of the pooling kernels: what it raises, what it says, what it leaves alone."""

import numpy as np
import pytest

import nnet

F32, F64 = np.float32, np.float64
IMGS, OUT = (2, 3, 6, 8), (2, 3, 3, 4)
SENTINEL = -7
SIZES = {"pool_h": 3, "pool_w": 3, "stride_y": 2, "stride_x": 2}


def ones(*shape, dtype=F32):
    return np.ones(shape, dtype)


def filled(shape, dtype=F32):
    return np.full(shape, SENTINEL, dtype)


def read_only(array):
    array.flags.writeable = False
    return array


def forward(kernels, **changes):
    """A right call of pool_bc01, but for the changes; the outputs must come back untouched."""
    call = {
        "imgs": ones(*IMGS),
        "poolout": filled(OUT),
        "switches": filled((*OUT, 2), np.intp),
        **SIZES,
        **changes,
    }
    try:
        return kernels.pool_bc01(**call)
    except Exception:
        assert_untouched(call["poolout"], call["switches"])
        raise


def backward(kernels, **changes):
    """The same for bprop_pool_bc01."""
    call = {
        "poolout_grad": ones(*OUT),
        "switches": ones(*OUT, 2, dtype=np.intp),
        "imgs_grad": filled(IMGS),
        **SIZES,
        **changes,
    }
    try:
        return kernels.bprop_pool_bc01(**call)
    except Exception:
        assert_untouched(call["imgs_grad"])
        raise


def assert_untouched(*outputs):
    """Outputs hold the sentinel still; those that share memory with an input hold its ones."""
    for output in outputs:
        if isinstance(output, np.ndarray) and output.dtype.kind in "fiu":
            assert np.isin(output, (SENTINEL, 1)).all()


CALLS = {"forward": forward, "backward": backward}
BOTH = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def call_of(name):
    return forward if name in ("imgs", "poolout") else backward


def test_the_calls_below_are_right_but_for_one_change(kernels):
    assert forward(kernels)[0].shape == OUT
    assert forward(kernels, mode="avg", switches=None)[1] is None
    assert backward(kernels).sum() == np.prod(OUT)
    assert backward(kernels, mode="avg", switches=None).shape == IMGS


# --- arrays that are no arrays, or of a wrong type --------------------------------


@pytest.mark.parametrize("value", [None, "imgs", 3, [[[[1.0]]]], (1.0,), b"1", {}, np.float32(1)],
                         ids=lambda value: type(value).__name__)  # fmt: skip
@pytest.mark.parametrize("name", ["imgs", "poolout_grad", "imgs_grad"])
def test_arrays_that_are_no_arrays(kernels, name, value):
    match = rf"{name} is (a {type(value).__name__}|None), expected a"
    with pytest.raises(TypeError, match=match):
        call_of(name)(kernels, **{name: value})


@pytest.mark.parametrize("value", ["out", 3, [[[[1.0]]]]], ids=["str", "int", "list"])
def test_outputs_and_switches_that_are_no_arrays(kernels, value):
    match = rf"is a {type(value).__name__}, expected a NumPy array"
    with pytest.raises(TypeError, match="poolout " + match):
        forward(kernels, poolout=value)
    for call in (forward, backward):
        with pytest.raises(TypeError, match="switches " + match):
            call(kernels, switches=value)


def test_the_shape_of_the_images_must_be_given(kernels):
    for mode, switches in (("max", ones(*OUT, 2, dtype=np.intp)), ("avg", None)):
        with pytest.raises(TypeError, match="imgs_grad is None, expected an array of the images'"):
            backward(kernels, imgs_grad=None, mode=mode, switches=switches)


BAD_DTYPES = ["int32", "int64", "uint8", "bool", "float16", "complex64", "complex128", "object",
              "str", "longdouble", ">f4", ">f8"]  # fmt: skip


@pytest.mark.parametrize("dtype", BAD_DTYPES)
@pytest.mark.parametrize("name", ["imgs", "poolout", "poolout_grad", "imgs_grad"])
def test_dtypes(kernels, name, dtype):
    shape = IMGS if "imgs" in name else OUT
    with pytest.raises(TypeError, match=rf"{name} has dtype .*, expected .*float32"):
        call_of(name)(kernels, **{name: np.ones(shape, dtype)})


@pytest.mark.parametrize("name", ["poolout", "poolout_grad", "imgs_grad"])
def test_a_mix_of_dtypes_names_both(kernels, name):
    shape = IMGS if "imgs" in name else OUT
    with pytest.raises(TypeError, match="float64.*float32|float32.*float64"):
        call_of(name)(kernels, **{name: np.ones(shape, F64)})


@BOTH
@pytest.mark.parametrize("dtype", ["int32", "uint64", "float32", "float64", "object", ">i8"])
def test_dtypes_of_switches(kernels, call, dtype):
    with pytest.raises(TypeError, match="switches has dtype .*, expected int64"):
        call(kernels, switches=np.ones((*OUT, 2), dtype))


# --- shapes -----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (4,), (3, 6, 8), (1, 2, 3, 6, 8)], ids=len)
@pytest.mark.parametrize("name", ["imgs", "poolout_grad", "imgs_grad"])
def test_rank(kernels, name, shape):
    match = rf"{name} has shape \({', '.join(map(str, shape))},?\), expected 4 axes"
    with pytest.raises(ValueError, match=match):
        call_of(name)(kernels, **{name: np.full(shape, SENTINEL, F32)})


@pytest.mark.parametrize("name", ["imgs", "poolout_grad", "imgs_grad"])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_empty_axes(kernels, name, axis):
    shape = list(IMGS if "imgs" in name else OUT)
    shape[axis] = 0
    with pytest.raises(ValueError, match=rf"{name} has shape .*, expected no empty axis"):
        call_of(name)(kernels, **{name: np.ones(shape, F32)})


@pytest.mark.parametrize("axis", range(4))
def test_output_shapes(kernels, axis):
    wrong = list(OUT)
    wrong[axis] += 1
    match = rf"has shape \({', '.join(map(str, wrong))}.*\), expected \(2, 3, 3, 4"
    with pytest.raises(ValueError, match="poolout " + match):
        forward(kernels, poolout=filled(wrong))
    with pytest.raises(ValueError, match="poolout_grad " + match):
        backward(kernels, poolout_grad=ones(*wrong))
    for call in (forward, backward):
        with pytest.raises(ValueError, match="switches " + match):
            call(kernels, switches=np.ones((*wrong, 2), np.intp))


@BOTH
def test_switches_are_pairs(kernels, call):
    for shape in ((*OUT, 1), (*OUT, 3), OUT):
        with pytest.raises(ValueError, match=r"switches has shape .*, expected \(2, 3, 3, 4, 2\)"):
            call(kernels, switches=np.ones(shape, np.intp))


@BOTH
def test_places_are_one_number(kernels, call):
    for shape in ((*OUT, 2), (*OUT, 1), OUT[1:], (2, 3, 3, 5)):
        with pytest.raises(ValueError, match=r"switches has shape .*, expected \(2, 3, 3, 4\)$"):
            call(kernels, switches=np.ones(shape, np.uint8))


@pytest.mark.parametrize("axis", range(4))
def test_images_gradient_of_another_shape(kernels, axis):
    wrong = list(IMGS)
    wrong[axis] += 2
    with pytest.raises(ValueError, match=r"poolout_grad has shape \(2, 3, 3, 4\), expected"):
        backward(kernels, imgs_grad=filled(wrong))
    if axis < 2:  # known without a geometry too
        with pytest.raises(ValueError, match=r"poolout_grad has shape \(2, 3, 3, 4\), expected"):
            backward(kernels, imgs_grad=filled(wrong), **dict.fromkeys(SIZES))


# --- geometry and options -----------------------------------------------------------


@BOTH
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", [0, -1, 2**31])
def test_sizes_out_of_range(kernels, call, name, value):
    with pytest.raises(ValueError, match=rf"{value}.*, expected values of at (least 1|most)"):
        call(kernels, **{name: value})


@BOTH
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", [2.0, "2", (2, 2), [2]], ids=str)
def test_sizes_of_a_wrong_type(kernels, call, name, value):
    with pytest.raises(TypeError, match="expected an int"):
        call(kernels, **{name: value})


@pytest.mark.parametrize("name", SIZES)
def test_missing_sizes(kernels, name):
    with pytest.raises(TypeError, match=r"\(.*None.*\), expected an int"):
        forward(kernels, **{name: None})
    with pytest.raises(TypeError, match=r"stride_x\) is \(.*None.*\), expected four ints, or None"):
        backward(kernels, **{name: None})
    for missing in ({name: None}, dict.fromkeys(SIZES)):
        with pytest.raises(TypeError, match=r"stride_x\) is \(.*None.*\), expected four ints$"):
            backward(kernels, mode="avg", switches=None, **missing)


def test_places_need_the_windows(kernels):
    places = np.full(OUT, 4, np.uint8)
    for missing in ({"stride_x": None}, dict.fromkeys(SIZES)):
        with pytest.raises(TypeError, match=r"stride_x\) is \(.*None.*\), expected four ints$"):
            backward(kernels, switches=places, **missing)


@BOTH
def test_places_of_large_windows(kernels, call):
    places = np.ones((2, 3, 22, 12), np.uint8)
    changes = {"pool_h": 17, "pool_w": 16, "stride_y": 1, "stride_x": 2, "padding_mode": "full"}
    with pytest.raises(ValueError, match="more than 256 pixels, which 17x16 have"):
        call(
            kernels, switches=places, **changes,
            **{"poolout" if call is forward else "poolout_grad": filled((2, 3, 22, 12))},
        )  # fmt: skip


@BOTH
def test_windows_that_do_not_fit(kernels, call):
    with pytest.raises(ValueError, match="pool of height 7 spans 7 pixels, larger than"):
        call(kernels, pool_h=7, padding_mode="valid")
    with pytest.raises(ValueError, match="pooling stride 9 is larger than the image width 8"):
        call(kernels, stride_x=9)
    with pytest.raises(ValueError, match=r"pooling padding \(3, 3\) must be smaller than"):
        call(kernels, padding_mode=3)
    with pytest.raises(ValueError, match="no negative padding"):
        call(kernels, padding_mode=(0, -1))


@BOTH
def test_unknown_modes(kernels, call):
    for mode in ("min", "", "MAX"):
        with pytest.raises(ValueError, match=f"mode is '{mode}', expected 'max' or 'avg'"):
            call(kernels, mode=mode)
    for mode in (None, 1, b"max"):
        with pytest.raises(TypeError, match="mode is .*, expected 'max' or 'avg'"):
            call(kernels, mode=mode)
    with pytest.raises(ValueError, match="padding_mode is 'reflect', expected"):
        call(kernels, padding_mode="reflect")
    with pytest.raises(TypeError, match="padding_mode is None, expected"):
        call(kernels, padding_mode=None)


def test_unknown_padding_mode_without_a_geometry(kernels):
    with pytest.raises(ValueError, match="padding_mode is 'reflect', expected"):
        backward(kernels, padding_mode="reflect", **dict.fromkeys(SIZES))


@BOTH
def test_switches_of_averages(kernels, call):
    with pytest.raises(TypeError, match="switches is a ndarray, expected None for mode 'avg'"):
        call(kernels, mode="avg")


def test_maxima_need_their_switches(kernels):
    with pytest.raises(TypeError, match="switches is None, expected a NumPy array for mode 'max'"):
        backward(kernels, switches=None)


@BOTH
def test_count_include_pad_is_a_truth_value(kernels, call):
    for value in (None, 1, "no"):
        with pytest.raises(TypeError, match="count_include_pad is .*, expected True or False"):
            call(kernels, count_include_pad=value)


@BOTH
def test_thread_counts(kernels, call):
    for value in (0, -1, 10**9):
        with pytest.raises(ValueError, match=f"n_threads is {value}, expected at least 1"):
            call(kernels, n_threads=value)
    for value in (1.0, "2", (1,)):
        with pytest.raises(TypeError, match="n_threads is .*, expected an integer"):
            call(kernels, n_threads=value)


def test_sizes_whose_product_overflows(kernels):
    imgs = np.lib.stride_tricks.as_strided(ones(1), (2**20, 2**20, 2, 2), (0, 0, 0, 0))
    with pytest.raises((ValueError, MemoryError)):
        kernels.pool_bc01(imgs, None, None, 2**30, 2**30, 1, 1, padding_mode="full")


# --- outputs that cannot take the result ---------------------------------------------


def test_read_only_outputs(kernels):
    for call, name, array in (
        (forward, "poolout", filled(OUT)),
        (forward, "switches", filled((*OUT, 2), np.intp)),
        (forward, "switches", np.ones(OUT, np.uint8)),
        (backward, "imgs_grad", filled(IMGS)),
    ):
        with pytest.raises(ValueError, match=f"{name} is read-only, expected a writable array"):
            call(kernels, **{name: read_only(array)})


def test_outputs_whose_elements_overlap(kernels):
    for call, name, shape, dtype in (
        (forward, "poolout", OUT, F32),
        (forward, "switches", (*OUT, 2), np.intp),
        (forward, "switches", OUT, np.uint8),
        (backward, "imgs_grad", IMGS, F32),
    ):
        one = np.ones(1, dtype)
        array = np.lib.stride_tricks.as_strided(one, shape, (0,) * len(shape))
        with pytest.raises(ValueError, match=f"{name} has elements that share memory"):
            call(kernels, **{name: array})


def test_outputs_that_share_memory(kernels):
    memory = np.zeros(4096, np.uint8)
    imgs = memory[: 4 * np.prod(IMGS)].view(F32).reshape(IMGS)
    part = memory[800 : 800 + 4 * np.prod(OUT)].view(F32).reshape(OUT)
    places = memory[900 : 900 + np.prod(OUT)].reshape(OUT)
    pairs = memory[1024 : 1024 + 16 * np.prod(OUT)].view(np.intp).reshape(*OUT, 2)
    for call, match, changes in (
        (kernels.pool_bc01, "poolout overlaps imgs", (imgs, part, None)),
        (kernels.pool_bc01, "switches overlaps imgs", (imgs, None, pairs)),
        (kernels.pool_bc01, "switches overlaps poolout", (ones(*IMGS), part, pairs)),
        (kernels.bprop_pool_bc01, "imgs_grad overlaps poolout_grad",
         (part, np.zeros((*OUT, 2), np.intp), imgs)),
        (kernels.bprop_pool_bc01, "imgs_grad overlaps switches", (ones(*OUT), pairs, imgs)),
        (kernels.pool_bc01, "switches overlaps imgs", (imgs, None, places)),
        (kernels.pool_bc01, "switches overlaps poolout", (ones(*IMGS), part, places)),
        (kernels.bprop_pool_bc01, "imgs_grad overlaps switches", (ones(*OUT), places, imgs)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            call(*changes, **SIZES)
        assert not memory.any()


# --- switches outside the images ------------------------------------------------------


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(
    "bad", [(6, 0), (0, 8), (-1, 0), (0, -1), (2**40, 0), (-(2**63), 1), (5, 2**63 - 1), (2**32, 0)]
)
def test_switches_outside_the_images(kernels, dtype, bad, n_threads):
    for place in ((0, 0, 0, 0), (1, 2, 2, 3), (1, 0, 1, 1)):
        for sizes in (SIZES, dict.fromkeys(SIZES)):
            switches = np.ones((*OUT, 2), np.intp)
            switches[place] = bad
            message = (
                rf"switches\[{', '.join(map(str, place))}\] is \({bad[0]}, {bad[1]}\), expected"
            )
            with pytest.raises(ValueError, match=message + r".*of size \(6, 8\)"):
                backward(
                    kernels, poolout_grad=ones(*OUT, dtype=dtype), imgs_grad=filled(IMGS, dtype),
                    switches=switches, n_threads=n_threads, **sizes,
                )  # fmt: skip


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(
    "place, bad",
    [
        ((0, 0, 0, 0), 9), ((1, 2, 1, 1), 255), ((1, 2, 2, 3), 9),   # beyond the window
        ((0, 1, 0, 2), 2), ((0, 1, 1, 0), 3), ((1, 0, 0, 0), 0),     # in the padding
    ],
)  # fmt: skip
def test_places_outside_the_windows(kernels, dtype, place, bad, n_threads):
    places = np.full(OUT, 4, np.uint8)
    places[place] = bad
    message = rf"switches\[{', '.join(map(str, place))}\] is {bad}, expected the place of a pixel"
    with pytest.raises(ValueError, match=message + " in a window of 3x3"):
        backward(
            kernels, poolout_grad=ones(*OUT, dtype=dtype), imgs_grad=filled(IMGS, dtype),
            switches=places, n_threads=n_threads,
        )  # fmt: skip


@pytest.mark.parametrize("padding", [1, ((2, 1), (1, 2)), "valid"])
@pytest.mark.parametrize("shape", [(3, 9, 9), (2, 6, 20)])
def test_every_place_in_a_window_and_no_other(kernels, shape, padding):
    """Of each window, all 256 numbers."""
    imgs = np.zeros((1, *shape), F32)
    where = nnet.geometry.pool_geometry(*shape[1:], 3, 3, 2, 2, padding)
    pixels, found = kernels.pool_bc01(
        imgs, None, np.empty((1, shape[0], where.out_h, where.out_w), np.uint8),
        3, 3, 2, 2, padding_mode=padding,
    )  # fmt: skip
    for y, x in np.ndindex(where.out_h, where.out_w):
        right = []
        for place in range(256):
            places = found.copy()
            places[0, -1, y, x] = place
            try:
                kernels.bprop_pool_bc01(pixels, places, imgs, 3, 3, 2, 2, padding_mode=padding)
            except ValueError:
                continue
            right.append(divmod(place, 3))
        rows, cols = y * 2 - where.top, x * 2 - where.left
        assert right == [
            (i, j) for i in range(3) for j in range(3)
            if 0 <= rows + i < shape[1] and 0 <= cols + j < shape[2]
        ]  # fmt: skip


def test_switches_in_the_image_but_not_in_their_windows(kernels, dtype):
    """They are as right as others: gradients go where they say."""
    switches = np.ones((*OUT, 2), np.intp)
    switches[1, 2, 2, 3] = 0, 7
    imgs_grad = backward(
        kernels, poolout_grad=ones(*OUT, dtype=dtype), imgs_grad=filled(IMGS, dtype),
        switches=switches,
    )  # fmt: skip
    assert imgs_grad[1, 2, 0, 7] == 1 and imgs_grad[1, 2, 1, 1] == 11 and imgs_grad.sum() == 72


def test_switches_outside_the_images_with_threads(kernels):
    """Large enough for threads: whichever meets the bad one, none has written anything."""
    out = (4, 40, 16, 16)
    for place in ((0, 0, 0, 0), (3, 39, 15, 15)):
        switches = np.zeros((*out, 2), np.intp)
        switches[place] = 32, 31
        imgs_grad = filled((4, 40, 32, 32))
        with pytest.raises(ValueError, match=r"is \(32, 31\), expected a row and a column"):
            kernels.bprop_pool_bc01(ones(*out), switches, imgs_grad, n_threads=2)
        assert_untouched(imgs_grad)


@pytest.mark.parametrize("call", [forward, backward])
def test_maxima_count_nothing(kernels, call):
    with pytest.raises(
        ValueError, match="count_include_pad is True, expected False for mode 'max'"
    ):
        call(kernels, count_include_pad=True)


@pytest.mark.parametrize("padding_mode", [-3, object(), "centred"])
def test_padding_that_maxima_do_not_need_is_checked_all_the_same(kernels, padding_mode):
    imgs = np.ones((1, 1, 4, 4))
    poolout, switches = kernels.pool_bc01(imgs, None, None, 2, 2, 2, 2)
    with pytest.raises((ValueError, TypeError), match="padding_mode is .*, expected"):
        kernels.bprop_pool_bc01(poolout, switches, imgs, padding_mode=padding_mode)


def test_an_earlier_call_lets_no_wrong_type_through(kernels):
    """2 and 2.0 are equal."""
    forward(kernels)
    for name, size in SIZES.items():
        with pytest.raises(TypeError, match=name):
            forward(kernels, **{name: float(size)})


def test_an_earlier_call_decides_no_other_option(kernels):
    call = {"imgs": ones(*IMGS), "poolout": None, "switches": None, **SIZES, "mode": "avg"}
    for include_pad in (False, True, False):
        out, _ = kernels.pool_bc01(**call, count_include_pad=include_pad)
        assert (out[0, 0, 0, 0] < 1) == include_pad
