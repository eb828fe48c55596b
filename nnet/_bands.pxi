# Large planes of single channels, a band of rows after the other: what is packed is still in
# the cache when it is read, and takes little memory.

cdef enum:
    BAND_BYTES = 64 * 1024    # of packed rows: a part of L2


cdef void correlate_bands(const Correlation *job, real *dst, const real *plane, real *buffer,
                          Py_ssize_t k, const real *bias) noexcept nogil:
    """All output pixels of feature k."""
    cdef const Pass *run = job.passes
    cdef Packing part = job.packing
    cdef Py_ssize_t y = 0, r
    part.rows = job.band + job.packing.rows - run.rows
    while y < run.rows:
        y = min(y, run.rows - job.band)
        part.top = job.packing.top - y
        pack_plane(buffer, plane, &part)
        for r in range(part.rows if part.border == BORDER_ZEROS else 0):
            if r < part.top or r >= part.top + part.h:
                memset(buffer + r * part.pitch, 0, part.cols * sizeof(real))
        correlate_rows(
            dst + run.dst_at + y * run.dst_row, run.dst_row, buffer + run.src_at, part.pitch,
            job.band, run.cols, run.columns,
            <const real *>run.columns.weights + k * run.n_taps,
            bias[k] if bias != NULL else <real>0, job.with_relu,
        )
        y += job.band


cdef Py_ssize_t band_of(const Correlation *job, Py_ssize_t lanes) noexcept nogil:
    """Rows of outputs in a band, whole tiles; 0 if all of a plane is packed at once."""
    cdef const Packing *p = &job.packing
    cdef const Pass *run = job.passes
    cdef Py_ssize_t n, more, tile
    if not (job.n_passes == 1 and job.by_rows and job.strips == NULL and job.direct
            and job.fold == NULL and job.n_channels == job.groups and not p.in_place
            and job.every == 1 and p.n_phases_y == 1 and p.n_phases_x == 1):
        return 0
    more, tile = p.rows - run.rows, run.columns.tile_rows
    n = max(BAND_BYTES * lanes // VECTOR_BYTES // p.pitch - more, more)
    n = ceil_div(n, tile) * tile
    return n if 2 * n < run.rows else 0
