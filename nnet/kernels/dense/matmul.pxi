# The product of two matrices, for dense layers: batches of rows times weights.
#
# A tile of out, a few rows of a by a few vectors of columns of b, stays in
# registers while it walks the inner axis:
#
#     out[i, j] += a[i, t] * b[t, j]          a[i, t]: one value, in all lanes
#                                             b[t, j]: lanes hold columns
#
# Every element is summed in the order of t, whatever tile it is in and whichever
# thread has it: runs of t, which add up to blocks, which add up. But if a has a single
# row, several runs are summed at once, as one multiply-add after the other would wait for
# the one before. Very long sums keep what adding up the blocks loses by rounding.
#
# The last vector of columns is moved back to end with its row, and overlaps the one
# before. Rows of b are read where they are; if its columns do not lie side by side, as in a
# transposed matrix, or do not fill a vector, a block of it is copied first.

from libc.string cimport memcpy

cdef enum:
    MAX_COLUMNS = MAX_ACCUMULATORS // MAX_FEATURES  # vectors of columns in a tile: 2 or more
    TERMS = 128             # terms of a sum, one after the other, that lose little by rounding
    BLOCK = 2 * TERMS       # of the inner axis: that much of b stays in the L2 cache
    MAX_BLOCKS = 16         # more than that keep their rounding errors
    N_CHAINS = 4            # runs that a single row takes at once: the latency in cycles
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

cdef struct Slab:                       # what the tiles of a block have in common
    Py_ssize_t n_inner
    Py_ssize_t out_row, a_row, a_inner, b_inner
    Py_ssize_t last                     # column of the last vector, counted from the first's
    bint go_on                          # add to the sums that are in out
    bint ends                           # the sums are complete then
    bint with_relu
    const void *bias                    # of the first column on, or NULL
    double divisor


cdef inline Py_ssize_t column(int v, int n_vectors, int lanes, Py_ssize_t last) noexcept nogil:
    """Where vector v begins."""
    return last if 0 < v == n_vectors - 1 else v * lanes


cdef inline void end_tile(
    real *acc,                          # (n_rows, n_vectors, lanes)                IN
    real *out, real *errors, const Slab *slab, bint go_on, bint ends, const int n_rows,
    const int n_vectors,
) noexcept nogil:
    """The sums of a block to those before, and what follows the last."""
    cdef int lanes = VECTOR_BYTES // sizeof(real), i, v
    cdef Py_ssize_t last = slab.last, row = slab.out_row
    cdef const real *bias = <const real *>slab.bias
    cdef real total[MAX_COLUMNS * LANES]
    cdef real lost[MAX_COLUMNS * LANES]
    cdef real divisor[LANES]
    # Of a row, all is read before any is written, as vectors may overlap.
    if go_on and errors != NULL:
        for i in range(n_rows):
            for v in range(n_vectors):
                store(total + v * lanes, out + i * row + column(v, n_vectors, lanes, last))
                store(lost + v * lanes, errors + i * row + column(v, n_vectors, lanes, last))
                add_exactly(<real *>total + v * lanes, <real *>lost + v * lanes,
                            acc + (i * n_vectors + v) * lanes)
                store(acc + (i * n_vectors + v) * lanes, total + v * lanes)
            for v in range(n_vectors):
                store(errors + i * row + column(v, n_vectors, lanes, last), lost + v * lanes)
                if ends:
                    add(acc + (i * n_vectors + v) * lanes, acc + (i * n_vectors + v) * lanes,
                        lost + v * lanes)
    elif go_on:
        for i in range(n_rows):
            for v in range(n_vectors):
                add(acc + (i * n_vectors + v) * lanes, acc + (i * n_vectors + v) * lanes,
                    out + i * row + column(v, n_vectors, lanes, last))
    if ends and slab.divisor != 1:
        fill(divisor, <real>slab.divisor)
        for i in range(n_rows):
            for v in range(n_vectors):
                divide(acc + (i * n_vectors + v) * lanes, divisor)
    if ends and bias != NULL:
        for i in range(n_rows):
            for v in range(n_vectors):
                add(acc + (i * n_vectors + v) * lanes, acc + (i * n_vectors + v) * lanes,
                    bias + column(v, n_vectors, lanes, last))
    if ends and slab.with_relu:
        for i in range(n_rows):
            for v in range(n_vectors):
                relu(acc + (i * n_vectors + v) * lanes)
    for i in range(n_rows):
        for v in range(n_vectors):
            store(out + i * row + column(v, n_vectors, lanes, last),
                  acc + (i * n_vectors + v) * lanes)


cdef inline void product_tile(
    real *out, real *errors,            # (n_rows, columns)                         IN/OUT
    const real *a, const real *b, const Slab *slab, const int n_rows, const int n_vectors,
) noexcept nogil:
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real acc[TILE_VALUES]
    cdef real before[TILE_VALUES]
    cdef Py_ssize_t a_row = slab.a_row, a_inner = slab.a_inner, b_inner = slab.b_inner
    cdef Py_ssize_t last = slab.last, n_left = slab.n_inner, t
    cdef bint second = False
    cdef int i, v
    while True:
        for i in range(n_rows):
            for v in range(n_vectors):
                fill(acc + (i * n_vectors + v) * lanes, <real>0)
        for t in range(min(n_left, <Py_ssize_t>TERMS)):
            for i in range(n_rows):
                for v in range(n_vectors):
                    madd(acc + (i * n_vectors + v) * lanes, a[i * a_row],
                         b + column(v, n_vectors, lanes, last))
            a += a_inner
            b += b_inner
        if second or n_left <= TERMS:
            break
        for i in range(n_rows):
            for v in range(n_vectors):
                store(before + (i * n_vectors + v) * lanes, acc + (i * n_vectors + v) * lanes)
        second = True
        n_left -= TERMS
    if second:
        for i in range(n_rows):
            for v in range(n_vectors):
                add(acc + (i * n_vectors + v) * lanes, before + (i * n_vectors + v) * lanes,
                    acc + (i * n_vectors + v) * lanes)
    end_tile(<real *>acc, out, errors, slab, slab.go_on, slab.ends, n_rows, n_vectors)


cdef inline void product_rows(
    real *out, real *errors, const real *a, const real *b, const Slab *slab, int n_rows,
    const int n_vectors,
) noexcept nogil:
    """A tile of 1 to MAX_FEATURES rows."""
    if n_rows == 1:
        product_tile(out, errors, a, b, slab, 1, n_vectors)
    elif n_rows == 2:
        product_tile(out, errors, a, b, slab, 2, n_vectors)
    elif n_rows == 3:
        product_tile(out, errors, a, b, slab, 3, n_vectors)
    elif n_rows == 4:
        product_tile(out, errors, a, b, slab, 4, n_vectors)
    elif n_rows == 5:
        product_tile(out, errors, a, b, slab, 5, n_vectors)
    elif n_rows == 6:
        product_tile(out, errors, a, b, slab, 6, n_vectors)
    elif n_rows == 7 and MAX_FEATURES >= 7:
        product_tile(out, errors, a, b, slab, 7, n_vectors)
    elif n_rows == 8 and MAX_FEATURES >= 8:
        product_tile(out, errors, a, b, slab, 8, n_vectors)


cdef void product_panel(
    real *out, real *errors, const real *a, const real *b, const Slab *slab, int n_rows,
    int n_vectors,
) noexcept nogil:
    """A tile of 1 to MAX_COLUMNS vectors."""
    if n_vectors == 1:
        product_rows(out, errors, a, b, slab, n_rows, 1)
    elif n_vectors == 2:
        product_rows(out, errors, a, b, slab, n_rows, 2)
    elif n_vectors == 3 and MAX_COLUMNS >= 3:
        product_rows(out, errors, a, b, slab, n_rows, 3)


cdef inline void product_chains(
    real *out, real *errors,            # (columns,)                                IN/OUT
    const real *a, const real *b, const Slab *slab, const int n_vectors,
) noexcept nogil:
    """N_CHAINS runs of a single row, two blocks."""
    cdef int lanes = VECTOR_BYTES // sizeof(real)
    cdef real acc[TILE_VALUES]
    cdef Py_ssize_t a_inner = slab.a_inner, b_inner = slab.b_inner, last = slab.last, t
    cdef int i, v
    for i in range(N_CHAINS * n_vectors):
        fill(acc + i * lanes, <real>0)
    for t in range(TERMS):
        for i in range(N_CHAINS):
            for v in range(n_vectors):
                madd(acc + (i * n_vectors + v) * lanes, a[i * TERMS * a_inner],
                     b + i * TERMS * b_inner + column(v, n_vectors, lanes, last))
        a += a_inner
        b += b_inner
    for i in range(2):
        for v in range(n_vectors):
            add(acc + (2 * i * n_vectors + v) * lanes, acc + (2 * i * n_vectors + v) * lanes,
                acc + ((2 * i + 1) * n_vectors + v) * lanes)
    end_tile(<real *>acc, out, errors, slab, slab.go_on, False, 1, n_vectors)
    end_tile(acc + 2 * n_vectors * lanes, out, errors, slab, True, slab.ends, 1, n_vectors)


cdef void product_row(
    real *out, real *errors, const real *a, const real *b, const Slab *slab, int n_vectors,
) noexcept nogil:
    if n_vectors == 1:
        product_chains(out, errors, a, b, slab, 1)
    elif n_vectors == 2:
        product_chains(out, errors, a, b, slab, 2)
    elif n_vectors == 3 and MAX_COLUMNS >= 3:
        product_chains(out, errors, a, b, slab, 3)


cdef inline Py_ssize_t next_vector(Py_ssize_t x, Py_ssize_t n, Py_ssize_t lanes) noexcept nogil:
    """Where the vector after that at x begins; the last one ends at n."""
    x += lanes
    return n - lanes if x < n < x + lanes else x


cdef void pack_block(real *panel, Py_ssize_t width, const real *b, const Product *job,
                     Py_ssize_t n_inner, Py_ssize_t n_cols) noexcept nogil:
    """Columns of b side by side; behind less than a vector, zeros."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real), t, j, i
    cdef real block[LANES_SQUARED]
    if job.b_inner == 1 and n_inner >= lanes and n_cols >= lanes:
        j = 0
        while j < n_cols:
            t = 0
            while t < n_inner:
                for i in range(VECTOR_BYTES // sizeof(real)):
                    store(block + i * lanes, b + (j + i) * job.b_col + t)
                transpose(block)
                for i in range(VECTOR_BYTES // sizeof(real)):
                    store(panel + (t + i) * width + j, block + i * lanes)
                t = next_vector(t, n_inner, lanes)
            j = next_vector(j, n_cols, lanes)
        return
    for t in range(n_inner if n_cols < lanes else 0):
        fill(panel + t * width, <real>0)
    for j in range(n_cols):
        for t in range(n_inner):
            panel[t * width + j] = b[t * job.b_inner + j * job.b_col]


cdef Py_ssize_t readable_rows(const Product *job, Py_ssize_t lanes) noexcept nogil:
    """How many rows of b may be read in whole vectors: after the last there is no next."""
    cdef Py_ssize_t beyond = lanes - job.n_cols
    if job.b_col != 1:
        return 0
    if beyond <= 0:
        return job.n_inner
    if job.b_inner <= 0:
        return 0
    return max(<Py_ssize_t>0, job.n_inner - (beyond + job.b_inner - 1) // job.b_inner)


cdef void product_unit(const Product *job, Py_ssize_t unit, const real *a) noexcept nogil:
    """One block of columns and one part of the rows."""
    cdef const real *b = <const real *>job.b
    cdef real *out = <real *>job.out
    cdef real *errors = <real *>job.errors
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t block = unit // job.n_parts, part = unit % job.n_parts
    cdef Py_ssize_t all_vectors = (job.n_cols + lanes - 1) // lanes
    cdef Py_ssize_t col = block * all_vectors // job.n_blocks * lanes
    cdef Py_ssize_t width = (block + 1) * all_vectors // job.n_blocks * lanes - col
    cdef Py_ssize_t n_cols = min(width, job.n_cols - col)
    cdef Py_ssize_t first = part * job.n_rows // job.n_parts
    cdef Py_ssize_t n_rows = (part + 1) * job.n_rows // job.n_parts - first
    cdef Py_ssize_t n_tiles = (n_rows + MAX_FEATURES - 1) // MAX_FEATURES
    cdef Py_ssize_t readable = readable_rows(job, lanes)
    cdef Py_ssize_t t = 0, t_end, i, n, tile, at
    cdef int n_vectors = <int>(width // lanes)
    cdef bint narrow = n_cols < lanes, in_chains
    cdef real memory[PANEL_SIZE + VECTOR_BYTES]
    cdef real corner[MAX_FEATURES * LANES]      # rows of less than a vector, ...
    cdef real lost[MAX_FEATURES * LANES]        # ... their errors ...
    cdef real bias[LANES]                       # ... and biases
    cdef real *panel = <real *>((<size_t>memory + VECTOR_BYTES - 1) // VECTOR_BYTES * VECTOR_BYTES)
    cdef const real *source
    cdef Slab slab
    slab.a_row, slab.a_inner, slab.last = job.a_row, job.a_inner, n_cols - lanes
    slab.out_row, slab.with_relu, slab.divisor = job.n_cols, job.with_relu, job.divisor
    slab.bias = <const real *>job.bias + col if job.bias != NULL else NULL
    if narrow:
        slab.out_row = lanes
        if job.bias != NULL:
            memcpy(bias, slab.bias, n_cols * sizeof(real))
            slab.bias = <const real *>bias
    while True:     # once even if there is nothing to sum
        in_chains = job.n_rows == 1 and t + N_CHAINS * TERMS <= readable
        t_end = min(t + (N_CHAINS * TERMS if in_chains else BLOCK), job.n_inner)
        source, slab.b_inner = b + t * job.b_inner + col * job.b_col, job.b_inner
        if t_end > readable:
            pack_block(panel, width, source, job, t_end - t, n_cols)
            source, slab.b_inner = panel, width
        slab.n_inner, slab.go_on, slab.ends = t_end - t, t > 0, t_end == job.n_inner
        for tile in range(n_tiles):
            i = first + tile * n_rows // n_tiles
            n = first + (tile + 1) * n_rows // n_tiles - i
            at = i * job.n_cols + col
            if narrow:
                copy_tile(corner, lanes, out + at, job.n_cols, n, n_cols)
                if errors != NULL:
                    copy_tile(lost, lanes, errors + at, job.n_cols, n, n_cols)
                product_part(corner, <real *>lost if errors != NULL else NULL,
                             a + i * job.a_row + t * job.a_inner, source, &slab, <int>n, 1,
                             in_chains)
                copy_tile(out + at, job.n_cols, corner, lanes, n, n_cols)
                if errors != NULL:
                    copy_tile(errors + at, job.n_cols, lost, lanes, n, n_cols)
            else:
                product_part(out + at, errors + at if errors != NULL else NULL,
                             a + i * job.a_row + t * job.a_inner, source, &slab, <int>n,
                             n_vectors, in_chains)
        t = t_end
        if t == job.n_inner:
            break


cdef inline void product_part(
    real *out, real *errors, const real *a, const real *b, const Slab *slab, int n_rows,
    int n_vectors, bint in_chains,
) noexcept nogil:
    if in_chains:
        product_row(out, errors, a, b, slab, n_vectors)
    else:
        product_panel(out, errors, a, b, slab, n_rows, n_vectors)


cdef inline void copy_tile(real *dst, Py_ssize_t dst_row, const real *src, Py_ssize_t src_row,
                           Py_ssize_t n_rows, Py_ssize_t n_cols) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n_rows):
        copy(dst + i * dst_row, src + i * src_row, n_cols)


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
        job.n_parts = 4 * n_threads // job.n_blocks
    # After some 10 ms of one thread, a look for signals.
    job.n_parts = max(job.n_parts, job.n_rows * job.n_inner * MAX_COLUMNS * lanes >> 30)
    job.n_parts = max(<Py_ssize_t>1, min(n_tiles, job.n_parts))
    parallel_for(float_unit if is_float else double_unit, job, job.n_blocks * job.n_parts,
                 n_threads)
