"""Convolution of BC01 images, forward and backward: the compiled kernels.

What is included is in the order of reading; kernels/README.md has a map. This file has the
public functions: they check their arguments, find their plan and run it.
"""

from math import gcd

from nnet import dispatch
from nnet._runtime cimport parallel_for
from nnet.geometry import BORDER_MODES, conv_geometry

include "kernels/common/arrays.pxi"
include "kernels/common/memory.pxi"
include "kernels/common/simd.pxi"
include "kernels/conv/axes.pxi"
include "kernels/conv/packing.pxi"
include "kernels/conv/pieces.pxi"
include "kernels/conv/correlation.pxi"
include "kernels/conv/transpose.pxi"
include "kernels/conv/direct_pixels.pxi"
include "kernels/conv/direct_features.pxi"
include "kernels/conv/features_packing.pxi"
include "kernels/conv/winograd.pxi"
include "kernels/conv/strips.pxi"
include "kernels/conv/rows.pxi"
include "kernels/conv/implementations.pxi"
include "kernels/common/follow.pxi"
include "kernels/conv/step.pxi"
include "kernels/conv/gradient_leaf.pxi"
include "kernels/conv/gradient_pixels.pxi"
include "kernels/conv/gradient_depthwise.pxi"
include "kernels/conv/gradient_features.pxi"
include "kernels/conv/gradient_winograd.pxi"
include "kernels/conv/gradient.pxi"


# --- the public functions -------------------------------------------------------

cdef object MAX_PADDED = 2**40  # values in a stack of padded channels: no machine holds more


cdef object check_arguments(tuple imgs_shape, tuple filters_shape, object groups, object strides,
                            object padding_mode, object border_mode, object dilation):
    """The geometry of shapes that fit each other."""
    n_channels, (per_group, n_feats) = imgs_shape[1], filters_shape[:2]
    if n_channels % groups or n_feats % groups:
        raise ValueError(
            f"groups is {groups}, expected a divisor of {n_channels} channels and "
            f"{n_feats} features"
        )
    if per_group != n_channels // groups:
        raise ValueError(
            f"filters has shape {filters_shape}, expected {n_channels // groups} along its "
            f"first axis for {n_channels} channels in groups of {groups}"
        )
    (img_h, img_w), (fil_h, fil_w) = imgs_shape[2:], filters_shape[2:]
    g = conv_geometry(
        img_h, img_w, fil_h, fil_w, strides, padding_mode, border_mode, dilation
    )
    # Nothing below this point checks the sizes of buffers for overflow.
    padded = max(n_channels, n_feats)
    padded *= img_h + g.top + g.bottom + 2 * g.dilation_y * (fil_h - 1) + fil_h
    padded *= img_w + g.left + g.right + 2 * g.dilation_x * (fil_w - 1) + fil_w
    if padded > MAX_PADDED:
        raise ValueError(
            f"an image with padding and filters would take {padded} values, "
            "too large for any memory"
        )
    return g


cdef object as_count(object value, str name):
    if type(value) is not int:
        try:
            value = value.__index__()
        except (AttributeError, TypeError):
            raise TypeError(f"{name} is {value!r}, expected an integer") from None
    if value < 1:
        raise ValueError(f"{name} is {value}, expected at least 1")
    return value


cdef enum:
    SMALL_WORK = 1_000_000    # multiply-adds below which a second thread costs more than it saves


cdef int threads_for(object n_threads, Py_ssize_t n_imgs, CorrelationPlan plan) except 0:
    """The threads of one call: few multiply-adds stay on one."""
    cdef double work = n_imgs * plan.products
    if n_threads is None and work < SMALL_WORK:
        return 1
    n_threads = dispatch.call_threads(n_threads)
    return 1 if work < SMALL_WORK else n_threads


cdef void *data_of(cnp.ndarray array) noexcept:
    """Its memory; none of None."""
    return NULL if array is None else cnp.PyArray_DATA(array)


def conv_bc01(
    imgs,           # (n_imgs, n_channels, img_h, img_w)                    IN
    filters,        # (n_channels // groups, n_feats, fil_h, fil_w)         IN
    convout=None,   # (n_imgs, n_feats, out_h, out_w)                       OUT
    *,
    strides=(1, 1),
    padding_mode="same",
    border_mode="zeros",
    dilation=(1, 1),
    groups=1,
    bias=None,      # (n_feats,)                                            IN
    activation=None,
    algorithm=None,
    n_threads=None,
):
    """Convolve images with filters (cross-correlation: no flip).

    out[n, k, y, x] = bias[k] + sum over c, i, j of
    imgs[n, c, y*sy + i*dy - top, x*sx + j*dx - left] * filters[c, k, i, j]

    Parameters
    ----------
    imgs : ndarray (n_imgs, n_channels, img_h, img_w), float32 or float64
    filters : ndarray (n_channels // groups, n_feats, fil_h, fil_w), same dtype
    convout : ndarray (n_imgs, n_feats, out_h, out_w), same dtype, optional
        Filled and returned; None allocates it. It may share memory with no input.
    strides, dilation : int or (int, int)
        Steps between output pixels and between filter taps: (y, x).
    padding_mode : {'same', 'valid', 'full'}, int, (y, x) or ((top, bottom), (left, right))
    border_mode : {'zeros', 'nearest', 'reflect', 'wrap', 'symmetric'}
        What the padding holds; 'symmetric' repeats the edge pixel, 'reflect' does not.
    groups : int
        Feature group g of K/groups features sees channel group g only.
    bias : ndarray (n_feats,), same dtype, optional
    activation : {None, 'relu'}
        Applied to the result.
    algorithm : {None, 'direct_pixels', 'direct_features', 'winograd', 'depthwise', 'direct'}
        'direct_pixels' keeps pixels in the lanes of vectors, 'direct_features' features.
        'winograd' is Winograd's minimal filtering F(2x2, 3x3), which multiplies about half as
        often; it wants filters of at least 2 x 2, and strides of 1, or 2 without dilation.
        'depthwise' is for one feature a group. None takes the one that should be fastest, and
        'winograd' only for sums that are long enough for it to be as accurate as the others;
        'direct' is the fastest of these. `nnet.explain` says which accept a call. ('planes' and
        'pixels' are old names of the first two, until 0.4.)
    n_threads : int, optional
        Default: `nnet.get_num_threads()`. It changes no bit of the result.

    Returns
    -------
    convout : ndarray

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and values, and for types, that do not fit.

    Notes
    -----
    An infinite or NaN pixel reaches those outputs that read it, and
    no other; but 'winograd' adds and subtracts pixels before it multiplies them: there an
    infinite pixel, or one so large that sums overflow, may turn these outputs into
    NaN, and with strides or with a filter of even height or width their neighbours as well.
    An infinite or NaN weight that meets padding makes NaN of it, or leaves it out.
    """
    cdef cnp.ndarray imgs_ = check_array(imgs, "imgs", "n_imgs, n_channels, img_h, img_w", None, "")
    cdef cnp.ndarray filters_ = check_array(
        filters, "filters", "n_channels // groups, n_feats, fil_h, fil_w", imgs_, "imgs"
    )
    cdef cnp.ndarray bias_ = None
    cdef CorrelationPlan plan = correlation_plan(
        False, imgs_, filters_, groups, strides, padding_mode, border_mode, dilation, algorithm)
    if bias is not None:
        bias_ = check_array(bias, "bias", "n_feats", imgs_, "imgs")
        check_shape(bias_, "bias", plan.out_shape[:1])
        bias_ = contiguous(bias_)
    if activation is not None and not isinstance(activation, str):
        raise TypeError(f"activation is {activation!r}, expected None or 'relu'")
    if activation is not None and activation != "relu":
        raise ValueError(f"activation is {activation!r}, expected None or 'relu'")
    cdef Py_ssize_t n_imgs = cnp.PyArray_DIM(imgs_, 0)
    cdef int threads = threads_for(n_threads, n_imgs, plan)
    cdef cnp.ndarray out = check_output(
        convout, "convout", (n_imgs, *plan.out_shape), imgs_.dtype)
    refuse_overlap(out, "convout", imgs_, "imgs")
    refuse_overlap(out, "convout", filters_, "filters")
    refuse_overlap(out, "convout", bias, "bias")
    if cnp.PyArray_SIZE(out) == 0:
        return out
    imgs_, filters_ = contiguous(imgs_), contiguous(filters_)
    cdef cnp.ndarray work = work_array(out)
    cdef Workspace space = acquire_workspace()
    run_correlation(plan, imgs_, filters_, bias_, work, activation is not None, threads, space)
    space.release()
    deliver(out, work)
    return out


cdef void run_correlation(CorrelationPlan plan, cnp.ndarray imgs, cnp.ndarray filters,
                          cnp.ndarray bias, cnp.ndarray out, bint with_relu, int n_threads,
                          Workspace space) except *:
    """Run a plan on arrays that are contiguous."""
    cdef Correlating job = plan.correlating()
    cdef Py_ssize_t n_imgs = cnp.PyArray_DIM(imgs, 0)
    cdef void *packed = space.take(plan.packed_bytes())
    cdef void *scratch = space.take(correlation_scratch(&job, n_threads))
    cdef const void *imgs_data = cnp.PyArray_DATA(imgs)
    cdef void *out_data = cnp.PyArray_DATA(out)
    plan.pack(cnp.PyArray_DATA(filters), data_of(bias), packed)
    job.packed, job.with_relu = packed, with_relu
    with nogil:
        correlate(&job, imgs_data, out_data, n_imgs, scratch, n_threads)


def bprop_conv_bc01(
    imgs,                # (n_imgs, n_channels, img_h, img_w)               IN
    convout_grad,        # (n_imgs, n_feats, out_h, out_w)                  IN
    filters,             # (n_channels // groups, n_feats, fil_h, fil_w)    IN
    imgs_grad=None,      # (n_imgs, n_channels, img_h, img_w)               OUT
    filters_grad=None,   # (n_channels // groups, n_feats, fil_h, fil_w)    OUT
    *,
    strides=(1, 1),
    padding_mode="same",
    border_mode="zeros",
    dilation=(1, 1),
    groups=1,
    need_imgs_grad=True,
    need_filters_grad=True,
    bias_grad=None,      # (n_feats,)                                       OUT
    algorithm=None,
    n_threads=None,
):
    """Back-propagate through `conv_bc01`.

    Parameters
    ----------
    imgs, filters : ndarray
        As given to `conv_bc01`, with the same strides, padding_mode,
        border_mode, dilation and groups. The gradient of the images does not depend on
        the images: without that of the filters, imgs may be None if imgs_grad is given.
    convout_grad : ndarray (n_imgs, n_feats, out_h, out_w), same dtype
        Gradient of each image's loss with respect to the convolution's output.
    imgs_grad, filters_grad : ndarray of the shape of imgs and filters, optional
        Filled and returned; None allocates them.
    need_imgs_grad, need_filters_grad : bool
        False returns None for imgs_grad or filters_grad and does none of its work; giving
        that array as well is a ValueError. Without filters_grad there is no bias_grad.
    bias_grad : ndarray (n_feats,), same dtype, optional
        If given, filled with the gradient of the bias, the mean over the images.
    algorithm : str, optional
        As in `conv_bc01`, if the gradient of the images is wanted; the gradient of the filters is
        a sum over pixels and images, which None transforms wherever that is faster. Where it has
        no such form it takes the fastest direct one, with 'winograd' for dilation.
        'direct_features_plain' and 'direct_features_swapped' are forms of it alone.
    n_threads : int, optional
        Default: `nnet.get_num_threads()`. It changes no bit of the results.

    Returns
    -------
    imgs_grad : ndarray (n_imgs, n_channels, img_h, img_w) or None
        Per image, undivided.
    filters_grad : ndarray (n_channels // groups, n_feats, fil_h, fil_w) or None
        The mean over the images.

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and values, and for types, that do not fit.

    Notes
    -----
    An infinite or NaN pixel may turn more of the filter gradients of its
    channel into NaN than those that it takes part in. What `conv_bc01` says of
    infinite and NaN pixels is true of the output gradient and `imgs_grad`, where
    neighbours are a stride apart.
    """
    cdef bint is_unread = imgs is None and not need_filters_grad and need_imgs_grad
    cdef str imgs_name = "imgs_grad" if is_unread else "imgs"
    cdef cnp.ndarray imgs_ = check_array(
        imgs_grad if is_unread else imgs, imgs_name, "n_imgs, n_channels, img_h, img_w", None, ""
    )
    cdef cnp.ndarray grad = check_array(
        convout_grad, "convout_grad", "n_imgs, n_feats, out_h, out_w", imgs_, imgs_name
    )
    cdef cnp.ndarray filters_ = check_array(
        filters, "filters", "n_channels // groups, n_feats, fil_h, fil_w", imgs_, imgs_name
    )
    # Of the forward pass there is a plan already.
    cdef str gradient_name = gradient_algorithm(algorithm)
    cdef CorrelationPlan plan = correlation_plan(
        need_imgs_grad, imgs_, filters_, groups, strides, padding_mode, border_mode, dilation,
        algorithm if need_imgs_grad and gradient_name not in GRADIENT_ONLY else None)
    cdef GradientPlan gradient = None
    if need_filters_grad:
        gradient = gradient_plan(plan.img_shape, plan.filters_shape, plan.groups, plan.geometry,
                                 plan.border, gradient_name, cnp.PyArray_ITEMSIZE(imgs_))
    cdef Py_ssize_t n_imgs = cnp.PyArray_DIM(imgs_, 0)
    check_shape(grad, "convout_grad", (n_imgs, *plan.out_shape))
    cdef int threads = threads_for(n_threads, n_imgs, plan)
    cdef tuple imgs_shape = (n_imgs, *plan.img_shape), filters_shape = plan.filters_shape
    if not need_imgs_grad and imgs_grad is not None:
        raise ValueError("imgs_grad is given, expected None when need_imgs_grad is false")
    for name, out in () if need_filters_grad else (
            ("filters_grad", filters_grad), ("bias_grad", bias_grad)):
        if out is not None:
            raise ValueError(f"{name} is given, expected None when need_filters_grad is false")
    cdef cnp.ndarray filters_out = None, imgs_out = None, bias_out = None
    if need_filters_grad:
        filters_out = check_output(filters_grad, "filters_grad", filters_shape, imgs_.dtype)
    if need_imgs_grad:
        imgs_out = check_output(imgs_grad, "imgs_grad", imgs_shape, imgs_.dtype)
    if bias_grad is not None:
        bias_out = check_output(bias_grad, "bias_grad", filters_shape[1:2], imgs_.dtype)
    cdef tuple outputs = (
        ("filters_grad", filters_out), ("imgs_grad", imgs_out), ("bias_grad", bias_out)
    )
    cdef list others = [("convout_grad", grad), ("filters", filters_)]
    if not is_unread:
        others.append(("imgs", imgs_))
    for name, out in outputs:
        if out is not None:
            for other_name, other in others:
                refuse_overlap(out, name, other, other_name)
            others.append((name, out))
    cdef tuple results = (imgs_out, filters_out)
    if cnp.PyArray_DIM(imgs_, 0) == 0:
        for _, out in outputs:
            if out is not None:
                out.fill(0)
        return results
    if need_filters_grad:
        imgs_ = contiguous(imgs_)
    grad, filters_ = contiguous(grad), contiguous(filters_)
    cdef cnp.ndarray imgs_work = work_array(imgs_out), bias_work = work_array(bias_out)
    cdef cnp.ndarray filters_work = work_array(filters_out)
    # The images first: with padding they may want more memory than there is.
    cdef Workspace space = acquire_workspace()
    if need_imgs_grad:
        run_correlation(plan, grad, filters_, None, imgs_work, False, threads, space)
    if need_filters_grad:
        if cnp.PyArray_TYPE(imgs_) == cnp.NPY_FLOAT:
            conv_filters_gradient[float](
                <const float *>cnp.PyArray_DATA(imgs_), <const float *>cnp.PyArray_DATA(grad),
                <float *>data_of(filters_work), <float *>data_of(bias_work), n_imgs, gradient,
                threads, space)
        else:
            conv_filters_gradient[double](
                <const double *>cnp.PyArray_DATA(imgs_), <const double *>cnp.PyArray_DATA(grad),
                <double *>data_of(filters_work), <double *>data_of(bias_work), n_imgs, gradient,
                threads, space)
    space.release()
    deliver(imgs_out, imgs_work)
    deliver(filters_out, filters_work)
    deliver(bias_out, bias_work)
    return results


KERNELS = (conv_bc01, bprop_conv_bc01, explain_conv)  # of this very target
if __name__ == "nnet._conv" and dispatch.TARGET != "baseline":
    # The public door leads to the chosen target.
    conv_bc01, bprop_conv_bc01, explain_conv = dispatch.load("_conv")
