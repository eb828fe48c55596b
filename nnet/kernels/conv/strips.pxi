# Depthwise filters, in strips as wide as a vector.
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
# row to row they move on by one. The filter gradient keeps rows of the output gradient
# instead, and a sum for each tap.
#
# This is for vectors of which some lanes can be loaded and stored: AVX-512. Others, strides,
# dilation of the rows and borders of pixels are left to conv/rows.pxi.

cdef extern from "conv/strips.h":
    enum: HAS_STRIPS
    enum: MAX_STRIP_TAPS
    enum: MAX_STRIP_SUMS
    ctypedef struct Strips:
        Py_ssize_t w, rows, cols
        Py_ssize_t first, end
        Py_ssize_t start, step
        Py_ssize_t n_taps, n_columns
        unsigned short *kept
    void strips_plane(...) noexcept nogil
    void strip_gradient32(float *sums, const float *pixels, const float *grad, const Strips *p,
                          const unsigned short *kept, unsigned stored, int n_taps,
                          int n_columns) noexcept nogil
    void strip_gradient64(double *sums, const double *pixels, const double *grad,
                          const Strips *p, const unsigned short *kept, unsigned stored,
                          int n_taps, int n_columns) noexcept nogil


cdef bint strips_cover(Py_ssize_t h, Py_ssize_t rows, Py_ssize_t top,
                       Py_ssize_t fil_h) noexcept nogil:
    """Each output must be in the making while some row is read."""
    return (HAS_STRIPS and 2 <= fil_h <= MAX_STRIP_TAPS and 0 <= top < fil_h
            and MIN_ROWS <= rows <= top + h)    # measured: low planes lose


cdef bint plan_strips(
    Strips *p, Py_ssize_t h, Py_ssize_t w, Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t top,
    Py_ssize_t start, Py_ssize_t step, Py_ssize_t fil_h, Py_ssize_t fil_w, Workspace space,
    Py_ssize_t lanes,
) except -1:
    """Whether strips will do, for planes of h x w pixels with a border of zeros.

    For output x, column j of taps reads pixel x + start + j * step. Each output must be
    in the making while some row is read.
    """
    cdef Py_ssize_t n_strips = ceil_div(cols, lanes), s, j, l, x
    if not strips_cover(h, rows, top, fil_h):
        return False
    p.w, p.rows, p.cols, p.n_taps, p.n_columns = w, rows, cols, fil_h, fil_w
    p.start, p.step = start, step
    p.first, p.end = top, min(top + h, rows + fil_h - 1)
    p.kept = <unsigned short *>space.take(n_strips * fil_w * sizeof(unsigned short))
    for s in range(n_strips):
        for j in range(fil_w):
            x = s * lanes + start + j * step    # which pixel lane 0 reads
            l = clip(min(w - x, cols - s * lanes), 0, lanes)
            p.kept[s * fil_w + j] = <unsigned short>((1 << l) - (1 << clip(-x, 0, l)))
    return True


cdef inline unsigned lanes_from(const Strips *p, Py_ssize_t x, Py_ssize_t lanes) noexcept nogil:
    """The lanes of outputs in the strip that starts at x."""
    return (1 << min(lanes, p.cols - x)) - 1


cdef void gradient_strips(
    real *run,                          # (n_columns, n_taps, lanes)    IN/OUT
    real *sums, Py_ssize_t errors,      # the same, where runs end, if errors are kept
    Py_ssize_t *terms,                  # of the run                    IN/OUT
    const real *plane, const real *grad, const Strips *p,
) noexcept nogil:
    """What one plane adds to the gradient of its filter."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real), x = 0, n = p.n_columns
    cdef Py_ssize_t parts = ceil_div(n, min(<Py_ssize_t>3, MAX_STRIP_SUMS // p.n_taps)), i, j, r
    cdef Py_ssize_t n_rows = p.end - p.first, pieces = ceil_div(n_rows, RUN) if errors else 1
    cdef const unsigned short *kept = p.kept
    cdef const real *pixels
    cdef Strips piece = p[0]
    while x < p.cols:
        for r in range(pieces):
            piece.first = p.first + r * n_rows // pieces
            piece.end = p.first + (r + 1) * n_rows // pieces
            pixels = plane + (piece.first - p.first) * p.w + x + p.start
            if errors and terms[0] + piece.end - piece.first > RUN:
                end_run(run, sums, errors, n * p.n_taps * lanes)
                terms[0] = 0
            for i in range(parts):
                j = i * n // parts
                strip_columns(run + j * p.n_taps * lanes, pixels + j * p.step, grad + x, &piece,
                              kept + j, x, (i + 1) * n // parts - j)
            terms[0] += piece.end - piece.first
        x += lanes
        kept += n


cdef void end_run(real *run, real *sums, Py_ssize_t errors, Py_ssize_t n) noexcept nogil:
    """A run's sums to those of the runs before."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real), i
    for i in range(n // lanes):
        add_exactly(sums + i * lanes, sums + i * lanes + errors, run + i * lanes)
    memset(run, 0, n * sizeof(real))


cdef inline void strip_columns(
    real *sums, const real *pixels, const real *grad, const Strips *p, const unsigned short *kept,
    Py_ssize_t x, Py_ssize_t n_columns,
) noexcept nogil:
    cdef unsigned stored = lanes_from(p, x, VECTOR_BYTES // sizeof(real))
    if p.n_taps == 2:
        strip_sums(sums, pixels, grad, p, kept, stored, 2, n_columns)
    elif p.n_taps == 3:
        strip_sums(sums, pixels, grad, p, kept, stored, 3, n_columns)
    elif p.n_taps == 4:
        strip_sums(sums, pixels, grad, p, kept, stored, 4, n_columns)
    elif p.n_taps == 5:
        strip_sums(sums, pixels, grad, p, kept, stored, 5, n_columns)
    elif p.n_taps == 6:
        strip_sums(sums, pixels, grad, p, kept, stored, 6, n_columns)
    else:
        strip_sums(sums, pixels, grad, p, kept, stored, 7, n_columns)


cdef inline void strip_sums(
    real *sums, const real *pixels, const real *grad, const Strips *p, const unsigned short *kept,
    unsigned stored, const int n_taps, Py_ssize_t n_columns,
) noexcept nogil:
    """1 to 3 columns of taps; 2 of 6 or 7 taps."""
    if real is float:
        if n_columns == 1:
            strip_gradient32(sums, pixels, grad, p, kept, stored, n_taps, 1)
        elif n_columns == 2:
            strip_gradient32(sums, pixels, grad, p, kept, stored, n_taps, 2)
        elif n_taps <= 5:
            strip_gradient32(sums, pixels, grad, p, kept, stored, n_taps, 3)
    elif n_columns == 1:
        strip_gradient64(sums, pixels, grad, p, kept, stored, n_taps, 1)
    elif n_columns == 2:
        strip_gradient64(sums, pixels, grad, p, kept, stored, n_taps, 2)
    elif n_taps <= 5:
        strip_gradient64(sums, pixels, grad, p, kept, stored, n_taps, 3)
