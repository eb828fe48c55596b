"""The convolution of loops.py as NumPy matrix products, one per group.

The light checks at the end of this file serve loops.py too.
"""

import math
from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from nnet.geometry import conv_geometry

# What np.pad calls the borders.
NUMPY_PAD_MODES: dict[str, Literal["constant", "edge", "reflect", "wrap", "symmetric"]] = {
    "zeros": "constant",
    "nearest": "edge",
    "reflect": "reflect",
    "wrap": "wrap",
    "symmetric": "symmetric",
}


def conv_bc01_im2col(
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
    """`conv_bc01` as a matrix product: windows are rows, features are columns.

    Arguments, result and errors are those of `conv_bc01`. The windows overlap,
    so their matrix is about fil_h * fil_w times as large as the images.
    """
    geometry = conv_setup(
        imgs, filters, groups, strides, padding_mode, border_mode, dilation, bias, activation
    )
    shape = (imgs.shape[0], filters.shape[1], geometry.out_h, geometry.out_w)
    convout = output_array(convout, "convout", shape, imgs.dtype)
    windows = _windows(imgs, geometry, filters.shape[2:], border_mode)
    for channels, feats in _group_slices(imgs.shape[1], filters.shape[1], groups):
        product = _rows(windows[:, :, :, channels], 3) @ _filter_columns(filters[:, feats])
        convout[:, feats] = _as_images(product, convout[:, feats].shape)
    if bias is not None:
        convout += bias[:, np.newaxis, np.newaxis]
    if activation == "relu":
        np.maximum(convout, 0, out=convout)
    return convout


def bprop_conv_bc01_im2col(
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
    """`bprop_conv_bc01` as two matrix products.

    From out = windows @ weights follow windows.T @ out_grad, the gradient of
    the weights, and out_grad @ weights.T, that of the windows, which `_fold`
    adds up to images again. Arguments, results and errors are those of
    `bprop_conv_bc01`.
    """
    imgs = imgs_grad if imgs is None and not need_filters_grad else imgs  # only its shape counts
    geometry = conv_setup(imgs, filters, groups, strides, padding_mode, border_mode, dilation)
    n_imgs, n_channels = imgs.shape[:2]
    group_channels, n_feats, fil_h, fil_w = filters.shape
    shape = (n_imgs, n_feats, geometry.out_h, geometry.out_w)
    check_shape(convout_grad, "convout_grad", shape)
    imgs_grad, filters_grad, bias_grad = grad_arrays(
        imgs, filters, imgs_grad, filters_grad, bias_grad, need_imgs_grad, need_filters_grad
    )
    windows = _windows(imgs, geometry, (fil_h, fil_w), border_mode)
    windows_grad = np.empty(windows.shape, imgs.dtype)

    for channels, feats in _group_slices(n_channels, n_feats, groups):
        out_grad = _rows(convout_grad[:, feats].transpose(0, 2, 3, 1), 3)
        if need_filters_grad:
            product = _rows(windows[:, :, :, channels], 3).T @ out_grad / max(n_imgs, 1)
            product = product.reshape(group_channels, fil_h, fil_w, n_feats // groups)
            filters_grad[:, feats] = product.transpose(0, 3, 1, 2)
        if need_imgs_grad:
            group_grad = out_grad @ _filter_columns(filters[:, feats]).T
            windows_grad[:, :, :, channels] = group_grad.reshape(
                n_imgs, geometry.out_h, geometry.out_w, group_channels, fil_h, fil_w
            )
    if need_filters_grad:
        bias_grad[...] = convout_grad.sum(axis=(0, 2, 3)) / max(n_imgs, 1)
    if need_imgs_grad:
        imgs_grad[...] = _fold(windows_grad, geometry, imgs.shape, border_mode)
    return imgs_grad, filters_grad


# --- between images and matrices ----------------------------------------------


def _windows(imgs, geometry, fil_shape, border_mode):
    """What the filter sees at each output pixel: (n, out_h, out_w, n_channels, fil_h, fil_w)."""
    g = geometry
    pads = ((0, 0), (0, 0), (g.top, g.bottom), (g.left, g.right))
    padded = np.pad(imgs, pads, mode=NUMPY_PAD_MODES[border_mode])
    extent = (
        g.dilation_y * (fil_shape[0] - 1) + 1,
        g.dilation_x * (fil_shape[1] - 1) + 1,
    )
    windows = sliding_window_view(padded, extent, axis=(2, 3))
    windows = windows[:, :, :: g.stride_y, :: g.stride_x, :: g.dilation_y, :: g.dilation_x]
    return windows.transpose(0, 2, 3, 1, 4, 5)


def _fold(windows_grad, geometry, img_shape, border_mode):
    """The reverse of `_windows`: adds each window's gradient to the pixels it came from."""
    g = geometry
    n_imgs, n_channels, img_h, img_w = img_shape
    padded = np.zeros(
        (n_imgs, n_channels, g.top + img_h + g.bottom, g.left + img_w + g.right),
        windows_grad.dtype,
    )
    for i in range(windows_grad.shape[4]):
        for j in range(windows_grad.shape[5]):
            y, x = i * g.dilation_y, j * g.dilation_x
            rows = slice(y, y + g.out_h * g.stride_y, g.stride_y)
            cols = slice(x, x + g.out_w * g.stride_x, g.stride_x)
            padded[:, :, rows, cols] += windows_grad[..., i, j].transpose(0, 3, 1, 2)
    if border_mode == "zeros":
        return padded[:, :, g.top : g.top + img_h, g.left : g.left + img_w]
    # Padding the pixels' own numbers tells which pixel each place in the padded image shows.
    img_rows = np.pad(np.arange(img_h), (g.top, g.bottom), mode=NUMPY_PAD_MODES[border_mode])
    img_cols = np.pad(np.arange(img_w), (g.left, g.right), mode=NUMPY_PAD_MODES[border_mode])
    imgs_grad = np.zeros(img_shape, windows_grad.dtype)
    pixels: Any = np.s_[:, :, img_rows[:, np.newaxis], img_cols]  # no type that NumPy's stubs know
    np.add.at(imgs_grad, pixels, padded)
    return imgs_grad


def _group_slices(n_channels, n_feats, groups):
    """For each group, the slice of its input channels and that of its features."""
    c, k = n_channels // groups, n_feats // groups
    return [(slice(g * c, (g + 1) * c), slice(g * k, (g + 1) * k)) for g in range(groups)]


def _rows(array, n_axes):
    """A matrix whose rows run over the first axes and whose columns over the others."""
    shape = array.shape
    return array.reshape(math.prod(shape[:n_axes]), math.prod(shape[n_axes:]))


def _filter_columns(filters):
    """A matrix with one column per feature."""
    return _rows(filters.transpose(0, 2, 3, 1), 3)


def _as_images(product, shape):
    """(n, k, h, w) from a matrix with one row per pixel and one column per feature."""
    n_imgs, n_feats, out_h, out_w = shape
    return product.reshape(n_imgs, out_h, out_w, n_feats).transpose(0, 3, 1, 2)


# --- light checks -------------------------------------------------------------


def conv_setup(
    imgs, filters, groups, strides, padding_mode, border_mode, dilation, bias=None, activation=None
):
    """The geometry of a convolution, after a light check of its arguments."""
    for name, array in (("imgs", imgs), ("filters", filters)):
        if array.ndim != 4:
            raise ValueError(f"{name} has shape {array.shape}, expected 4 axes")
    _, n_channels, img_h, img_w = imgs.shape
    _, n_feats, fil_h, fil_w = filters.shape
    if groups < 1 or n_channels % groups or n_feats % groups:
        raise ValueError(
            f"groups is {groups}, expected a divisor of {n_channels} channels "
            f"and {n_feats} features"
        )
    check_shape(filters, "filters", (n_channels // groups, n_feats, fil_h, fil_w))
    if bias is not None:
        check_shape(bias, "bias", (n_feats,))
    if activation not in (None, "relu"):
        raise ValueError(f"activation is {activation!r}, expected None or 'relu'")
    return conv_geometry(img_h, img_w, fil_h, fil_w, strides, padding_mode, border_mode, dilation)


def check_shape(array, name, shape):
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}")


def output_array(array, name, shape, dtype):
    """The output array itself, or a new one for None."""
    if array is None:
        return np.empty(shape, dtype)
    check_shape(array, name, shape)
    return array


def grad_arrays(
    imgs, filters, imgs_grad, filters_grad, bias_grad, need_imgs_grad, need_filters_grad
):
    """The three output arrays of a backward pass; None for those that are not needed."""
    for given, array, needed in (
        ("imgs_grad", imgs_grad, "need_imgs_grad" if not need_imgs_grad else None),
        ("filters_grad", filters_grad, "need_filters_grad" if not need_filters_grad else None),
        ("bias_grad", bias_grad, "need_filters_grad" if not need_filters_grad else None),
    ):
        if needed is not None and array is not None:
            raise ValueError(f"{given} is given, expected None when {needed} is false")
    if need_imgs_grad:
        imgs_grad = output_array(imgs_grad, "imgs_grad", imgs.shape, imgs.dtype)
    if need_filters_grad:
        filters_grad = output_array(filters_grad, "filters_grad", filters.shape, imgs.dtype)
        bias_grad = output_array(bias_grad, "bias_grad", filters.shape[1:2], imgs.dtype)
    return imgs_grad, filters_grad, bias_grad
