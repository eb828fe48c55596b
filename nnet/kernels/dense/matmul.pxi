# The product of two matrices, for dense layers: batches of rows times weights. Needs common/simd,
# common/chunks and dense/tiles.h.
#
# A tile of out, a few rows of a by a few vectors of columns of b, stays in
# registers while it walks the inner axis:
#
#     out[i, j] += a[i, t] * b[t, j]          a[i, t]: one value, in all lanes
#                                             b[t, j]: lanes hold columns
#
# Every element is summed as common/chunks.h has it, whatever tile it is in and whichever thread
# has it: chunks of t, which form a binary tree. If the inner axis is that of images, they are
# those of all sums over images. If a has a single row, several chunks are summed side by side,
# as one multiply-add after the other would wait for the one before.
#
# The last vector of columns is moved back to end with its row, and overlaps the one
# before. Rows of b are read where they are; if its columns do not lie side by side, as in a
# transposed matrix, or do not fill a vector, a block of it is copied first.

from libc.string cimport memcpy

cdef extern from "dense/tiles.h":
    ctypedef struct ProductTiles:
        Py_ssize_t n_inner, chunk, n_chunks, a_row, a_inner, b_inner, out_row, n_cols
        const void *bias
        double divisor
        bint with_relu
    enum: MAX_COLUMNS
    void product_tile(...) noexcept nogil

cdef enum:
    TERMS = 64              # of a chunk: 128 are 2 % faster and err by 1.5e-7, these by 1.25e-7
    BLOCK = 512             # of the inner axis: that much of b stays in the L2 cache
    SMALL_SCRATCH = 16384   # bytes that a call has on its own stack: it takes 0.1 us less
    MAX_UNIT_ROWS = 512     # whose sums lie on stacks at a time
    STACKED = MAX_ACCUMULATORS * VECTOR_BYTES   # bytes: the sums of a tile
    SMALL_WORK = 300_000    # multiply-adds below which a second thread costs more than it saves


cdef struct ProductPlan:                # what follows from shapes and strides
    ProductTiles tiles                  # without what follows the sum
    Py_ssize_t n_cols, b_col
    Py_ssize_t n_readable               # rows of b that may be read in whole vectors
    Py_ssize_t n_blocks                 # of columns
    Py_ssize_t block                    # of the inner axis: chunks
    bint in_blocks                      # tiles put their sums aside, for each block of b
    Py_ssize_t panel_size, stack_size   # bytes: of the copy of a block of b, of a tile's stack
    bint is_float

cdef struct Product:                    # one call
    const ProductPlan *plan
    ProductTiles tiles
    const void *a
    const void *b
    void *out                           # (n_rows, n_cols)
    char *scratch                       # a piece for each thread
    Py_ssize_t n_rows, scratch_size
    Py_ssize_t block                    # of the inner axis: chunks
    Py_ssize_t n_parts                  # parts of the rows: units of work for the threads


cdef ProductPlan plan_product(
    Py_ssize_t n_inner, Py_ssize_t n_cols, Py_ssize_t a_row, Py_ssize_t a_inner,
    Py_ssize_t b_inner, Py_ssize_t b_col, Py_ssize_t chunk, bint is_float,
) noexcept nogil:
    """For any number of rows; strides are in elements."""
    cdef ProductPlan plan
    cdef Py_ssize_t size = 4 if is_float else 8, lanes = VECTOR_BYTES // size
    cdef Py_ssize_t n_vectors = (n_cols + lanes - 1) // lanes
    plan.tiles = [n_inner, chunk, max(<Py_ssize_t>1, (n_inner + chunk - 1) // chunk),
                  a_row, a_inner, b_inner, n_cols, n_cols, NULL, 1, False]
    plan.n_cols, plan.b_col, plan.is_float = n_cols, b_col, is_float
    plan.n_blocks = (n_vectors + MAX_COLUMNS - 1) // MAX_COLUMNS
    plan.block = BLOCK // chunk
    plan.n_readable = n_inner
    if b_col != 1:
        plan.n_readable = 0
    elif n_cols < lanes:                # after the last row there is no next
        plan.n_readable = max(<Py_ssize_t>0, n_inner - (lanes - n_cols + b_inner - 1) // b_inner
                              if b_inner > 0 else 0)
    plan.panel_size = 0
    if plan.n_readable < n_inner:
        plan.panel_size = min(BLOCK, n_inner) * MAX_COLUMNS * VECTOR_BYTES
    plan.in_blocks = plan.tiles.n_chunks > plan.block or chunk <= plan.n_readable < n_inner
    plan.stack_size = stack_depth(plan.tiles.n_chunks) * STACKED
    return plan


cdef inline Py_ssize_t tiles_of(Py_ssize_t n_rows) noexcept nogil:
    return (n_rows + MAX_FEATURES - 1) // MAX_FEATURES


cdef Py_ssize_t product_scratch(const ProductPlan *plan, Py_ssize_t n_rows) noexcept nogil:
    """Bytes that each thread needs, aligned for vectors."""
    cdef Py_ssize_t n_stacks = 1
    if plan.in_blocks:
        n_stacks = tiles_of(min(n_rows, <Py_ssize_t>MAX_UNIT_ROWS))
    return plan.panel_size + n_stacks * plan.stack_size


cdef inline Py_ssize_t next_vector(Py_ssize_t x, Py_ssize_t n, Py_ssize_t lanes) noexcept nogil:
    """Where the vector after that at x begins; the last one ends at n."""
    x += lanes
    return n - lanes if x < n < x + lanes else x


cdef void pack_block(real *panel, Py_ssize_t width, const real *b, const ProductPlan *plan,
                     Py_ssize_t n_inner, Py_ssize_t n_cols) noexcept nogil:
    """Columns of b side by side; behind less than a vector, zeros."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real), t, j, i
    cdef Py_ssize_t b_inner = plan.tiles.b_inner, b_col = plan.b_col
    cdef real block[LANES_SQUARED]
    if b_inner == 1 and n_inner >= lanes and n_cols >= lanes:
        j = 0
        while j < n_cols:
            t = 0
            while t < n_inner:
                for i in range(VECTOR_BYTES // sizeof(real)):
                    store(block + i * lanes, b + (j + i) * b_col + t)
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
            panel[t * width + j] = b[t * b_inner + j * b_col]


cdef void product_part(const Product *job, Py_ssize_t unit, int thread, const real *a) noexcept nogil:
    """One block of columns and one part of the rows."""
    cdef const ProductPlan *plan = job.plan
    cdef ProductTiles tiles = job.tiles
    cdef real *panel = <real *>(job.scratch + thread * job.scratch_size)
    cdef char *stack = job.scratch + thread * job.scratch_size + plan.panel_size
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t block = unit // job.n_parts, part = unit % job.n_parts
    cdef Py_ssize_t n_vectors = (plan.n_cols + lanes - 1) // lanes
    cdef Py_ssize_t col = block * n_vectors // plan.n_blocks * lanes
    cdef Py_ssize_t width = (block + 1) * n_vectors // plan.n_blocks * lanes - col
    cdef Py_ssize_t row = part * job.n_rows // job.n_parts
    cdef Py_ssize_t n_rows = (part + 1) * job.n_rows // job.n_parts - row
    cdef Py_ssize_t n_tiles = tiles_of(n_rows), chunk = 0, end, t, t_end, tile, i, n
    cdef Py_ssize_t stack_size = plan.stack_size if plan.in_blocks else 0
    cdef const real *b = <const real *>job.b + col * plan.b_col
    cdef const real *source
    cdef real bias[LANES]               # of less than a vector
    cdef real *out = <real *>job.out + row * plan.n_cols + col
    tiles.n_cols = min(width, plan.n_cols - col)
    if tiles.bias != NULL:
        tiles.bias = <const real *>tiles.bias + col
        if tiles.n_cols < lanes:
            memcpy(bias, tiles.bias, tiles.n_cols * sizeof(real))
            tiles.bias = <const real *>bias
    a += row * tiles.a_row
    while chunk < tiles.n_chunks:
        end = min(chunk + job.block, tiles.n_chunks)
        if (min(end * tiles.chunk, tiles.n_inner) > plan.n_readable
                and plan.n_readable >= (chunk + 1) * tiles.chunk):
            end = plan.n_readable // tiles.chunk    # what can be read where it is, first
        t, t_end = chunk * tiles.chunk, min(end * tiles.chunk, tiles.n_inner)
        source, tiles.b_inner = b + t * plan.tiles.b_inner, plan.tiles.b_inner
        if t_end > plan.n_readable:
            pack_block(panel, width, source, plan, t_end - t, tiles.n_cols)
            source, tiles.b_inner = panel, width
        for tile in range(n_tiles):
            i = tile * n_rows // n_tiles
            n = (tile + 1) * n_rows // n_tiles - i
            product_tile(a + i * tiles.a_row + t * tiles.a_inner, source,
                         <real *>(stack + tile * stack_size), chunk, end, out + i * plan.n_cols,
                         &tiles, <int>n, <int>(width // lanes))
        chunk = end


cdef void product_unit(void *context, Py_ssize_t unit, int thread) noexcept nogil:
    cdef const Product *job = <const Product *>context
    if job.plan.is_float:
        product_part(job, unit, thread, <const float *>job.a)
    else:
        product_part(job, unit, thread, <const double *>job.a)


cdef void run_product(
    const ProductPlan *plan, const void *a, const void *b, const void *bias, void *out,
    Py_ssize_t n_rows, double divisor, bint with_relu, void *scratch, int n_threads,
) noexcept nogil:
    """out = a @ b / divisor + bias; n_threads pieces of scratch, of product_scratch bytes each."""
    cdef Product job = [plan, plan.tiles, a, b, out, <char *>scratch, n_rows,
                        product_scratch(plan, n_rows), plan.block, 1]
    cdef Py_ssize_t work
    job.tiles.bias, job.tiles.divisor, job.tiles.with_relu = bias, divisor, with_relu
    if n_rows <= MAX_FEATURES and plan.panel_size == 0:     # nothing is read twice
        job.block = plan.tiles.n_chunks
    if n_threads > 1:
        job.n_parts = min(tiles_of(n_rows), 4 * n_threads // plan.n_blocks)
    # After some 10 ms of one thread, a look for signals.
    work = n_rows * plan.tiles.n_inner * MAX_COLUMNS * VECTOR_BYTES >> 32
    job.n_parts = max(job.n_parts, (n_rows + MAX_UNIT_ROWS - 1) // MAX_UNIT_ROWS,
                      min(tiles_of(n_rows), work))
    parallel_for(product_unit, &job, plan.n_blocks * job.n_parts, n_threads)
