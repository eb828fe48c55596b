"""The four kernels, and the convolution as one dense matrix, as plain Python loops.

Sums are taken in double precision for both dtypes. Arguments are checked lightly;
the compiled kernels check everything.
"""

import math

import numpy as np

from nnet.geometry import conv_geometry, pool_geometry
from nnet.reference.im2col import check_shape, conv_setup, grad_arrays, output_array

# NaN and infinity are values like any other here: they warn of nothing.
quiet = np.errstate(over="ignore", invalid="ignore")


# --- where a window lies on an image ------------------------------------------


def border_index(i, size, border_mode):
    """The pixel that stands at position `i` of an axis of `size` pixels.

    Positions outside the image are padding. For 4 pixels and i from -3 to 6::

        zeros      -  -  -  0 1 2 3  -  -  -      no pixel, None: it counts as zero
        nearest    0  0  0  0 1 2 3  3  3  3      the edge, again and again
        reflect    3  2  1  0 1 2 3  2  1  0      a mirror, the edge itself not repeated
        symmetric  2  1  0  0 1 2 3  3  2  1      a mirror, the edge itself repeated
        wrap       1  2  3  0 1 2 3  0  1  2      round to the other side

    Returns
    -------
    int or None
    """
    if 0 <= i < size:
        return i
    if border_mode == "zeros":
        return None
    if border_mode == "nearest":
        return 0 if i < 0 else size - 1
    if border_mode == "reflect":
        return -i if i < 0 else 2 * (size - 1) - i
    if border_mode == "symmetric":
        return -1 - i if i < 0 else 2 * size - 1 - i
    return i % size


def window_taps(y, x, geometry, img_shape, window_shape, border_mode):
    """The taps of the window of output pixel (y, x), in row-major order.

    Returns
    -------
    list of (i, j, row, col)
        Tap (i, j) of the window lies on pixel (row, col) of the image. Taps on
        zero padding are left out: they contribute nothing.
    """
    taps = []
    for i in range(window_shape[0]):
        row = y * geometry.stride_y + i * geometry.dilation_y - geometry.top
        row = border_index(row, img_shape[0], border_mode)
        for j in range(window_shape[1]):
            col = x * geometry.stride_x + j * geometry.dilation_x - geometry.left
            col = border_index(col, img_shape[1], border_mode)
            if row is not None and col is not None:
                taps.append((i, j, row, col))
    return taps


# --- convolution as loops -----------------------------------------------------


@quiet
def conv_bc01(
    imgs,  # (n_imgs, n_channels, img_h, img_w) IN
    filters,  # (n_channels / groups, n_feats, fil_h, fil_w) IN
    convout=None,  # (n_imgs, n_feats, out_h, out_w) OUT
    *,
    strides=(1, 1),
    padding_mode="same",
    border_mode="zeros",
    dilation=(1, 1),
    groups=1,
    bias=None,  # (n_feats,) IN
    activation=None,
):
    """Convolution (cross-correlation: the filters are not flipped) of a batch of images.

    out[n,k,y,x] = bias[k] + sum over c, i, j of
    imgs[n, c, y*sy + i*dy - top, x*sx + j*dx - left] * filters[c,k,i,j]

    Parameters
    ----------
    imgs, filters, bias : ndarray of float32 or float64
        Group g reads the g-th part of the channels and writes that of the features.
    strides, padding_mode, border_mode, dilation
        As in `nnet.geometry.conv_geometry`.
    activation : None or 'relu'
        'relu' replaces negative results by zero; NaN stays NaN.

    Returns
    -------
    convout : ndarray

    Raises
    ------
    ValueError
        For shapes that do not fit.
    """
    geometry = conv_setup(
        imgs, filters, groups, strides, padding_mode, border_mode, dilation, bias, activation
    )
    n_imgs, _, img_h, img_w = imgs.shape
    group_channels, n_feats, fil_h, fil_w = filters.shape
    shape = (n_imgs, n_feats, geometry.out_h, geometry.out_w)
    convout = output_array(convout, "convout", shape, imgs.dtype)
    imgs, filters = imgs.astype(np.float64), filters.astype(np.float64)

    for y in range(geometry.out_h):
        for x in range(geometry.out_w):
            taps = window_taps(y, x, geometry, (img_h, img_w), (fil_h, fil_w), border_mode)
            for n in range(n_imgs):
                for k in range(n_feats):
                    first = k // (n_feats // groups) * group_channels  # channel of k's group
                    total = 0.0 if bias is None else float(bias[k])
                    for c in range(group_channels):
                        for i, j, row, col in taps:
                            total += imgs[n, first + c, row, col] * filters[c, k, i, j]
                    if activation == "relu" and total < 0:
                        total = 0.0
                    convout[n, k, y, x] = total
    return convout


@quiet
def bprop_conv_bc01(
    imgs,  # (n_imgs, n_channels, img_h, img_w) IN
    convout_grad,  # (n_imgs, n_feats, out_h, out_w) IN
    filters,  # (n_channels / groups, n_feats, fil_h, fil_w) IN
    imgs_grad=None,  # (n_imgs, n_channels, img_h, img_w) OUT
    filters_grad=None,  # (n_channels / groups, n_feats, fil_h, fil_w) OUT
    *,
    strides=(1, 1),
    padding_mode="same",
    border_mode="zeros",
    dilation=(1, 1),
    groups=1,
    need_imgs_grad=True,
    need_filters_grad=True,
    bias_grad=None,  # (n_feats,) OUT
):
    """Gradients of `conv_bc01`.

    Every product of the forward pass, pixel * weight, sends the gradient of its
    output pixel back both ways: times the weight to the pixel, times the pixel
    to the weight. What padding repeats of the image flows back to where it came from.

    Returns
    -------
    imgs_grad : ndarray, or None with need_imgs_grad=False
    filters_grad : ndarray, or None with need_filters_grad=False
        The mean over the images, as is `bias_grad`; `imgs_grad` is not divided.

    Raises
    ------
    ValueError
        For shapes that do not fit.
    """
    imgs = imgs_grad if imgs is None and not need_filters_grad else imgs  # only its shape counts
    geometry = conv_setup(imgs, filters, groups, strides, padding_mode, border_mode, dilation)
    n_imgs, _, img_h, img_w = imgs.shape
    group_channels, n_feats, fil_h, fil_w = filters.shape
    check_shape(convout_grad, "convout_grad", (n_imgs, n_feats, geometry.out_h, geometry.out_w))
    imgs_grad, filters_grad, bias_grad = grad_arrays(
        imgs, filters, imgs_grad, filters_grad, bias_grad, need_imgs_grad, need_filters_grad
    )
    imgs, filters = imgs.astype(np.float64), filters.astype(np.float64)
    imgs_sum, filters_sum, bias_sum = (np.zeros(s) for s in (imgs.shape, filters.shape, n_feats))

    for y in range(geometry.out_h):
        for x in range(geometry.out_w):
            taps = window_taps(y, x, geometry, (img_h, img_w), (fil_h, fil_w), border_mode)
            for n in range(n_imgs):
                for k in range(n_feats):
                    first = k // (n_feats // groups) * group_channels  # channel of k's group
                    grad = float(convout_grad[n, k, y, x])
                    bias_sum[k] += grad
                    for c in range(group_channels):
                        for i, j, row, col in taps:
                            if need_filters_grad:
                                filters_sum[c, k, i, j] += grad * imgs[n, first + c, row, col]
                            if need_imgs_grad:
                                imgs_sum[n, first + c, row, col] += grad * filters[c, k, i, j]

    if need_filters_grad:
        filters_grad[...] = filters_sum / max(n_imgs, 1)
        bias_grad[...] = bias_sum / max(n_imgs, 1)
    if need_imgs_grad:
        imgs_grad[...] = imgs_sum
    return imgs_grad, filters_grad


# --- pooling as loops ---------------------------------------------------------


def pool_bc01(
    imgs,  # (n_imgs, n_channels, img_h, img_w) IN
    poolout,  # (n_imgs, n_channels, out_h, out_w) OUT, or None
    switches,  # (n_imgs, n_channels, out_h, out_w, 2) intp OUT, or without the 2 uint8, or None
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
):
    """Pooling of a batch of images: the maximum or the average of each window.

    Parameters
    ----------
    imgs : ndarray of float32 or float64
    mode : 'max' or 'avg'
        Of equal maxima the first in row-major order wins. NaN is larger than
        everything else, and of several the last one wins, as in PyTorch.
    padding_mode
        As in `nnet.geometry.pool_geometry`. Padding is never a maximum.
    count_include_pad : bool
        Divide averages by the number of all pixels, not of the real ones: padding
        counts, but what hangs over the edge in ceil_mode does not.
    need_switches : bool
        False returns None for switches.

    Returns
    -------
    poolout : ndarray
    switches : ndarray, or None for averages and where they are not needed
        Row and column, in the image, of each maximum; in an array of uint8 its place
        in the window, row * pool_w + column.

    Raises
    ------
    ValueError
        For shapes that do not fit.
    """
    sizes = pool_h, pool_w, stride_y, stride_x
    geometry = _pool_setup(imgs.shape, sizes, mode, padding_mode, ceil_mode, switches)
    n_imgs, n_channels, img_h, img_w = imgs.shape
    shape = (n_imgs, n_channels, geometry.out_h, geometry.out_w)
    poolout = output_array(poolout, "poolout", shape, imgs.dtype)
    if not need_switches and switches is not None:
        raise ValueError("switches is given, expected None when need_switches is false")
    if mode == "max":
        if _are_places(switches):
            check_shape(switches, "switches", shape)
        else:
            switches = output_array(switches, "switches", shape + (2,), np.intp)

    for y in range(geometry.out_h):
        for x in range(geometry.out_w):
            taps = window_taps(y, x, geometry, (img_h, img_w), (pool_h, pool_w), "zeros")
            n_padded = _count_padded(y, x, geometry, (img_h, img_w), (pool_h, pool_w))
            for n in range(n_imgs):
                for c in range(n_channels):
                    if mode == "max":
                        row, col = _argmax(imgs[n, c], taps)
                        poolout[n, c, y, x] = imgs[n, c, row, col]
                        if _are_places(switches):
                            top, left = y * stride_y - geometry.top, x * stride_x - geometry.left
                            switches[n, c, y, x] = (row - top) * pool_w + col - left
                        else:
                            switches[n, c, y, x] = row, col
                    else:
                        count = n_padded if count_include_pad else len(taps)
                        poolout[n, c, y, x] = _sum(imgs[n, c], taps) / count
    return poolout, switches if need_switches else None


def _count_padded(y, x, geometry, img_shape, pool_shape):
    """How many pixels of a window are within the padded image."""
    row, col = y * geometry.stride_y - geometry.top, x * geometry.stride_x - geometry.left
    end_row, end_col = img_shape[0] + geometry.bottom, img_shape[1] + geometry.right
    return min(pool_shape[0], end_row - row) * min(pool_shape[1], end_col - col)


def _argmax(plane, taps):
    """Row and column of the maximum among the taps of one window."""
    _, _, best_row, best_col = taps[0]
    best = plane[best_row, best_col]
    for _, _, row, col in taps:
        value = plane[row, col]
        if value > best or math.isnan(value):
            best, best_row, best_col = value, row, col
    return best_row, best_col


def _sum(plane, taps):
    """The sum of the taps of one window."""
    total = 0.0
    for _, _, row, col in taps:
        total += float(plane[row, col])
    return total


@quiet
def bprop_pool_bc01(
    poolout_grad,  # (n_imgs, n_channels, out_h, out_w) IN
    switches,  # (n_imgs, n_channels, out_h, out_w, 2) IN, or without the 2, or None
    imgs_grad,  # (n_imgs, n_channels, img_h, img_w) OUT
    pool_h=None,
    pool_w=None,
    stride_y=None,
    stride_x=None,
    *,
    mode="max",
    padding_mode="centered",
    count_include_pad=False,
    ceil_mode=False,
):
    """Gradient of `pool_bc01`: to the maximum, or in equal parts to the window's pixels.

    Where windows overlap, their gradients add up. Maxima are where `switches`
    says: unless these are places in windows, sizes of window and stride only serve
    to check the shapes.

    Returns
    -------
    imgs_grad : ndarray

    Raises
    ------
    ValueError
        For shapes that do not fit.
    TypeError
        If `imgs_grad` is None: poolout_grad does not tell the size of the images.
    """
    if imgs_grad is None:
        raise TypeError("imgs_grad is None, expected an array of the images' shape")
    n_imgs, n_channels, out_h, out_w = poolout_grad.shape
    if mode != "max" or pool_h is not None:
        sizes = pool_h, pool_w, stride_y, stride_x
        geometry = _pool_setup(imgs_grad.shape, sizes, mode, padding_mode, ceil_mode, switches)
        shape = imgs_grad.shape[:2] + (geometry.out_h, geometry.out_w)
        check_shape(poolout_grad, "poolout_grad", shape)
    if mode == "max":
        axes = () if _are_places(switches) else (2,)
        check_shape(switches, "switches", poolout_grad.shape + axes)
    imgs_sum = np.zeros(imgs_grad.shape)

    for y in range(out_h):
        for x in range(out_w):
            if mode == "avg":
                img_shape = imgs_grad.shape[2:]
                taps = window_taps(y, x, geometry, img_shape, (pool_h, pool_w), "zeros")
                n_padded = _count_padded(y, x, geometry, img_shape, (pool_h, pool_w))
                count = n_padded if count_include_pad else len(taps)
            for n in range(n_imgs):
                for c in range(n_channels):
                    grad = float(poolout_grad[n, c, y, x])
                    if mode == "max":
                        if _are_places(switches):
                            row, col = divmod(int(switches[n, c, y, x]), pool_w)
                            row += y * stride_y - geometry.top
                            col += x * stride_x - geometry.left
                        else:
                            row, col = switches[n, c, y, x]
                        imgs_sum[n, c, row, col] += grad
                    else:
                        for _, _, row, col in taps:
                            imgs_sum[n, c, row, col] += grad / count
    imgs_grad[...] = imgs_sum
    return imgs_grad


def _are_places(switches):
    """Whether switches are places in windows, not rows and columns in images."""
    return switches is not None and switches.dtype == np.uint8


def _pool_setup(img_shape, sizes, mode, padding_mode, ceil_mode, switches):
    """The geometry of a pooling, after a light check of its arguments."""
    if mode not in ("max", "avg"):
        raise ValueError(f"mode is {mode!r}, expected 'max' or 'avg'")
    if mode == "avg" and switches is not None:
        raise TypeError("switches is given, expected None for mode 'avg'")
    if len(img_shape) != 4:
        raise ValueError(f"images have shape {img_shape}, expected 4 axes")
    _, _, img_h, img_w = img_shape
    pool_h, pool_w, stride_y, stride_x = sizes
    return pool_geometry(img_h, img_w, pool_h, pool_w, stride_y, stride_x, padding_mode, ceil_mode)


# --- convolution as one dense matrix ------------------------------------------


def conv_matrix(
    filter,
    img_shape,
    *,
    strides=(1, 1),
    padding_mode="valid",
    border_mode="zeros",
    dilation=(1, 1),
):
    """A convolution of one image with one filter, written as one dense matrix.

    A convolution is linear: each output pixel is a weighted sum of the image's
    pixels. Row y * out_w + x of the matrix holds the weights of output pixel
    (y, x), nearly all of them zero, the others the filter's, shared by all rows::

        conv_matrix(filter, img.shape) @ img.ravel() == the convolution, flattened

    and its transpose takes a gradient back from the output to the image.

    Parameters
    ----------
    filter : ndarray, shape (fil_h, fil_w)
    img_shape : (img_h, img_w)
    strides, padding_mode, border_mode, dilation
        As in `nnet.geometry.conv_geometry`, but 'valid' by default.

    Returns
    -------
    ndarray, shape (out_h * out_w, img_h * img_w)

    Raises
    ------
    ValueError
        For a filter that has not two axes or does not fit.
    """
    filter = np.asarray(filter)
    if filter.ndim != 2:
        raise ValueError(f"filter has shape {filter.shape}, expected 2 axes")
    img_h, img_w = img_shape
    fil_h, fil_w = filter.shape
    geometry = conv_geometry(
        img_h, img_w, fil_h, fil_w, strides, padding_mode, border_mode, dilation
    )
    shape = (geometry.out_h * geometry.out_w, img_h * img_w)
    matrix = np.zeros(shape, filter.dtype)
    for y in range(geometry.out_h):
        for x in range(geometry.out_w):
            taps = window_taps(y, x, geometry, img_shape, filter.shape, border_mode)
            for i, j, row, col in taps:
                matrix[y * geometry.out_w + x, row * img_w + col] += filter[i, j]
    return matrix
