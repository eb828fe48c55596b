# Depthwise filters, in strips as wide as a vector. Needs conv/strips.h.
#
# Nothing is copied: a row of pixels is loaded from the image once for each column of taps,
# without the lanes that lie outside of it. Rows of padding are skipped.
#
#     row r of pixels    a b c d        outputs r     += w[0, j] * loaded[j]
#     column j = 0       . a b c        outputs r - 1 += w[1, j] * loaded[j]
#            j = 1       a b c d        outputs r - 2 += w[2, j] * loaded[j]
#            j = 2       b c d .        ...
#
# As many rows of outputs as the filter has rows are in the making, each in a vector; from
# row to row they move on by one.
#
# This is for vectors of which some lanes can be loaded and stored: AVX-512. Others, strides,
# dilation of the rows and borders of pixels are left to conv/rows.pxi.

cdef extern from "conv/strips.h":
    enum: HAS_STRIPS
    enum: MAX_STRIP_TAPS
    ctypedef struct Strips:
        Py_ssize_t w, rows, cols
        Py_ssize_t first, end
        Py_ssize_t start, step
        Py_ssize_t n_taps, n_columns
        unsigned short *kept
    void strips_plane(...) noexcept nogil


cdef bint strips_cover(Py_ssize_t h, Py_ssize_t rows, Py_ssize_t top,
                       Py_ssize_t fil_h) noexcept nogil:
    """Each output must be in the making while some row is read."""
    return (HAS_STRIPS and 2 <= fil_h <= MAX_STRIP_TAPS and 0 <= top < fil_h
            and rows <= top + h)


cdef void plan_strips(
    Strips *p, Py_ssize_t h, Py_ssize_t w, Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t top,
    Py_ssize_t start, Py_ssize_t step, Py_ssize_t fil_h, Py_ssize_t fil_w, Workspace space,
    Py_ssize_t lanes,
) except *:
    """Of planes of h x w pixels with a border of zeros, where strips cover all outputs.

    For output x, column j of taps reads pixel x + start + j * step.
    """
    cdef Py_ssize_t n_strips = ceil_div(cols, lanes), s, j, l, x
    p.w, p.rows, p.cols, p.n_taps, p.n_columns = w, rows, cols, fil_h, fil_w
    p.start, p.step = start, step
    p.first, p.end = top, min(top + h, rows + fil_h - 1)
    p.kept = <unsigned short *>space.take(n_strips * fil_w * sizeof(unsigned short))
    for s in range(n_strips):
        for j in range(fil_w):
            x = s * lanes + start + j * step    # which pixel lane 0 reads
            l = clip(min(w - x, cols - s * lanes), 0, lanes)
            p.kept[s * fil_w + j] = <unsigned short>((1 << l) - (1 << clip(-x, 0, l)))
