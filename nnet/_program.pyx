"""Programs: what layers in a row compute for prediction, in one call without Python in between.

A step is a layer's plan and its arrays, packed. Images pass the steps in chunks that stay in the
cache, each on one thread; if there are fewer images than threads, steps share them out within
each. Either way an image has the same bits.
"""

from nnet import dispatch
from nnet._runtime cimport parallel_for

include "kernels/common/arrays.pxi"
include "kernels/common/memory.pxi"

cdef enum:
    LINE = 64
    CHUNK_BYTES = 1 << 18       # of values between steps: a quarter of an L2 cache
    MAX_CHUNK = 64              # images
    KEPT_BYTES = 1 << 25        # of memory that serves the next call
    SMALL_WORK = 1_000_000      # multiply-adds below which a second thread costs more than it saves
    INPUT = -1                  # instead of the number of a step
    NOTHING = -2


cdef class Step:
    """What a layer does to images in memory. `nnet._conv` and the others have some."""

    cdef int follow(self) except -1:
        """Take over arrays of the layer that have changed."""
        return 0


cdef Py_ssize_t n_accesses = 0


cdef class Watched:
    """An attribute of layers that holds an array: they note in `_access` who was the last to ask.

    A mixin of descriptors that set it in the layer's dict, where steps find it without a note.
    """

    cdef public str name

    def __get__(self, layer, owner):
        global n_accesses
        if layer is None:
            return self
        cdef dict attributes = layer.__dict__
        n_accesses += 1
        attributes["_access"] = n_accesses
        try:
            return attributes[self.name]
        except KeyError:
            raise AttributeError(f"{owner.__name__} has no {self.name} yet") from None


cdef struct Wire:               # where a step reads and writes
    int src, other              # the steps whose values it reads, INPUT or NOTHING
    Py_ssize_t dst_at           # bytes of a chunk's values before its own, for each image
    bint is_shared              # the value is read in another segment: all images have it

cdef struct Segment:            # neighbouring steps that take chunks, or all images
    int first, end
    bint wants_all
    Py_ssize_t bytes            # of an image's values
    double products

cdef struct Run:                # one call
    const StepCall *calls
    const Wire *wires
    const Segment *segment
    int n_steps
    const char *src
    char *dst
    char *shared                # values of all images
    char *memory                # values of a chunk, and scratch, of each thread
    Py_ssize_t memory_size, values_size
    Py_ssize_t src_bytes, dst_bytes
    const Py_ssize_t *packed_bytes      # of an image's values, side by side
    Py_ssize_t n_imgs, chunk


cdef class Program:
    """Steps, and what each of them reads.

    Parameters
    ----------
    steps : list of Step
        At least one. The last one's value is what the program computes.
    sources : list of (int, int)
        The steps whose values each reads: -1 is the input, a second one -2 if there is none.
    in_shape, out_shape : tuple
        Of an image, and of what is computed for it.
    dtype : numpy.dtype
    """

    cdef readonly list steps
    cdef list memory
    cdef StepCall *calls
    cdef Wire *wires
    cdef Segment *segments
    cdef Py_ssize_t *out_bytes          # of an image, whole cache lines
    cdef Py_ssize_t *packed_bytes       # ... and not
    cdef Py_ssize_t in_bytes, shared_bytes
    cdef int n_steps, n_segments
    cdef double products
    cdef tuple out_shape
    cdef object dtype
    cdef int type

    def __init__(self, list steps, list sources, tuple in_shape, tuple out_shape, dtype):
        cdef Step step
        cdef int i
        self.steps, self.n_steps = steps, len(steps)
        self.out_shape, self.dtype, self.type = out_shape, dtype, dtype.num
        self.in_bytes = dtype.itemsize
        for length in in_shape:
            self.in_bytes *= length
        self.memory = []
        self.calls = <StepCall *>self.take(self.n_steps * sizeof(StepCall))
        self.wires = <Wire *>self.take(self.n_steps * sizeof(Wire))
        self.segments = <Segment *>self.take(self.n_steps * sizeof(Segment))
        self.out_bytes = <Py_ssize_t *>self.take(self.n_steps * sizeof(Py_ssize_t))
        self.packed_bytes = <Py_ssize_t *>self.take(self.n_steps * sizeof(Py_ssize_t))
        self.products = 0
        for i, step in enumerate(steps):
            self.calls[i], self.packed_bytes[i] = step.call, step.out_bytes
            self.out_bytes[i] = lines(step.out_bytes)
            self.wires[i].src, self.wires[i].other = sources[i]
            self.products += step.call.products
        self.cut()
        self.lay_out()

    cdef void *take(self, Py_ssize_t n_bytes) except NULL:
        block = np.zeros(n_bytes, np.uint8)
        self.memory.append(block)
        return cnp.PyArray_DATA(block)

    cdef void cut(self):
        """Into segments: a step that wants all images is one of its own."""
        cdef int i
        cdef Segment *last = NULL
        cdef Step step
        self.n_segments = 0
        for i in range(self.n_steps):
            step = self.steps[i]
            if last == NULL or step.wants_all or last.wants_all:
                last = &self.segments[self.n_segments]
                last.first, last.wants_all, last.products = i, step.wants_all, 0
                self.n_segments += 1
            last.end = i + 1
            last.products += step.call.products

    cdef void lay_out(self):
        """Where each value lies: those that are alive at a time lie side by side."""
        cdef int s, i, j
        cdef Segment *segment
        cdef Py_ssize_t at
        cdef bint moved
        ends = [self.last_use(i) for i in range(self.n_steps)]
        self.shared_bytes = 0
        for s in range(self.n_segments):
            segment = &self.segments[s]
            segment.bytes = 0
            for i in range(segment.first, segment.end):
                if ends[i] >= segment.end:
                    self.wires[i].is_shared = True
                    self.wires[i].dst_at = self.shared_bytes
                    self.shared_bytes += self.out_bytes[i]
                    continue
                at, moved = 0, True
                while moved:        # the first place that is free
                    moved = False
                    for j in range(segment.first, i):
                        if (not self.wires[j].is_shared and ends[j] >= i
                                and at < self.wires[j].dst_at + self.out_bytes[j]
                                and self.wires[j].dst_at < at + self.out_bytes[i]):
                            at, moved = self.wires[j].dst_at + self.out_bytes[j], True
                self.wires[i].dst_at = at
                segment.bytes = max(segment.bytes, at + self.out_bytes[i])

    cdef int last_use(self, int i):
        cdef int j, last = i
        for j in range(i + 1, self.n_steps):
            if self.wires[j].src == i or self.wires[j].other == i:
                last = j
        return last

    def __call__(self, cnp.ndarray images, n_threads=None):
        """What the last step computes for images (n_imgs, ...), which are contiguous."""
        cdef Step step
        cdef Run run
        cdef Workspace space
        cdef int s, threads = 1
        images = contiguous(images)
        run.n_imgs = cnp.PyArray_DIM(images, 0)
        cdef cnp.ndarray out = np.empty((run.n_imgs, *self.out_shape), self.dtype)
        if run.n_imgs == 0:
            return out
        for step in self.steps:
            step.follow()
        if run.n_imgs * self.products >= SMALL_WORK:
            threads = dispatch.call_threads(n_threads)
        run.calls, run.wires, run.n_steps = self.calls, self.wires, self.n_steps
        run.packed_bytes = self.packed_bytes
        run.src, run.dst = <const char *>cnp.PyArray_DATA(images), <char *>cnp.PyArray_DATA(out)
        run.src_bytes = self.in_bytes
        run.dst_bytes = (<Step>self.steps[self.n_steps - 1]).out_bytes
        space = acquire_workspace()
        run.shared = <char *>space.take(run.n_imgs * self.shared_bytes)
        for s in range(self.n_segments):
            self.run_segment(&run, &self.segments[s], space, threads)
        if space.total <= KEPT_BYTES:
            space.release()
        end_call()
        return out

    cdef void run_segment(self, Run *run, const Segment *segment, Workspace space,
                          int n_threads) except *:
        cdef Py_ssize_t scratch = 0, chunk = run.n_imgs
        cdef int within = n_threads, i
        run.segment = segment
        if run.n_imgs * segment.products < SMALL_WORK:
            within = n_threads = 1
        if not segment.wants_all and (n_threads == 1 or run.n_imgs >= 2 * n_threads):
            chunk = min(<Py_ssize_t>MAX_CHUNK, CHUNK_BYTES // max(segment.bytes, <Py_ssize_t>1))
            chunk = max(<Py_ssize_t>1, min(chunk, run.n_imgs // n_threads))
            within = 1
        else:
            n_threads = 1
        run.chunk = chunk
        for i in range(segment.first, segment.end):
            if run.calls[i].scratch != NULL:
                scratch = max(scratch, run.calls[i].scratch(run.calls[i].plan, chunk, within))
        run.values_size = lines(chunk * segment.bytes)
        run.memory_size = run.values_size + lines(scratch)
        run.memory = <char *>space.take(n_threads * run.memory_size)
        with nogil:
            if within > 1:
                run_steps(run, 0, run.n_imgs, run.memory, within)
            else:
                parallel_for(run_chunk, run, (run.n_imgs + chunk - 1) // chunk, n_threads)


def predict_at_once(model, object images, Py_ssize_t most, all_finite, is_current):
    """What a model's loss predicts, where there is nothing to convert, to divide or to say.

    Parameters
    ----------
    model : object with the attributes lock (a threading.RLock), input_shape and prediction
        The last is a `Prediction`, or None if there is none yet.
    images : object
    most : int
        Images to take at once.
    all_finite, is_current : callable
        The second is asked with the model, when no other thread works with it, whether to go on.

    Returns
    -------
    array (n_imgs, ...), or None
        If `images` is no plain array of the model's shape and dtype that can be read as it is,
        if there are too many of them or none, if not all values and scores are finite, if more
        than one program is needed, or if it is not to go on.
    """
    cdef cnp.ndarray array, scores
    cdef Program program
    if not cnp.PyArray_CheckExact(images):
        return None
    array = images
    if (not cnp.PyArray_ISCARRAY_RO(array) or cnp.PyArray_NDIM(array) == 0
            or shape_of(array)[1:] != model.input_shape
            or not 0 < cnp.PyArray_DIM(array, 0) <= most):
        return None
    lock = model.lock
    lock.acquire()
    try:
        prediction = model.prediction
        if prediction is None or not is_current(model):
            return None
        program = prediction.whole
        if (program is None or cnp.PyArray_TYPE(array) != program.type
                or not all_finite(array)):
            return None
        scores = program(array)
    finally:
        lock.release()
    if not all_finite(scores):
        return None
    if prediction.last is not None:
        run_in_place(prediction.last, cnp.PyArray_DATA(scores), cnp.PyArray_DIM(array, 0))
    return scores


cdef void run_in_place(Step step, void *values, Py_ssize_t n_imgs) except *:
    """A step without scratch, on the values of n_imgs images."""
    cdef const StepCall *call = &step.call
    cdef int threads = 1
    if n_imgs * call.products >= SMALL_WORK:
        threads = dispatch.call_threads(None)
    with nogil:
        call.run(call.plan, values, NULL, values, n_imgs, NULL, threads)
    end_call()


cdef inline Py_ssize_t lines(Py_ssize_t n_bytes) noexcept nogil:
    return (n_bytes + LINE - 1) // LINE * LINE


cdef void run_chunk(void *context, Py_ssize_t unit, int thread) noexcept nogil:
    cdef const Run *run = <const Run *>context
    cdef Py_ssize_t first = unit * run.chunk
    run_steps(run, first, min(run.chunk, run.n_imgs - first),
              run.memory + thread * run.memory_size, 1)


cdef void run_steps(const Run *run, Py_ssize_t first, Py_ssize_t n, char *memory,
                    int n_threads) noexcept nogil:
    """The steps of a segment for images [first, first + n)."""
    cdef int i, threads
    for i in range(run.segment.first, run.segment.end):
        threads = n_threads if n * run.calls[i].products >= SMALL_WORK else 1
        run.calls[i].run(
            run.calls[i].plan, value_of(run, run.wires[i].src, first, memory),
            value_of(run, run.wires[i].other, first, memory), value_of(run, i, first, memory), n,
            memory + run.values_size, threads)


cdef inline char *place_of(const Run *run, int step, Py_ssize_t first, char *memory) noexcept nogil:
    """Values of n images lie side by side, so their places grow with the number of images."""
    cdef const Wire *wire = &run.wires[step]
    if wire.is_shared:
        return run.shared + wire.dst_at * run.n_imgs + first * run.packed_bytes[step]
    return memory + wire.dst_at * run.chunk


cdef inline char *value_of(const Run *run, int step, Py_ssize_t first, char *memory) noexcept nogil:
    """The value of a step for the images from `first` on."""
    if step == NOTHING:
        return NULL
    if step == INPUT:
        return <char *>run.src + first * run.src_bytes
    if step == run.n_steps - 1:
        return run.dst + first * run.dst_bytes
    return place_of(run, step, first, memory)
