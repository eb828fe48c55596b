# Correlation with features in the lanes: where there are enough of them to fill
# vectors, no lane is lost to the shape of an image.
#
# A thread copies its images pixel by pixel, with all channels of a pixel side by
# side, and padding around them (4 x 4 pixels of 3 channels a, b, c, padded by 1):
#
#     0 0 0 .  0 0 0 .   0 0 0 .  ...       depth: channels, rounded up to vectors
#     0 0 0 .  a b c .   a b c .  ...
#     0 0 0 .  a b c .   ...                cols: pixels in a row
#
# Every tap (i, j, c) is a constant distance away from an output pixel, for all
# strides; a tile takes any pixels whatever and all of their features. The results
# are pixels with their features side by side, and are transposed to planes at last.


cdef enum:
    UNIT_BYTES = 524288     # for a unit of work: half of an L2 cache of 1 MB
    UNIT_PIXELS = 64        # that it has at least: some ten tiles

cdef struct Winograd

cdef struct PixelPass:
    # One correlation of the packed pixels. The forward pass is one; the gradient of
    # strided images is one for each phase of the stride.
    Py_ssize_t rows, cols               # its output pixels
    Py_ssize_t n_taps
    Py_ssize_t *tap_at
    void *weights                       # (n_taps, width) of each block
    Py_ssize_t *src_at                  # (stack, strip, cols) which packed pixel tap 0 is read from
    Py_ssize_t *dst_at                  # (stack, strip, cols) which output pixel it is

cdef struct PixelJob:
    const Correlation *task             # what is to be computed
    Py_ssize_t rows, cols               # the packed plane: padded, as far as tiles read
    Py_ssize_t read_rows, read_cols     # of these as far as taps read: what is beyond stays zero
    bint in_place                       # the images serve as they are: nothing is packed
    Py_ssize_t depth                    # from one packed pixel to the next ...
    Py_ssize_t channel_pitch            # ... one channel to the next ...
    Py_ssize_t img_pitch                # ... one image of a unit to the next, in pixels
    Py_ssize_t *pixel_at                # (h, w) which packed pixel each pixel becomes
    # A unit of work: some images, or a strip of one.
    Py_ssize_t stack                    # images
    Py_ssize_t pass_rows, pass_cols     # of the longest pass
    Py_ssize_t strip                    # rows of a pass ...
    Py_ssize_t in_step, in_extra        # ... which read strip * in_step + in_extra packed rows ...
    Py_ssize_t out_step                 # ... and are strip * out_step rows of the output plane
    Py_ssize_t n_strips, n_units
    Py_ssize_t unit_tiles               # about so many are computed in a unit
    int n_threads
    # Blocks of features, whole vectors of them
    Py_ssize_t n_blocks, blocks_per_group
    int block_vectors                   # at most, in a block
    void *bias                          # (n_blocks, block_vectors * lanes) or NULL
    Py_ssize_t n_passes
    PixelPass *passes
    Winograd *winograd                  # not NULL: instead of the passes
    Py_ssize_t buffer_size, scratch_size, result_size   # values that a thread needs


cdef struct Strip:                      # what belongs to a unit of work
    Py_ssize_t n0, n_stacked            # images
    Py_ssize_t row, n_rows              # of a pass
    Py_ssize_t first, end               # packed rows that they read
    Py_ssize_t y0, y1                   # rows of the output plane


cdef inline int vectors_of(const PixelJob *job, Py_ssize_t b, Py_ssize_t lanes) noexcept nogil:
    """Vectors in a block: they are spread evenly over a group."""
    cdef Py_ssize_t total = ceil_div(job.task.n_features // job.task.groups, lanes)
    b %= job.blocks_per_group
    return <int>((b + 1) * total // job.blocks_per_group - b * total // job.blocks_per_group)


cdef inline Py_ssize_t first_feature(const PixelJob *job, Py_ssize_t b,
                                     Py_ssize_t lanes) noexcept nogil:
    cdef Py_ssize_t per_group = job.task.n_features // job.task.groups
    cdef Py_ssize_t total = ceil_div(per_group, lanes)
    return b // job.blocks_per_group * per_group + min(
        b % job.blocks_per_group * total // job.blocks_per_group * lanes, per_group
    )


# --- planes to pixels and back --------------------------------------------------

cdef inline Py_ssize_t next_block(Py_ssize_t p, Py_ssize_t n, const real *planes,
                                  Py_ssize_t pitch, Py_ssize_t lanes) noexcept nogil:
    """The block of pixels after p's, n for none: inner ones start with a cache line."""
    cdef Py_ssize_t skew = <size_t>planes % VECTOR_BYTES // sizeof(real)
    if p == n - lanes:
        return n
    if p == 0 and pitch % lanes == 0:
        p -= skew
    return min(p + lanes, n - lanes)


cdef void pack_pixels(
    real *dst, const Py_ssize_t *dst_at, Py_ssize_t first, Py_ssize_t depth,
    const real *planes, Py_ssize_t plane_pitch, Py_ssize_t n_channels, Py_ssize_t n,
) noexcept nogil:
    """n neighbouring pixels of all channels: pixel p becomes pixel dst_at[p] - first of dst.

    Without a table they stay neighbours.
    """
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef real block[LANES_SQUARED]
    cdef Py_ssize_t c, p, i, j, n_rows
    if n < lanes:
        for p in range(n):
            for c in range(n_channels):
                j = p if dst_at == NULL else dst_at[p] - first
                dst[j * depth + c] = planes[c * plane_pitch + p]
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
                    store(dst + (dst_at[p + j] - first) * depth + c, block + j * lanes)
            p = next_block(p, n, planes, plane_pitch, lanes)


cdef void unpack_pixels(
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


cdef void pack_image(const PixelJob *job, real *dst, const real *img, Py_ssize_t first,
                     Py_ssize_t end) noexcept nogil:
    """Rows [first, end) of a padded image."""
    cdef const Packing *p = &job.task.packing
    cdef Py_ssize_t row_size = job.cols * job.depth
    cdef Py_ssize_t y0 = clip(first - p.top, 0, p.h), y1 = clip(end - p.top, 0, p.h)
    cdef Py_ssize_t r, x, y
    if y1 > y0:
        pack_pixels(dst, job.pixel_at + y0 * p.w, first * job.cols, job.depth,
                    img + y0 * p.w, p.h * p.w, job.task.n_channels, (y1 - y0) * p.w)
    if p.border == BORDER_ZEROS:
        # The columns beside the image stay zero; other strips had pixels in these rows.
        for r in range(first, end if job.n_strips > 1 else first):
            if r < p.top or r >= p.top + p.h:
                memset(dst + (r - first) * row_size, 0, row_size * sizeof(real))
        if p.top + p.h <= job.read_rows and p.left + p.w <= job.read_cols:
            return
    else:
        for r in range(first, end):     # all rows: the job has one strip
            y = border_index(r - p.top, p.h, p.border)
            for x in range(job.cols):
                if r < p.top or r >= p.top + p.h or x < p.left or x >= p.left + p.w:
                    memcpy(
                        dst + (r - first) * row_size + x * job.depth,
                        dst + job.depth * job.pixel_at[
                            y * p.w + border_index(x - p.left, p.w, p.border)
                        ],
                        job.depth * sizeof(real),
                    )
    # What no output reads must not spoil others of its tile.
    for r in range(first, end):
        x = 0 if r >= job.read_rows else min(job.read_cols, job.cols)
        memset(dst + (r - first) * row_size + x * job.depth, 0,
               (job.cols - x) * job.depth * sizeof(real))


cdef void fold_pixels(const PixelJob *job, real *dst, const real *src,
                      Py_ssize_t width) noexcept nogil:
    """Add the values of padding to those of the pixels that it was made of."""
    cdef const Packing *p = job.task.fold
    cdef Py_ssize_t r, x, f
    cdef real *pixel
    memset(dst, 0, p.h * p.w * width * sizeof(real))
    for r in range(job.task.out_h):
        for x in range(job.task.out_w):
            pixel = dst + width * (border_index(r - p.top, p.h, p.border) * p.w
                                   + border_index(x - p.left, p.w, p.border))
            for f in range(width):
                pixel[f] += src[(r * job.task.out_w + x) * width + f]


# --- the work of the threads ----------------------------------------------------

cdef Strip strip_of(const PixelJob *job, Py_ssize_t unit) noexcept nogil:
    cdef Strip strip
    cdef Py_ssize_t row = unit % job.n_strips * job.strip
    strip.n0 = unit // job.n_strips * job.stack
    strip.n_stacked = min(job.stack, job.task.n_imgs - strip.n0)
    strip.row, strip.n_rows = row, min(job.strip, job.pass_rows - row)
    strip.first = row * job.in_step
    strip.end = min(strip.first + strip.n_rows * job.in_step + job.in_extra, job.rows)
    strip.y0 = row * job.out_step
    strip.y1 = min((row + strip.n_rows) * job.out_step, job.task.out_h)
    return strip


cdef Ahead look_ahead(const PixelJob *job, Py_ssize_t unit, const real *imgs,
                      const real *out) noexcept nogil:
    """The rows of images that a unit of work will read, and of outputs that it will write."""
    cdef const Correlation *task = job.task
    cdef const Packing *p = &task.packing
    cdef Strip strip = strip_of(job, unit)
    cdef Py_ssize_t y0 = clip(strip.first - p.top, 0, p.h), y1 = clip(strip.end - p.top, 0, p.h)
    cdef Py_ssize_t out_size = task.out_h * task.out_w
    cdef Ahead ahead
    if unit >= job.n_units:
        strip.n_stacked = 0
    ahead.src = Rows(
        <const char *>(imgs + strip.n0 * task.n_channels * p.h * p.w + y0 * p.w),
        (y1 - y0) * p.w * sizeof(real), p.h * p.w * sizeof(real),
        strip.n_stacked * task.n_channels, 0)
    ahead.dst = Rows(
        <const char *>(out + strip.n0 * task.n_features * out_size + strip.y0 * task.out_w),
        (strip.y1 - strip.y0) * task.out_w * sizeof(real), out_size * sizeof(real),
        strip.n_stacked * task.n_features if task.fold == NULL else 0, 0)
    ahead.src_lines = ceil_div(ahead.src.n_planes * ceil_div(ahead.src.n_bytes, 64), job.unit_tiles)
    ahead.dst_lines = ceil_div(ahead.dst.n_planes * ceil_div(ahead.dst.n_bytes, 64), job.unit_tiles)
    return ahead


cdef void pixels_unit(
    const PixelJob *job, Py_ssize_t unit, const real *imgs, real *out,
    real *buffer, real *scratch, real *result,
) noexcept nogil:
    """A stack of images, or a strip of one."""
    cdef const Correlation *task = job.task
    cdef Py_ssize_t img_size = task.n_channels * task.packing.h * task.packing.w
    cdef Py_ssize_t lanes = VECTOR_BYTES // sizeof(real)
    cdef Strip strip = strip_of(job, unit)
    cdef Py_ssize_t n_rows = strip.n_rows, out_rows = strip.y1 - strip.y0
    cdef Py_ssize_t out_size = task.out_h * task.out_w
    # What this thread takes next, if all threads go on in turn.
    cdef Ahead ahead = look_ahead(job, unit + job.n_threads, imgs, out)
    cdef Py_ssize_t per_group = task.n_channels // task.groups
    cdef Py_ssize_t b, k, k_end, s, i, rows, width
    cdef int n_vectors
    cdef const real *bias
    cdef real *folded
    cdef const real *src = buffer
    cdef const PixelPass *run
    imgs += strip.n0 * img_size
    if job.in_place:
        src = imgs + strip.first * job.cols
    else:
        for s in range(strip.n_stacked):
            pack_image(job, buffer + s * job.img_pitch * job.depth, imgs + s * img_size,
                       strip.first, strip.end)
    if job.winograd != NULL:
        winograd_input(job, scratch, buffer, strip.n_stacked, n_rows)
    for b in range(job.n_blocks):
        n_vectors = vectors_of(job, b, lanes)
        width = n_vectors * lanes
        k, k_end = first_feature(job, b, lanes), first_feature(job, b + 1, lanes)
        bias = <const real *>job.bias + b * job.block_vectors * lanes if job.bias != NULL else NULL
        if job.winograd != NULL:
            winograd_block(job, b, result, scratch, bias, strip.n_stacked, n_rows, out_rows,
                           n_vectors, &ahead)
        else:
            for i in range(job.n_passes):
                run = job.passes + i
                rows = clip(run.rows - strip.row, 0, n_rows)
                correlate_features(
                    result, run.dst_at,
                    src + b // job.blocks_per_group * per_group * job.channel_pitch, run.src_at,
                    job.depth,
                    strip.n_stacked * rows * run.cols, run.tap_at,
                    <const real *>run.weights + run.n_taps * padded_features(job, b, lanes),
                    run.n_taps, bias, task.with_relu, n_vectors, &ahead,
                )
        for s in range(strip.n_stacked):
            if task.fold != NULL:
                folded = result + job.stack * out_size * width
                fold_pixels(job, folded, result + s * out_size * width, width)
                i = task.fold.h * task.fold.w
                unpack_pixels(out + ((strip.n0 + s) * task.n_features + k) * i, i, k_end - k,
                              folded, width, i)
            else:
                unpack_pixels(
                    out + ((strip.n0 + s) * task.n_features + k) * out_size + strip.y0 * task.out_w,
                    out_size,
                    k_end - k, result + s * out_size * width, width, out_rows * task.out_w,
                )


cdef inline Py_ssize_t padded_features(const PixelJob *job, Py_ssize_t b,
                                       Py_ssize_t lanes) noexcept nogil:
    """Features before block b, with each group rounded up to whole vectors."""
    cdef Py_ssize_t total = ceil_div(job.task.n_features // job.task.groups, lanes)
    return lanes * (
        b // job.blocks_per_group * total + b % job.blocks_per_group * total // job.blocks_per_group
    )


cdef struct PixelWork:                  # what the threads share
    const PixelJob *job
    const void *imgs
    void *out
    ThreadMemory memory                 # packed images, scratch, result


cdef void run_pixels(PixelJob *job, const real *imgs, real *out, Workspace space,
                     int n_threads) except *:
    """Run a planned job on `n_threads` threads."""
    cdef PixelWork work
    work.job, work.imgs, work.out = job, imgs, out
    work.memory = take_for_threads(
        space, n_threads, (job.buffer_size + job.scratch_size + job.result_size) * sizeof(real),
        job.buffer_size * sizeof(real))
    with nogil:
        parallel_for(pixels_float if real is float else pixels_double, &work, job.n_units,
                     n_threads)


cdef void pixels_float(void *context, Py_ssize_t unit, int thread) noexcept nogil:
    cdef PixelWork *work = <PixelWork *>context
    cdef float *buffer = <float *>piece_of(&work.memory, thread)
    cdef float *scratch = buffer + work.job.buffer_size
    pixels_unit(work.job, unit, <const float *>work.imgs, <float *>work.out, buffer, scratch,
                scratch + work.job.scratch_size)


cdef void pixels_double(void *context, Py_ssize_t unit, int thread) noexcept nogil:
    cdef PixelWork *work = <PixelWork *>context
    cdef double *buffer = <double *>piece_of(&work.memory, thread)
    cdef double *scratch = buffer + work.job.buffer_size
    pixels_unit(work.job, unit, <const double *>work.imgs, <double *>work.out, buffer, scratch,
                scratch + work.job.scratch_size)
