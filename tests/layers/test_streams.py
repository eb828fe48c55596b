"""Random numbers: whose stream is whose, and what a seed stands for."""

import numpy as np
import pytest
from networks import same, stripes
from structures import as_network

from nnet import (
    Activation,
    Conv,
    Flatten,
    Layer,
    Linear,
    LogRegression,
    NeuralNetwork,
    Parallel,
    ParamMixin,
    Residual,
    Sequential,
)
from nnet.layers.streams import Streams, as_streams
from nnet.layers.tree import numbered, walk


def arrays(network):
    """{class name: W of its layers, in order}."""
    found = {}
    for _, layer in walk(numbered(network.layers)):
        if getattr(layer, "W", None) is not None:
            found.setdefault(type(layer).__name__, []).append(layer.W)
    return found


class Drawing(Layer, ParamMixin):
    """Of another class than the layers around it; keeps what it was given."""

    def _setup(self, input_shape, rng):
        self.rng = rng
        self.W = rng.standard_normal(input_shape[1:]).astype(self.dtype)

    def fprop(self, input):
        return input + self.W

    def bprop(self, output_grad):
        self.W_grad = output_grad.mean(axis=0)
        return output_grad

    def params(self):
        return (self.W,)

    def param_grads(self):
        return (self.W_grad,)

    def output_shape(self, input_shape):
        return input_shape


class Block(Sequential):
    """A container of the user's own."""


FLAT = [lambda: Conv(2, 3), lambda: Conv(2, 3), lambda: Activation("relu"), lambda: Conv(2, 3)]


@pytest.mark.parametrize(
    "nest",
    [
        lambda a, b, r, c: [a, b, r, c],
        lambda a, b, r, c: [a, r, Sequential([Sequential([b]), Sequential()]), c],
        lambda a, b, r, c: [a, Residual([b, r, c])],
        lambda a, b, r, c: [a, Residual([b, r], shortcut=[c])],
        lambda a, b, r, c: [Sequential([a, Parallel([r, [b], [Residual([c])]], "mul")])],
        lambda a, b, r, c: [Block([Drawing(), a]), Drawing(), b, Block([r, c])],
    ],
)
def test_only_layers_of_the_same_class_before_it_count(nest):
    plain = as_network([make() for make in FLAT], rng=5).build((2, 6, 6), 3)
    nested = as_network(nest(*(make() for make in FLAT)), rng=5).build((2, 6, 6), 3)
    assert same(arrays(nested)["Conv"], arrays(plain)["Conv"])
    assert len(arrays(nested)["Conv"]) == 3
    first, second, third = arrays(plain)["Conv"]
    assert not np.array_equal(first, second) and not np.array_equal(second, third)


def test_a_layer_put_before_shifts_its_own_class():
    two, three = (
        as_network([Conv(2, 3) for _ in range(n)], rng=5).build((2, 6, 6), 3) for n in (2, 3)
    )
    assert same(arrays(two)["Conv"], arrays(three)["Conv"][:2])
    assert same(arrays(two)["Linear"], arrays(three)["Linear"])


def test_streams_are_keyed_by_class_and_number():
    layers = [Conv(1, 3), Linear(2), Sequential(), Conv(1, 3), Linear(2)]
    streams = Streams(3)
    draws = [make().random(4) for make in streams.of_layers(layers, "layer")]
    keys = [("Conv", 0), ("Linear", 0), ("Sequential", 0), ("Conv", 1), ("Linear", 1)]
    assert same(draws, [streams.named("layer", *key).random(4) for key in keys])
    assert len({tuple(draw) for draw in draws}) == 5
    for other in (
        Streams(4).named("layer", "Conv", 0),
        streams.named("work", "Conv", 0),
        streams.named("layer", "Conv0"),
        streams.named("layerConv", 0),
        streams.named("layer"),
    ):
        assert not np.array_equal(other.random(4), draws[0])


def test_the_order_of_images_does_not_depend_on_the_layers(rng):
    orders = []

    class Recorder(Flatten):
        def fprop(self, input):
            if self.training:
                orders[-1].append(input[:, 0].tolist())
            return input

    X = np.arange(20.0)[:, None] * np.ones(3)
    for layers in ([], [Linear(3)], [Residual([Drawing()]), Linear(2)]):
        orders.append([])
        network = NeuralNetwork([Recorder(), *layers, Linear(2), LogRegression()], rng=3)
        network.fit(X, np.arange(20) % 2, 1e-3, max_iter=2, batch_size=20)
    assert orders[0] == orders[1] == orders[2]
    assert orders[0][0] != orders[0][1]


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState])
def test_a_generator_gives_one_number(make, rng):
    X, y = stripes(20, rng)

    def draw(generator):
        if isinstance(generator, np.random.RandomState):
            return generator.randint(2**63, dtype=np.int64)
        return generator.integers(2**63)

    for layers in ([Conv(2, 3)], [Drawing(), Conv(2, 3), Residual([Conv(2, 3), Drawing()])]):
        generator, twin = make(11), make(11)
        network = as_network(layers, rng=generator).fit(X, y, max_iter=2, batch_size=6)
        seed = int(draw(twin))
        assert draw(generator) == draw(twin)
        if make is np.random.default_rng:
            before = network.state_dict()
            network.rng = seed
            network.fit(X, y, max_iter=2, batch_size=6)
            assert same(list(network.state_dict().values()), list(before.values()))


@pytest.mark.parametrize(
    "rng, kind",
    [
        (3, np.random.Generator),
        (np.int64(3), np.random.Generator),
        (None, np.random.Generator),
        (np.random.default_rng(3), np.random.Generator),
        (np.random.RandomState(3), np.random.RandomState),
    ],
)
def test_streams_are_of_the_kind_of_the_rng(rng, kind):
    layer = Drawing()
    as_network([Residual([layer])], rng).build((1, 6, 6), 3)
    assert isinstance(layer.rng, kind)
    assert layer.rng is not rng
    alone = Drawing()
    Sequential([alone])._setup((2, 3), rng)
    assert isinstance(alone.rng, kind)


def test_what_is_no_rng():
    for rng, error in [(-1, ValueError), ("3", TypeError), (1.5, TypeError)]:
        with pytest.raises(error, match="rng is .*, expected"):
            as_streams(rng)
        with pytest.raises(error, match="rng is .*, expected"):
            Sequential([Linear(3)])._setup((2, 3), rng)


def test_layers_at_work_have_streams_of_their_own():
    first, second, conv = Drawing(), Drawing(), Conv(1, 3)
    network = as_network([conv, Residual([first, Sequential([second])])], rng=3)
    network.build((1, 6, 6), 3)
    streams = as_streams(3)
    works = dict(network._model.loans(training=True, streams=streams))
    draws = [works[layer].rng.random(3) for layer in (conv, first, second)]
    keys = [("Conv", 0), ("Drawing", 0), ("Drawing", 1)]
    assert same(draws, [streams.named("work", *key).random(3) for key in keys])
    assert works[first].rng is works[first].rng


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState])
def test_a_failed_fit_draws_nothing(make, rng):
    X, y = stripes(12, rng)
    network = as_network([Residual([Conv(2, 3)])], make(1))
    with pytest.raises(ValueError, match="adds"):
        network.fit(X, y)
    network.layers[0].layers = [Conv(1, 3)]
    twin = as_network([Residual([Conv(1, 3)])], make(1))
    assert same(network.fit(X, y, max_iter=1).params(), twin.fit(X, y, max_iter=1).params())
