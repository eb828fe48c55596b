"""The memory that layers are lent: nothing is written to that anyone may still read."""

from itertools import pairwise

import numpy as np
import pytest
from networks import check, same, stripes, walked
from structures import as_network

from nnet import (
    Activation,
    Conv,
    Flatten,
    Layer,
    Parallel,
    Pool,
    Residual,
)
from nnet._atomic import Shared, Work

# --- the memory that is lent --------------------------------------------------------------------

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def address(array):
    return array.__array_interface__["data"][0]


def new_work(training=True, shared=None):
    return Work((3,), training, True, shared or Shared())


VIEWS = {
    "itself": lambda a: a,
    "slice": lambda a: a[:, 1:2],
    "element": lambda a: a[1, 2, ...],
    "transposed": lambda a: a.T,
    "reshaped": lambda a: a.reshape(-1),
    "view of a view": lambda a: a.reshape(-1)[::-1].view(np.int32)[3:5],
    "memoryview": memoryview,
    "subclass": lambda a: a.view(np.ma.MaskedArray),
    "broadcast": lambda a: np.broadcast_to(a, (2, *a.shape)),
    "asarray": lambda a: np.asarray(memoryview(a)),
    "strided": lambda a: np.lib.stride_tricks.sliding_window_view(a, 2, axis=0),
}


@pytest.mark.parametrize("kind", ["scratch", "array", "output", "output of a prediction"])
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_nothing_is_lent_twice_at_a_time(view, kind):
    work = new_work(training=kind != "output of a prediction")
    lend = {
        "scratch": lambda: work.scratch((4, 3), FLOAT32),
        "array": lambda: work.array("name", (4, 3), FLOAT32),
    }.get(kind, lambda: work.output((4, 3), FLOAT32))
    array = lend()
    place = address(array)
    assert array.shape == (4, 3)
    assert array.dtype == FLOAT32
    assert array.flags.c_contiguous and array.flags.writeable
    assert place % 64 == 0
    kept = view(array)
    del array
    others = [lend() for _ in range(3)]
    assert place not in map(address, others)
    assert len(set(map(address, others))) == 3
    del kept, others
    again = [lend() for _ in range(4)]
    assert place in map(address, again)  # in the end it does serve again


def test_lent_arrays_do_not_overlap():
    shared = Shared()
    first, second = new_work(shared=shared), new_work(shared=shared)
    arrays = []
    for work in (first, second):
        for shape in [(5,), (1000,), (3, 7), (), (0, 4), (64,), (65,)]:
            for dtype in (FLOAT32, FLOAT64, np.dtype(np.uint8)):
                arrays += [
                    work.scratch(shape, dtype),
                    work.array("a", shape, dtype),
                    work.array("b", shape, dtype),
                    work.output(shape, dtype),
                ]
                assert arrays[-1].shape == shape
                assert arrays[-1].dtype == dtype
    for i, array in enumerate(arrays):
        array[...] = i % 251
    assert all((array == i % 251).all() for i, array in enumerate(arrays))
    spans = sorted((address(a), address(a) + a.nbytes) for a in arrays if a.size)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_memory_passes_from_layer_to_layer():
    shared = Shared()
    first, second = new_work(shared=shared), new_work(shared=shared)
    place = address(first.scratch((100,), FLOAT32))
    assert address(second.scratch((25,), FLOAT64)) == place
    large = second.scratch((200,), FLOAT64)  # takes the place of what is too small
    assert len(shared.passing) == 1
    assert large.size == 200
    own = first.array("name", (100,), FLOAT32)
    assert len(shared.passing) == 1
    assert address(own) != address(second.array("name", (100,), FLOAT32))
    assert new_work(training=False, shared=shared).output((10,), FLOAT32).size == 10
    assert len(shared.passing) == 2


def test_branches_may_keep_their_outputs_for_ever(rng):
    X, y = stripes(40, rng)
    outputs = []

    class Collector(Flatten):
        def fprop(self, input):
            outputs.append((input[1:, :1], input[1:, :1].copy()))
            return input

        def bprop(self, output_grad):
            outputs.append((output_grad[..., ::2], output_grad[..., ::2].copy()))
            return output_grad

        def output_shape(self, input_shape):
            return input_shape

    plain, collecting = (
        as_network(
            [
                Conv(2, 3),
                Parallel([[Conv(2, 3), *own()], [Residual([Conv(2, 1), *own()])], own()]),
                Residual([Conv(2, 3), *own()]),
            ]
        )
        for own in (list, lambda: [Collector()])
    )
    plain.fit(X, y, max_iter=2, batch_size=16)
    collecting.fit(X, y, max_iter=2, batch_size=16)
    assert same(plain.params(), collecting.params())
    assert np.array_equal(plain.predict_proba(X), collecting.predict_proba(X))
    assert len(outputs) > 48
    assert all(np.array_equal(array, before) for array, before in outputs)


# --- what layers keep -----------------------------------------------------------------------


class Keeper(Layer):
    """Keeps all that it is given and gives, and how it was at that time."""

    def __init__(self):
        self.kept = []

    def keep(self, array):
        self.kept.append((array, array.copy()))
        return array

    def fprop(self, input):
        self.keep(input)
        return self.keep(np.tanh(input))

    def bprop(self, output_grad):
        self.keep(output_grad)
        output = self.kept[-2][0]
        return self.keep(output_grad * (1 - output * output))

    def output_shape(self, input_shape):
        return input_shape


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    "place",
    [
        lambda k: [k(), Conv(2, 3), Activation("relu")],
        lambda k: [Conv(2, 3), Activation("tanh"), k(), Conv(2, 3), k()],
        lambda k: [Conv(2, 3), Residual([k(), Conv(2, 3), k()]), k()],
        lambda k: [Conv(2, 3), Parallel([[], [k(), Conv(2, 1)], k()], "mul"), k(), Pool(2, 2)],
        lambda k: [Parallel([[Conv(2, 3), k()], [k()]], "concat"), k(), Conv(2, 3)],
    ],
)
def test_what_layers_keep_is_never_written_to_again(place, in_memory, rng):
    X, y = stripes(40, rng)
    if not in_memory:
        X = X[::-1].astype(np.float64)[::-1]
    network = as_network(place(Keeper))
    network.fit(X, y, max_iter=3, batch_size=16)
    network.predict(X[:7])
    network.predict(-X)
    keepers = [layer for _, layer in walked(network) if isinstance(layer, Keeper)]
    kept = [pair for keeper in keepers for pair in keeper.kept]
    assert len(kept) > 20
    assert all(np.array_equal(array, before) for array, before in kept)
    network = as_network(place(Keeper))
    check(network.check_gradients(X[:3], y[:3], max_checks=3))


class Writer(Keeper):
    """Writes to what it is given on the way back."""

    def fprop(self, input):
        self.output = np.tanh(input)
        return self.output

    def bprop(self, output_grad):
        output_grad *= 1 - self.output * self.output
        return output_grad


@pytest.mark.parametrize(
    "place",
    [
        lambda w: [Conv(2, 3), Residual([w()]), Residual([Conv(2, 3)], shortcut=[w()])],
        lambda w: [Conv(2, 3), Parallel([[], w(), [w()], [Conv(2, 3), w()]])],
        lambda w: [Conv(2, 3), Parallel([w(), [Conv(2, 1)], w(), []], "mul")],
        lambda w: [Conv(2, 3), Parallel([w(), [Conv(2, 1)], [Residual([w()])]], "concat")],
    ],
)
def test_layers_may_write_to_their_gradient(place, rng):
    X, y = stripes(4, rng)
    check(as_network(place(Writer)).check_gradients(X, y))
    theirs, ours = (as_network(place(make)) for make in (Writer, lambda: Activation("tanh")))
    X, y = stripes(40, rng, np.float64)
    for network in (theirs, ours):
        network.fit(X, y, max_iter=2, batch_size=16)
    for a, b in zip(theirs.params(), ours.params()):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
