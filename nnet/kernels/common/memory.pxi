# What a call leaves for those after it: memory, and its plan. Needs common/arrays.pxi.

from libc.string cimport memset


# --- plans ----------------------------------------------------------------------

cdef dict recent_plans = {}  # what the checks found for the arguments of earlier calls
cdef int N_RECENT = 1000
cdef Py_ssize_t recent_bytes = 0
cdef enum:
    MOST_RECENT_BYTES = 1 << 25     # of all plans: a network's take some hundred KB


cdef bint is_plain(object value, int depth=4) noexcept:
    """Whether it is an int, a string or a tuple of them, and nothing that only equals one.

    Arguments are pairs of pairs at most; a tuple that is deeper would not even be hashed.
    """
    if type(value) is tuple and depth > 0:
        for item in <tuple>value:
            if not is_plain(item, depth - 1):
                return False
        return True
    return type(value) is int or type(value) is str


cdef object recent_plan(tuple key):
    """What was remembered, or None."""
    return recent_plans.get(key) if is_plain(key) else None  # a dict takes 1.0 and True for 1


cdef void remember_plan(tuple key, object plan, Py_ssize_t n_bytes=0) except *:
    global recent_bytes
    if is_plain(key):
        if len(recent_plans) >= N_RECENT or recent_bytes + n_bytes > MOST_RECENT_BYTES:
            recent_plans.clear()
            recent_bytes = 0
        recent_plans[key] = plan
        recent_bytes += n_bytes


# --- memory ---------------------------------------------------------------------

cdef enum:
    LEAST_BLOCK = 4096      # bytes: an array of its own for each small table takes a microsecond

cdef list idle_workspaces = []


cdef class Workspace:
    """Memory for one call, kept for the next: fresh pages cost as much as arithmetic."""

    cdef list blocks
    cdef Py_ssize_t size, used, total

    def __cinit__(self):
        self.blocks = []
        self.size = self.used = self.total = 0

    cdef void *take(self, Py_ssize_t n_bytes) except NULL:
        """n_bytes of uninitialised memory, aligned for vectors."""
        cdef cnp.ndarray block
        n_bytes = (n_bytes + 64) // 64 * 64
        if self.used + n_bytes > self.size:
            self.size = max(n_bytes, <Py_ssize_t>LEAST_BLOCK)
            self.blocks.append(np.empty(self.size + 64, np.uint8))
            self.used = 0
        self.total += n_bytes
        block = self.blocks[len(self.blocks) - 1]
        cdef size_t start = <size_t>cnp.PyArray_DATA(block)
        cdef void *memory = <void *>((start + 63) // 64 * 64 + self.used)
        self.used += n_bytes
        return memory

    cdef void release(self) noexcept:
        """Hand the memory to the next call, in one block.

        The call has done its work: if memory runs out here, there is less to hand on.
        """
        try:
            if len(self.blocks) > 1:
                self.blocks, self.size = [], 0
                self.blocks.append(np.empty(self.total + 64, np.uint8))
                self.size = self.total
            self.used = self.total = 0
            idle_workspaces.append(self)
        except MemoryError:
            pass


cdef Workspace acquire_workspace():
    # pop and append are atomic, so Python threads that call at once have one each
    try:
        return idle_workspaces.pop()
    except IndexError:
        return Workspace()


cdef struct ThreadMemory:       # a piece of it for each thread of a call
    char *start
    Py_ssize_t size, n_zeros    # bytes; how many of them start as zeros
    char *ready                 # whether they do already


cdef Py_ssize_t bytes_for_threads(int n_threads, Py_ssize_t size) noexcept nogil:
    return n_threads * ((size + 63) // 64 * 64) + n_threads


cdef ThreadMemory thread_memory(void *start, int n_threads, Py_ssize_t size,
                                Py_ssize_t n_zeros) noexcept nogil:
    """On memory of bytes_for_threads."""
    cdef ThreadMemory memory
    memory.start, memory.size, memory.n_zeros = <char *>start, (size + 63) // 64 * 64, n_zeros
    memory.ready = memory.start + n_threads * memory.size
    memset(memory.ready, 0, n_threads)
    return memory


cdef inline void *piece_of(const ThreadMemory *memory, int thread) noexcept nogil:
    """The piece of one thread, which itself must be the one to ask: it touches the pages."""
    cdef char *piece = memory.start + thread * memory.size
    if not memory.ready[thread]:
        memset(piece, 0, memory.n_zeros)
        memory.ready[thread] = True
    return piece
