# What the outputs along an axis of a correlation read. Needs common/memory.pxi.

cdef struct Phase:              # outputs of an axis, a step apart, that are the same correlation
    Py_ssize_t pixel            # the first of them in the output
    Py_ssize_t first            # the padded input pixel that a tap with shift 0 reads for it
    Py_ssize_t count
    Py_ssize_t n_taps
    Py_ssize_t *tap             # (n_taps,) which taps of the filter
    Py_ssize_t *shift           # (n_taps,) how far from `first` each one reads

cdef struct Axis:               # its phases, and what it reads of its padded input
    Phase *phases
    Py_ssize_t n_phases
    Py_ssize_t in_step          # padded input pixels between outputs of a phase ...
    Py_ssize_t out_step         # ... and pixels of the output plane
    Py_ssize_t before, padded   # padding before the input; its size with padding
    Py_ssize_t longest, shortest            # phase
    Py_ssize_t n_products       # of an output line with a line of taps
    Py_ssize_t most_taps        # of an output
    Py_ssize_t first, last      # padded pixels that output 0 of any phase reads


cdef Axis axis_forward(Workspace memory, Py_ssize_t size, Py_ssize_t before, Py_ssize_t stride,
                       Py_ssize_t n_taps, Py_ssize_t dilation) except *:
    """The axis of `size` outputs."""
    cdef Axis axis = axis_of(memory, 1, n_taps)
    cdef Phase *phase = axis.phases
    cdef Py_ssize_t i
    phase.pixel, phase.first, phase.count, phase.n_taps = 0, 0, size, n_taps
    for i in range(n_taps):
        phase.tap[i], phase.shift[i] = i, i * dilation
    axis.in_step, axis.out_step = stride, 1
    axis.before, axis.padded = before, (size - 1) * stride + (n_taps - 1) * dilation + 1
    return axis_measured(axis)


cdef Axis axis_backward(Workspace memory, Py_ssize_t size, Py_ssize_t before, Py_ssize_t stride,
                        Py_ssize_t n_taps, Py_ssize_t dilation) except *:
    """The axis of an image of `size` pixels with `before` pixels of padding.

    A phase is what reaches pixels a stride apart in the backward pass; padding is
    that of the output gradient.
    """
    cdef Axis axis = axis_of(memory, min(stride, size), n_taps)
    cdef Phase *phase
    cdef Py_ssize_t pixel, i, n = 0, low = 0, end = 0
    for pixel in range(axis.n_phases):
        phase = &axis.phases[pixel]
        phase.tap, phase.shift = axis.phases.tap + n, axis.phases.shift + n
        phase.pixel, phase.first, phase.n_taps = pixel, (pixel + before) // stride, 0
        phase.count = (size - pixel + stride - 1) // stride
        for i in range(n_taps):
            if i * dilation % stride == (pixel + before) % stride:
                phase.tap[phase.n_taps] = i
                phase.shift[phase.n_taps] = -(i * dilation // stride)
                low = min(low, phase.first + phase.shift[phase.n_taps])
                end = max(end, phase.first + phase.shift[phase.n_taps] + phase.count)
                phase.n_taps += 1
        n += phase.n_taps
    for pixel in range(axis.n_phases):
        axis.phases[pixel].first -= low
    axis.in_step, axis.out_step = 1, stride
    axis.before, axis.padded = -low, max(end - low, <Py_ssize_t>1)
    return axis_measured(axis)


cdef Axis axis_of(Workspace memory, Py_ssize_t n_phases, Py_ssize_t n_taps) except *:
    """An axis with room for its phases, of n_taps taps together."""
    cdef Axis axis
    axis.n_phases = n_phases
    axis.phases = <Phase *>memory.take(n_phases * sizeof(Phase))
    axis.phases.tap = <Py_ssize_t *>memory.take(2 * n_taps * sizeof(Py_ssize_t))
    axis.phases.shift = axis.phases.tap + n_taps
    return axis


cdef Axis axis_measured(Axis axis) noexcept:
    """What the phases come to."""
    cdef const Phase *phase
    cdef Py_ssize_t q, t, read
    cdef bint is_first = True
    axis.longest, axis.shortest, axis.n_products, axis.most_taps = 0, axis.phases.count, 0, 0
    axis.first = axis.last = 0
    for q in range(axis.n_phases):
        phase = &axis.phases[q]
        axis.longest = max(axis.longest, phase.count)
        axis.shortest = min(axis.shortest, phase.count)
        axis.n_products += phase.count * phase.n_taps
        axis.most_taps = max(axis.most_taps, phase.n_taps)
        for t in range(phase.n_taps):
            read = phase.first + phase.shift[t]
            axis.first = read if is_first else min(axis.first, read)
            axis.last = read if is_first else max(axis.last, read)
            is_first = False
    return axis
