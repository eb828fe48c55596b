"""Sequential, Residual and Parallel, nested: what they compute, learn and keep."""

import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import check, same, stripes
from structures import STRUCTURES, as_network, block, gates, network_of, projection, torch_twin

from nnet import (
    Activation,
    Conv,
    Flatten,
    GlobalAveragePool,
    Layer,
    Linear,
    LogRegression,
    NeuralNetwork,
    Parallel,
    Pool,
    Residual,
    Sequential,
)
from nnet.layers import conv as conv_module
from nnet.layers.tree import numbered, walk

structures = pytest.mark.parametrize("name", STRUCTURES)


# --- gradients, and the same networks elsewhere -----------------------------------------


@structures
def test_gradients_by_parameters(name, rng):
    X, y = stripes(4, rng, np.float64)
    check(network_of(name).check_gradients(X, y))


@structures
def test_gradients_by_the_input(name, rng):
    """Alone, outside of a network."""
    layer = Sequential(STRUCTURES[name]())
    layer.dtype = np.dtype(np.float64)
    x = rng.normal(size=(2, 1, 6, 6))
    layer._setup(x.shape, 0)
    weights = rng.normal(size=layer.output_shape(x.shape))
    layer.fprop(x)
    grad = layer.bprop(weights)
    assert grad.shape == x.shape
    differences = np.empty_like(x)
    for index in np.ndindex(x.shape):
        moved = x.copy()
        moved[index] += 1e-6
        above = layer.fprop(moved)
        moved[index] -= 2e-6
        differences[index] = np.sum(weights * (above - layer.fprop(moved))) / 2e-6
    np.testing.assert_allclose(grad, differences, rtol=1e-5, atol=1e-7)


@pytest.fixture
def torch():
    """PyTorch on one thread: several spin, and slow each other down on a busy machine."""
    torch = pytest.importorskip("torch")
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(n_threads)


@structures
def test_training_equals_pytorch(name, torch, rng):
    X, y = stripes(24, rng, np.float64)
    network = network_of(name).build((1, 6, 6), 3, "float64")
    pairs = []
    twin = torch_twin(network.layers[:-1], torch, pairs)
    twins = {
        prefix: module
        for prefix, layer in walk(children(network))
        for ours, module in pairs
        if ours is layer
    }
    params = list(twin.parameters())
    velocities = [torch.zeros_like(param) for param in params]
    losses = []
    for _ in range(4):
        loss = torch.nn.functional.cross_entropy(twin(torch.tensor(X)), torch.tensor(y))
        grads = torch.autograd.grad(loss, params)
        with torch.no_grad():  # by hand: importing torch.optim takes seconds
            for param, velocity, grad in zip(params, velocities, grads):
                velocity.mul_(0.9).add_(grad)
                param.sub_(0.1 * velocity)
        losses.append(loss.item())
    network.fit(X, y, 0.1, max_iter=4, shuffle=False, batch_size=24, momentum=0.9)
    np.testing.assert_allclose(network.loss_history_, losses, rtol=1e-9)
    state = network.state_dict()
    assert len(state) == 2 * len(twins)
    for prefix, module in twins.items():
        weight = module.weight.detach().numpy().swapaxes(0, 1)
        np.testing.assert_allclose(state[f"{prefix}.W"], weight, rtol=1e-7, atol=1e-9)
        bias = module.bias.detach().numpy()
        np.testing.assert_allclose(state[f"{prefix}.b"], bias, rtol=1e-7, atol=1e-9)


def children(network):
    return numbered(network.layers)


@structures
def test_output_shape_and_dtype(name, dtype, rng):
    layer = Sequential(STRUCTURES[name]())
    layer.dtype = dtype
    layer._setup((3, 1, 6, 6), 0)
    for n_imgs in (3, 0):
        x = rng.normal(size=(n_imgs, 1, 6, 6)).astype(dtype)
        output = layer.fprop(x)
        assert output.dtype == dtype
        assert output.shape == layer.output_shape(x.shape)
        grad = layer.bprop(np.ones_like(output))
        assert grad.dtype == dtype
        assert grad.shape == x.shape


def test_what_they_compute(rng):
    x = rng.normal(size=(2, 3, 4, 4)).astype(np.float32)
    rows = x.mean(axis=(2, 3))
    relu, tanh = np.maximum(x, 0), np.tanh(x)
    relu_, tanh_, mean_ = Activation("relu"), Activation("tanh"), GlobalAveragePool()
    for layer, expected in [
        (Sequential([relu_, tanh_]), np.tanh(relu)),
        (Residual([relu_]), relu + x),
        (Residual([relu_], shortcut=[tanh_]), relu + tanh),
        (Residual([]), x + x),
        (Parallel([relu_, [tanh_], []]), relu + tanh + x),
        (Parallel([relu_, [tanh_], []], "mul"), relu * tanh * x),
        (Parallel([relu_, [tanh_], []], "concat"), np.concatenate([relu, tanh, x], axis=1)),
        (Parallel([mean_, relu_], "mul"), rows[:, :, None, None] * relu),
        (Parallel([relu_, mean_], "sum"), rows[:, :, None, None] + relu),
        (Parallel([mean_, [GlobalAveragePool()]], "sum"), rows + rows),
    ]:
        np.testing.assert_allclose(layer.fprop(x), expected, rtol=1e-5, atol=1e-6)


def test_an_empty_sequential_is_the_identity(rng):
    x = rng.normal(size=(2, 3)).astype(np.float32)
    layer = Sequential()
    layer._setup(x.shape, rng)
    assert layer.fprop(x) is x
    assert layer.bprop(x) is x
    assert layer.output_shape((5, 3)) == (5, 3)
    X, y = stripes(20, rng)
    plain = as_network(block(2)).fit(X, y, max_iter=1)
    padded = as_network([Sequential(), *block(2)[:1], Sequential([Sequential()]), *block(2)[1:]])
    assert same(padded.fit(X, y, max_iter=1).params(), plain.params())


# --- nested and flat ----------------------------------------------------------------------


def flat_layers():
    return [
        Conv(3, 3),
        Activation("relu"),
        Pool(2, 2),
        Conv(4, 3, weight_decay=0.1),
        Activation("relu"),
        Pool((2, 2), (1, 1)),
        Activation("tanh"),
        Flatten(),
        Linear(7),
        Activation("relu"),
        Linear(3),
    ]


def trained(layers, X, y):
    network = NeuralNetwork([*layers, LogRegression()], rng=0)
    return network.fit(
        X, y, 0.05, max_iter=2, batch_size=16, momentum=0.9, validation_data=(X[:9], y[:9])
    )


@pytest.fixture(scope="module")
def flat():
    X, y = stripes(40, np.random.default_rng(1))
    return X, y, trained(flat_layers(), X, y)


def check_same_bits(nested, flat, X):
    assert same(nested.params(), flat.params())
    assert np.array_equal(nested.predict_proba(X), flat.predict_proba(X))
    for history in ("loss_history_", "val_loss_history_", "val_error_history_"):
        assert getattr(nested, history) == getattr(flat, history)
    # As fast: the same functions are called, those of fused layers among them.
    for calls in ("forward", "backward"):
        names = [
            [function.__qualname__ for function in getattr(network._model.program, calls)]
            for network in (nested, flat)
        ]
        assert names[0] == names[1]


@st.composite
def nestings(draw, layers, depth=4):
    """The layers, some of them in Sequentials, these again in others."""
    for _ in range(draw(st.integers(1, depth))):
        start = draw(st.integers(0, len(layers)))
        stop = draw(st.integers(start, len(layers)))
        layers = [*layers[:start], Sequential(layers[start:stop]), *layers[stop:]]
    return layers


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_sequentials_change_no_bit(data, flat):
    X, y, network = flat
    check_same_bits(trained(data.draw(nestings(flat_layers())), X, y), network, X)


def test_every_layer_in_a_sequential_of_its_own(flat):
    X, y, network = flat
    layers = [Sequential([Sequential([layer])]) for layer in flat_layers()]
    check_same_bits(trained(layers, X, y), network, X)


def test_layers_are_fused_inside_of_branches(rng):
    class Relu(Activation):
        """No layer takes the work of a class of the user's."""

    def make(relu):
        f = [Conv(3, 3), Sequential([relu("relu"), Pool(3, 1)])]
        return as_network([Conv(3, 3), Residual(f), Parallel([f[:0], [Conv(3, 1), relu("relu")]])])

    X, y = stripes(40, rng)
    fused, apart = (make(relu).fit(X, y, max_iter=2, batch_size=16) for relu in (Activation, Relu))
    assert same(fused.params(), apart.params())
    assert np.array_equal(fused.predict_proba(X), apart.predict_proba(X))
    f, branches = fused.layers[1]._programs[0], fused.layers[2]._programs
    assert [len(f.forward), len(f.backward)] == [2, 2]
    assert len(branches[1].forward) == 1


# --- memory -------------------------------------------------------------------------------


def results(network, X, y):
    network.fit(X, y, max_iter=2, batch_size=16, momentum=0.9)
    return [*network.params(), network.predict_proba(X), network.predict_proba(X[:3])]


@structures
def test_lent_memory_changes_no_bit(name, rng, monkeypatch):
    """No array is written to again while another layer, or branch, still reads it."""
    X, y = stripes(40, rng)
    lent = results(network_of(name), X, y)

    def new(layer, shape, dtype):
        return np.full(shape, np.nan if dtype.kind == "f" else 0, dtype)

    monkeypatch.setattr(Layer, "_scratch", new)
    monkeypatch.setattr(Layer, "_array", lambda layer, _, *what: new(layer, *what))
    monkeypatch.setattr(
        Layer, "_output", lambda layer, x: new(layer, layer.output_shape(x.shape), x.dtype)
    )
    assert same(lent, results(network_of(name), X, y))


def test_steady_state_allocates_nothing_large(rng):
    X, y = rng.normal(size=(160, 4, 32, 32)).astype(np.float32), np.arange(160) % 2
    network = NeuralNetwork(
        [
            Residual([Conv(4, 3), Activation("tanh"), Sequential([Conv(4, 3)])]),
            Residual([Conv(8, 3), Activation("relu")], shortcut=[Conv(8, 1)]),
            Parallel([[], gates(8)], "mul"),
            Parallel([[Conv(4, 1)], [Residual([Conv(8, 1)])], []], "concat"),
            Parallel([Conv(8, 1), [Conv(8, 3), Activation("elu")], [Conv(1, 3)]], "sum"),
            Flatten(),
            Linear(2),
            LogRegression(),
        ],
        rng=0,
    )
    peaks = []

    def callback(progress):
        peaks.append(tracemalloc.get_traced_memory()[1] - tracemalloc.get_traced_memory()[0])
        tracemalloc.reset_peak()

    tracemalloc.start()
    try:
        network.fit(X, y, 0.01, max_iter=2, batch_size=64, momentum=0.9, callback=callback)
    finally:
        tracemalloc.stop()
    smallest_activation = 64 * 32 * 32 * 4  # NumPy's own buffers are three of 64 KB
    assert max(peaks[3:]) < smallest_activation


@structures
def test_nothing_is_kept(name, rng):
    X, y = stripes(200, rng)
    network = network_of(name).fit(X, y, max_iter=1)
    network.predict(X)
    network.check_gradients(X[:3], y[:3])
    assert len(pickle.dumps(network)) < X.nbytes // 2
    for _, layer in walk(children(network)):
        assert layer._kept is None and layer._work is None
        assert layer.training and layer.need_input_grad


# --- gradients that nobody needs ----------------------------------------------------------


class Spy(Activation):
    """Counts backward calls."""

    calls = 0

    def bprop(self, output_grad):
        type(self).calls += 1
        return super().bprop(output_grad)


@pytest.mark.parametrize(
    "make, n_first, n_later",
    [
        (lambda spy: [Sequential([spy, Sequential([Conv(2, 3), Conv(2, 3)])])], 1, 1),
        (lambda spy: [spy, Residual([Conv(2, 3), Conv(1, 3)])], 1, 1),
        (lambda spy: [Residual([spy, Conv(2, 3)], shortcut=[Conv(2, 1), Conv(2, 1)])], 2, 1),
        (lambda spy: [Residual([spy], shortcut=[Conv(1, 1)])], 1, 0),
        (lambda spy: [Residual([Residual([spy, Conv(1, 1)]), Conv(1, 1)])], 1, 1),
        (lambda spy: [Parallel([[spy], [Conv(1, 1)], [spy.twin, Conv(1, 1)]], "mul")], 2, 0),
        (lambda spy: [Parallel([[Parallel([[Conv(1, 1)], [spy]])], [spy.twin]])], 1, 0),
        (lambda spy: [spy, Parallel([[Conv(1, 1), Residual([Conv(1, 1)])], []], "concat")], 1, 1),
    ],
)
def test_no_gradient_below_the_first_parameters(make, n_first, n_later, rng, monkeypatch):
    needs = []
    bprop = conv_module.bprop_conv_bc01

    def spying(*args, need_imgs_grad, **options):
        needs.append(need_imgs_grad)
        return bprop(*args, need_imgs_grad=need_imgs_grad, **options)

    monkeypatch.setattr(conv_module, "bprop_conv_bc01", spying)
    spy = Spy("tanh")
    spy.twin = Spy("tanh")
    monkeypatch.setattr(Spy, "calls", 0)
    X, y = stripes(12, rng)
    as_network(make(spy)).fit(X, y, max_iter=1)
    assert Spy.calls == 0
    assert sorted(needs) == [False] * n_first + [True] * n_later


# --- alone --------------------------------------------------------------------------------


@structures
def test_alone_as_in_a_network(name, rng):
    """The same seed gives a container the arrays and outputs that a network has."""
    X, y = stripes(10, rng)
    layer = Sequential(STRUCTURES[name]())
    layer._setup((1, 1, 6, 6), 7)
    network = network_of(name, rng=7).build((1, 6, 6), 3)
    arrays = [array for _, part in walk(layer.children) for array in vars(part).get("W", [])]
    ours = [array for _, part in walk(children(network)) for array in vars(part).get("W", [])]
    assert arrays and same(arrays, ours[: len(arrays)])
    layer.training = False
    scores = X
    for part in (layer, *network.layers[-3:]):
        scores = part.fprop(scores)
    assert np.array_equal(scores, network.predict_proba(X))


def test_alone_options_may_change(rng):
    x = rng.normal(size=(2, 3)).astype(np.float32)
    layer = Sequential([Residual([Linear(3), Activation("relu")])])
    layer._setup(x.shape, rng)
    linear, relu = layer.layers[0].layers
    assert np.array_equal(layer.fprop(x), x + np.maximum(linear.fprop(x), 0))
    relu.type = "tanh"
    np.testing.assert_allclose(layer.fprop(x), x + np.tanh(linear.fprop(x)), rtol=1e-6)
    layer.layers.append(Activation("sigmoid"))
    assert layer.fprop(x).min() > 0
    layer.layers = [linear]
    assert np.array_equal(layer.fprop(x), linear.fprop(x))
    layer.fprop(x)
    assert np.array_equal(layer.bprop(x), linear.bprop(x))


def test_alone_images_may_have_another_size(rng):
    layer = Sequential([Residual([Conv(1, 3), Spy("tanh")])])
    layer._setup((2, 1, 6, 6), rng)
    for size in (6, 4, 9):
        x = rng.normal(size=(3, 1, size, size)).astype(np.float32)
        assert layer.bprop(layer.fprop(x)).shape == x.shape


def test_a_call_of_a_networks_layers_leaves_its_training_alone(rng):
    X, y = stripes(40, rng)
    plain, called = (
        as_network([Sequential([Residual([], shortcut=[Conv(1, 3)])]), projection()]) for _ in "ab"
    )
    plain.fit(X, y, max_iter=2, batch_size=16)
    called.fit(
        X, y, max_iter=2, batch_size=16, callback=lambda p: called.layers[0].fprop(X).any() and None
    )
    assert same(plain.params(), called.params())


# --- changes of a fitted network ------------------------------------------------------------


def test_changes_inside_of_a_fitted_network_are_taken_up(rng):
    X, y = stripes(20, rng)
    network = as_network([Residual([Sequential([Conv(1, 3)]), Activation("relu")])])
    network.fit(X, y, max_iter=1)
    residual = network.layers[0]
    conv, linear = residual.layers[0].layers[0], network.layers[2]

    def check_predictions(f):
        probs = network.predict_proba(X)
        scores = linear.fprop((f(conv.fprop(X)) + X).reshape(20, -1))
        np.testing.assert_allclose(np.log(probs / probs[:, :1]), scores - scores[:, :1], atol=1e-4)

    check_predictions(lambda x: np.maximum(x, 0))
    residual.layers[1].type = "tanh"
    check_predictions(np.tanh)
    residual.layers[1] = Activation("sigmoid")
    check_predictions(lambda x: 1 / (1 + np.exp(-x)))
    residual.layers[0].layers.append(Activation("tanh"))
    check_predictions(lambda x: 1 / (1 + np.exp(-np.tanh(x))))
    residual.layers = residual.layers[:1]
    check_predictions(np.tanh)
    conv.filter_shape = 5
    with pytest.raises(ValueError, match=r"layer 0.0.0 \(Conv\).W has shape .*, expected"):
        network.predict(X)
    conv.filter_shape = 3
    check_predictions(np.tanh)
