# Images padded and split into the phases of a stride, plane by plane. Needs common/simd.pxi.
#
# Each thread copies the images that it works on into a buffer of its own, with
# the padding that a convolution sees, so that a tap of the filter is a constant
# distance away from the output pixel: no edge branches. A stride of 2 splits the
# rows and columns into phases (even and odd), which makes it a stride of 1:
#
#     image, 4 x 4          padded by 1, stride 1          stride 2: 4 phases
#     a b c d               . . . . .                      . .    . .
#     e f g h               . a b c d     pitch 5: the     . f    e g
#     i j k l               . e f g h     zero after d     . .    . .
#     m n o p               . i j k l     is the zero      . b    a c   ...
#                           . m n o p     before e
#                           . . . . . .
#
# Zero padding between two rows, and between two images that are stacked to fill
# the vectors, is shared: the zero to the right of one is to the left of the next.

from libc.string cimport memcpy, memset

cdef enum:
    BORDER_ZEROS = 0
    BORDER_NEAREST = 1
    BORDER_REFLECT = 2
    BORDER_WRAP = 3
    BORDER_SYMMETRIC = 4

cdef struct Packing:
    Py_ssize_t h, w                     # an image plane
    Py_ssize_t top, left                # padding before it
    Py_ssize_t stride_y, stride_x
    Py_ssize_t dilation_y, dilation_x
    int border
    # Phase i holds what tap i reads: pixels i * dilation % stride and every stride-th after it.
    Py_ssize_t n_phases_y, n_phases_x
    Py_ssize_t rows, cols               # of a packed phase
    Py_ssize_t pitch                    # from one row to the next ...
    Py_ssize_t image_pitch              # ... one stacked image to the next ...
    Py_ssize_t phase_pitch              # ... one phase to the next ...
    Py_ssize_t channel_pitch            # ... one channel to the next
    Py_ssize_t stack                    # images side by side in the buffer
    bint in_place                       # the images serve as they are: nothing is copied


cdef inline Py_ssize_t border_index(Py_ssize_t i, Py_ssize_t size, int border) noexcept nogil:
    """The pixel that stands at position i, inside or outside of an axis."""
    if border == BORDER_REFLECT:
        i = -i if i < 0 else 2 * (size - 1) - i if i >= size else i
    elif border == BORDER_WRAP:
        i = i + size if i < 0 else i - size if i >= size else i
    elif border == BORDER_SYMMETRIC:
        i = -1 - i if i < 0 else 2 * size - 1 - i if i >= size else i
    # What still lies outside is 'nearest', or a pixel that no tap reads.
    return 0 if i < 0 else size - 1 if i >= size else i


cdef inline Py_ssize_t ceil_div(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    """ceil(a / b), also for negative a."""
    if b <= 2:
        return a + b - 1 >> b - 1   # the usual strides: a division takes as long as a row
    return -((-a) // b) if a <= 0 else (a + b - 1) // b


cdef inline Py_ssize_t clip(Py_ssize_t i, Py_ssize_t low, Py_ssize_t high) noexcept nogil:
    return low if i < low else high if i > high else i


cdef Packing pack_laid_out(Packing p, Py_ssize_t out_h, Py_ssize_t out_w, Py_ssize_t stack,
                           Py_ssize_t lanes) noexcept nogil:
    """With pitches, for output planes of out_h x out_w read from each row and column."""
    cdef Py_ssize_t h, w
    p.in_place = False
    p.stack = stack
    p.pitch, h = p.cols, p.rows
    if p.border == BORDER_ZEROS and p.stride_x == 1:
        w = max(<Py_ssize_t>0, min(p.w, p.cols - p.left))
        p.pitch = max(w + max(p.left, p.cols - p.left - w), out_w)
    if p.border == BORDER_ZEROS and p.stride_y == 1:
        h = max(<Py_ssize_t>0, min(p.h, p.rows - p.top))
        h = max(h + max(p.top, p.rows - p.top - h), out_h)
    p.image_pitch = h * p.pitch
    # A vector may read past the last pixel; and the next phase starts on a whole vector.
    p.phase_pitch = (stack - 1) * p.image_pitch + p.rows * p.pitch + p.cols - p.pitch + lanes
    p.phase_pitch = ceil_div(p.phase_pitch, lanes) * lanes
    if p.phase_pitch % 512 == 0:
        p.phase_pitch += lanes  # powers of two would put all channels into the same cache sets
    p.channel_pitch = p.phase_pitch * p.n_phases_y * p.n_phases_x
    return p


cdef bint pack_is_needless(const Packing *p, Py_ssize_t out_h, Py_ssize_t out_w,
                           Py_ssize_t lanes) noexcept nogil:
    """Without padding and strides the images can be read where they are.

    A run of pixels is moved back at its end, so that no vector reads past the
    image; it must hold at least one vector for that.
    """
    return (
        p.stride_y == 1 and p.stride_x == 1 and p.rows == p.h and p.cols == p.w
        and p.top == 0 and p.left == 0 and (out_h - 1) * p.w + out_w >= lanes
    )


cdef Packing pack_in_place(Packing p) noexcept nogil:
    """With the pitches of the images themselves."""
    p.in_place = True
    p.stack = 1
    p.pitch = p.w
    p.image_pitch = p.phase_pitch = p.channel_pitch = p.h * p.w
    return p


cdef Py_ssize_t pack_buffer(const Packing *p, Py_ssize_t n_channels,
                            Py_ssize_t lanes) noexcept nogil:
    """Values of a buffer for so many channels."""
    if p.in_place:
        return 0
    return ceil_div(n_channels * p.channel_pitch + 2 * lanes, lanes) * lanes


cdef Py_ssize_t pack_tap_at(const Packing *p, const Phase *y, const Phase *x, Py_ssize_t i,
                            Py_ssize_t j) noexcept nogil:
    """Where taps i and j of two phases are read, from an output pixel's first."""
    # Phases of the stride come back after n_phases taps, one stride or more further on.
    return (
        (y.tap[i] % p.n_phases_y * p.n_phases_x + x.tap[j] % p.n_phases_x) * p.phase_pitch
        + y.shift[i] // p.stride_y * p.pitch + x.shift[j] // p.stride_x
    )


cdef struct Span:
    Py_ssize_t x0, x1   # the columns of a phase that are pixels; those around them are border
    Py_ssize_t first    # which pixel the column 0 would be


cdef inline Span span_of(const Packing *p, Py_ssize_t phase_x) noexcept nogil:
    cdef Span s
    s.first = -p.left if phase_x == 0 else phase_x * p.dilation_x % p.stride_x - p.left
    s.x0 = clip(ceil_div(-s.first, p.stride_x), 0, p.cols)
    s.x1 = clip(ceil_div(p.w - s.first, p.stride_x), s.x0, p.cols)
    return s


cdef void pack_plane(real *dst, const real *plane, const Packing *p) noexcept nogil:
    """One channel of one image. Zero padding is not written: the buffer starts as zeros."""
    cdef Py_ssize_t phase_x, at, n, pairs, odd_at
    cdef Span s, odd
    for phase_x in range(p.n_phases_x):
        s = span_of(p, phase_x)
        n, at = s.x1 - s.x0, s.first + s.x0 * p.stride_x
        pairs, odd_at = clip((p.w - at) // 2, 0, n), 0
        if p.stride_x == 2 and p.n_phases_x == 2:
            # The phase of pixel 0 brings the other one with it.
            odd = span_of(p, 1 - phase_x)
            pairs, odd_at = odd.x1 - odd.x0, (1 - 2 * phase_x) * p.phase_pitch + odd.x0 - s.x0
            if at == 1:
                n = pairs = 0
        if n > 0 or p.border != BORDER_ZEROS:
            pack_phases(dst + phase_x * p.phase_pitch, plane, p, &s, n, pairs, odd_at)


cdef inline void pack_phases(real *dst, const real *plane, const Packing *p, const Span *s,
                             Py_ssize_t n, Py_ssize_t pairs, Py_ssize_t odd_at) noexcept nogil:
    """All rows of a phase of columns; with a stride of 2, of both if the other lies at odd_at."""
    cdef Py_ssize_t phase_y, r, y, x, first_y, r0, r1, at = s.first + s.x0 * p.stride_x
    cdef const real *source
    cdef real *row
    for phase_y in range(p.n_phases_y):
        first_y = -p.top if phase_y == 0 else phase_y * p.dilation_y % p.stride_y - p.top
        r0, r1 = 0, p.rows
        if p.border == BORDER_ZEROS:
            r0 = clip(ceil_div(-first_y, p.stride_y), 0, p.rows)
            r1 = clip(ceil_div(p.h - first_y, p.stride_y), r0, p.rows)
        row = dst + phase_y * p.n_phases_x * p.phase_pitch + r0 * p.pitch
        for r in range(r0, r1):
            y = r * p.stride_y + first_y
            if y < 0 or y >= p.h:
                y = border_index(y, p.h, p.border)
            source = plane + y * p.w
            prefetch(source + p.h * p.w)    # of the next plane
            if p.stride_x == 1:
                copy(row + s.x0, source + at, n)
            elif p.stride_x == 2:
                unzip(row + s.x0, row + s.x0 + odd_at if odd_at else <real *>NULL, source + at,
                      n, pairs)
            else:
                for x in range(n):
                    row[s.x0 + x] = source[at + x * p.stride_x]
            if p.border != BORDER_ZEROS:
                for x in range(s.x0):
                    row[x] = source[border_index(x * p.stride_x + s.first, p.w, p.border)]
                for x in range(s.x1, p.cols):
                    row[x] = source[border_index(x * p.stride_x + s.first, p.w, p.border)]
            row += p.pitch


cdef void pack_stack(real *buffer, const real *imgs, Py_ssize_t n_stacked, Py_ssize_t n_channels,
                     Py_ssize_t first, Py_ssize_t n_packed, const Packing *p) noexcept nogil:
    """Channels [first, first + n_packed) of n_stacked images, side by side."""
    cdef Py_ssize_t c, s
    for c in range(n_packed):
        for s in range(n_stacked):
            pack_plane(
                buffer + c * p.channel_pitch + s * p.image_pitch,
                imgs + (s * n_channels + first + c) * p.h * p.w,
                p,
            )


cdef void fold_plane(real *dst, const real *padded, Py_ssize_t padded_h, Py_ssize_t padded_w,
                     const Packing *p) noexcept nogil:
    """The gradient of a padded plane, added up where its pixels came from.

    `p` describes how the plane was padded.
    """
    cdef Py_ssize_t r, x, left = p.left
    cdef Py_ssize_t right = min(padded_w, left + p.w)
    cdef real *row
    memset(dst, 0, p.h * p.w * sizeof(real))
    for r in range(padded_h):
        row = dst + border_index(r - p.top, p.h, p.border) * p.w
        for x in range(left, right):
            row[x - left] += padded[x]
        for x in range(left):
            row[border_index(x - left, p.w, p.border)] += padded[x]
        for x in range(right, padded_w):
            row[border_index(x - left, p.w, p.border)] += padded[x]
        padded += padded_w
