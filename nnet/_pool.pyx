"""Pooling of BC01 images, forward and backward: the compiled kernels.

The include list is in reading order, and so is that of headers in pool/plan.pxi; this file has the
checks, the plans that are kept, and the public functions.
"""

from nnet import dispatch
from nnet.geometry import PADDING_WORDS, as_padding, pool_geometry

include "kernels/common/arrays.pxi"
include "kernels/common/memory.pxi"
include "kernels/pool/plan.pxi"
include "kernels/pool/run.pxi"
include "kernels/pool/step.pxi"


# --- checks --------------------------------------------------------------------------

cdef enum:
    SMALL_WORK = 50_000   # pixels of the images below which a second thread saves nothing

cdef object INTP = np.dtype(np.intp)
cdef object UINT8 = np.dtype(np.uint8)
cdef str IMG_AXES = "n_imgs, n_channels, img_h, img_w"
cdef str OUT_AXES = "n_imgs, n_channels, out_h, out_w"


cdef bint check_options(object mode, object count_include_pad, object ceil_mode,
                        object switches) except -1:
    """Whether the maximum is asked for."""
    if not isinstance(mode, str):
        raise TypeError(f"mode is {mode!r}, expected 'max' or 'avg'")
    if mode != "max" and mode != "avg":
        raise ValueError(f"mode is {mode!r}, expected 'max' or 'avg'")
    if not isinstance(count_include_pad, (bool, np.bool_)):
        raise TypeError(f"count_include_pad is {count_include_pad!r}, expected True or False")
    if not isinstance(ceil_mode, (bool, np.bool_)):
        raise TypeError(f"ceil_mode is {ceil_mode!r}, expected True or False")
    if mode == "max" and count_include_pad:
        raise ValueError("count_include_pad is True, expected False for mode 'max'")
    if mode == "avg" and switches is not None:
        raise TypeError(f"switches is {describe(switches)}, expected None for mode 'avg'")
    return mode == "max"


cdef bint check_need(object need_switches, object switches) except -1:
    """Whether the switches are asked for."""
    if not isinstance(need_switches, (bool, np.bool_)):
        raise TypeError(f"need_switches is {need_switches!r}, expected True or False")
    if not need_switches and switches is not None:
        raise ValueError("switches is given, expected None when need_switches is false")
    return bool(need_switches)


cdef str check_algorithm(object algorithm):
    if algorithm is not None and not isinstance(algorithm, str):
        raise TypeError(f"algorithm is {algorithm!r}, expected None or a str")
    return algorithm or ""


cdef int threads_for(object n_threads, Py_ssize_t n_planes, double work) except 0:
    """The threads of one call: little work stays on one."""
    if n_threads is None and work < SMALL_WORK:
        return 1
    cdef int threads = dispatch.call_threads(n_threads)
    return 1 if work < SMALL_WORK or n_planes == 0 else <int>min(threads, n_planes)


cdef bint are_offsets(object switches):
    """Whether switches are given as offsets in windows."""
    return isinstance(switches, np.ndarray) and switches.dtype == UINT8


cdef tuple switches_like(object switches, tuple shape, object pool_h, object pool_w):
    """Shape and dtype of switches that belong to outputs of a shape."""
    if not are_offsets(switches):
        if isinstance(switches, np.ndarray) and switches.dtype != INTP:
            raise TypeError(f"switches has dtype {switches.dtype}, expected {INTP} or {UINT8}")
        return (*shape, 2), INTP
    if pool_h * pool_w > MAX_OFFSETS:
        raise ValueError(
            f"switches has dtype {UINT8}, expected {INTP} for windows of more than {MAX_OFFSETS} "
            f"pixels, which {pool_h}x{pool_w} have"
        )
    return shape, UINT8


cdef cnp.ndarray check_switches(object switches, tuple shape, object pool_h, object pool_w):
    if not isinstance(switches, np.ndarray):
        raise TypeError(f"switches is {describe(switches)}, expected a NumPy array for mode 'max'")
    check_shape(switches, "switches", switches_like(switches, shape, pool_h, pool_w)[0])
    return switches


cdef void refuse_outside(cnp.ndarray switches, tuple img_size, object geometry,
                         tuple sizes) except *:
    """Raise for the first switch that is outside the images."""
    if not are_offsets(switches):
        wrong = ((switches < 0) | (switches >= np.array(img_size))).any(axis=-1)
        where = tuple(np.argwhere(wrong)[0].tolist())
        raise ValueError(
            f"switches{list(where)} is {tuple(switches[where].tolist())}, expected a row and a "
            f"column of images of size {img_size}"
        )
    out_h, out_w = shape_of(switches)[2:]
    pool_h, pool_w, stride_y, stride_x = sizes
    rows = switches // pool_w + (np.arange(out_h) * stride_y - geometry.top)[:, None]
    cols = switches % pool_w + (np.arange(out_w) * stride_x - geometry.left)
    wrong = (rows < 0) | (rows >= img_size[0]) | (cols < 0) | (cols >= img_size[1])
    wrong |= switches >= pool_h * pool_w
    where = tuple(np.argwhere(wrong)[0].tolist())
    raise ValueError(
        f"switches{list(where)} is {switches[where]}, expected the place of a pixel in a window of "
        f"{pool_h}x{pool_w}"
    )


# --- plans -----------------------------------------------------------------------------

cdef class KeptPlan:
    """What follows from arguments that fit each other, but for the number of images."""

    cdef object geometry      # None where windows are unknown
    cdef tuple out_axes       # (n_channels, out_h, out_w)
    cdef PoolPlan plan
    cdef PoolPlan elsewhere   # for pairs that are not in their windows


cdef KeptPlan plan_call(
    tuple axes,               # (n_channels, img_h, img_w)
    tuple out_axes,           # (n_channels, out_h, out_w), or () where sizes are known
    tuple sizes, object padding_mode, bint ceil_mode, bint include_pad, bint is_max,
    Switching switches, int itemsize, bint backward, str algorithm,
):
    cdef tuple key = (axes, out_axes, sizes, padding_mode, algorithm, itemsize + is_max
                      + 2 * ceil_mode + 16 * include_pad + 32 * backward + 64 * <int>switches)
    cdef KeptPlan kept = recent_plan(key)
    if kept is not None:
        return kept
    kept = KeptPlan()
    cdef PoolAxis height, width
    if out_axes:              # anything with as many outputs
        kept.out_axes = out_axes
        height = pool_axis(axes[1], out_axes[1], 1, 1, 0, 0)
        width = pool_axis(axes[2], out_axes[2], 1, 1, 0, 0)
    else:
        g = kept.geometry = pool_geometry(axes[1], axes[2], *sizes, padding_mode, ceil_mode)
        kept.out_axes = (axes[0], g.out_h, g.out_w)
        height = pool_axis(axes[1], g.out_h, sizes[0], g.stride_y, g.top, g.bottom)
        width = pool_axis(axes[2], g.out_w, sizes[1], g.stride_x, g.left, g.right)
    cdef PoolPlan plan = plan_of(height, width, axes[0], is_max, include_pad, not out_axes,
                                 switches, itemsize, backward)
    kept.plan = choose_implementation(plan, algorithm)
    if backward:
        kept.elsewhere = choose_implementation(plan, "scatter")
    remember_plan(key, kept, 2 * sizeof(PoolPlan))
    return kept


cdef Switching switching(object switches, bint needed) except *:
    return NO_SWITCHES if not needed else OFFSETS if are_offsets(switches) else PAIRS


cdef void check_missing(tuple sizes, Switching switches, object padding_mode) except *:
    """Backward, windows may be unknown where switches are pairs."""
    if switches != PAIRS or sizes.count(None) < 4:
        raise TypeError(
            f"(pool_h, pool_w, stride_y, stride_x) is {sizes}, expected four ints"
            + (", or None for all of them" if switches == PAIRS else "")
        )
    as_padding(padding_mode, ("centered", *PADDING_WORDS))  # not needed, but not wrong either


# --- the public functions ---------------------------------------------------------------

def pool_bc01(
    imgs,           # (n_imgs, n_channels, img_h, img_w)              IN
    poolout,        # (n_imgs, n_channels, out_h, out_w)              OUT
    switches,       # (n_imgs, n_channels, out_h, out_w, 2)           OUT, or without the 2
    pool_h,
    pool_w,
    stride_y,
    stride_x,
    *,
    mode="max",
    padding_mode="centered",
    count_include_pad=False,
    ceil_mode=False,
    need_switches=True,
    algorithm=None,
    n_threads=None,
):
    """Summarise windows of images by their maximum or their average.

    Parameters
    ----------
    imgs : ndarray (n_imgs, n_channels, img_h, img_w), float32 or float64
    poolout : ndarray (n_imgs, n_channels, out_h, out_w), same dtype, or None
        Filled and returned; None allocates it. It may share memory with no other array.
    switches : ndarray (n_imgs, n_channels, out_h, out_w, 2), intp, or None
        Filled with the row and the column of each maximum in its image; None allocates it.
        Or (n_imgs, n_channels, out_h, out_w), uint8: filled with the place of each maximum in
        its window, row * pool_w + column. This is faster, as it takes a sixteenth of the
        memory, but only for windows of at most 256 pixels.
        For averages there are none: it must be None, and None is returned.
    pool_h, pool_w, stride_y, stride_x : int
        Size of the windows, and steps between them, in pixels.
    mode : {'max', 'avg'}
        Of equal maxima the first in row-major order counts. NaN is larger than any number,
        and the last of several counts (both as in PyTorch).
    padding_mode : {'centered', 'valid', 'same', 'full'}, int, (y, x) or ((top, bottom), ...)
        'centered': out = img // stride, and windows start at i * stride - (pool - 1) // 2.
        The others as for `conv_bc01`. Padding is never a maximum and adds nothing to a sum.
    count_include_pad : bool
        Divide sums by the number of all pixels in the window, not of the real ones.
    ceil_mode : bool
        With explicit padding, whether there is also a last window that hangs over the edge, if
        it starts in the image: of what is beyond the padding, nothing is counted.
    need_switches : bool
        False computes the same maxima faster, returns None for switches and does none of their
        work; giving that array as well is a ValueError.
    algorithm : {None, 'strips', 'windows', 'doubling'}
        'strips' computes rows of windows at once, pixel by pixel; 'windows' one window after the
        other, its rows in vectors; 'doubling' windows of 2, 4, 8, ... pixels from two of half the
        size, along rows and then along columns. Not all of them have all poolings: 'strips' has
        no windows of more than 64 rows or columns, nor maxima with switches of more than 256
        pixels, 'doubling' no switches. None chooses the one that should be fastest. It changes
        no maximum, and averages only by rounding.
    n_threads : int, optional
        Default: `nnet.get_num_threads()`. It changes no bit of the result.

    Returns
    -------
    poolout : ndarray
    switches : ndarray, or None for averages and where they are not needed

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and values, and for types, that do not fit.
    """
    cdef cnp.ndarray imgs_ = check_array(imgs, "imgs", IMG_AXES, None, "")
    cdef bint is_max = check_options(mode, count_include_pad, ceil_mode, switches)
    cdef bint need = check_need(need_switches, switches) and is_max
    cdef tuple img_shape = shape_of(imgs_)
    cdef KeptPlan kept = plan_call(
        img_shape[1:], (), (pool_h, pool_w, stride_y, stride_x), padding_mode, ceil_mode,
        count_include_pad, is_max, switching(switches, need), cnp.PyArray_ITEMSIZE(imgs_), False,
        check_algorithm(algorithm)
    )
    cdef tuple shape = img_shape[:1] + kept.out_axes
    cdef Py_ssize_t n_imgs = cnp.PyArray_DIM(imgs_, 0)
    cdef int threads = threads_for(n_threads, n_imgs * kept.plan.n_channels,
                                   cnp.PyArray_SIZE(imgs_))
    cdef cnp.ndarray out = check_output(poolout, "poolout", shape, imgs_.dtype)
    cdef cnp.ndarray where = None, where_work = None
    if need:
        where_shape, where_dtype = switches_like(switches, shape, pool_h, pool_w)
        where = check_output(switches, "switches", where_shape, where_dtype)
        refuse_overlap(where, "switches", imgs, "imgs")
        refuse_overlap(where, "switches", out, "poolout")
        where_work = work_array(where)
    refuse_overlap(out, "poolout", imgs, "imgs")
    if n_imgs == 0:
        return out, where
    imgs_ = contiguous(imgs_)
    cdef cnp.ndarray work = work_array(out)
    cdef Workspace space = acquire_workspace()
    cdef char *scratch = <char *>space.take(pool_scratch(&kept.plan, n_imgs, threads))
    with nogil:
        run_pool(&kept.plan, n_imgs, cnp.PyArray_DATA(imgs_), cnp.PyArray_DATA(work),
                 cnp.PyArray_DATA(where_work) if need else NULL, scratch, threads)
    space.release()
    deliver(out, work)
    if need:
        deliver(where, where_work)
    return out, where


def bprop_pool_bc01(
    poolout_grad,   # (n_imgs, n_channels, out_h, out_w)              IN
    switches,       # (n_imgs, n_channels, out_h, out_w, 2)           IN, or without the 2
    imgs_grad,      # (n_imgs, n_channels, img_h, img_w)              OUT
    pool_h=None,
    pool_w=None,
    stride_y=None,
    stride_x=None,
    *,
    mode="max",
    padding_mode="centered",
    count_include_pad=False,
    ceil_mode=False,
    algorithm=None,
    n_threads=None,
):
    """Carry the gradient of `pool_bc01` back to its images.

    Where windows overlap, their gradients add up.

    Parameters
    ----------
    poolout_grad : ndarray (n_imgs, n_channels, out_h, out_w), float32 or float64
    switches : ndarray (n_imgs, n_channels, out_h, out_w, 2), intp, or without the 2, uint8, or None
        Where the maxima are, as `pool_bc01` gave them; None for averages.
    imgs_grad : ndarray (n_imgs, n_channels, img_h, img_w), same dtype
        Filled and returned. It cannot be None: poolout_grad does not tell the size of the
        images. It may share memory with no other array.
    pool_h, pool_w, stride_y, stride_x : int
        As in `pool_bc01`. Averages and switches of uint8 need them. Switches of intp do not:
        give all, and they are checked against the shapes, or none.
    mode, padding_mode, count_include_pad, ceil_mode, n_threads
        As in `pool_bc01`.
    algorithm : {None, 'gather', 'scatter', 'whole', 'doubling'}
        'gather' collects what each pixel gets, for windows of 2x2 two pixels apart and of 3x3 one
        or two apart; 'scatter' adds each gradient to its pixels; 'whole' is for single windows of
        all pixels, 'doubling' for averages. None chooses the one that should be fastest.

    Returns
    -------
    imgs_grad : ndarray

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and values, and for types, that do not fit; also for
        switches that are outside the images, or outside the windows if these say so.
    """
    cdef cnp.ndarray grad = check_array(poolout_grad, "poolout_grad", OUT_AXES, None, "")
    cdef bint is_max = check_options(mode, count_include_pad, ceil_mode, switches), is_outside
    if imgs_grad is None:
        raise TypeError("imgs_grad is None, expected an array of the images' shape")
    cdef cnp.ndarray out = check_array(imgs_grad, "imgs_grad", IMG_AXES, grad, "poolout_grad")
    cdef tuple img_shape = shape_of(out), sizes = (pool_h, pool_w, stride_y, stride_x)
    cdef Switching given = switching(switches, is_max)
    cdef tuple out_axes = ()
    if None in sizes:
        check_missing(sizes, given, padding_mode)
        sizes, padding_mode, out_axes = (), "", img_shape[1:2] + shape_of(grad)[2:]
    cdef KeptPlan kept = plan_call(
        img_shape[1:], out_axes, sizes, padding_mode, ceil_mode, count_include_pad, is_max, given,
        cnp.PyArray_ITEMSIZE(grad), True, check_algorithm(algorithm)
    )
    check_shape(grad, "poolout_grad", img_shape[:1] + kept.out_axes)
    cdef Py_ssize_t n_imgs = cnp.PyArray_DIM(out, 0)
    cdef int threads = threads_for(n_threads, n_imgs * kept.plan.n_channels,
                                   cnp.PyArray_SIZE(out))
    cdef cnp.ndarray where = None
    check_output(imgs_grad, "imgs_grad", img_shape, grad.dtype)
    refuse_overlap(out, "imgs_grad", poolout_grad, "poolout_grad")
    if is_max:
        where = check_switches(switches, shape_of(grad), pool_h, pool_w)
        refuse_overlap(out, "imgs_grad", where, "switches")
        where = contiguous(where)
    if n_imgs == 0:
        return out
    cdef cnp.ndarray work = work_array(out)
    grad = contiguous(grad)
    cdef Workspace space = acquire_workspace()
    cdef char *scratch = <char *>space.take(pool_scratch(&kept.plan, n_imgs, threads))
    with nogil:
        is_outside = run_unpool(
            &kept.plan, &kept.elsewhere, n_imgs, cnp.PyArray_DATA(grad),
            cnp.PyArray_DATA(where) if is_max else NULL, cnp.PyArray_DATA(work), scratch, threads)
    space.release()
    end_call()
    if is_outside:
        refuse_outside(where, img_shape[2:], kept.geometry, sizes)
    deliver(out, work)
    return out


def explain_pool(
    img_shape, sizes, dtype, *, direction="forward", mode="max", padding_mode="centered",
    count_include_pad=False, ceil_mode=False, need_switches=True, switches=None,
):
    """The implementations for images (n_imgs, n_channels, img_h, img_w) and the four sizes.

    Switches are 'offsets' or 'pairs'; None: offsets where they fit. Returns
    (name, cycles of an image or None, whether it is taken) of each; None: it does not accept them.
    """
    cdef bint is_max = check_options(mode, count_include_pad, ceil_mode, None)
    cdef bint backward = direction == "imgs_grad"
    cdef Switching where = NO_SWITCHES
    if is_max and (check_need(need_switches, None) or backward):
        where = OFFSETS if sizes[0] * sizes[1] <= MAX_OFFSETS and switches != "pairs" else PAIRS
    cdef KeptPlan kept = plan_call(
        tuple(img_shape[1:]), (), tuple(sizes), padding_mode, ceil_mode, count_include_pad, is_max,
        where, np.dtype(dtype).itemsize, backward, "",
    )
    cdef list found = [(cycles, name) for name, cycles in explain_plan(&kept.plan)]
    taken = min(each for each in found if each[0] is not None)
    return [(name, None if cycles is None else cycles * img_shape[1], (cycles, name) == taken)
            for cycles, name in found]


KERNELS = (pool_bc01, bprop_pool_bc01)    # of this very target

# Whoever comes through this door gets the functions of the chosen target.
if __name__ == "nnet._pool" and dispatch.TARGET != "baseline":
    pool_bc01, bprop_pool_bc01 = dispatch.load("_pool")
