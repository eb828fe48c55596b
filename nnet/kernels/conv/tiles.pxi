# The register tiles of a correlation: features x pixels, summed over taps.

cdef enum:
    MAX_VECTORS = 8         # of pixels in one tile
    # Eight pixels and three vectors of features: gcc runs out of registers for their addresses.
    TILE_PIXELS = 6
    MAX_FEATURE_VECTORS = MAX_ACCUMULATORS // TILE_PIXELS
    ROW_VECTORS = MAX_ACCUMULATORS // 12    # of each row in a tile of rows


cdef inline void correlation_tile(
    real *out,                      # (n_features, ...), features out_pitch apart   OUT
    Py_ssize_t out_pitch,
    const Py_ssize_t *out_at,       # (n_vectors,) where each vector of pixels goes
    const real *src,                # the packed images
    const Py_ssize_t *src_at,       # (n_vectors,) where each vector's first tap is read
    const Py_ssize_t *tap_at,       # (n_taps,) where each tap is read, from there
    const real *weights,            # (n_taps, n_features)
    Py_ssize_t n_taps,
    const real *bias,               # (n_features,) or NULL
    bint with_relu,
    const int n_features,
    const int n_vectors,
) noexcept nogil:
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real acc[TILE_VALUES]
    cdef const real *pixels[MAX_VECTORS]
    cdef Py_ssize_t t
    cdef int i, v
    for v in range(n_vectors):
        pixels[v] = src + src_at[v]
    for i in range(n_features):
        for v in range(n_vectors):
            fill(acc + (i * n_vectors + v) * lanes, bias[i] if bias != NULL else <real>0)
    for t in range(n_taps):
        # Weights stay in registers and pixels pass by, or the other way round: beside 12
        # accumulators 16 registers have no room for more than 3 (3 x 4, AVX2: 46 -> 92 GFLOP/s).
        if MAX_ACCUMULATORS == 12 and n_features < n_vectors:
            for v in range(n_vectors):
                for i in range(n_features):
                    madd(
                        acc + (i * n_vectors + v) * lanes,
                        weights[t * n_features + i],
                        pixels[v] + tap_at[t],
                    )
        else:
            for i in range(n_features):
                for v in range(n_vectors):
                    madd(
                        acc + (i * n_vectors + v) * lanes,
                        weights[t * n_features + i],
                        pixels[v] + tap_at[t],
                    )
    if with_relu:
        for i in range(n_features):     # gcc unrolls no loop of more than 16
            for v in range(n_vectors):
                relu(acc + (i * n_vectors + v) * lanes)
    for i in range(n_features):
        for v in range(n_vectors):
            store(out + i * out_pitch + out_at[v], acc + (i * n_vectors + v) * lanes)


cdef inline void correlate_vectors(
    real *out, Py_ssize_t out_pitch, const Py_ssize_t *out_at,
    const real *src, const Py_ssize_t *src_at, Py_ssize_t n_at,
    const Py_ssize_t *tap_at, const real *weights, Py_ssize_t n_taps,
    const real *bias, bint with_relu, int n_vectors, const int n_features,
) noexcept nogil:
    """All pixels of one block of features, with tiles of `n_vectors` vectors."""
    cdef Py_ssize_t v = 0
    while v < n_at:
        if n_vectors == 1:
            correlation_tile(out, out_pitch, out_at + v, src, src_at + v, tap_at, weights,
                             n_taps, bias, with_relu, n_features, 1)
        elif n_vectors == 2:
            correlation_tile(out, out_pitch, out_at + v, src, src_at + v, tap_at, weights,
                             n_taps, bias, with_relu, n_features, 2)
        elif n_vectors == 3 and n_features * 3 <= MAX_ACCUMULATORS:
            correlation_tile(out, out_pitch, out_at + v, src, src_at + v, tap_at, weights,
                             n_taps, bias, with_relu, n_features, 3)
        elif n_vectors == 4 and n_features * 4 <= MAX_ACCUMULATORS:
            correlation_tile(out, out_pitch, out_at + v, src, src_at + v, tap_at, weights,
                             n_taps, bias, with_relu, n_features, 4)
        elif n_vectors == 6 and n_features * 6 <= MAX_ACCUMULATORS:
            correlation_tile(out, out_pitch, out_at + v, src, src_at + v, tap_at, weights,
                             n_taps, bias, with_relu, n_features, 6)
        elif n_vectors == 8 and n_features * 8 <= MAX_ACCUMULATORS:
            correlation_tile(out, out_pitch, out_at + v, src, src_at + v, tap_at, weights,
                             n_taps, bias, with_relu, n_features, 8)
        v += n_vectors


cdef void correlate(
    real *out, Py_ssize_t out_pitch, const Py_ssize_t *out_at,
    const real *src, const Py_ssize_t *src_at, Py_ssize_t n_at,
    const Py_ssize_t *tap_at, const real *weights, Py_ssize_t n_taps,
    const real *bias, bint with_relu, int n, int n_features,
) noexcept nogil:
    """All pixels of one block of 1 to MAX_FEATURES features, `n` vectors at once."""
    if n_features == 1:
        correlate_vectors(out, out_pitch, out_at, src, src_at, n_at, tap_at, weights, n_taps,
                          bias, with_relu, n, 1)
    elif n_features == 2:
        correlate_vectors(out, out_pitch, out_at, src, src_at, n_at, tap_at, weights, n_taps,
                          bias, with_relu, n, 2)
    elif n_features == 3:
        correlate_vectors(out, out_pitch, out_at, src, src_at, n_at, tap_at, weights, n_taps,
                          bias, with_relu, n, 3)
    elif n_features == 4:
        correlate_vectors(out, out_pitch, out_at, src, src_at, n_at, tap_at, weights, n_taps,
                          bias, with_relu, n, 4)
    elif n_features == 5:
        correlate_vectors(out, out_pitch, out_at, src, src_at, n_at, tap_at, weights, n_taps,
                          bias, with_relu, n, 5)
    elif n_features == 6:
        correlate_vectors(out, out_pitch, out_at, src, src_at, n_at, tap_at, weights, n_taps,
                          bias, with_relu, n, 6)
    elif n_features == 7 and MAX_FEATURES >= 7:
        correlate_vectors(out, out_pitch, out_at, src, src_at, n_at, tap_at, weights, n_taps,
                          bias, with_relu, n, 7)
    elif n_features == 8 and MAX_FEATURES >= 8:
        correlate_vectors(out, out_pitch, out_at, src, src_at, n_at, tap_at, weights, n_taps,
                          bias, with_relu, n, 8)


cdef double tile_cycles(int n_features, int n_vectors) noexcept nogil:
    """About how many cycles a tap costs a tile.

    One a multiply-add or, where that is more, two a vector of pixels (loads
    across cache lines) and half a cycle a weight; few accumulators wait for
    the latency of their own sums. And one for the loop itself.
    """
    return 1.0 + max(
        <double>(n_features * n_vectors), 2.0 * n_vectors + 0.5 * n_features, <double>LATENCY)


cdef double feature_vectors_cycles(Py_ssize_t n_vectors) noexcept nogil:
    """About how many cycles a tap costs a pixel, for all vectors of the features of a group."""
    # A single vector in AVX2's tile of 6 pixels: 0.75 of the speed of two.
    return (1 + 1.0 / TILE_PIXELS) * max(<double>n_vectors, LATENCY / <double>TILE_PIXELS)


cdef int best_vectors(int n_features, Py_ssize_t n_at) noexcept nogil:
    """The tile width that takes the fewest cycles for n_at vectors of pixels."""
    cdef int n, best = 1
    cdef double cycles, fewest = n_at * tile_cycles(n_features, 1)
    for n in range(2, MAX_VECTORS + 1):
        if n == 5 or n == 7 or n * n_features > MAX_ACCUMULATORS:
            continue
        cycles = tile_cycles(n_features, n) * ((n_at + n - 1) // n)
        if cycles < fewest:
            best, fewest = n, cycles
    return best


# --- the same with features in the lanes: pixels x vectors of features ------------

cdef inline void features_tile(
    real *out,                      # (..., n_vectors * lanes)                      OUT
    const Py_ssize_t *out_at,       # (n_pixels,) which pixel of `out` each of them is
    const real *src,                # (..., depth), the packed pixels
    const Py_ssize_t *src_at,       # (n_pixels,) which pixel of `src` its first tap is read from
    Py_ssize_t depth,
    Py_ssize_t n_left,              # pixels there are: the last one is computed again and again
    const Py_ssize_t *tap_at,       # (n_taps,) where each tap is read, from there
    const real *weights,            # (n_taps, n_vectors * lanes)
    Py_ssize_t n_taps,
    const real *bias,               # (n_vectors * lanes,)
    bint with_relu,
    const int n_pixels,
    const int n_vectors,
) noexcept nogil:
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real acc[TILE_VALUES]
    cdef const real *pixels[TILE_PIXELS]
    cdef Py_ssize_t t
    cdef int p, v
    for p in range(n_pixels):
        pixels[p] = src + src_at[min(<Py_ssize_t>p, n_left - 1)] * depth
    for v in range(n_vectors):
        for p in range(n_pixels):
            store(acc + (p * n_vectors + v) * lanes, bias + v * lanes)
    for t in range(n_taps):
        for p in range(n_pixels):
            for v in range(n_vectors):
                madd(
                    acc + (p * n_vectors + v) * lanes,
                    pixels[p][tap_at[t]],
                    weights + (t * n_vectors + v) * lanes,
                )
    if with_relu:
        for p in range(n_pixels):
            for v in range(n_vectors):
                relu(acc + (p * n_vectors + v) * lanes)
    for p in range(n_pixels):
        for v in range(n_vectors):
            store(
                out + (out_at[min(<Py_ssize_t>p, n_left - 1)] * n_vectors + v) * lanes,
                acc + (p * n_vectors + v) * lanes,
            )


cdef struct Rows:                   # neighbouring rows of some planes
    const char *at
    Py_ssize_t n_bytes, plane_pitch, n_planes
    Py_ssize_t fetched              # bytes of the first plane


cdef struct Ahead:
    # What the next unit of work reads and writes: it is fetched into the L2 cache while this
    # one computes, as planes in turn are too many streams for the processor to foresee.
    Rows src, dst
    Py_ssize_t src_lines, dst_lines     # for each tile


cdef inline void fetch(Rows *rows, Py_ssize_t n_lines) noexcept nogil:
    while n_lines > 0 and rows.n_planes > 0:
        prefetch_far(rows.at + rows.fetched)
        n_lines -= 1
        rows.fetched += 64
        if rows.fetched >= rows.n_bytes:
            rows.fetched = 0
            rows.at += rows.plane_pitch
            rows.n_planes -= 1


cdef void correlate_features(
    real *out, const Py_ssize_t *out_at, const real *src, const Py_ssize_t *src_at,
    Py_ssize_t depth, Py_ssize_t n_at, const Py_ssize_t *tap_at, const real *weights,
    Py_ssize_t n_taps, const real *bias, bint with_relu, int n_vectors, Ahead *ahead,
) noexcept nogil:
    """All pixels of one block of 1 to MAX_FEATURE_VECTORS vectors of features."""
    cdef real zeros[MAX_FEATURE_VECTORS * LANES]
    cdef Py_ssize_t p = 0
    if bias == NULL:
        # Choices within the tile, and biases by pixels, make clang keep its sums on the stack.
        memset(zeros, 0, sizeof(zeros))
        bias = zeros
    while p < n_at:
        fetch(&ahead.src, ahead.src_lines)
        fetch(&ahead.dst, ahead.dst_lines)
        if n_vectors == 1:
            features_tile(out, out_at + p, src, src_at + p, depth, n_at - p, tap_at, weights,
                          n_taps, bias, with_relu, TILE_PIXELS, 1)
        elif n_vectors == 2:
            features_tile(out, out_at + p, src, src_at + p, depth, n_at - p, tap_at, weights,
                          n_taps, bias, with_relu, TILE_PIXELS, 2)
        elif n_vectors == 3 and MAX_FEATURE_VECTORS >= 3:
            features_tile(out, out_at + p, src, src_at + p, depth, n_at - p, tap_at, weights,
                          n_taps, bias, with_relu, TILE_PIXELS, 3)
        elif n_vectors == 4 and MAX_FEATURE_VECTORS >= 4:
            features_tile(out, out_at + p, src, src_at + p, depth, n_at - p, tap_at, weights,
                          n_taps, bias, with_relu, TILE_PIXELS, 4)
        p += TILE_PIXELS
