# How a filter is cut for Winograd's algorithm. Needs nothing.
#
# A larger filter is cut into pieces of two taps an axis, and a last one of two or
# three. Pieces start at even taps, so what one of them reads is what another one
# reads for a tile further on: the pixels are transformed once for all of them. A
# piece of two taps has nothing in its fourth element: 5 x 5 taps, 2 + 3 an axis,
# take 7 x 7 multiplications instead of 100.
#
# With a stride of 2, even and odd taps read even and odd pixels: these phases are
# images of their own, and pieces add up over them. A piece of one tap multiplies its
# two pixels as they are, in the first and the fourth element, which only one output
# takes: 3 x 3 taps, 2 + 1 an axis, take 5 x 5 multiplications instead of 36.

cdef struct Piece:                      # some taps of an axis of a filter
    Py_ssize_t phase                    # of the pixels that they read
    Py_ssize_t shift                    # how many tiles after the first one's
    Py_ssize_t first, n_taps            # 1 to 3 of them, a stride apart

cdef struct Pieces:                     # of an axis
    Py_ssize_t n_taps, stride
    Py_ssize_t n                        # 0: this axis has no such form
    Py_ssize_t n_shifts
    Py_ssize_t n_products, n_elements   # of a tile, along the axis; of its transformed pixels


cdef inline Py_ssize_t phase_taps(const Pieces *pieces, Py_ssize_t phase) noexcept nogil:
    return (pieces.n_taps - phase + pieces.stride - 1) // pieces.stride


cdef inline Py_ssize_t longest_piece(const Pieces *pieces, Py_ssize_t phase) noexcept nogil:
    """The taps of a phase's longest piece."""
    cdef Py_ssize_t m = phase_taps(pieces, phase)
    return m if m < 3 else 2 + m % 2


cdef Piece axis_piece(const Pieces *pieces, Py_ssize_t k) noexcept nogil:
    """The last phase comes first: sums err less if they start with the shorter pieces."""
    cdef Piece piece
    cdef Py_ssize_t m, n
    piece.phase = pieces.stride - 1
    m = phase_taps(pieces, piece.phase)
    n = max(<Py_ssize_t>1, m // 2)
    if k >= n:
        k -= n
        piece.phase = 0
        m = phase_taps(pieces, 0)
        n = max(<Py_ssize_t>1, m // 2)
    piece.shift, piece.first = k, piece.phase + 2 * k * pieces.stride
    piece.n_taps = m - 2 * k if k == n - 1 else 2
    return piece


cdef Pieces cut_axis(Py_ssize_t n_taps, Py_ssize_t stride, Py_ssize_t dilation) noexcept nogil:
    cdef Pieces pieces
    cdef Py_ssize_t phase, m, k
    pieces.n_taps, pieces.stride, pieces.n = n_taps, stride, 0
    pieces.n_shifts = pieces.n_products = pieces.n_elements = 0
    if n_taps < 2 or stride > 2 or stride == 2 and dilation > 1:
        return pieces
    for phase in range(stride):
        m = phase_taps(&pieces, phase)
        pieces.n += max(<Py_ssize_t>1, m // 2)
        pieces.n_shifts = max(pieces.n_shifts, max(<Py_ssize_t>1, m // 2))
        pieces.n_elements += longest_piece(&pieces, phase) + 1
    for k in range(pieces.n):
        pieces.n_products += axis_piece(&pieces, k).n_taps + 1
    return pieces


cdef inline bint has_element(Py_ssize_t e, Py_ssize_t n_taps) noexcept nogil:
    """Whether a piece of so many taps has an element e, along its axis."""
    return e == 0 or e == 3 and n_taps != 2 or 0 < e < 3 and n_taps > 1


cdef inline int elements_of(Piece y, Piece x) noexcept nogil:
    """Which elements a piece of both axes has: 16 bits."""
    cdef int e, row = 0, bits = 0
    for e in range(4):
        row |= has_element(e, x.n_taps) << e
    for e in range(4):
        bits |= has_element(e, y.n_taps) * row << 4 * e
    return bits
