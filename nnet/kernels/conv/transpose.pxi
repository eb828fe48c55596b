# Planes to pixels, with the channels of each side by side, and back. Needs common/simd.pxi.

cdef inline Py_ssize_t next_block(Py_ssize_t p, Py_ssize_t n, const real *planes,
                                  Py_ssize_t pitch, Py_ssize_t lanes) noexcept nogil:
    """The block of pixels after p's, n for none: inner ones start with a cache line."""
    cdef Py_ssize_t skew = <size_t>planes % VECTOR_BYTES // sizeof(real)
    if p == n - lanes:
        return n
    if p == 0 and pitch % lanes == 0:
        p -= skew
    return min(p + lanes, n - lanes)


cdef void transpose_planes(
    real *dst, const Py_ssize_t *dst_at, Py_ssize_t depth, const real *planes,
    Py_ssize_t plane_pitch, Py_ssize_t n_channels, Py_ssize_t n,
) noexcept nogil:
    """n neighbouring pixels of all channels: pixel p goes to dst + dst_at[p], or p * depth."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef real block[LANES_SQUARED]
    cdef Py_ssize_t c, p, i, j, n_rows
    if n < lanes:
        for p in range(n):
            j = p * depth if dst_at == NULL else dst_at[p]
            for c in range(n_channels):
                dst[j + c] = planes[c * plane_pitch + p]
        return
    for i in range(ceil_div(n_channels, lanes)):
        c = i * lanes
        n_rows = min(lanes, n_channels - c)
        p = 0
        while p < n:
            if n_rows == lanes:
                for j in range(VECTOR_BYTES // sizeof(real)):
                    store(block + j * lanes, planes + (c + j) * plane_pitch + p)
            else:
                for j in range(VECTOR_BYTES // sizeof(real)):
                    if j < n_rows:
                        store(block + j * lanes, planes + (c + j) * plane_pitch + p)
                    else:
                        fill(block + j * lanes, <real>0)
            transpose(block)
            for j in range(VECTOR_BYTES // sizeof(real)):
                if dst_at == NULL:
                    store(dst + (p + j) * depth + c, block + j * lanes)
                else:
                    store(dst + dst_at[p + j] + c, block + j * lanes)
            p = next_block(p, n, planes, plane_pitch, lanes)


cdef void untranspose_planes(
    real *planes, Py_ssize_t plane_pitch, Py_ssize_t n_features, const real *src,
    Py_ssize_t width, Py_ssize_t n,
) noexcept nogil:
    """n neighbouring pixels, with `width` values each, to planes of features."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef real block[LANES_SQUARED]
    cdef Py_ssize_t f, p, i, j
    if n < lanes:
        for f in range(n_features):
            for p in range(n):
                planes[f * plane_pitch + p] = src[p * width + f]
        return
    for i in range(ceil_div(n_features, lanes)):
        f = i * lanes
        p = 0
        while p < n:
            for j in range(VECTOR_BYTES // sizeof(real)):
                store(block + j * lanes, src + (p + j) * width + f)
            transpose(block)
            if n_features - f >= lanes:
                for j in range(VECTOR_BYTES // sizeof(real)):
                    store(planes + (f + j) * plane_pitch + p, block + j * lanes)
            else:
                for j in range(n_features - f):
                    store(planes + (f + j) * plane_pitch + p, block + j * lanes)
            p = next_block(p, n, planes, plane_pitch, lanes)
