ctypedef void (*unit_function)(void *context, Py_ssize_t unit, int thread) noexcept nogil

cdef void parallel_for(unit_function run, void *context, Py_ssize_t n_units,
                       int n_threads) noexcept nogil
cdef int end_call() except -1
