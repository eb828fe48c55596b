# The filter gradient in dot form: lanes hold pixels.
#
# Dense: one copy of the image for each column of taps, cut to the columns that
# this tap reads, so that an output plane and what a tap reads of it are runs of
# pixels without gaps. The output gradient is read where it is.
#
#     image, padded by 1      copy j = 0   copy j = 1   copy j = 2    tap (i, j) starts
#     . . . . .               . . .        . . .        . . .         in row i of copy j
#     . a b c .               . a b        a b c        b c .
#     . d e f .               . d e        d e f        e f .
#     . . . . .               . . .        . . .        . . .
#
# Shifted: a single copy of the image and one of the gradient, both with gaps
# between the rows. A vector of pixels meets the gradient of the row above, of
# its own, and of the row below: fewer copies, for filters of one or two features.

cdef inline bint copy_run(real *dst, const real *src, Py_ssize_t n, Py_ssize_t step,
                          Py_ssize_t room) noexcept nogil:
    """n values, `step` apart, in whole vectors where `room` values from src on may be read.

    Returns whether more than n were written: up to a vector more.
    """
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t x = 0
    if step == 1 and n >= lanes:
        if n >= 2 * lanes:  # stores across cache lines cost most of all
            load(dst, src)
            x = lanes - (<size_t>dst // sizeof(real)) % lanes
        while x + lanes <= n:
            load(dst + x, src + x)
            x += lanes
        if x < n:  # the last vector is moved back to end with the run
            load(dst + n - lanes, src + n - lanes)
        return False
    if step == 1 and room >= lanes:
        load(dst, src)
        return True
    if step == 2:
        while x < n and 2 * (x + lanes) <= room:
            unzip(dst + x, <real *>NULL, src + 2 * x, lanes, lanes)
            x += lanes
    if x > n:
        return True
    while x < n:
        dst[x] = src[x * step]
        x += 1
    return False


cdef void copy_rows(
    real *dst, Py_ssize_t n_rows, Py_ssize_t n_cols, const real *plane, Py_ssize_t h, Py_ssize_t w,
    Py_ssize_t first_row, Py_ssize_t row_step, Py_ssize_t first_col, Py_ssize_t col_step,
    int border,
) noexcept nogil:
    """Every row_step-th row and col_step-th column of a plane, its border around them.

    Zeros are there before, and stay: what reaches over the end of a row is cleared again.
    """
    # Rows [r0, r1) and columns [x0, x1) are pixels.
    cdef Py_ssize_t r0 = clip(ceil_div(-first_row, row_step), 0, n_rows)
    cdef Py_ssize_t r1 = clip(ceil_div(h - first_row, row_step), r0, n_rows)
    cdef Py_ssize_t x0 = clip(ceil_div(-first_col, col_step), 0, n_cols)
    cdef Py_ssize_t x1 = clip(ceil_div(w - first_col, col_step), x0, n_cols)
    cdef Py_ssize_t at = first_row * w + first_col, r, x, i, end
    if border != BORDER_ZEROS:
        copy_bordered(dst, n_rows, n_cols, plane, h, w, first_row, row_step, first_col, col_step,
                      border)
    elif n_cols == w and row_step == 1 and col_step == 1:
        # One long run; what it takes from the other ends of rows becomes zeros again.
        i, end = max(r0 * w, -at), min(r1 * w, h * w - at)
        for r in range(h * w * sizeof(real) // 64):
            prefetch(<const char *>(plane + h * w) + r * 64)
        if i < end and copy_run(dst + i, plane + at + i, end - i, 1, h * w - at - i):
            clear(dst + end)
        for x in range(x0):
            for r in range(r0, r1):
                dst[r * w + x] = 0
        for x in range(x1, w):
            for r in range(r0, r1):
                dst[r * w + x] = 0
    else:
        for r in range(r0, r1 if x0 < x1 else r0):
            i = at + r * row_step * w + x0 * col_step
            prefetch(plane + i + h * w)
            if copy_run(dst + r * n_cols + x0, plane + i, x1 - x0, col_step, h * w - i):
                clear(dst + r * n_cols + x1)


cdef void copy_bordered(
    real *dst, Py_ssize_t n_rows, Py_ssize_t n_cols, const real *plane, Py_ssize_t h, Py_ssize_t w,
    Py_ssize_t first_row, Py_ssize_t row_step, Py_ssize_t first_col, Py_ssize_t col_step,
    int border,
) noexcept nogil:
    """The same for a border of pixels."""
    cdef Py_ssize_t r, x
    cdef const real *source
    for r in range(n_rows):
        source = plane + border_index(first_row + r * row_step, h, border) * w
        for x in range(n_cols):
            dst[r * n_cols + x] = source[border_index(first_col + x * col_step, w, border)]


cdef struct FilterGradient     # in gradient.pxi

cdef struct DotLayout:
    # Where things lie in the buffers of the dot form.
    bint shifted
    bint by_rows                        # shifted: whole vectors in each row, else across rows
    Py_ssize_t n_phases_y, n_phases_x   # phases of a stride, as in conv/packing.pxi
    Py_ssize_t copies                   # of a channel: phases_x, or one for each column of taps
    Py_ssize_t rows, cols               # of a copy
    Py_ssize_t plane                    # from one copy to the next
    Py_ssize_t img                      # from one image to the next
    Packing packing                     # shifted, with a stride of 2: how copies are made
    Py_ssize_t shift                    # rows by which the taps of a column are apart, at most
    Py_ssize_t grad_cols, grad_plane    # shifted: the packed output gradient
    Py_ssize_t grad_at                  # where it lies in the buffer, or the tails of rows
    Py_ssize_t sums_at                  # where the sums lie, a vector each
    Py_ssize_t *tap_at
    Py_ssize_t *feature_at


cdef void plan_dot(FilterGradient *job, bint shifted, Py_ssize_t lanes) noexcept nogil:
    """Lay out the buffers, but for the tables."""
    cdef DotLayout *d = &job.dot
    cdef Packing *p = &d.packing
    cdef Py_ssize_t reach = (job.fil_w - 1) * job.dilation_x // job.stride_x, vectors, gap, flat
    cdef Py_ssize_t most
    d.shifted = shifted
    d.shift = (job.fil_h - 1) * job.dilation_y // job.stride_y
    d.n_phases_y = phases(job.fil_h, job.stride_y, job.dilation_y)
    d.n_phases_x = phases(job.fil_w, job.stride_x, job.dilation_x)
    d.rows = job.out_h + d.shift
    d.grad_cols = d.grad_plane = 0
    if not shifted:
        # A single row has no gaps: one copy serves all columns of taps.
        d.copies = job.fil_w
        d.cols = job.out_w
        if job.out_h == 1 and job.stride_x == 1:
            d.copies, d.cols = 1, job.out_w + reach
        d.plane = d.rows * d.cols + reach + 2 * lanes
    else:
        d.copies = d.n_phases_x
        d.cols = job.out_w + reach
        if job.border == BORDER_ZEROS and job.stride_x == 1:
            gap = clip(d.cols - job.left - job.w, 0, d.cols)
            d.cols = max(d.cols - min(gap, job.left), job.out_w)
        vectors = ceil_div(job.out_w, lanes)
        flat = ceil_div(d.rows * d.cols, lanes)
        d.by_rows = d.rows * vectors <= 1.2 * flat
        d.grad_cols = d.cols
        if d.by_rows:
            d.grad_cols = vectors * lanes
            d.cols = ceil_div(max(d.cols, d.grad_cols + reach), lanes) * lanes
        d.plane = d.rows * d.cols + reach + 2 * lanes
        d.grad_plane = (d.rows + d.shift) * d.grad_cols + 2 * lanes
    d.plane = ceil_div(d.plane, lanes) * lanes
    d.grad_plane = ceil_div(d.grad_plane, lanes) * lanes
    d.img = d.copies * d.n_phases_y * d.plane
    p.h, p.w, p.top, p.left, p.border = job.h, job.w, job.top, job.left, job.border
    p.stride_y, p.stride_x = job.stride_y, job.stride_x
    p.dilation_y, p.dilation_x = job.dilation_y, job.dilation_x
    p.n_phases_y, p.n_phases_x = d.n_phases_y, d.n_phases_x
    p.rows, p.cols, p.pitch, p.phase_pitch = d.rows, d.cols, d.cols, d.plane
    vectors = d.rows * d.grad_cols // lanes if shifted else job.out_h * job.out_w // lanes
    # Each tile costs some 100 cycles to enter and leave; the gradients stay in the L2 cache.
    most = 64 if shifted else clip(8192 // job.n_features, 64, 256)
    job.stack = min(job.n_imgs, ceil_div(most, max(vectors, <Py_ssize_t>1)))
    d.grad_at = job.stack * d.img
    d.sums_at = d.grad_at + job.stack * (d.grad_plane if shifted else job.n_features * lanes)
    job.buffer_size = d.sums_at + job.n_features * job.c_per_group * job.fil_h * job.fil_w * lanes


cdef inline Py_ssize_t phases(Py_ssize_t n_taps, Py_ssize_t stride,
                              Py_ssize_t dilation) noexcept nogil:
    """The phases of a stride that taps read (see conv/packing.pxi)."""
    cdef Py_ssize_t n = 1
    while n < n_taps and n * dilation % stride:
        n += 1
    return n


cdef void plan_dot_tables(FilterGradient *job, Workspace space) except *:
    """Where taps and features are read."""
    cdef DotLayout *d = &job.dot
    cdef Py_ssize_t i, j, size = job.out_h * job.out_w
    d.tap_at = <Py_ssize_t *>space.take(job.fil_h * job.fil_w * sizeof(Py_ssize_t))
    d.feature_at = <Py_ssize_t *>space.take(
        max(job.n_features, job.fil_h) * sizeof(Py_ssize_t))
    if d.shifted:
        for j in range(job.fil_w):
            d.tap_at[j] = (
                j % d.n_phases_x * d.plane + j * job.dilation_x // job.stride_x
            )
        for i in range(job.fil_h):
            d.feature_at[i] = (d.shift - i * job.dilation_y // job.stride_y) * d.grad_cols
        return
    for i in range(job.fil_h):
        for j in range(job.fil_w):
            d.tap_at[j * job.fil_h + i] = (
                i % d.n_phases_y * d.copies * d.plane + i * job.dilation_y // job.stride_y * d.cols
                + (j * job.dilation_x if d.copies == 1 else j * d.plane)
            )
    for i in range(job.n_features):
        d.feature_at[i] = i * size


cdef void clear_sums(const FilterGradient *job, real *sums, Py_ssize_t n) noexcept nogil:
    memset(sums, 0, n * sizeof(real))
    if job.errors:
        memset(sums + job.errors, 0, n * sizeof(real))


cdef void dot_unit(const FilterGradient *job, Py_ssize_t chunk, Py_ssize_t k_first,
                   Py_ssize_t k_end, const real *imgs, const real *grad, real *part,
                   real *buffer) noexcept nogil:
    """One chunk of images and features [k_first, k_end): (k, c, i, j) into `part`."""
    cdef const DotLayout *d = &job.dot
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t taps = job.fil_h * job.fil_w, pitch = job.c_per_group * taps * lanes
    cdef Py_ssize_t stack, n, n_stacked, g, c, k0, k1
    cdef Walk walk
    cdef real *sums = buffer + d.sums_at - k_first * pitch  # (k, c, j, i, lanes)
    memset(buffer, 0, d.sums_at * sizeof(real))
    clear_sums(job, sums + k_first * pitch, (k_end - k_first) * pitch)
    walk.errors = job.errors
    for stack in range(first_stack(job, chunk), first_stack(job, chunk + 1)):
        n = stack * job.stack
        n_stacked = min(job.stack, job.n_imgs - n)
        fetch_next(job, &walk, imgs, grad, n + n_stacked, k_end - k_first == job.n_features)
        if not d.shifted:
            copy_tails(job, buffer + d.grad_at, grad, n, n_stacked, k_first, k_end)
        for g in range(k_first // job.k_per_group, (k_end - 1) // job.k_per_group + 1):
            k0 = max(k_first, g * job.k_per_group)
            k1 = min(k_end, (g + 1) * job.k_per_group)
            for c in range(job.c_per_group):
                copy_channel(job, buffer, imgs, n, n_stacked, g * job.c_per_group + c)
                if d.shifted:
                    shifted_channel(job, sums + c * taps * lanes, pitch, buffer,
                                    grad, n, n_stacked, k0, k1)
                else:
                    dense_channel(
                        job, sums + c * taps * lanes, pitch, buffer,
                        grad + n * job.n_features * job.out_h * job.out_w,
                        buffer + d.grad_at, n_stacked, k_first, k_end, k0, k1, &walk,
                    )
    sum_lanes(job, k_first, k_end, sums, part)


cdef void sum_lanes(const FilterGradient *job, Py_ssize_t k_first, Py_ssize_t k_end,
                    const real *sums, real *part) noexcept nogil:
    """Sums (k, c, j, i, lanes) of features [k_first, k_end) into a part (k, c, i, j)."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real), taps = job.fil_h * job.fil_w, c, i, j
    cdef const real *source
    for c in range(k_first * job.c_per_group, k_end * job.c_per_group):
        for i in range(job.fil_h):
            for j in range(job.fil_w):
                source = sums + (c * taps + j * job.fil_h + i) * lanes
                part[c * taps + i * job.fil_w + j] = lane_sum(source)
                if job.errors:
                    part[c * taps + i * job.fil_w + j] += lane_sum(source + job.errors)


cdef void strips_unit(const FilterGradient *job, Py_ssize_t chunk, Py_ssize_t k_first,
                      Py_ssize_t k_end, const real *imgs, const real *grad, real *part,
                      real *buffer) noexcept nogil:
    """The same for depthwise filters, without copies: see conv/strips.pxi."""
    cdef Py_ssize_t size = job.fil_h * job.fil_w * (VECTOR_BYTES // <Py_ssize_t>sizeof(real))
    cdef Py_ssize_t n, k, plane, before = 0, terms = 0
    cdef real *run = buffer + 2 * job.errors - k_first * size   # they do not grow long
    buffer -= k_first * size
    clear_sums(job, buffer + k_first * size, (k_end - k_first) * size)
    memset(run + k_first * size, 0, (k_end - k_first) * size * sizeof(real))
    for n in range(first_stack(job, chunk), first_stack(job, chunk + 1)):
        for k in range(k_first, k_end):
            plane, terms = n * job.n_features + k, before
            gradient_strips(run + k * size, buffer + k * size, job.errors, &terms,
                            imgs + plane * job.h * job.w, grad + plane * job.out_h * job.out_w,
                            &job.strips)
        before = terms
    if job.errors:
        for k in range(k_first, k_end):
            end_run(run + k * size, buffer + k * size, job.errors, size)
    sum_lanes(job, k_first, k_end, buffer, part)


cdef void copy_channel(const FilterGradient *job, real *buffer, const real *imgs, Py_ssize_t n,
                       Py_ssize_t n_stacked, Py_ssize_t c) noexcept nogil:
    """All copies of one channel of images [n, n + n_stacked)."""
    cdef const DotLayout *d = &job.dot
    cdef Py_ssize_t s, j, phase
    for s in range(n_stacked):
        if d.shifted and job.stride_x == 2:
            pack_plane(buffer + s * d.img, imgs + ((n + s) * job.n_channels + c) * job.h * job.w,
                       &d.packing)
            continue
        for j in range(d.copies):
            for phase in range(d.n_phases_y):
                copy_rows(
                    buffer + s * d.img + (phase * d.copies + j) * d.plane, d.rows, d.cols,
                    imgs + ((n + s) * job.n_channels + c) * job.h * job.w, job.h, job.w,
                    phase * job.dilation_y % job.stride_y - job.top, job.stride_y,
                    (j * job.dilation_x % job.stride_x if d.shifted else j * job.dilation_x)
                    - job.left,
                    job.stride_x, job.border,
                )


cdef void copy_tails(const FilterGradient *job, real *tails, const real *grad, Py_ssize_t n,
                     Py_ssize_t n_stacked, Py_ssize_t k_first, Py_ssize_t k_end) noexcept nogil:
    """What does not fill a vector at the end of each output plane, and zeros."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t size = job.out_h * job.out_w
    cdef Py_ssize_t rest = size % lanes, s, k, x
    cdef const real *end
    if rest == 0:
        return
    for s in range(n_stacked):
        for k in range(k_first, k_end):
            end = grad + ((n + s) * job.n_features + k + 1) * size - rest
            clear(tails)
            for x in range(rest):
                tails[x] = end[x]
            tails += lanes


cdef void dense_channel(
    const FilterGradient *job, real *part, Py_ssize_t pitch, const real *src, const real *grad,
    const real *tails, Py_ssize_t n_stacked, Py_ssize_t k_first, Py_ssize_t k_end,
    Py_ssize_t k0, Py_ssize_t k1, Walk *walk,
) noexcept nogil:
    """One channel, features [k0, k1) of the channel's group."""
    cdef const DotLayout *d = &job.dot
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t size = job.out_h * job.out_w, n_taps = job.fil_h * job.fil_w
    cdef Py_ssize_t blocks = ceil_div(k1 - k0, DOT_FEATURES), b, t, k, tap_blocks
    cdef int width, taps
    walk.n_imgs, walk.rows, walk.cols = n_stacked, 1, size // lanes
    walk.src_img, walk.grad_img = d.img, job.n_features * size
    walk.src_row = walk.grad_row = 0
    for b in range(blocks):
        k = k0 + b * (k1 - k0) // blocks
        width = <int>(k0 + (b + 1) * (k1 - k0) // blocks - k)
        tap_blocks = ceil_div(n_taps, dot_taps(width))
        for t in range(tap_blocks):
            taps = <int>((t + 1) * n_taps // tap_blocks - t * n_taps // tap_blocks)
            dot_gradient(
                part + k * pitch + t * n_taps // tap_blocks * lanes, lanes, pitch,
                src, d.tap_at + t * n_taps // tap_blocks, grad, d.feature_at + k,
                tails + (k - k_first) * lanes if size % lanes else <const real *>NULL,
                (k_end - k_first) * lanes, walk, taps, width,
            )


cdef void shifted_channel(
    const FilterGradient *job, real *part, Py_ssize_t pitch, real *buffer, const real *grad,
    Py_ssize_t n, Py_ssize_t n_stacked, Py_ssize_t k0, Py_ssize_t k1,
) noexcept nogil:
    """One channel, features [k0, k1) one after the other."""
    cdef const DotLayout *d = &job.dot
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t size = job.out_h * job.out_w
    cdef Py_ssize_t k, s, phase, first, last, i, j, n_i, n_j
    cdef real *grads = buffer + d.grad_at
    cdef Walk walk
    walk.n_imgs, walk.src_img, walk.grad_img = n_stacked, d.img, d.grad_plane
    walk.next_grad = walk.next_grad_end = <const char *>grad
    walk.errors = job.errors
    walk.src_row, walk.grad_row = d.cols, d.grad_cols
    for k in range(k0, k1):
        for s in range(n_stacked):
            copy_rows(grads + s * d.grad_plane, d.rows + d.shift, d.grad_cols,
                      grad + ((n + s) * job.n_features + k) * size, job.out_h, job.out_w,
                      -d.shift, 1, 0, 1, BORDER_ZEROS)
        for phase in range(d.n_phases_y):
            # Rows of padding are skipped.
            first, last = 0, d.rows
            if job.border == BORDER_ZEROS:
                i = phase * job.dilation_y % job.stride_y - job.top
                first = clip(ceil_div(-i, job.stride_y), 0, d.rows)
                last = clip(ceil_div(job.h - i, job.stride_y), first, d.rows)
            walk.rows, walk.cols = last - first, d.grad_cols // lanes
            if not d.by_rows:
                walk.rows, walk.cols = 1, ceil_div((last - first) * d.cols, lanes)
            i = phase
            while i < job.fil_h:
                # taps i, i + n_phases_y, ... of this phase
                n_i = min(ceil_div(job.fil_h - i, d.n_phases_y), <Py_ssize_t>DOT_FEATURES)
                j = 0
                while j < job.fil_w:
                    n_j = min(job.fil_w - j, <Py_ssize_t>dot_taps(<int>n_i))
                    shifted_tile(
                        part + k * pitch + (j * job.fil_h + i) * lanes,
                        buffer + phase * d.copies * d.plane + first * d.cols, d.tap_at + j,
                        grads + first * d.grad_cols, d.feature_at + i, d.n_phases_y, job.fil_h,
                        &walk, <int>n_j, <int>n_i,
                    )
                    j += n_j
                i += n_i * d.n_phases_y


cdef void shifted_tile(
    real *part, const real *src, const Py_ssize_t *tap_at, const real *grad,
    const Py_ssize_t *shift_at, Py_ssize_t step, Py_ssize_t fil_h, Walk *walk, int n_taps,
    int n_shifts,
) noexcept nogil:
    """Taps of a row, and `step` rows of taps apart as if these were features."""
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Py_ssize_t feature_at[5]
    cdef int i
    for i in range(n_shifts):
        feature_at[i] = shift_at[i * step]
    dot_gradient(part, fil_h * lanes, step * lanes, src, tap_at, grad, feature_at,
                 <const real *>NULL, 0, walk, n_taps, n_shifts)
