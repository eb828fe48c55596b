"""What an interrupt must not cut in two, and the arrays that layers are lent.

Python handles signals, such as that of Ctrl-C, between the bytecodes of Python code, so
that an exception can arrive after any of them, and within a kernel's call that lasts (team.h). It
never arrives inside of other compiled code: what is here is done whole, or not at all.
"""

cimport numpy as cnp
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_get_thread_ident

from contextvars import copy_context

import numpy as np

cnp.import_array()

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *object)


# --- arrays that are lent ---------------------------------------------------------

cdef enum:
    LINE = 64           # bytes: of the cache, and of the widest vector
    N_STARTS = 32       # lines where an array may start: where all start at the same place of a
                        # page, loads wait for stores (a sixth of a dense layer's backward pass)

cdef Py_ssize_t n_blocks = 0


cdef cnp.ndarray free_block(list blocks, Py_ssize_t n_bytes):
    """A piece of memory that nobody reads any more; a new one takes the place of one too small.

    Its first bytes say where in it the array starts.
    """
    global n_blocks
    cdef cnp.ndarray block
    cdef Py_ssize_t i, too_small = -1
    for i in range(len(blocks)):
        block = <cnp.ndarray>blocks[i]
        if Py_REFCNT(<PyObject *>block) == 2:   # the list's and this function's: no view is left
            if cnp.PyArray_DIM(block, 0) >= n_bytes + (N_STARTS + 1) * LINE:
                return block
            too_small = i
    if too_small >= 0:
        block = None
        blocks.pop(too_small)       # its memory may serve the new one
    block = np.empty(n_bytes + (N_STARTS + 1) * LINE, np.uint8)
    cdef size_t start = <size_t>cnp.PyArray_DATA(block)
    start = (start + LINE) // LINE * LINE + n_blocks * 5 % N_STARTS * LINE
    (<size_t *>cnp.PyArray_DATA(block))[0] = start
    n_blocks += 1
    blocks.append(block)
    return block


cdef cnp.ndarray array_on(cnp.ndarray block, tuple shape, cnp.dtype dtype):
    cdef cnp.npy_intp dims[32]
    cdef size_t start = (<size_t *>cnp.PyArray_DATA(block))[0]
    cdef int axis, n_axes = len(shape)
    cdef cnp.ndarray array
    for axis in range(n_axes):
        dims[axis] = shape[axis]
    array = cnp.PyArray_SimpleNewFromData(n_axes, dims, dtype.num, <void *>start)
    cnp.set_array_base(array, block)
    return array


cdef Py_ssize_t size_of(tuple shape, cnp.dtype dtype) except -1:
    cdef Py_ssize_t n_bytes = dtype.itemsize
    for length in shape:
        n_bytes *= length
    return n_bytes


cdef class Shared:
    """What all layers of a network share while it works.

    Attributes
    ----------
    weights : float64 array (n_imgs,), or None
        Of the images of the batch: an image of weight 2 counts as two.
    """

    cdef readonly list passing      # the memory of arrays that pass from layer to layer
    cdef public object weights

    def __init__(self):
        self.passing = []


cdef class Work:
    """What a network lends one of its layers while it works.

    An array that it hands out is not handed out again while anybody refers to it, or to a
    view of it: there is no moment at which it would have to be given back.

    Parameters
    ----------
    output_shape : tuple or None
        Of one image, if known.
    training, need_input_grad : bool
        See `nnet.Layer`.
    shared : Shared
        The same for all layers.
    make_rng : callable
        Makes the layer's stream of random numbers, when it first draws one.
    trainable : bool
        Whether training changes the layer: neither it nor one around it is frozen.
    """

    cdef readonly tuple output_shape
    cdef readonly bint training, need_input_grad, trainable
    cdef readonly Shared shared
    cdef dict own
    cdef object make_rng, _rng

    def __init__(self, tuple output_shape, bint training, bint need_input_grad, Shared shared,
                 make_rng=None, bint trainable=True):
        self.output_shape = output_shape
        self.training, self.need_input_grad = training, need_input_grad
        self.shared, self.make_rng, self.trainable = shared, make_rng, trainable
        self.own = {}

    def restart(self, make_rng):
        """Begin another stream of random numbers."""
        self.make_rng, self._rng = make_rng, None

    @property
    def rng(self):
        if self._rng is None:
            self._rng = self.make_rng()
        return self._rng

    def array(self, str name, tuple shape, cnp.dtype dtype):
        """An uninitialised array of the layer's own: in every step the same memory."""
        cdef list blocks = self.own.get(name)
        if blocks is None:
            blocks = self.own[name] = []
        return array_on(free_block(blocks, size_of(shape, dtype)), shape, dtype)

    def scratch(self, tuple shape, cnp.dtype dtype):
        """An uninitialised array from the memory that all layers share."""
        return array_on(free_block(self.shared.passing, size_of(shape, dtype)), shape, dtype)

    def output(self, tuple shape, cnp.dtype dtype):
        """The array for an output: kept until the gradient is known, if the network trains."""
        return self.array("output", shape, dtype) if self.training else self.scratch(shape, dtype)


# --- layers at work -----------------------------------------------------------------


cdef dict guards = {}       # by thread: the AtWork that keeps values of arrays


cdef int note_step() except -1:
    """Tell this thread's guard that an optimizer has changed its parameters."""
    guard = guards.get(PyThread_get_thread_ident())
    if guard is not None:
        (<AtWork>guard).stepped = True
    return 0


cdef class AtWork:
    """Lends layers what they need, and takes it back: `begin` in a try, `end` in its finally.

    Parameters
    ----------
    place : object with the attributes lock (a threading.RLock) and at_work
        Whose layers these are: one thread at a time works with them.
    """

    cdef object place, lock, outer_guard
    cdef list loans, before, states, guarded, values
    cdef public bint stepped            # whether an optimizer has, since `guard`
    cdef readonly AtWork outer          # that of a call inside of which this one is
    cdef readonly long thread

    def __init__(self, place):
        self.place, self.thread = place, PyThread_get_thread_ident()
        self.loans, self.before = [], []

    def begin(self):
        """Wait until no other thread works there."""
        cdef object lock = self.place.lock
        lock.acquire()
        self.lock, self.outer = lock, self.place.at_work
        self.place.at_work = self

    def lend(self, list loans):
        """Give each layer its Work: `loans` has pairs of them."""
        cdef dict attributes
        cdef Work work
        self.loans = loans
        for layer, work in loans:
            attributes = layer.__dict__
            self.before.append((attributes.get("_work"), attributes.get("training", True),
                                attributes.get("need_input_grad", True)))
            attributes["_work"], attributes["training"] = work, work.training
            attributes["need_input_grad"] = work.need_input_grad

    def guard(self, list states):
        """At the end, give layers the arrays and values of now, unless an optimizer has stepped.

        Parameters
        ----------
        states : list of (layer, name)
            Attributes that hold arrays.
        """
        cdef list arrays = [getattr(layer, name) for layer, name in states]
        self.values = [array.copy() for array in arrays]
        self.outer_guard, self.stepped = guards.get(self.thread), False
        guards[self.thread] = self
        self.states, self.guarded = states, arrays

    cdef int end_guard(self) except -1:
        guarded, self.guarded = self.guarded, None
        if guarded is None:
            return 0
        if not self.stepped:
            write_all(guarded, self.values)
            for (layer, name), array in zip(self.states, guarded):
                if getattr(layer, name, None) is not array:     # the layer has made another one
                    setattr(layer, name, array)
        if self.outer_guard is None:
            guards.pop(self.thread, None)
        else:
            guards[self.thread] = self.outer_guard
        return 0

    def end(self):
        """Take everything back, and what the layers keep for a backward pass; once."""
        if self.lock is None:
            return
        self.take_back()
        self.place.at_work = self.outer
        lock, self.lock = self.lock, None
        lock.release()

    cpdef take_back(self):
        cdef dict attributes
        cdef Work work
        cdef Py_ssize_t i
        cdef tuple before
        self.end_guard()
        for i in range(len(self.before)):
            layer, work = self.loans[i]
            attributes, before = layer.__dict__, self.before[i]
            # No key is removed: Python finds attributes faster where it has found them before.
            attributes["_work"], attributes["training"], attributes["need_input_grad"] = before
            if work.training:
                attributes["_kept"] = None


# --- steps and trainings --------------------------------------------------------------

def all_writable(list arrays):
    for array in arrays:
        if not isinstance(array, np.ndarray) or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>array):
            return False
    return True


def write_all(list targets, list sources):
    """targets[i][...] = sources[i] for all of them. Shapes and dtypes are checked before."""
    for target, source in zip(targets, sources):
        target[...] = source        # np.copyto would call a function of Python's before


def quietly(function):
    """What a function without arguments returns, in which NumPy warns of nothing.

    NumPy's errstate alone, which its generators of random numbers use too, leaves the
    warnings off for good if an interrupt arrives in it.
    """
    return copy_context().run(_without_warnings, function)


def _without_warnings(function):
    with np.errstate(all="ignore"):
        return function()


include "kernels/dense/steps.pxi"


cdef class Transaction:
    """A training as one change: at its end the network is that of the last step, or as before.

    `begin` in a try, then `publish`, and `end` in the try's finally.

    Attributes
    ----------
    keep : bool
        Whether there is a step to keep.
    model : Model or None
        What is trained; set once the layers are set up.
    layers : list or None
        Copies of the layers as they were, if they were not fitted.
    is_forked : bool
        Whether this is the copy, in a child process, of a training that goes on in its parent:
        another training may end it.
    """

    cdef public bint keep, is_forked
    cdef public object model, layers
    cdef readonly long thread
    cdef object network, before, put_back_rng
    cdef list states
    cdef bint begun

    def __init__(self, network):
        self.network, self.thread = network, PyThread_get_thread_ident()

    def begin(self):
        """From now on other trainings of the network are refused."""
        network = self.network
        cdef Transaction other = network._transaction
        if other is not None and other.is_forked:
            other.end()
        if network._transaction is not None:
            raise RuntimeError(
                "this network is being trained, expected the end of that call of fit first"
            )
        self.begun = True
        network._transaction = self

    def publish(self, published, list states, put_back_rng):
        """Everyone sees the model `published` from now on, in place of the network's.

        Parameters
        ----------
        published : Model or None
        states : list of (layer, dict)
            The attributes that each layer gets back at the end, if there is no step to keep.
        put_back_rng : callable
        """
        self.states, self.put_back_rng = states, put_back_rng
        self.before, self.network._model = self.network._model, published

    def end(self):
        if not self.begun or self.network._transaction is not self:
            return
        network = self.network
        if self.keep:
            network._model = self.model
        elif self.states is not None:
            for layer, state in self.states:
                attributes = layer.__dict__
                attributes.clear()
                attributes.update(state)
            if self.before is not None:     # its plan may not know of the latest options
                network._is_changed = True
            self.put_back_rng()
            network._model = self.before
        network._transaction = None


def set_untrained(network, list items):
    """mapping[key] = value for each (mapping, key, value), of what belongs to a network.

    Mappings are dicts, keys strings. Refused while the network is being trained: no training
    begins between this check and the change.
    """
    cdef Transaction transaction = network._transaction
    if transaction is not None and not transaction.is_forked:
        raise RuntimeError("this network is being trained, expected the end of fit first")
    for mapping, key, value in items:
        (<dict>mapping)[key] = value
