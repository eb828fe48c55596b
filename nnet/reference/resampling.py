"""Layers that make images larger, as plain loops: transposed convolution, borders, upsampling.

Each is linear: its gradient runs the same loops the other way. Sums are taken in double.
"""

import numpy as np

from nnet.geometry import conv_transpose_geometry
from nnet.reference.im2col import check_shape
from nnet.reference.loops import border_index


def conv_transpose_bc01(
    imgs,  # (n_imgs, n_channels, img_h, img_w) IN
    filters,  # (n_channels, n_feats / groups, fil_h, fil_w) IN
    *,
    strides=(1, 1),
    padding_mode="same",
    output_padding=(0, 0),
    dilation=(1, 1),
    groups=1,
    bias=None,  # (n_feats,) IN
):
    """Transposed convolution: every pixel adds its value times a filter to the output.

    It is what `bprop_conv_bc01` gives as gradient of the images, so that its own gradient by its
    images is a convolution. Arguments as in `nnet.geometry.conv_transpose_geometry`.

    Returns
    -------
    ndarray (n_imgs, n_feats, out_h, out_w)
    """
    n_imgs, n_channels, img_h, img_w = imgs.shape
    _, group_feats, fil_h, fil_w = filters.shape
    check_shape(filters, "filters", (n_channels, group_feats, fil_h, fil_w))
    g = conv_transpose_geometry(
        img_h, img_w, fil_h, fil_w, strides, padding_mode, output_padding, dilation
    )
    n_feats = group_feats * groups
    out = np.zeros((n_imgs, n_feats, g.out_h, g.out_w))
    if bias is not None:
        out += bias[:, np.newaxis, np.newaxis]
    for n, c, y, x in np.ndindex(imgs.shape):
        first = c // (n_channels // groups) * group_feats  # feature of c's group
        for k, i, j in np.ndindex(group_feats, fil_h, fil_w):
            row = y * g.stride_y + i * g.dilation_y - g.top
            col = x * g.stride_x + j * g.dilation_x - g.left
            if 0 <= row < g.out_h and 0 <= col < g.out_w:
                out[n, first + k, row, col] += float(imgs[n, c, y, x]) * float(filters[c, k, i, j])
    return out.astype(imgs.dtype)


def pad_bc01(
    imgs,  # (n_imgs, n_channels, img_h, img_w) IN
    pads,  # ((top, bottom), (left, right))
    border_mode="zeros",
    value=0.0,
):
    """Images with a border; `value` is what 'zeros' puts there."""
    (top, bottom), (left, right) = pads
    n_imgs, n_channels, img_h, img_w = imgs.shape
    out = np.full((n_imgs, n_channels, top + img_h + bottom, left + img_w + right), value)
    for row, col, i, j in _border_pairs(out.shape, imgs.shape, top, left, border_mode):
        out[:, :, row, col] = imgs[:, :, i, j]
    return out.astype(imgs.dtype)


def bprop_pad_bc01(
    padded_grad,  # (n_imgs, n_channels, top + img_h + bottom, left + img_w + right) IN
    pads,
    border_mode="zeros",
):
    """The gradient of `pad_bc01`: what was copied adds up where it came from."""
    (top, bottom), (left, right) = pads
    n_imgs, n_channels, out_h, out_w = padded_grad.shape
    imgs_grad = np.zeros((n_imgs, n_channels, out_h - top - bottom, out_w - left - right))
    shapes = padded_grad.shape, imgs_grad.shape
    for row, col, i, j in _border_pairs(*shapes, top, left, border_mode):
        imgs_grad[:, :, i, j] += padded_grad[:, :, row, col]
    return imgs_grad.astype(padded_grad.dtype)


def _border_pairs(padded_shape, img_shape, top, left, border_mode):
    """(row, col, i, j): pixel (i, j) of the image stands at (row, col) of the padded one."""
    for row, col in np.ndindex(padded_shape[2:]):
        i = border_index(row - top, img_shape[2], border_mode)
        j = border_index(col - left, img_shape[3], border_mode)
        if i is not None and j is not None:
            yield row, col, i, j


def upsample_bc01(
    imgs,  # (n_imgs, n_channels, img_h, img_w) IN
    factor,  # (y, x)
    mode="nearest",
):
    """Images that are larger by whole factors.

    Pixels are squares, whose centres are interpolated for 'bilinear'; beyond the outermost
    centres the edge goes on.
    """
    n_imgs, n_channels, img_h, img_w = imgs.shape
    out = np.zeros((n_imgs, n_channels, img_h * factor[0], img_w * factor[1]))
    for row, col, i, j, weight in _upsampling_weights(imgs.shape, factor, mode):
        out[:, :, row, col] += weight * imgs[:, :, i, j]
    return out.astype(imgs.dtype)


def bprop_upsample_bc01(
    out_grad,  # (n_imgs, n_channels, img_h * factor_y, img_w * factor_x) IN
    factor,
    mode="nearest",
):
    """The gradient of `upsample_bc01`."""
    n_imgs, n_channels, out_h, out_w = out_grad.shape
    imgs_grad = np.zeros((n_imgs, n_channels, out_h // factor[0], out_w // factor[1]))
    for row, col, i, j, weight in _upsampling_weights(imgs_grad.shape, factor, mode):
        imgs_grad[:, :, i, j] += weight * out_grad[:, :, row, col]
    return imgs_grad.astype(out_grad.dtype)


def _upsampling_weights(img_shape, factor, mode):
    """(row, col, i, j, weight): how much output pixel (row, col) takes of image pixel (i, j)."""
    img_h, img_w = img_shape[2:]
    for row, col in np.ndindex(img_h * factor[0], img_w * factor[1]):
        for i, row_weight in _sources(row, img_h, factor[0], mode):
            for j, col_weight in _sources(col, img_w, factor[1], mode):
                yield row, col, i, j, row_weight * col_weight


def _sources(position, size, factor, mode):
    """Which pixels of an axis a larger one takes at a position, and how much of each."""
    if mode == "nearest":
        return [(position // factor, 1.0)]
    at = (position + 0.5) / factor - 0.5  # of its centre, where pixel i has its own at i
    at = min(max(at, 0.0), size - 1.0)
    before = int(at)
    after = min(before + 1, size - 1)
    return [(before, 1 - (at - before)), (after, at - before)]
