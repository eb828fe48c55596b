"""Images through affine maps, as plain Python loops."""

import math

import numpy as np

from nnet.reference.loops import border_index


def warp(images, maps, fill=None, interpolate=True):
    """out[n, c, y, x] = images[n, c, a*y + b*x + d, e*y + f*x + g].

    Parameters
    ----------
    images : array (n_imgs, n_channels, img_h, img_w)
    maps : array (n_imgs, 6)
        (a, b, d, e, f, g) of each image.
    fill : None or float
        What surrounds the images. None: their nearest pixels.
    interpolate : bool
        Bilinearly between pixels; else the nearest one is taken, half a pixel being rounded up.
    """
    out = np.empty(images.shape, images.dtype)
    for n, (a, b, d, e, f, g) in enumerate(maps):
        for c, y, x in np.ndindex(images.shape[1:]):
            row, column = a * y + b * x + d, e * y + f * x + g
            if interpolate:
                out[n, c, y, x] = bilinear(images[n, c], row, column, fill)
            else:
                i, j = math.floor(row + 0.5), math.floor(column + 0.5)
                out[n, c, y, x] = pixel(images[n, c], i, j, fill)
    return out


def bilinear(plane, row, column, fill):
    """A mean of the four pixels around a place, by how near they are."""
    total = 0.0
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            weight = (1 - abs(row - i)) * (1 - abs(column - j))
            total += weight * pixel(plane, i, j, fill)
    return total


def pixel(plane, i, j, fill):
    """A pixel of a plane, or what surrounds it."""
    border_mode = "nearest" if fill is None else "zeros"
    i = border_index(i, plane.shape[0], border_mode)
    j = border_index(j, plane.shape[1], border_mode)
    return fill if i is None or j is None else float(plane[i, j])
