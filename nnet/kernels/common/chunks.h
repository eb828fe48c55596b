/* Sums over images: in which order they are added, whatever computes them. Needs Python.h.
 *
 * Images form chunks of CHUNK_IMGS, from the first on; the last may be smaller. What a chunk sums
 * depends on its own images alone. Chunks are the leaves of a binary tree: its node at level l
 * covers chunks k * 2^l to (k + 1) * 2^l - 1 and is the left half plus the right one, or the left
 * one where there is no right. The batch's length and the number of threads change no node, so
 * that parts of a batch which start at a multiple of CHUNK_IMGS * 2^l can be summed elsewhere.
 *
 * One after the other, chunks need no more memory than a stack of stack_depth(n) sums:
 *
 *     depth = 0
 *     for i in range(n):              # n chunks, or as well n nodes of one level
 *         stack[depth] = the sum of chunk i
 *         for _ in range(n_joins(i, n)):
 *             depth -= 1
 *             stack[depth] += stack[depth + 1]
 *         depth += 1                  # stack[0] is the sum, in the end
 *
 * Threads take whole subtrees, such as node_size(n, 8) chunks each, whose sums are joined so.
 */
#if !defined(NNET_CHUNKS_H)
#define NNET_CHUNKS_H

enum { CHUNK_IMGS = 16 };

static inline Py_ssize_t n_chunks_of(Py_ssize_t n_imgs) {
    return (n_imgs + CHUNK_IMGS - 1) / CHUNK_IMGS;
}

/* How many sums lie on the stack before that of chunk i. */
static inline int n_stacked(Py_ssize_t i) { return __builtin_popcountll(i); }

/* How many pairs are added after it: those at the top of the stack. */
static inline int n_joins(Py_ssize_t i, Py_ssize_t n) {
    return i + 1 == n ? n_stacked(i) : __builtin_ctzll(i + 1);
}

static inline int stack_depth(Py_ssize_t n) { return 64 - __builtin_clzll(n | 1); }

/* Chunks of a node at the lowest level that has at most so many nodes. */
static inline Py_ssize_t node_size(Py_ssize_t n, Py_ssize_t most) {
    Py_ssize_t size = 1;
    while (size * most < n) size *= 2;
    return size;
}

#endif
