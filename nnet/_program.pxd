# What kernels offer to a program: a step for each layer.

ctypedef void (*step_run)(const void *plan, const void *src, const void *other, void *dst,
                          Py_ssize_t n_imgs, void *scratch, int n_threads) noexcept nogil
ctypedef Py_ssize_t (*step_scratch)(const void *plan, Py_ssize_t n_imgs,
                                    int n_threads) noexcept nogil

cdef struct StepCall:
    step_run run
    step_scratch scratch        # bytes, NULL for none
    const void *plan
    double products             # about how many multiply-adds for an image


cdef class Step:
    cdef StepCall call
    cdef readonly Py_ssize_t out_bytes      # of an image
    cdef readonly bint wants_all            # faster for all images of a batch at once

    cdef int follow(self) except -1
