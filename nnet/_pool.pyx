"""Pooling of BC01 images, forward and backward: the compiled kernels.

Read in this order: common/memory.pxi (what calls leave for others), pool/vectors.pxi (one
vector at a time), pool/geometry.pxi (what a pooling is), pool/common.pxi (windows of
2x2 pixels, and of the whole image), pool/forward.pxi and pool/backward.pxi (any
windows), pool/switches.pxi (where maxima are, checked), pool/window3.pxi,
pool/values.pxi (maxima without switches), pool/threads.pxi, and this file: the checks and the public functions.
"""

from nnet import dispatch
from nnet.geometry import PADDING_WORDS, as_padding, pool_geometry

include "kernels/common/arrays.pxi"
include "kernels/common/memory.pxi"
include "kernels/pool/vectors.pxi"
include "kernels/pool/geometry.pxi"
include "kernels/pool/common.pxi"
include "kernels/pool/forward.pxi"
include "kernels/pool/switches.pxi"
include "kernels/pool/backward.pxi"
include "kernels/pool/window3.pxi"
include "kernels/pool/values.pxi"
include "kernels/pool/threads.pxi"


# --- checks --------------------------------------------------------------------------

cdef enum:
    SMALL_WORK = 50_000   # pixels of the images below which a second thread saves nothing
    MAX_PLACES = 256      # pixels of a window, whose numbers fit in a byte

cdef object INTP = np.dtype(np.intp)
cdef object PLACES = np.dtype(np.uint8)
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
    """Whether the places of maxima are asked for."""
    if not isinstance(need_switches, (bool, np.bool_)):
        raise TypeError(f"need_switches is {need_switches!r}, expected True or False")
    if not need_switches and switches is not None:
        raise ValueError("switches is given, expected None when need_switches is false")
    return bool(need_switches)


cdef class PoolPlan:
    """What follows from arguments that fit each other."""

    cdef object geometry
    cdef Pooling job        # but for include_pad
    cdef tuple out_shape


cdef PoolPlan plan_call(tuple img_shape, tuple sizes, object padding_mode, object ceil_mode):
    cdef tuple key = (img_shape, sizes, padding_mode, int(ceil_mode))
    cdef PoolPlan plan = recent_plan(key)
    if plan is not None:
        return plan
    plan = PoolPlan()
    g = plan.geometry = pool_geometry(*img_shape[2:], *sizes, padding_mode, bool(ceil_mode))
    plan.out_shape = (*img_shape[:2], g.out_h, g.out_w)
    plan.job.height = axis_of(img_shape[2], g.out_h, sizes[0], g.stride_y, g.top, g.bottom)
    plan.job.width = axis_of(img_shape[3], g.out_w, sizes[1], g.stride_x, g.left, g.right)
    remember_plan(key, plan)
    return plan


cdef Pooling unknown_pooling(tuple img_shape, tuple out_shape) except *:
    """Of images and outputs of these sizes, whatever the windows."""
    cdef Pooling job
    job.height = axis_of(img_shape[2], out_shape[2], 1, 1, 0, 0)
    job.width = axis_of(img_shape[3], out_shape[3], 1, 1, 0, 0)
    job.include_pad = False
    return job


cdef bint may_be_shared(const Pooling *job) noexcept:
    """The same of windows that nobody knows: more than every second pixel has one."""
    cdef const Axis *height = &job.height
    cdef const Axis *width = &job.width
    return (height.out * width.out > MAX_RUN
            and (2 * height.out > height.size or 2 * width.out > width.size))


cdef PoolWork work_of(cnp.ndarray like, Py_ssize_t n_planes, Pooling job, bint is_max):
    """A call for reals of one type, without its arrays."""
    cdef PoolWork work
    memset(&work, 0, sizeof(work))
    work.n_planes, work.job, work.is_max = n_planes, job, is_max
    work.is_float = cnp.PyArray_TYPE(like) == cnp.NPY_FLOAT
    return work


cdef int threads_for(object n_threads, Py_ssize_t n_planes, double work) except 0:
    """The threads of one call: little work stays on one."""
    if n_threads is None and work < SMALL_WORK:
        return 1
    cdef int threads = dispatch.call_threads(n_threads)
    return 1 if work < SMALL_WORK or n_planes == 0 else <int>min(threads, n_planes)


cdef PoolPlan plan_backward_call(tuple img_shape, tuple sizes, object padding_mode,
                                 object ceil_mode, bint optional):
    """The plan, or None where sizes may be missing."""
    if None not in sizes:
        return plan_call(img_shape, sizes, padding_mode, ceil_mode)
    if not optional or sizes.count(None) < 4:
        raise TypeError(
            f"(pool_h, pool_w, stride_y, stride_x) is {sizes}, expected four ints"
            + (", or None for all of them" if optional else "")
        )
    as_padding(padding_mode, ("centered", *PADDING_WORDS))  # not needed, but not wrong either


cdef bint are_places(object switches):
    """Whether switches are given as places in windows."""
    return isinstance(switches, np.ndarray) and switches.dtype == PLACES


cdef tuple switches_like(object switches, tuple shape, object pool_h, object pool_w):
    """Shape and dtype of switches that belong to outputs of a shape."""
    if not are_places(switches):
        if isinstance(switches, np.ndarray) and switches.dtype != INTP:
            raise TypeError(f"switches has dtype {switches.dtype}, expected {INTP} or {PLACES}")
        return (*shape, 2), INTP
    if pool_h * pool_w > MAX_PLACES:
        raise ValueError(
            f"switches has dtype {PLACES}, expected {INTP} for windows of more than {MAX_PLACES} "
            f"pixels, which {pool_h}x{pool_w} have"
        )
    return shape, PLACES


cdef cnp.ndarray check_switches(object switches, tuple shape, object pool_h, object pool_w):
    if not isinstance(switches, np.ndarray):
        raise TypeError(f"switches is {describe(switches)}, expected a NumPy array for mode 'max'")
    check_shape(switches, "switches", switches_like(switches, shape, pool_h, pool_w)[0])
    return switches


cdef Switches switches_data(cnp.ndarray switches) except *:
    cdef Switches data
    data.pairs, data.places = NULL, NULL
    if are_places(switches):
        data.places = <uint8_t *>cnp.PyArray_DATA(switches)
    else:
        data.pairs = <cnp.npy_intp *>cnp.PyArray_DATA(switches)
    return data


cdef void refuse_outside(cnp.ndarray switches, tuple img_size, object geometry,
                         tuple sizes) except *:
    """Raise for the first switch that is outside the images."""
    cdef object wrong, rows, cols, out_h, out_w
    if not are_places(switches):
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
    cdef bint placed = check_need(need_switches, switches) and is_max
    cdef PoolPlan plan = plan_call(
        shape_of(imgs_), (pool_h, pool_w, stride_y, stride_x), padding_mode, ceil_mode
    )
    cdef tuple shape = plan.out_shape
    cdef Py_ssize_t n_planes = cnp.PyArray_DIM(imgs_, 0) * cnp.PyArray_DIM(imgs_, 1)
    cdef int threads = threads_for(n_threads, n_planes, cnp.PyArray_SIZE(imgs_))
    cdef cnp.ndarray out = check_output(poolout, "poolout", shape, imgs_.dtype)
    cdef cnp.ndarray where = None, where_work = None
    cdef PoolWork call = work_of(imgs_, n_planes, plan.job, is_max)
    call.job.include_pad = count_include_pad
    if placed:
        where_shape, where_dtype = switches_like(switches, shape, pool_h, pool_w)
        where = check_output(switches, "switches", where_shape, where_dtype)
        refuse_overlap(where, "switches", imgs, "imgs")
        refuse_overlap(where, "switches", out, "poolout")
        where_work = work_array(where)
        call.switches = switches_data(where_work)
    refuse_overlap(out, "poolout", imgs, "imgs")
    if n_planes == 0:
        return out, where
    imgs_ = contiguous(imgs_)
    cdef cnp.ndarray work = work_array(out)
    call.source, call.out = cnp.PyArray_DATA(imgs_), cnp.PyArray_DATA(work)
    run_forward(&call, threads)
    deliver(out, work)
    if placed:
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
    cdef bint is_max = check_options(mode, count_include_pad, ceil_mode, switches)
    if imgs_grad is None:
        raise TypeError("imgs_grad is None, expected an array of the images' shape")
    cdef cnp.ndarray out = check_array(imgs_grad, "imgs_grad", IMG_AXES, grad, "poolout_grad")
    cdef tuple img_shape = shape_of(out), sizes = (pool_h, pool_w, stride_y, stride_x)
    cdef PoolPlan plan = plan_backward_call(
        img_shape, sizes, padding_mode, ceil_mode, is_max and not are_places(switches)
    )
    check_shape(grad, "poolout_grad",
                (*img_shape[:2], *shape_of(grad)[2:]) if plan is None else plan.out_shape)
    cdef Py_ssize_t n_planes = cnp.PyArray_DIM(out, 0) * cnp.PyArray_DIM(out, 1)
    cdef int threads = threads_for(n_threads, n_planes, cnp.PyArray_SIZE(out))
    cdef cnp.ndarray where = None
    check_output(imgs_grad, "imgs_grad", img_shape, grad.dtype)
    refuse_overlap(out, "imgs_grad", poolout_grad, "poolout_grad")
    if is_max:
        where = check_switches(switches, shape_of(grad), pool_h, pool_w)
        refuse_overlap(out, "imgs_grad", where, "switches")
        where = contiguous(where)
    if n_planes == 0:
        return out
    cdef cnp.ndarray work = work_array(out), places = None
    cdef Pooling job = unknown_pooling(img_shape, shape_of(grad)) if plan is None else plan.job
    grad = contiguous(grad)
    cdef PoolWork call = work_of(grad, n_planes, job, is_max)
    call.job.include_pad = count_include_pad
    call.source, call.out = cnp.PyArray_DATA(grad), cnp.PyArray_DATA(work)
    if is_max:
        call.switches = switches_data(where)
        call.shared = call.is_float and (
            are_shared(&job) if plan is not None else may_be_shared(&job))
        if call.switches.pairs != NULL and (are_twos(&job) or are_threes(&job)):
            places = np.empty(cnp.PyArray_SIZE(grad), PLACES)
            call.places = <uint8_t *>cnp.PyArray_DATA(places)
    if run_backward(&call, threads):
        refuse_outside(where, img_shape[2:], None if plan is None else plan.geometry, sizes)
    deliver(out, work)
    return out


KERNELS = (pool_bc01, bprop_pool_bc01)    # of this very target

# Whoever comes through this door gets the functions of the chosen target.
if __name__ == "nnet._pool" and dispatch.TARGET != "baseline":
    pool_bc01, bprop_pool_bc01 = dispatch.load("_pool")
