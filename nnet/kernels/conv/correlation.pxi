# What a correlation is: one mechanism for the forward pass, and for the backward pass to the
# images. Needs conv/packing.pxi, conv/axes.pxi and conv/pieces.pxi.
#
# Backward, convout_grad meets flipped, transposed filters. With a stride the gradient of the
# images splits into phases, pixels a stride apart: each is a correlation without a stride, of
# those taps that ever reach it.

cdef extern from "conv/tiles.h":
    enum: MAX_VECTORS
    enum: TILE_PIXELS
    enum: LAST_PIXELS
    enum: MAX_FEATURE_VECTORS
    enum: TERMS
    void pixels_tiles(...) noexcept nogil
    void features_tiles(...) noexcept nogil

cdef struct FilterPitches:      # how far apart things lie in the filters
    Py_ssize_t feature, channel, group

cdef struct Correlation:        # what is to be computed, whatever the number of images
    Py_ssize_t itemsize, lanes
    bint backward
    Py_ssize_t n_channels, n_features, groups   # of its own input and output
    Py_ssize_t fil_h, fil_w
    Py_ssize_t stride_y, stride_x, dilation_y, dilation_x   # of the convolution
    FilterPitches pitch
    Packing packing             # how its input is padded: without pitches
    Axis y, x
    Py_ssize_t out_h, out_w     # an output plane (padded, if it is to be folded)
    bint folds                  # the padding of each output plane is added to its pixels ...
    Packing fold                # ... which lie so in it
    Py_ssize_t out_size         # values of an output plane, folded
    Pieces pieces_y, pieces_x   # of the filters, for Winograd's algorithm
    double n_taps               # of an output, in the mean


cdef struct Outputs:            # of a pair of phases, which is a correlation without a stride
    Py_ssize_t rows, cols
    Py_ssize_t at, row, col     # where they go in the output plane


cdef inline Outputs outputs_of(const Correlation *task, const Phase *y, const Phase *x) noexcept:
    cdef Outputs to
    to.rows, to.cols = y.count, x.count
    to.at = y.pixel * task.out_w + x.pixel
    to.row, to.col = task.y.out_step * task.out_w, task.x.out_step
    return to


cdef void unpack_phase(real *dst, const real *source, Py_ssize_t pitch, const Outputs *to,
                       Py_ssize_t odd_at, const Outputs *even) noexcept nogil:
    """Rows of a scratch buffer, `pitch` apart, to their place in the output plane.

    With odd_at, `to` has the odd columns, and those at `source` are the even ones.
    """
    cdef Py_ssize_t y, x
    dst += even.at
    for y in range(to.rows):
        if to.col == 1:
            copy(dst, source, to.cols)
        elif odd_at:
            zip_rows(dst, source, source + odd_at, even.cols, to.cols)
        else:
            for x in range(to.cols):
                dst[x * to.col] = source[x]
        dst += to.row
        source += pitch


cdef Correlation correlation_of(
    bint backward, tuple imgs_shape, tuple filters_shape, Py_ssize_t groups, object geometry,
    int border, Py_ssize_t itemsize, Workspace memory,
) except *:
    cdef Correlation task
    task.backward, task.itemsize, task.lanes = backward, itemsize, VECTOR_BYTES // itemsize
    task.n_channels, task.n_features, task.groups = imgs_shape[1], filters_shape[1], groups
    task.fil_h, task.fil_w = filters_shape[2], filters_shape[3]
    task.stride_y, task.stride_x = geometry.stride_y, geometry.stride_x
    task.dilation_y, task.dilation_x = geometry.dilation_y, geometry.dilation_x
    task.pieces_y = cut_axis(task.fil_h, task.stride_y, task.dilation_y)
    task.pieces_x = cut_axis(task.fil_w, task.stride_x, task.dilation_x)
    task.folds = False
    cdef Py_ssize_t fil_size = task.fil_h * task.fil_w
    cdef Py_ssize_t h = imgs_shape[2], w = imgs_shape[3]
    task.pitch.feature, task.pitch.channel = fil_size, task.n_features * fil_size
    task.pitch.group = task.n_features // groups * fil_size
    if backward:
        task.pitch.feature, task.pitch.channel = task.pitch.channel, task.pitch.feature
        task.n_channels, task.n_features = task.n_features, task.n_channels
        describe_backward(&task, h, w, geometry, border, memory)
    else:
        describe_forward(&task, h, w, geometry, border, memory)
    task.out_size = task.fold.h * task.fold.w if task.folds else task.out_h * task.out_w
    task.n_taps = task.n_channels // groups * (
        <double>task.y.n_products * task.x.n_products) / (task.out_h * task.out_w)
    return task


cdef void describe_forward(Correlation *task, Py_ssize_t h, Py_ssize_t w, object geometry,
                           int border, Workspace memory) except *:
    cdef Packing *p = &task.packing
    task.out_h, task.out_w = geometry.out_h, geometry.out_w
    p.h, p.w, p.top, p.left, p.border = h, w, geometry.top, geometry.left, border
    p.stride_y, p.stride_x = task.stride_y, task.stride_x
    p.dilation_y, p.dilation_x = task.dilation_y, task.dilation_x
    p.n_phases_y = min(task.fil_h, p.stride_y // <Py_ssize_t>gcd(p.stride_y, p.dilation_y))
    p.n_phases_x = min(task.fil_w, p.stride_x // <Py_ssize_t>gcd(p.stride_x, p.dilation_x))
    p.rows = task.out_h + (task.fil_h - 1) * p.dilation_y // p.stride_y
    p.cols = task.out_w + (task.fil_w - 1) * p.dilation_x // p.stride_x
    task.y = axis_forward(memory, task.out_h, p.top, p.stride_y, task.fil_h, p.dilation_y)
    task.x = axis_forward(memory, task.out_w, p.left, p.stride_x, task.fil_w, p.dilation_x)


cdef void describe_backward(Correlation *task, Py_ssize_t h, Py_ssize_t w, object geometry,
                            int border, Workspace memory) except *:
    cdef Packing *p = &task.packing
    cdef Py_ssize_t top = geometry.top, left = geometry.left
    task.out_h, task.out_w = h, w
    if border != BORDER_ZEROS and any(geometry[2:6]):
        task.folds = True
        task.fold.h, task.fold.w, task.fold.top, task.fold.left = h, w, top, left
        task.fold.border = border
        task.out_h += top + <Py_ssize_t>geometry.bottom
        task.out_w += left + <Py_ssize_t>geometry.right
        top = left = 0
    task.y = axis_backward(memory, task.out_h, top, task.stride_y, task.fil_h, task.dilation_y)
    task.x = axis_backward(memory, task.out_w, left, task.stride_x, task.fil_w, task.dilation_x)
    p.h, p.w, p.border = geometry.out_h, geometry.out_w, BORDER_ZEROS
    p.stride_y = p.stride_x = p.dilation_y = p.dilation_x = p.n_phases_y = p.n_phases_x = 1
    p.top, p.rows, p.left, p.cols = task.y.before, task.y.padded, task.x.before, task.x.padded


# --- plans and calls --------------------------------------------------------------

cdef struct Sizes:              # values that a plan wants; each kind of plan begins with them
    Py_ssize_t packed           # of biases and weights, packed
    Py_ssize_t buffer           # of a thread, at its beginning: packed images
    Py_ssize_t thread           # of a thread in all

cdef struct Share:              # how the images of a call are shared out
    Py_ssize_t stack            # images of a unit, or less than all of one:
    Py_ssize_t rows             # output rows
    Py_ssize_t parts            # units that a stack of images makes ...
    Py_ssize_t splits           # ... and blocks of features, units that each of these makes
    Py_ssize_t zeros            # values of a thread that start as zeros
    Py_ssize_t n_units
    int n_threads

cdef struct Call:               # what the threads share while a plan runs
    const Correlation *task
    const void *plan
    const void *imgs            # (n_imgs, n_channels, h, w)
    const void *packed          # biases and weights
    void *out                   # (n_imgs, n_features, out_h, out_w)
    Py_ssize_t n_imgs
    bint with_relu
    void *unit                  # what is done with each
    Share share
    ThreadMemory memory


cdef inline Py_ssize_t stacked_images(const Call *call, Py_ssize_t first) noexcept nogil:
    """Images of the stack that begins with image `first`."""
    return min(call.share.stack, call.n_imgs - first)
