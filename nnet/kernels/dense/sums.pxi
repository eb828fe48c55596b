# --- a sum of two arrays ----------------------------------------------------------------

cdef struct Sum:
    const void *a
    const void *b
    void *out
    Py_ssize_t size
    bint with_relu


cdef void sum_part(const Sum *job, Py_ssize_t part, real *out) noexcept nogil:
    cdef const real *a = <const real *>job.a
    cdef const real *b = <const real *>job.b
    cdef Py_ssize_t i, end = min((part + 1) * PART_SIZE, job.size)
    cdef real y
    if job.with_relu:
        for i in range(part * PART_SIZE, end):
            y = a[i] + b[i]
            out[i] = <real>0 if y < 0 else y    # NaN stays
    else:
        for i in range(part * PART_SIZE, end):
            out[i] = a[i] + b[i]


cdef void float_sum_part(void *job, Py_ssize_t part, int thread) noexcept nogil:
    sum_part(<Sum *>job, part, <float *>(<Sum *>job).out)


cdef void double_sum_part(void *job, Py_ssize_t part, int thread) noexcept nogil:
    sum_part(<Sum *>job, part, <double *>(<Sum *>job).out)


def add_arrays(
    a,              # any shape                                             IN
    b,              # the same                                              IN
    out=None,       # the same                                              OUT
    *,
    activation=None,
    n_threads=None,
):
    """a + b, and the ReLU after it.

    Parameters
    ----------
    a, b : ndarray of one shape and dtype, float32 or float64
    out : ndarray of that shape and dtype, optional
        Filled and returned; None allocates it. It may share memory with no other array.
    activation : {None, 'relu'}
        Applied to the result.
    n_threads : int, optional
        Default: `nnet.get_num_threads()`.

    Raises
    ------
    ValueError, TypeError
        Before any work, for shapes and values, and for types, that do not fit.
    """
    cdef cnp.ndarray a_ = check_reals(a, "a", None, "")
    cdef cnp.ndarray b_ = check_reals(b, "b", a_, "a")
    check_shape(b_, "b", shape_of(a_))
    if activation is not None and activation != "relu":
        raise ValueError(f"activation is {activation!r}, expected None or 'relu'")
    cdef cnp.ndarray out_ = check_output(out, "out", shape_of(a_), a_.dtype)
    refuse_overlap(out_, "out", a_, "a")
    refuse_overlap(out_, "out", b_, "b")
    cdef Py_ssize_t size = cnp.PyArray_SIZE(a_)
    cdef int threads = threads_for(n_threads, size, SMALL_SIZE)
    a_, b_ = contiguous(a_), contiguous(b_)
    cdef cnp.ndarray work = work_array(out_)
    cdef Sum job = [data_of(a_), data_of(b_), data_of(work), size, activation is not None]
    cdef bint is_float = cnp.PyArray_TYPE(a_) == cnp.NPY_FLOAT
    with nogil:
        parallel_for(float_sum_part if is_float else double_sum_part, &job,
                     (size + PART_SIZE - 1) // PART_SIZE, threads)
    deliver(out_, work)
    return out_
