"""Images moved, turned and scaled: an affine map for each of them, compiled."""

from libc.limits cimport INT_MAX

from nnet import dispatch
from nnet._runtime cimport parallel_for

include "kernels/common/arrays.pxi"

ctypedef fused real:
    float
    double

cdef enum:
    BEFORE = 1              # pixels of border in front of an image, and
    AROUND = 3              # in all: a pixel past the end has one more neighbour, of weight 0
    SMALL_SIZE = 50_000     # pixels below which a second thread saves no time

cdef struct Warp:
    const void *images
    const double *maps
    void *out
    void *planes            # for each thread: the channels of one image, with their borders
    int *places             # likewise, for the pixels of one row of the output: where in a plane
    void *weights           # the first of its four neighbours is; the weights of the others
    Py_ssize_t n_channels, height, width
    double fill
    bint nearest
    bint interpolate


cdef void pad_row(const real *row, Py_ssize_t width, real *padded, real before,
                  real after) noexcept nogil:
    cdef Py_ssize_t x
    padded[0] = before
    for x in range(width):
        padded[BEFORE + x] = row[x]
    for x in range(BEFORE + width, AROUND + width):
        padded[x] = after


cdef void pad_plane(const real *plane, Py_ssize_t height, Py_ssize_t width, bint nearest,
                    real fill, real *padded) noexcept nogil:
    """One channel with a border of its nearest pixels, or of one value."""
    cdef Py_ssize_t y, x, source, pitch = width + AROUND
    cdef const real *row
    for y in range(height + AROUND):
        source = y - BEFORE
        if nearest:
            row = plane + min(max(source, 0), height - 1) * width
            pad_row(row, width, padded, row[0], row[width - 1])
        elif 0 <= source < height:
            pad_row(plane + source * width, width, padded, fill, fill)
        else:
            for x in range(pitch):
                padded[x] = fill
        padded += pitch


cdef void find_row(const double *map, double y, double before, Py_ssize_t height,
                   Py_ssize_t width, int *places, real *below, real *right) noexcept nogil:
    """Where the pixels of one row of the output come from; half a pixel more `before` rounds."""
    cdef double start_y = map[0] * y + map[2] + before, last_y = height + BEFORE
    cdef double start_x = map[3] * y + map[5] + before, last_x = width + BEFORE
    cdef double step_y = map[1], step_x = map[4], from_y, from_x
    cdef int x, row, column, pitch = <int>width + AROUND
    for x in range(<int>width):
        from_y, from_x = step_y * x + start_y, step_x * x + start_x
        from_y = from_y if from_y > 0 else 0.0      # also of NaN
        from_x = from_x if from_x > 0 else 0.0
        from_y = from_y if from_y < last_y else last_y
        from_x = from_x if from_x < last_x else last_x
        row, column = <int>from_y, <int>from_x
        places[x] = row * pitch + column
        below[x], right[x] = <real>(from_y - row), <real>(from_x - column)


cdef void take_row(const real *padded, Py_ssize_t pitch, const int *places, const real *below,
                   const real *right, Py_ssize_t width, real *out) noexcept nogil:
    """Bilinear interpolation: exact where weights are 0."""
    cdef const real *pixel
    cdef real left_sum, right_sum
    cdef Py_ssize_t x
    for x in range(width):
        pixel = padded + places[x]
        left_sum = (1 - below[x]) * pixel[0] + below[x] * pixel[pitch]
        right_sum = (1 - below[x]) * pixel[1] + below[x] * pixel[pitch + 1]
        out[x] = (1 - right[x]) * left_sum + right[x] * right_sum


cdef void copy_row(const real *padded, const int *places, Py_ssize_t width,
                   real *out) noexcept nogil:
    """The nearest pixels: whatever their bits mean."""
    cdef Py_ssize_t x
    for x in range(width):
        out[x] = padded[places[x]]


cdef void warp_image(const Warp *job, Py_ssize_t n, int thread, real *planes) noexcept nogil:
    cdef Py_ssize_t height = job.height, width = job.width, y, c
    cdef Py_ssize_t pitch = width + AROUND, size = (height + AROUND) * pitch
    cdef Py_ssize_t first = n * job.n_channels * height * width
    cdef const real *image = <const real *>job.images + first
    cdef real *out = <real *>job.out + first
    cdef int *places = job.places + thread * width
    cdef real *below = <real *>job.weights + 2 * thread * width
    cdef real *right = below + width
    cdef real *row
    cdef double before = BEFORE if job.interpolate else BEFORE + 0.5
    planes += thread * job.n_channels * size
    for c in range(job.n_channels):
        pad_plane(image + c * height * width, height, width, job.nearest, <real>job.fill,
                  planes + c * size)
    for y in range(height):
        find_row(job.maps + 6 * n, y, before, height, width, places, below, right)
        for c in range(job.n_channels):
            row = out + (c * height + y) * width
            if job.interpolate:
                take_row(planes + c * size, pitch, places, below, right, width, row)
            else:
                copy_row(planes + c * size, places, width, row)


cdef void float_image(void *job, Py_ssize_t n, int thread) noexcept nogil:
    warp_image(<const Warp *>job, n, thread, <float *>(<Warp *>job).planes)


cdef void double_image(void *job, Py_ssize_t n, int thread) noexcept nogil:
    warp_image(<const Warp *>job, n, thread, <double *>(<Warp *>job).planes)


def warp(
    images,         # (n_imgs, n_channels, img_h, img_w)                    IN
    maps,           # (n_imgs, 6)                                           IN
    out=None,       # (n_imgs, n_channels, img_h, img_w)                    OUT
    *,
    fill=None,
    interpolate=True,
    n_threads=None,
):
    """Images through affine maps.

    out[n, c, y, x] is images[n, c, a*y + b*x + d, e*y + f*x + g], where maps[n] is
    (a, b, d, e, f, g): the same bits for an image alone and in any batch.

    Parameters
    ----------
    images : ndarray (n_imgs, n_channels, img_h, img_w), float32 or float64
    maps : ndarray (n_imgs, 6), float64
    out : ndarray of the shape and dtype of images, optional
        Filled and returned; None allocates it. It may share memory with no input.
    fill : float, optional
        What surrounds the images. None: their nearest pixels.
    interpolate : bool
        Bilinearly between pixels; else the nearest one is copied, half a pixel being rounded up.
    n_threads : int, optional
        Default: `nnet.get_num_threads()`. It changes no bit of the result.

    Returns
    -------
    out : ndarray

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and values, and for types, that do not fit.
    """
    cdef cnp.ndarray images_ = check_array(
        images, "images", "n_imgs, n_channels, img_h, img_w", None, "")
    cdef tuple shape = shape_of(images_)
    cdef cnp.ndarray maps_ = check_reals(maps, "maps", None, "")
    if cnp.PyArray_TYPE(maps_) != cnp.NPY_DOUBLE:
        raise TypeError(f"maps has dtype {maps.dtype}, expected float64")
    check_shape(maps_, "maps", (shape[0], 6))
    cdef cnp.ndarray out_ = check_output(out, "out", shape, images_.dtype)
    refuse_overlap(out_, "out", images_, "images")
    refuse_overlap(out_, "out", maps_, "maps")
    cdef Warp job
    job.n_channels, job.height, job.width = shape[1:]
    if (job.height + AROUND) * (job.width + AROUND) > INT_MAX:
        raise ValueError(f"images has shape {shape}, expected sides whose product is less than 2^31")
    job.nearest, job.fill = fill is None, 0.0 if fill is None else fill
    job.interpolate = interpolate
    cdef Py_ssize_t n_imgs = shape[0]
    cdef int threads = <int>max(min(dispatch.call_threads(n_threads), n_imgs), 1)
    if n_imgs * job.height * job.width < SMALL_SIZE:
        threads = 1
    images_, maps_ = contiguous(images_), contiguous(maps_)
    cdef cnp.ndarray result = work_array(out_)
    cdef cnp.ndarray planes = np.empty(
        (threads, job.n_channels, job.height + AROUND, job.width + AROUND), images_.dtype)
    cdef cnp.ndarray places = np.empty((threads, job.width), np.intc)
    cdef cnp.ndarray weights = np.empty((threads, 2, job.width), images_.dtype)
    job.images, job.maps = cnp.PyArray_DATA(images_), <const double *>cnp.PyArray_DATA(maps_)
    job.out, job.planes = cnp.PyArray_DATA(result), cnp.PyArray_DATA(planes)
    job.places, job.weights = <int *>cnp.PyArray_DATA(places), cnp.PyArray_DATA(weights)
    cdef bint is_float = cnp.PyArray_TYPE(images_) == cnp.NPY_FLOAT
    with nogil:
        parallel_for(float_image if is_float else double_image, &job, n_imgs, threads)
    deliver(out_, result)
    return out_
