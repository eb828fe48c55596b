# The register tiles of a filter gradient, summed over pixels.
#
# Dot form: lanes hold pixels. Each vector of the image meets several features,
# each vector of the output gradient several taps; the lanes are summed at the end.
#
# Outer form: lanes hold features. Images and gradients lie pixel by pixel, with the
# channels (features) of a pixel side by side; each pixel adds an outer product.

cdef extern from *:
    """
    #if defined(__AVX512F__) || defined(__aarch64__)
    enum { DOT_ACCUMULATORS = 25, DOT_FEATURES = 5 };
    #else
    enum { DOT_ACCUMULATORS = 12, DOT_FEATURES = 3 };
    #endif
    """
    enum: DOT_ACCUMULATORS
    enum: DOT_FEATURES


cdef enum:
    RUN = 300       # terms of a sum, one after the other, that lose little by rounding; ...
    MAX_RUN = 400   # ... up to so many are not worth a second tile
    MAX_TILES = 64  # of one sum, before it keeps its rounding errors

cdef struct Walk:
    # The pixels that a tile sums over, and how far apart they lie.
    Py_ssize_t n_imgs, rows, cols               # cols: pixels, or whole vectors (dot form)
    Py_ssize_t src_img, src_row, src_col
    Py_ssize_t grad_img, grad_row, grad_col
    Py_ssize_t errors                           # from sums to their rounding errors; 0: none
    # What comes next is fetched meanwhile, a cache line for every pixel or vector of pixels.
    const char *next_imgs
    const char *next_grad
    const char *next_imgs_end
    const char *next_grad_end


cdef void add_tile(
    real *part, Py_ssize_t row_pitch, Py_ssize_t col_pitch, Py_ssize_t errors,
    const real *tile,               # (n_rows, n_cols, lanes)
    int n_rows, int n_cols,
) noexcept nogil:
    """A tile's sums to those of the tiles before; what the rounding loses adds up apart."""
    cdef int lanes = VECTOR_BYTES // sizeof(real), i, j
    cdef real *total
    for i in range(n_rows):
        for j in range(n_cols):
            total = part + i * row_pitch + j * col_pitch
            add_exactly(total, total + errors, tile + (i * n_cols + j) * lanes)


# A long walk is cut into pieces, as many for each axis.

cdef struct Cut:
    Py_ssize_t imgs, rows, cols


cdef inline bint is_short(const Walk *walk) noexcept nogil:
    return walk.n_imgs * walk.rows * walk.cols <= MAX_RUN


cdef Cut cut_walk(const Walk *walk) noexcept nogil:
    """By its columns; if they are few, by its rows; or else by its images."""
    cdef Cut cut = [walk.n_imgs, walk.rows, ceil_div(walk.cols, RUN)]
    if cut.cols == 1:
        cut.rows = ceil_div(walk.rows, RUN // walk.cols)
        if cut.rows == 1:
            cut.imgs = ceil_div(walk.n_imgs, RUN // (walk.rows * walk.cols))
    return cut


cdef void take_piece(Walk *piece, Py_ssize_t *img, Py_ssize_t *src_at, Py_ssize_t *grad_at,
                     const Walk *walk, Cut cut, Py_ssize_t i) noexcept nogil:
    """Piece i: its size, its first image, and where it begins."""
    cdef Py_ssize_t x = i % cut.cols, y = i // cut.cols % cut.rows, s = i // cut.cols // cut.rows
    cdef Py_ssize_t n = s * walk.n_imgs // cut.imgs, row = y * walk.rows // cut.rows
    cdef Py_ssize_t col = x * walk.cols // cut.cols
    piece.n_imgs = (s + 1) * walk.n_imgs // cut.imgs - n
    piece.rows = (y + 1) * walk.rows // cut.rows - row
    piece.cols = (x + 1) * walk.cols // cut.cols - col
    img[0] = n
    src_at[0] = n * walk.src_img + row * walk.src_row + col * walk.src_col
    grad_at[0] = n * walk.grad_img + row * walk.grad_row + col * walk.grad_col


cdef inline void dot_tile(
    real *part, Py_ssize_t part_tap, Py_ssize_t part_feature,   # a vector each      IN/OUT
    const real *src,
    const Py_ssize_t *tap_at,           # (n_taps,) where each tap of the first pixel is read
    const real *grad,
    const Py_ssize_t *feature_at,       # (n_features,) where each feature's gradient begins
    const real *tails,                  # (n_imgs, ..., lanes) the rest of a row, or NULL
    Py_ssize_t tails_img,
    Walk *walk,
    const int n_taps,
    const int n_features,
) noexcept nogil:
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real acc[25 * VECTOR_BYTES]
    cdef real tile[25 * VECTOR_BYTES]
    cdef real pixels[VECTOR_BYTES]
    cdef real values[5 * VECTOR_BYTES]
    cdef const real *taps[8]
    cdef const real *grads[5]
    cdef Py_ssize_t s, y, x, end
    cdef int i, f
    cdef const char *next_grad = walk.next_grad
    # Only for vectors of a whole cache line: shorter tiles wait for their loads.
    cdef bint fetching = VECTOR_BYTES == 64 and walk.next_grad < walk.next_grad_end
    for i in range(n_taps):             # gcc unrolls no loop of more than 16
        for f in range(n_features):
            clear(acc + (i * n_features + f) * lanes)
    end = walk.cols * lanes
    for s in range(walk.n_imgs):
        for y in range(walk.rows):
            for i in range(n_taps):
                taps[i] = src + tap_at[i] + s * walk.src_img + y * walk.src_row
            for f in range(n_features):
                grads[f] = grad + feature_at[f] + s * walk.grad_img + y * walk.grad_row
            x = 0
            while x < end:
                if fetching:
                    prefetch_far(next_grad)
                    next_grad += 64
                for f in range(n_features):
                    load(values + f * lanes, grads[f] + x)
                for i in range(n_taps):
                    load(pixels, taps[i] + x)
                    for f in range(n_features):
                        maddv(acc + (i * n_features + f) * lanes, pixels, values + f * lanes)
                x += lanes
            if tails != NULL:
                for f in range(n_features):
                    load(values + f * lanes, tails + s * tails_img + f * lanes)
                for i in range(n_taps):
                    load(pixels, taps[i] + end)
                    for f in range(n_features):
                        maddv(acc + (i * n_features + f) * lanes, pixels, values + f * lanes)
    walk.next_grad = next_grad
    if walk.errors:
        for i in range(n_taps):
            for f in range(n_features):
                store(tile + (i * n_features + f) * lanes, acc + (i * n_features + f) * lanes)
        add_tile(part, part_tap, part_feature, walk.errors, tile, n_taps, n_features)
        return
    for i in range(n_taps):
        for f in range(n_features):
            add(part + i * part_tap + f * part_feature, part + i * part_tap + f * part_feature,
                acc + (i * n_features + f) * lanes)


cdef inline void dot_features(
    real *part, Py_ssize_t part_tap, Py_ssize_t part_feature, const real *src,
    const Py_ssize_t *tap_at, const real *grad, const Py_ssize_t *feature_at, const real *tails,
    Py_ssize_t tails_img, Walk *walk, int n_taps, const int n,
) noexcept nogil:
    if n_taps == 1:
        dot_tile(part, part_tap, part_feature, src, tap_at, grad, feature_at, tails, tails_img,
                 walk, 1, n)
    elif n_taps == 2:
        dot_tile(part, part_tap, part_feature, src, tap_at, grad, feature_at, tails, tails_img,
                 walk, 2, n)
    elif n_taps == 3:
        dot_tile(part, part_tap, part_feature, src, tap_at, grad, feature_at, tails, tails_img,
                 walk, 3, n)
    elif n_taps == 4:
        dot_tile(part, part_tap, part_feature, src, tap_at, grad, feature_at, tails, tails_img,
                 walk, 4, n)
    elif n_taps == 5 and 5 * n <= DOT_ACCUMULATORS:
        dot_tile(part, part_tap, part_feature, src, tap_at, grad, feature_at, tails, tails_img,
                 walk, 5, n)
    elif n_taps == 6 and 6 * n <= DOT_ACCUMULATORS:
        dot_tile(part, part_tap, part_feature, src, tap_at, grad, feature_at, tails, tails_img,
                 walk, 6, n)
    elif n_taps == 7 and 7 * n <= DOT_ACCUMULATORS:
        dot_tile(part, part_tap, part_feature, src, tap_at, grad, feature_at, tails, tails_img,
                 walk, 7, n)
    elif n_taps == 8 and 8 * n <= DOT_ACCUMULATORS:
        dot_tile(part, part_tap, part_feature, src, tap_at, grad, feature_at, tails, tails_img,
                 walk, 8, n)


cdef inline int dot_taps(int n_features) noexcept nogil:
    """The most taps of a tile."""
    return min(8, DOT_ACCUMULATORS // n_features)


cdef void dot_gradient(
    real *part, Py_ssize_t part_tap, Py_ssize_t part_feature, const real *src,
    const Py_ssize_t *tap_at, const real *grad, const Py_ssize_t *feature_at, const real *tails,
    Py_ssize_t tails_img, Walk *walk, int n_taps, int n_features,
) noexcept nogil:
    """1 to dot_taps(n_features) taps and 1 to DOT_FEATURES features, in one tile or more."""
    cdef Py_ssize_t i, n, src_at, grad_at
    cdef const real *ends
    cdef Walk piece
    cdef Cut cut
    if is_short(walk):      # a single call would be inlined: see dense/matmul.pxi
        dot_piece(part, part_tap, part_feature, src, tap_at, grad, feature_at, tails, tails_img,
                  walk, n_taps, n_features)
        return
    walk.src_col = walk.grad_col = VECTOR_BYTES // sizeof(real)
    piece, cut = walk[0], cut_walk(walk)
    for i in range(cut.imgs * cut.rows * cut.cols):
        take_piece(&piece, &n, &src_at, &grad_at, walk, cut, i)
        # Tails follow the last columns.
        ends = tails + n * tails_img if tails != NULL and (i + 1) % cut.cols == 0 else NULL
        dot_piece(part, part_tap, part_feature, src + src_at, tap_at, grad + grad_at, feature_at,
                  ends, tails_img, &piece, n_taps, n_features)
    walk.next_grad = piece.next_grad


cdef void dot_piece(
    real *part, Py_ssize_t part_tap, Py_ssize_t part_feature, const real *src,
    const Py_ssize_t *tap_at, const real *grad, const Py_ssize_t *feature_at, const real *tails,
    Py_ssize_t tails_img, Walk *walk, int n_taps, int n_features,
) noexcept nogil:
    """One tile."""
    if n_features == 1:
        dot_features(part, part_tap, part_feature, src, tap_at, grad, feature_at, tails,
                     tails_img, walk, n_taps, 1)
    elif n_features == 2:
        dot_features(part, part_tap, part_feature, src, tap_at, grad, feature_at, tails,
                     tails_img, walk, n_taps, 2)
    elif n_features == 3:
        dot_features(part, part_tap, part_feature, src, tap_at, grad, feature_at, tails,
                     tails_img, walk, n_taps, 3)
    elif n_features == 4 and DOT_FEATURES >= 4:
        dot_features(part, part_tap, part_feature, src, tap_at, grad, feature_at, tails,
                     tails_img, walk, n_taps, 4)
    elif n_features == 5 and DOT_FEATURES >= 5:
        dot_features(part, part_tap, part_feature, src, tap_at, grad, feature_at, tails,
                     tails_img, walk, n_taps, 5)


cdef inline void outer_tile(
    real *part,                     # (n_channels, n_vectors, lanes)                 IN/OUT
    Py_ssize_t part_pitch,          # from one channel to the next
    const real *src,                # (n_imgs, rows, cols, n_channels), pixel by pixel
    const real *grad,               # (n_imgs, rows, cols, n_vectors, lanes)
    Walk *walk,
    const int n_channels,
    const int n_vectors,
) noexcept nogil:
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real acc[TILE_VALUES]
    cdef real tile[TILE_VALUES]
    cdef const real *pixel
    cdef const real *values
    cdef const char *next_imgs = walk.next_imgs
    cdef const char *next_grad = walk.next_grad
    cdef Py_ssize_t imgs_step = 64 if walk.next_imgs < walk.next_imgs_end else 0
    cdef Py_ssize_t grad_step = 64 if walk.next_grad < walk.next_grad_end else 0
    cdef bint fetching = imgs_step + grad_step > 0
    cdef Py_ssize_t s, y, x
    cdef int i, v
    for i in range(n_channels):
        for v in range(n_vectors):
            clear(acc + (i * n_vectors + v) * lanes)
    for s in range(walk.n_imgs):
        for y in range(walk.rows):
            pixel = src + s * walk.src_img + y * walk.src_row
            values = grad + s * walk.grad_img + y * walk.grad_row
            for x in range(walk.cols):
                for i in range(n_channels):
                    for v in range(n_vectors):
                        madd(acc + (i * n_vectors + v) * lanes, pixel[i], values + v * lanes)
                if fetching:
                    prefetch_far(next_imgs)
                    prefetch_far(next_grad)
                    next_imgs += imgs_step
                    next_grad += grad_step
                pixel += walk.src_col
                values += walk.grad_col
    walk.next_imgs, walk.next_grad = next_imgs, next_grad
    if walk.errors:
        for i in range(n_channels):
            for v in range(n_vectors):
                store(tile + (i * n_vectors + v) * lanes, acc + (i * n_vectors + v) * lanes)
        add_tile(part, part_pitch, lanes, walk.errors, tile, n_channels, n_vectors)
        return
    for i in range(n_channels):
        for v in range(n_vectors):
            add(part + i * part_pitch + v * lanes, part + i * part_pitch + v * lanes,
                acc + (i * n_vectors + v) * lanes)


cdef enum:
    MAX_OUTER_CHANNELS = 16


cdef inline int outer_channels(int n_vectors) noexcept nogil:
    """The most channels of a tile."""
    return min(<int>MAX_OUTER_CHANNELS, MAX_ACCUMULATORS // n_vectors)


cdef inline void outer_vectors(
    real *part, Py_ssize_t part_pitch, const real *src, const real *grad, Walk *walk,
    int n_channels, const int n,
) noexcept nogil:
    if n_channels == 1:
        outer_tile(part, part_pitch, src, grad, walk, 1, n)
    elif n_channels == 2:
        outer_tile(part, part_pitch, src, grad, walk, 2, n)
    elif n_channels == 3:
        outer_tile(part, part_pitch, src, grad, walk, 3, n)
    elif n_channels == 4:
        outer_tile(part, part_pitch, src, grad, walk, 4, n)
    elif n_channels == 5:
        outer_tile(part, part_pitch, src, grad, walk, 5, n)
    elif n_channels == 6:
        outer_tile(part, part_pitch, src, grad, walk, 6, n)
    elif n_channels == 7 and 7 * n <= MAX_ACCUMULATORS:
        outer_tile(part, part_pitch, src, grad, walk, 7, n)
    elif n_channels == 8 and 8 * n <= MAX_ACCUMULATORS:
        outer_tile(part, part_pitch, src, grad, walk, 8, n)
    elif n_channels == 9 and 9 * n <= MAX_ACCUMULATORS:
        outer_tile(part, part_pitch, src, grad, walk, 9, n)
    elif n_channels == 10 and 10 * n <= MAX_ACCUMULATORS:
        outer_tile(part, part_pitch, src, grad, walk, 10, n)
    elif n_channels == 11 and 11 * n <= MAX_ACCUMULATORS:
        outer_tile(part, part_pitch, src, grad, walk, 11, n)
    elif n_channels == 12 and 12 * n <= MAX_ACCUMULATORS:
        outer_tile(part, part_pitch, src, grad, walk, 12, n)
    elif n_channels == 13 and 13 * n <= MAX_ACCUMULATORS:
        outer_tile(part, part_pitch, src, grad, walk, 13, n)
    elif n_channels == 14 and 14 * n <= MAX_ACCUMULATORS:
        outer_tile(part, part_pitch, src, grad, walk, 14, n)
    elif n_channels == 15 and 15 * n <= MAX_ACCUMULATORS:
        outer_tile(part, part_pitch, src, grad, walk, 15, n)
    elif n_channels == 16 and 16 * n <= MAX_ACCUMULATORS:
        outer_tile(part, part_pitch, src, grad, walk, 16, n)


cdef void outer_gradient(
    real *part, Py_ssize_t part_pitch, const real *src, const real *grad, Walk *walk,
    Py_ssize_t n_channels, Py_ssize_t n_vectors,
) noexcept nogil:
    """All channels and vectors of features of a group."""
    cdef Py_ssize_t i, n, src_at, grad_at
    cdef Walk piece
    cdef Cut cut
    if is_short(walk):
        outer_piece(part, part_pitch, src, grad, walk, n_channels, n_vectors)
        return
    piece, cut = walk[0], cut_walk(walk)
    for i in range(cut.imgs * cut.rows * cut.cols):
        take_piece(&piece, &n, &src_at, &grad_at, walk, cut, i)
        outer_piece(part, part_pitch, src + src_at, grad + grad_at, &piece, n_channels, n_vectors)
    walk.next_imgs, walk.next_grad = piece.next_imgs, piece.next_grad


cdef void outer_piece(
    real *part, Py_ssize_t part_pitch, const real *src, const real *grad, Walk *walk,
    Py_ssize_t n_channels, Py_ssize_t n_vectors,
) noexcept nogil:
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t v, b, c, n_blocks
    cdef int n, width
    v = 0
    while v < n_vectors:
        n = <int>min(<Py_ssize_t>2, n_vectors - v)
        n_blocks = ceil_div(n_channels, outer_channels(n))
        for b in range(n_blocks):
            c = b * n_channels // n_blocks
            width = <int>((b + 1) * n_channels // n_blocks - c)
            if n == 1:
                outer_vectors(part + c * part_pitch + v * lanes, part_pitch, src + c,
                              grad + v * lanes, walk, width, 1)
            else:
                outer_vectors(part + c * part_pitch + v * lanes, part_pitch, src + c,
                              grad + v * lanes, walk, width, 2)
        v += n
