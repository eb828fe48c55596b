# What the outputs along an axis of a correlation read.

cdef class Phase:
    """Outputs of one axis, a step apart, that are the same correlation."""

    cdef Py_ssize_t pixel       # the first of them in the output
    cdef Py_ssize_t first       # the padded input pixel that a tap with shift 0 reads for it
    cdef Py_ssize_t count
    cdef Py_ssize_t n_taps
    cdef Py_ssize_t *tap        # (n_taps,) which taps of the filter
    cdef Py_ssize_t *shift      # (n_taps,) how far from `first` each one reads

    def __cinit__(self, pixel, first, count, taps):
        cdef Py_ssize_t t = 0
        self.pixel, self.first, self.count, self.n_taps = pixel, first, count, len(taps)
        self.tap = <Py_ssize_t *>PyMem_Malloc((2 * self.n_taps + 1) * sizeof(Py_ssize_t))
        if self.tap == NULL:
            raise MemoryError
        self.shift = self.tap + self.n_taps
        for self.tap[t], self.shift[t] in taps:
            t += 1

    def __dealloc__(self):
        PyMem_Free(self.tap)


cdef class Axis:
    """One axis of a correlation: its phases, and what it reads of its padded input."""

    cdef list phases
    cdef Py_ssize_t before, padded      # padding before the input; its size with padding
    cdef Py_ssize_t longest, shortest   # phase
    cdef Py_ssize_t n_products          # of an output line with a line of taps
    cdef Py_ssize_t most_taps           # of an output
    cdef Py_ssize_t first, last         # padded pixels that output 0 of any phase reads

    def __init__(self, phases, before, padded):
        """phases: (pixel, first, count, taps) of each."""
        reads = [first + shift for _, first, _, taps in phases for _, shift in taps]
        counts = [count for _, _, count, _ in phases]
        self.phases = [Phase(*phase) for phase in phases]
        self.before, self.padded = before, padded
        self.longest, self.shortest = max(counts), min(counts)
        self.n_products = sum([count * len(taps) for _, _, count, taps in phases])
        self.most_taps = max([len(taps) for _, _, _, taps in phases])
        self.first, self.last = min(reads, default=0), max(reads, default=0)


@lru_cache(maxsize=1024)
def _forward_axis(size, before, stride, n_taps, dilation):
    taps = [(i, i * dilation) for i in range(n_taps)]
    return Axis([(0, 0, size, taps)], before, (size - 1) * stride + (n_taps - 1) * dilation + 1)


@lru_cache(maxsize=1024)
def _gradient_axis(size, before, stride, n_taps, dilation):
    """The axis of an image of `size` pixels with `before` pixels of padding.

    A phase is what reaches pixels a stride apart in the backward pass; padding is
    that of the output gradient.
    """
    phases = []
    for pixel in range(min(stride, size)):
        first, r = divmod(pixel + before, stride)
        count = (size - pixel + stride - 1) // stride
        taps = [(i, -(i * dilation // stride)) for i in range(n_taps) if i * dilation % stride == r]
        phases.append((pixel, first, count, taps))
    reads = [first + shift for _, first, _, taps in phases for _, shift in taps]
    ends = [first + count + shift for _, first, count, taps in phases for _, shift in taps]
    before = max([0] + [-read for read in reads])
    padded = max([1] + [end + before for end in ends])
    phases = [(pixel, first + before, count, taps) for pixel, first, count, taps in phases]
    return Axis(phases, before, padded)
