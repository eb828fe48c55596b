"""BatchNorm and GroupNorm as layers: gradients, state, freezing, weights, fusion, files."""

import copy

import numpy as np
import pytest
from networks import check, same, stripes

import nnet
from nnet import (
    Activation,
    BatchNorm,
    Conv,
    Flatten,
    GlobalAveragePool,
    GroupNorm,
    Linear,
    LogRegression,
    NeuralNetwork,
    Pool,
    Residual,
    Sequential,
    reference,
)
from nnet._atomic import Shared, Work
from nnet.layers.program import Program
from nnet.layers.tree import Trace, follow, numbered

NORMS = {
    "batch": lambda n_channels: BatchNorm(),
    "groups": lambda n_channels: GroupNorm(2),
    "layer": lambda n_channels: GroupNorm(1, eps=1e-3),
}
norms = pytest.mark.parametrize("norm", NORMS)


def network_of(make, rng=0):
    """After a convolution, within a residual layer, and between dense layers."""
    return NeuralNetwork(
        [
            Conv(4, 3, use_bias=False),
            make(4),
            Activation("relu"),
            Residual(
                [
                    Conv(4, 3, use_bias=False),
                    make(4),
                    Activation("relu"),
                    Conv(4, 1, use_bias=False),
                    make(4),
                ]
            ),
            Activation("relu"),
            Pool(2, 2),
            Flatten(),
            Linear(6, use_bias=False),
            make(6),
            Activation("tanh"),
            Linear(3),
            LogRegression(),
        ],
        rng,
    )


def prepared(layer, shape, dtype=np.float32):
    layer.dtype = np.dtype(dtype)
    layer._setup(shape, np.random.default_rng(0))
    return layer


# --- gradients --------------------------------------------------------------------------------


@norms
def test_gradients_by_parameters(norm, rng):
    X, y = stripes(5, rng, np.float64)
    check(network_of(NORMS[norm]).check_gradients(X, y))


def test_gradients_of_a_frozen_layer_are_those_of_its_fixed_map(rng):
    X, y = stripes(12, rng, np.float64)
    network = network_of(NORMS["batch"]).fit(X, y, max_iter=1)
    for layer in (network.layers[1], network.layers[3], network.layers[8]):
        layer.trainable = False
    check(network.check_gradients(X, y))


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("shape", [(3, 4, 3, 5), (6, 4)])
@norms
def test_gradients_by_the_input(norm, shape, trainable, rng):
    layer = prepared(NORMS[norm](4), shape, np.float64)
    layer.trainable = trainable
    for name in layer.param_names() + layer.state_names():
        setattr(layer, name, rng.uniform(0.5, 2, 4))
    x, weights = rng.normal(size=(2, *shape))

    def loss():
        return np.sum(weights * layer.fprop(x))

    loss()
    grad = layer.bprop(weights).copy()
    for index in np.ndindex(shape):
        value = x[index]
        x[index] = value + 1e-6
        above = loss()
        x[index] = value - 1e-6
        below = loss()
        x[index] = value
        np.testing.assert_allclose(grad[index], (above - below) / 2e-6, rtol=1e-3, atol=1e-5)


# --- as in PyTorch ----------------------------------------------------------------------------


@pytest.fixture
def torch():
    torch = pytest.importorskip("torch")
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(n_threads)


def test_defaults_are_those_of_pytorch(torch):
    batch, group = torch.nn.BatchNorm2d(4), torch.nn.GroupNorm(2, 4)
    assert (BatchNorm().momentum, BatchNorm().eps) == (batch.momentum, batch.eps)
    assert GroupNorm(2).eps == group.eps
    x = np.random.default_rng(0).normal(
        0, 3e-3, (3, 4, 5, 5)
    )  # the eps is as large as this variance
    for layer, twin in ((BatchNorm(), batch), (GroupNorm(2), group)):
        expected = twin.double()(torch.tensor(x)).detach().numpy()
        np.testing.assert_allclose(prepared(layer, x.shape, np.dtype(float)).fprop(x), expected)


@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize("shape", [(6, 16, 5, 5), (9, 16)])
@norms
def test_equals_pytorch(norm, shape, offset, dtype, torch, rng):
    layer = prepared(NORMS[norm](16), shape, dtype)
    if norm == "batch":
        twin = (torch.nn.BatchNorm2d if len(shape) == 4 else torch.nn.BatchNorm1d)(16)
    else:
        twin = torch.nn.GroupNorm(layer.n_groups, 16, layer.eps)
    twin = twin.to(getattr(torch, dtype.name))
    gamma, beta = rng.normal(size=(2, 16)).astype(dtype)
    layer.gamma[...], layer.beta[...] = gamma, beta
    with torch.no_grad():
        twin.weight.copy_(torch.tensor(gamma))
        twin.bias.copy_(torch.tensor(beta))
    tolerance = (1e-4 if offset else 1e-5) if dtype == np.float32 else 1e-9
    for _ in range(3):
        x = (rng.normal(size=shape) + offset).astype(dtype)
        grad = rng.normal(size=shape).astype(dtype)
        xt = torch.tensor(x, requires_grad=True)
        out = twin(xt)
        twin.zero_grad()
        out.backward(torch.tensor(grad))
        pairs = [(layer.fprop(x), out.detach()), (layer.bprop(grad), xt.grad)]
        pairs += [(layer.gamma_grad * len(x), twin.weight.grad)]
        pairs += [(layer.beta_grad * len(x), twin.bias.grad)]
        if norm == "batch":
            pairs.append((layer.running_mean, twin.running_mean))
            pairs.append((layer.running_var, twin.running_var))
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours, theirs.numpy(), tolerance, 30 * tolerance)
    layer.training = False
    expected = twin.eval()(xt).detach().numpy()
    np.testing.assert_allclose(layer.fprop(x), expected, tolerance, 30 * tolerance)


# --- statistics -------------------------------------------------------------------------------


def test_training_gathers_statistics_and_prediction_uses_them(rng):
    X, y = stripes(30, rng)
    network = NeuralNetwork([BatchNorm(momentum=0.5), Flatten(), Linear(3), LogRegression()], 0)
    network.fit(X, y, max_iter=2, batch_size=30, shuffle=False)
    norm = network.layers[0]
    mean, var = X.mean(dtype=float), X.var(ddof=1, dtype=float)
    np.testing.assert_allclose(norm.running_mean, mean * 0.75, rtol=1e-6)
    np.testing.assert_allclose(norm.running_var, 0.25 + var * 0.75, rtol=1e-6)
    before = network.state_dict()
    alone = np.concatenate([network.predict_proba(X[n : n + 1]) for n in range(30)])
    np.testing.assert_allclose(network.predict_proba(X), alone, rtol=1e-6)
    norm.training = False
    together = norm.fprop(X).copy()
    assert same([norm.fprop(X[n : n + 1])[0] for n in range(30)], list(together))
    after = network.state_dict()
    assert list(before) == ["0.gamma", "0.beta", "2.W", "2.b"] + [
        "0.running_mean",
        "0.running_var",
    ]
    assert same(list(before.values()), list(after.values()))


@pytest.mark.parametrize(
    "make",
    [
        lambda: [Linear(4), BatchNorm()],
        lambda: [Conv(4, 6, padding_mode="valid"), BatchNorm(), Flatten()],
    ],
)
def test_a_last_batch_of_one_image_trains(make, rng):
    X, y = stripes(13, rng)
    X = X if len(make()) > 2 else X.reshape(13, -1)
    layers = [*make(), Activation("softplus"), Linear(3), LogRegression()]
    network = NeuralNetwork(layers, 0)
    states = []

    def callback(progress):
        states.append([array.copy() for array in network.state_dict().values()])

    network.fit(X, y, max_iter=1, batch_size=6, callback=callback, shuffle=False)
    names = list(network.state_dict())
    for name, before, after in zip(names, *states[-2:]):
        assert np.isfinite(after).all()
        changes = name in ("1.beta", f"{len(layers) - 2}.W", f"{len(layers) - 2}.b")
        assert np.array_equal(before, after) != changes, name


def test_a_frozen_layer_changes_no_bit(rng):
    x, grad = rng.normal(size=(2, 5, 4, 3, 3)).astype(np.float32)
    layer = prepared(BatchNorm(), x.shape)
    layer.fprop(x)
    names = ["gamma", "beta", "running_mean", "running_var"]
    arrays = [getattr(layer, name).copy() for name in names]
    frozen = copy.deepcopy(layer)
    frozen.trainable = False
    for each in (at_work(layer, x.shape, np.ones(5), trainable=False), frozen):
        out = each.fprop(x).copy()
        each.bprop(grad)
        assert same(arrays, [getattr(each, name) for name in names])
        each.training = False
        assert np.array_equal(each.fprop(x), out)


def test_frozen_by_what_is_around_it(rng):
    X, y = stripes(12, rng)
    norm = BatchNorm()
    block = Sequential([Conv(2, 3), norm])
    block.trainable = False
    network = NeuralNetwork([block, Flatten(), Linear(3), LogRegression()], 0)
    network.fit(X, y, max_iter=2)
    assert not norm.running_mean.any() and (norm.running_var == 1).all()


# --- weights of images ------------------------------------------------------------------------


def at_work(layer, shape, weights, trainable=True):
    """The layer, as a network lends it the weights of a batch."""
    shared = Shared()
    shared.weights = weights
    layer._work = Work(shape[1:], True, True, shared, None, trainable)
    return layer


@pytest.mark.parametrize("shape", [(4, 3, 2, 3), (4, 3)])
def test_weights_are_those_of_the_batch(shape, rng):
    weights = np.array([2.0, 0.5, 0, 1])
    x, grad = rng.normal(size=(2, *shape))
    layer = at_work(prepared(BatchNorm(momentum=0.3), shape, np.float64), shape, weights)
    running = np.zeros(3), np.ones(3)
    out, mean, inv_std = reference.batch_norm(
        x, np.ones(3), np.zeros(3), *running, momentum=0.3, weights=weights
    )
    np.testing.assert_allclose(layer.fprop(x), out, rtol=1e-10)
    np.testing.assert_allclose(layer.running_mean, running[0], rtol=1e-10)
    np.testing.assert_allclose(layer.running_var, running[1], rtol=1e-10)
    grads = reference.bprop_batch_norm(
        x, grad, np.ones(3), np.zeros(3), mean, inv_std, weights=weights
    )
    found = layer.bprop(grad), layer.gamma_grad, layer.beta_grad
    for a, b in zip(found, grads):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_weights_of_zero_change_no_statistics(rng):
    x = rng.normal(size=(4, 3, 2, 2)).astype(np.float32)
    layer = at_work(prepared(BatchNorm(), x.shape), x.shape, np.zeros(4))
    assert not layer.fprop(x).any()
    assert not layer.running_mean.any() and (layer.running_var == 1).all()


# --- fusion -----------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [[], [Pool(2, 2)]], ids=["", "pool"])
@pytest.mark.parametrize("trainable", [True, False])
@norms
def test_fused_with_the_relu_to_the_same_bits(norm, trainable, after, dtype, rng):
    layers = [Sequential([NORMS[norm](4)]), Activation("relu"), *copy.deepcopy(after)]
    children, shape = numbered(layers), (6, 4, 8, 8)
    x = rng.normal(size=shape).astype(dtype)
    for layer in layers:
        prepared(layer, shape, dtype)
    layer = layers[0].layers[0]
    layer.trainable = trainable
    layer.gamma, layer.beta = rng.normal(size=(2, 4)).astype(dtype)
    trace = Trace()
    follow(children, "", trace, shape)
    program = Program(children, "", trace, alone=True)
    assert len(program.forward) == len(program.backward) == len(layers) - 1
    fused = program.fprop(x).copy()
    grad = rng.normal(size=fused.shape).astype(dtype)
    found = [fused, program.bprop(grad), *map(np.copy, layer.param_grads())]
    steps = x
    for each in (layer, *layers[1:]):
        steps = each.fprop(steps)
    for each in (*layers[:0:-1], layer):
        grad = each.bprop(grad)
    assert same(found, [steps, grad, *layer.param_grads()])


def test_a_residual_sum_is_fused_with_the_relu(dtype, rng):
    layers = [Residual([Activation("tanh")]), Activation("relu")]
    trace = Trace()
    follow(numbered(layers), "", trace, (2, 3, 4, 4))
    program = Program(numbered(layers), "", trace, alone=True)
    assert len(program.forward) == 1
    x, grad = rng.normal(size=(2, 2, 3, 4, 4)).astype(dtype)
    tanh = Activation("tanh").fprop(x)
    assert np.array_equal(program.fprop(x), np.maximum(tanh + x, 0))
    slope = 1 - np.square(tanh)
    masked = np.where(tanh + x > 0, grad, 0)
    np.testing.assert_allclose(program.bprop(grad), masked * slope + masked, rtol=1e-5, atol=1e-6)


class OwnNorm(BatchNorm):
    def fprop(self, input):
        return super().fprop(input) * 2

    def bprop(self, output_grad):
        return super().bprop(output_grad * 2)


class OwnResidual(Residual):
    def fprop(self, input):
        return super().fprop(input) * 2

    def bprop(self, output_grad):
        return super().bprop(output_grad * 2)


def test_derived_classes_are_not_fused(rng):
    X, y = stripes(6, rng, np.float64)
    layers = [OwnNorm(), Activation("relu"), OwnResidual([Conv(1, 3)]), Activation("relu")]
    network = NeuralNetwork([*layers, Flatten(), Linear(3), LogRegression()], 0)
    network.build((1, 6, 6), 3, "float64")
    layers[2].layers[0].b[...] = 0.3  # away from the kink
    check(network.check_gradients(X, y))


# --- networks ---------------------------------------------------------------------------------


@norms
def test_trains(norm, rng):
    X, y = stripes(60, rng)
    network = network_of(NORMS[norm]).fit(X, y, max_iter=20, batch_size=20)
    assert network.error(X, y) < 0.1


@norms
def test_same_bits_for_any_number_of_threads(norm, rng):
    X, y = stripes(20, rng)
    X = np.kron(X, np.ones((1, 1, 6, 6), np.float32))  # so large that threads share the work
    states = []
    for n_threads in (1, 2):
        with nnet.num_threads(n_threads):
            network = network_of(NORMS[norm]).fit(X, y, max_iter=2, batch_size=16)
        states.append(list(network.state_dict().values()))
    assert same(*states)


@norms
def test_saved_with_the_network(norm, dtype, tmp_path, rng):
    X, y = stripes(20, rng, dtype)
    network = network_of(NORMS[norm]).fit(X, y, max_iter=2)
    network.save(tmp_path / "n.safetensors")
    loaded = NeuralNetwork.load(tmp_path / "n.safetensors")
    ours, theirs = network.state_dict(), loaded.state_dict()
    assert list(ours) == list(theirs) and same(list(ours.values()), list(theirs.values()))
    assert same([network.predict_proba(X)], [loaded.predict_proba(X)])
    assert loaded.layers[1].config() == network.layers[1].config()
    twin = network_of(NORMS[norm], rng=3).build((1, 6, 6), 3, dtype.name)
    twin.load_state_dict(ours)
    assert same([network.predict_proba(X)], [twin.predict_proba(X)])


def test_parameters_do_not_decay():
    layer = prepared(BatchNorm(), (2, 3))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    layer.fprop(x)
    layer.bprop(x)
    assert all(a is b for a, b in zip(layer.param_incs(), [layer.gamma_grad, layer.beta_grad]))
    assert layer.param_names() == ["gamma", "beta"]
    assert layer.state_names() == ["running_mean", "running_var"]
    assert GroupNorm(1).state_names() == []


@norms
def test_empty_batches(norm, dtype):
    layer = prepared(NORMS[norm](4), (2, 4, 3, 3), dtype)
    for shape in ((0, 4, 3, 3), (0, 4)):
        x = np.ones(shape, dtype)
        assert layer.fprop(x).shape == layer.bprop(x).shape == shape
        assert not layer.gamma_grad.any() and not layer.beta_grad.any()


def test_nothing_is_kept_in_prediction():
    layer = prepared(BatchNorm(), (2, 3))
    layer.training = False
    layer.fprop(np.ones((2, 3), np.float32))
    assert layer._kept is None


@pytest.mark.parametrize(
    "layer, shape, message",
    [
        (BatchNorm(), (2, 3, 4), "expected 4 axes .*, got shape .*, or 2"),
        (BatchNorm(), (2,), "expected 4 axes"),
        (BatchNorm(), (2, 0), "expected no empty axis"),
        (GroupNorm(2), (2, 3, 4, 4), "expected a channel count that n_groups = 2 divides, got 3"),
    ],
)
def test_shapes_that_are_refused(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        layer.output_shape(shape)


def test_arrays_that_do_not_fit_are_refused(rng):
    X, y = stripes(12, rng)
    layers = [Conv(2, 3), BatchNorm(), GlobalAveragePool(), Linear(3), LogRegression()]
    network = NeuralNetwork(layers, 0)
    with pytest.raises(ValueError, match=r"BatchNorm\(\) has no parameters yet"):
        layers[1].params()
    network.fit(X, y, max_iter=1)
    for name in ("gamma", "beta", "running_mean", "running_var"):
        good = getattr(layers[1], name)
        setattr(layers[1], name, np.ones(3, np.float32))
        with pytest.raises(ValueError, match=rf"layer 1 \(BatchNorm\).{name} has shape"):
            network.predict(X)
        setattr(layers[1], name, good)
    network.predict(X)
