# The product of two matrices, for dense layers: batches of rows times weights.
#
# A tile of out, a few rows of a by a few vectors of columns of b, stays in
# registers while it walks the inner axis:
#
#     out[i, j] += a[i, t] * b[t, j]          a[i, t]: one value, in all lanes
#                                             b[t, j]: lanes hold columns
#
# Every element is summed in the order of t, whatever tile it is in and whichever
# thread has it; but if a has a single row, several blocks of t are summed at once, as
# one multiply-add after the other would wait for the one before. Long sums are sums of
# blocks, and very long ones keep what these additions lose by rounding. Rows of b are
# read where they are; if its columns do not lie side by side, as in a transposed matrix,
# a block of it is copied first.

from libc.string cimport memcpy

cdef enum:
    MAX_COLUMNS = MAX_ACCUMULATORS // MAX_FEATURES  # vectors of columns in a tile
    BLOCK = 256             # of the inner axis: that much of b stays in the L2 cache
    MAX_RUN = 2 * BLOCK     # longer sums add up blocks ...
    MAX_BLOCKS = 64         # ... and more than that keep their rounding errors
    N_CHAINS = 4            # blocks that a single row takes at once: the latency in cycles
    PANEL_SIZE = BLOCK * MAX_COLUMNS * VECTOR_BYTES // 4
    SMALL_WORK = 300_000    # multiply-adds below which a second thread costs more than it saves


cdef struct Product:
    Py_ssize_t n_rows, n_cols, n_inner
    Py_ssize_t a_row, a_inner           # from one element to the next, along each axis
    Py_ssize_t b_inner, b_col
    Py_ssize_t n_blocks                 # blocks of columns
    Py_ssize_t n_parts                  # parts of the rows: units of work for the threads
    bint with_relu
    const void *a
    const void *b
    void *out                           # (n_rows, n_cols)
    void *errors                        # (n_rows, n_cols) of the sums, or NULL
    const void *bias                    # (n_cols,) or NULL
    double divisor


cdef inline void product_tile(
    real *out, Py_ssize_t out_row,      # (n_rows, n_vectors * lanes)               IN/OUT
    const real *a, Py_ssize_t a_row, Py_ssize_t a_inner,
    const real *b, Py_ssize_t b_inner,
    Py_ssize_t n_inner, bint go_on,     # from the sums that are in out, else from 0
    const int n_rows, const int n_vectors,
) noexcept nogil:
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real acc[TILE_BYTES]
    cdef Py_ssize_t t
    cdef int i, v
    for i in range(n_rows):
        for v in range(n_vectors):
            if go_on:
                store(acc + (i * n_vectors + v) * lanes, out + i * out_row + v * lanes)
            else:
                fill(acc + (i * n_vectors + v) * lanes, <real>0)
    for t in range(n_inner):
        for i in range(n_rows):
            for v in range(n_vectors):
                madd(acc + (i * n_vectors + v) * lanes, a[i * a_row], b + v * lanes)
        a += a_inner
        b += b_inner
    for i in range(n_rows):
        for v in range(n_vectors):
            store(out + i * out_row + v * lanes, acc + (i * n_vectors + v) * lanes)


cdef inline void product_rows(
    real *out, Py_ssize_t out_row, const real *a, Py_ssize_t a_row, Py_ssize_t a_inner,
    const real *b, Py_ssize_t b_inner, Py_ssize_t n_inner, bint go_on, int n_rows,
    const int n_vectors,
) noexcept nogil:
    """A tile of 1 to MAX_FEATURES rows."""
    if n_rows == 1:
        product_tile(out, out_row, a, a_row, a_inner, b, b_inner, n_inner, go_on, 1, n_vectors)
    elif n_rows == 2:
        product_tile(out, out_row, a, a_row, a_inner, b, b_inner, n_inner, go_on, 2, n_vectors)
    elif n_rows == 3:
        product_tile(out, out_row, a, a_row, a_inner, b, b_inner, n_inner, go_on, 3, n_vectors)
    elif n_rows == 4:
        product_tile(out, out_row, a, a_row, a_inner, b, b_inner, n_inner, go_on, 4, n_vectors)
    elif n_rows == 5:
        product_tile(out, out_row, a, a_row, a_inner, b, b_inner, n_inner, go_on, 5, n_vectors)
    elif n_rows == 6:
        product_tile(out, out_row, a, a_row, a_inner, b, b_inner, n_inner, go_on, 6, n_vectors)
    elif n_rows == 7 and MAX_FEATURES >= 7:
        product_tile(out, out_row, a, a_row, a_inner, b, b_inner, n_inner, go_on, 7, n_vectors)
    elif n_rows == 8 and MAX_FEATURES >= 8:
        product_tile(out, out_row, a, a_row, a_inner, b, b_inner, n_inner, go_on, 8, n_vectors)


cdef void product_panel(
    real *out, Py_ssize_t out_row, const real *a, Py_ssize_t a_row, Py_ssize_t a_inner,
    const real *b, Py_ssize_t b_inner, Py_ssize_t n_inner, bint go_on, int n_rows, int n_vectors,
) noexcept nogil:
    """A tile of 1 to MAX_COLUMNS vectors."""
    if n_vectors == 1:
        product_rows(out, out_row, a, a_row, a_inner, b, b_inner, n_inner, go_on, n_rows, 1)
    elif n_vectors == 2:
        product_rows(out, out_row, a, a_row, a_inner, b, b_inner, n_inner, go_on, n_rows, 2)
    elif n_vectors == 3 and MAX_COLUMNS >= 3:
        product_rows(out, out_row, a, a_row, a_inner, b, b_inner, n_inner, go_on, n_rows, 3)


cdef inline void product_chains(
    real *out,                          # (n_vectors * lanes,)                      IN/OUT
    const real *a, Py_ssize_t a_inner, const real *b, Py_ssize_t b_inner,
    bint go_on, const int n_vectors,
) noexcept nogil:
    """N_CHAINS blocks of a single row."""
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real acc[TILE_BYTES]
    cdef Py_ssize_t t
    cdef int i, v
    for i in range(N_CHAINS * n_vectors):
        fill(acc + i * lanes, <real>0)
    for t in range(BLOCK):
        for i in range(N_CHAINS):
            for v in range(n_vectors):
                madd(acc + (i * n_vectors + v) * lanes, a[i * BLOCK * a_inner],
                     b + i * BLOCK * b_inner + v * lanes)
        a += a_inner
        b += b_inner
    for i in range(N_CHAINS):
        for v in range(n_vectors):
            if go_on or i > 0:
                add(out + v * lanes, out + v * lanes, acc + (i * n_vectors + v) * lanes)
            else:
                store(out + v * lanes, acc + (i * n_vectors + v) * lanes)


cdef void product_row(
    real *out, const real *a, Py_ssize_t a_inner, const real *b, Py_ssize_t b_inner, bint go_on,
    int n_vectors,
) noexcept nogil:
    if n_vectors == 1:
        product_chains(out, a, a_inner, b, b_inner, go_on, 1)
    elif n_vectors == 2:
        product_chains(out, a, a_inner, b, b_inner, go_on, 2)
    elif n_vectors == 3 and MAX_COLUMNS >= 3:
        product_chains(out, a, a_inner, b, b_inner, go_on, 3)


cdef inline void pack_block(real *panel, Py_ssize_t width, const real *b, const Product *job,
                     Py_ssize_t n_inner, Py_ssize_t n_cols) noexcept nogil:
    """Columns of b side by side, zeros after the last."""
    cdef Py_ssize_t t, j
    for j in range(n_cols):
        for t in range(n_inner):
            panel[t * width + j] = b[t * job.b_inner + j * job.b_col]
    for j in range(n_cols, width):
        for t in range(n_inner):
            panel[t * width + j] = 0


cdef Py_ssize_t readable_rows(const Product *job, Py_ssize_t col, Py_ssize_t width) noexcept nogil:
    """How many rows of b hold `width` values from a column on: after the last there is no next."""
    cdef Py_ssize_t beyond = col + width - job.n_cols
    if job.b_col != 1 or job.b_inner <= 0:
        return 0
    if beyond <= 0:
        return job.n_inner
    return max(<Py_ssize_t>0, job.n_inner - (beyond + job.b_inner - 1) // job.b_inner)


cdef void product_unit(const Product *job, Py_ssize_t unit, const real *a) noexcept nogil:
    """One block of columns and one part of the rows."""
    if job.n_inner > MAX_RUN:
        product_tiles(job, unit, a, True)
    else:
        product_tiles(job, unit, a, False)      # short sums pay nothing for long ones


cdef inline void product_tiles(const Product *job, Py_ssize_t unit, const real *a,
                               bint in_blocks) noexcept nogil:
    cdef const real *b = <const real *>job.b
    cdef const real *bias = <const real *>job.bias
    cdef real *out = <real *>job.out
    cdef real *errors = <real *>job.errors
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t block = unit // job.n_parts, part = unit % job.n_parts
    cdef Py_ssize_t n_vectors = (job.n_cols + lanes - 1) // lanes
    cdef Py_ssize_t col = block * n_vectors // job.n_blocks * lanes
    cdef Py_ssize_t width = (block + 1) * n_vectors // job.n_blocks * lanes - col
    cdef Py_ssize_t n_cols = min(width, job.n_cols - col)
    cdef Py_ssize_t first = part * job.n_rows // job.n_parts
    cdef Py_ssize_t n_rows = (part + 1) * job.n_rows // job.n_parts - first
    cdef Py_ssize_t n_tiles = (n_rows + MAX_FEATURES - 1) // MAX_FEATURES
    cdef Py_ssize_t readable = readable_rows(job, col, width)
    cdef Py_ssize_t t, t_end, i, n, tile, pitch, row, n_chains, at
    cdef bint go_on, added
    cdef real memory[PANEL_SIZE + VECTOR_BYTES]
    cdef real corner[TILE_BYTES]
    cdef real *panel = <real *>((<size_t>memory + VECTOR_BYTES - 1) // VECTOR_BYTES * VECTOR_BYTES)
    cdef const real *source
    cdef real *place
    t_end = -1
    while t_end < job.n_inner:  # once even if there is nothing to sum
        t = max(t_end, <Py_ssize_t>0)
        n_chains = N_CHAINS if job.n_rows == 1 and t + N_CHAINS * BLOCK <= readable else 1
        t_end = min(t + n_chains * BLOCK,
                    readable if t < readable and not in_blocks else job.n_inner)
        go_on, added = t > 0 and not in_blocks, t > 0 and in_blocks
        source, pitch = b + t * job.b_inner + col * job.b_col, job.b_inner
        if t_end > readable:
            pack_block(panel, width, source, job, t_end - t, n_cols)
            source, pitch = panel, width
        for tile in range(n_tiles):
            i = first + tile * n_rows // n_tiles
            n = first + (tile + 1) * n_rows // n_tiles - i
            at = i * job.n_cols + col
            place, row = out + at, job.n_cols
            if n_cols < width or added:     # the last columns do not fill a vector
                place, row = corner, width
                if go_on:
                    copy_tile(corner, width, out + at, job.n_cols, n, n_cols)
            if n_chains > 1:
                product_row(place, a + t * job.a_inner, job.a_inner, source, pitch, go_on,
                            <int>(width // lanes))
            elif added:     # one call for both would be inlined, and its loops lack registers
                product_panel(corner, width, a + i * job.a_row + t * job.a_inner, job.a_row,
                              job.a_inner, source, pitch, t_end - t, False, <int>n,
                              <int>(width // lanes))
            else:
                product_panel(place, row, a + i * job.a_row + t * job.a_inner, job.a_row,
                              job.a_inner, source, pitch, t_end - t, go_on, <int>n,
                              <int>(width // lanes))
            if added:
                add_block(out + at, errors + at if errors != NULL else NULL, job.n_cols, corner,
                          width, n, n_cols)
                place, row = out + at, job.n_cols
            if t_end == job.n_inner:
                finish_tile(place, errors + at if errors != NULL else NULL, row, n, n_cols,
                            n_cols if added else width, <real>job.divisor,
                            bias + col if bias != NULL else NULL, job.with_relu)
            if n_cols < width and not added:
                copy_tile(out + at, job.n_cols, corner, width, n, n_cols)


cdef inline void copy_tile(real *dst, Py_ssize_t dst_row, const real *src, Py_ssize_t src_row,
                           Py_ssize_t n_rows, Py_ssize_t n_cols) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n_rows):
        memcpy(dst + i * dst_row, src + i * src_row, n_cols * sizeof(real))


cdef void add_block(real *out, real *errors, Py_ssize_t out_row, const real *block,
                    Py_ssize_t row, Py_ssize_t n_rows, Py_ssize_t n_cols) noexcept nogil:
    """out += block, and errors += what the rounding has lost, if they are kept."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real), whole = n_cols - n_cols % lanes, i, j
    cdef real ends[3 * VECTOR_BYTES]    # of a row, what does not fill a vector
    for i in range(n_rows):
        j = 0
        while j < whole:
            if errors == NULL:
                add(out + j, out + j, block + j)
            else:
                add_exactly(out + j, errors + j, block + j)
            j += lanes
        if whole < n_cols:
            memcpy(ends, out + whole, (n_cols - whole) * sizeof(real))
            if errors == NULL:
                add(ends, ends, block + whole)
            else:
                memcpy(ends + lanes, errors + whole, (n_cols - whole) * sizeof(real))
                add_exactly(ends, ends + lanes, block + whole)
                memcpy(errors + whole, ends + lanes, (n_cols - whole) * sizeof(real))
            memcpy(out + whole, ends, (n_cols - whole) * sizeof(real))
        out, block = out + out_row, block + row
        errors = errors + out_row if errors != NULL else NULL


cdef inline void finish_tile(real *tile, const real *errors, Py_ssize_t row, Py_ssize_t n_rows,
                             Py_ssize_t n_cols, Py_ssize_t width, real divisor, const real *bias,
                             bint with_relu) noexcept nogil:
    """What follows the sums, while they are in the L1 cache; `width` columns may be changed."""
    cdef Py_ssize_t i, j
    for i in range(n_rows):
        if errors != NULL:
            for j in range(n_cols):
                tile[j] += errors[i * row + j]
        if divisor != 1:
            for j in range(width):
                tile[j] /= divisor
        if bias != NULL:
            for j in range(n_cols):
                tile[j] += bias[j]
        if with_relu:
            for j in range(width):
                tile[j] = <real>0 if tile[j] < 0 else tile[j]  # NaN stays
        tile += row


cdef void float_unit(void *job, Py_ssize_t unit, int thread) noexcept nogil:
    product_unit(<Product *>job, unit, <const float *>(<Product *>job).a)


cdef void double_unit(void *job, Py_ssize_t unit, int thread) noexcept nogil:
    product_unit(<Product *>job, unit, <const double *>(<Product *>job).a)


cdef void run_product(Product *job, bint is_float, int n_threads) noexcept nogil:
    cdef Py_ssize_t lanes = VECTOR_BYTES // (4 if is_float else 8)
    cdef Py_ssize_t n_tiles = (job.n_rows + MAX_FEATURES - 1) // MAX_FEATURES
    cdef Py_ssize_t n_vectors = (job.n_cols + lanes - 1) // lanes
    job.n_blocks = (n_vectors + MAX_COLUMNS - 1) // MAX_COLUMNS
    job.n_parts = 1
    if n_threads > 1:
        job.n_parts = max(<Py_ssize_t>1, min(n_tiles, 4 * n_threads // job.n_blocks))
    parallel_for(float_unit if is_float else double_unit, job, job.n_blocks * job.n_parts,
                 n_threads)
