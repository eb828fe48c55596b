# Sums over images: in which order they are added, whatever computes them. Needs nothing.
#
# Images form chunks of CHUNK_IMGS, from the first on; the last may be smaller. What a chunk sums
# depends on its own images alone. Chunks are the leaves of a binary tree: its node at level l
# covers chunks k * 2^l to (k + 1) * 2^l - 1 and is the left half plus the right one, or the left
# one where there is no right. The batch's length and the number of threads change no node, so
# that parts of a batch which start at a multiple of CHUNK_IMGS * 2^l can be summed elsewhere.
#
# One after the other, chunks need no more memory than a stack of STACK_DEPTH sums:
#
#     depth = 0
#     for i in range(n):              # n chunks, or as well n nodes of one level
#         stack[depth] = the sum of chunk i
#         for _ in range(n_joins(i, n)):
#             depth -= 1
#             stack[depth] += stack[depth + 1]
#         depth += 1                  # stack[0] is the sum, in the end
#
# Threads take whole subtrees, such as node_size(n, 8) chunks each, whose sums are joined so.

cdef extern from *:
    """
    #define n_ones(i) __builtin_popcountll(i)
    #define n_zeros_behind(i) __builtin_ctzll(i)
    """
    int n_ones(unsigned long long) noexcept nogil
    int n_zeros_behind(unsigned long long) noexcept nogil

cdef enum:
    CHUNK_IMGS = 16
    STACK_DEPTH = 60


cdef inline Py_ssize_t n_chunks_of(Py_ssize_t n_imgs) noexcept nogil:
    return (n_imgs + CHUNK_IMGS - 1) // CHUNK_IMGS


cdef inline int n_joins(Py_ssize_t i, Py_ssize_t n) noexcept nogil:
    """How many pairs are added after the sum of chunk i: those at the top of the stack."""
    return n_ones(i) if i + 1 == n else n_zeros_behind(i + 1)


cdef inline Py_ssize_t node_size(Py_ssize_t n_chunks, Py_ssize_t most) noexcept nogil:
    """Chunks of a node at the lowest level that has at most so many nodes."""
    cdef Py_ssize_t size = 1
    while size * most < n_chunks:
        size *= 2
    return size
