# Sums over images: see chunks.h. Needs nothing.

cdef extern from "common/chunks.h":
    enum: CHUNK_IMGS
    Py_ssize_t n_chunks_of(Py_ssize_t n_imgs) noexcept nogil
    int n_stacked(Py_ssize_t i) noexcept nogil
    int n_joins(Py_ssize_t i, Py_ssize_t n) noexcept nogil
    int stack_depth(Py_ssize_t n) noexcept nogil
    Py_ssize_t node_size(Py_ssize_t n, Py_ssize_t most) noexcept nogil
