"""Sequential, Residual and Parallel, nested: what they compute, learn, refuse and keep."""

import copy
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
    MeanSquaredError,
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


# --- errors -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: Sequential(Conv(1, 3)), TypeError, "layers is Conv.*, expected a list of layers"),
        (lambda: Sequential(3), TypeError, "layers is 3, expected a list of layers"),
        (lambda: Sequential([Conv(1, 3), "relu"]), TypeError, r"layers\[1\] is 'relu', expected"),
        (lambda: Sequential([Conv]), TypeError, r"layers\[0\] is .*, expected an instance"),
        (lambda: Residual([LogRegression()]), ValueError, r"layers\[0\] is a LogRegression, expe"),
        (lambda: Residual([], shortcut=Conv(1, 3)), TypeError, "shortcut is Conv.*, expected a li"),
        (lambda: Residual([], shortcut=[1]), TypeError, r"shortcut\[0\] is 1, expected"),
        (lambda: Parallel([]), ValueError, "branches is empty, expected at least one branch"),
        (lambda: Parallel(Conv(1, 3)), TypeError, "branches is Conv.*, expected a list of lists"),
        (lambda: Parallel(None), TypeError, "branches is None, expected a list of lists"),
        (lambda: Parallel([[1]]), TypeError, r"branches\[0\]\[0\] is 1, expected an instance"),
        (lambda: Parallel([[], 1]), TypeError, r"branches\[1\] is 1, expected a list"),
        (lambda: Parallel([[], MeanSquaredError()]), ValueError, "is a MeanSquaredError, expected"),
        (lambda: Parallel([[]], "max"), ValueError, "mode is 'max', expected one of"),
        (lambda: Parallel([[]], 1), TypeError, "mode is 1, expected one of"),
    ],
)
def test_constructor_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: [Residual([Conv(2, 3)])],
            r"layer 0 \(Residual\) adds \(2, 6, 6\) and \(1, 6, 6\) .*: give shortcut=\[Conv",
        ),
        (
            lambda: [Sequential([Residual([Conv(2, 3)], shortcut=[Conv(2, 1, 2)])])],
            r"layer 0.0 \(Residual\) adds \(2, 6, 6\) and \(2, 3, 3\)",
        ),
        (
            lambda: [Conv(2, 3), Parallel([[Conv(3, 3)], [], [Conv(3, 3)]])],
            r"layer 1 \(Parallel\) joins \[\(3, 6, 6\), \(2, 6, 6\), \(3, 6, 6\)\] for each image",
        ),
        (
            lambda: [Parallel([[Conv(3, 3, 2)], []], "concat")],
            r"layer 0 \(Parallel\) joins .* by mode 'concat', expected shapes that fit",
        ),
        (
            lambda: [Parallel([[GlobalAveragePool()], []], "concat")],
            r"layer 0 \(Parallel\) joins \[\(1,\), \(1, 6, 6\)\] for each image by mode 'concat'",
        ),
        (
            lambda: [Conv(2, 3), Parallel([[Flatten(), Linear(3)], []], "mul")],
            r"layer 1 \(Parallel\) joins \[\(3,\), \(2, 6, 6\)\] for each image by mode 'mul'",
        ),
        (
            lambda: [Conv(2, 3), Activation("relu"), Sequential([Conv(3, 3, groups=2)])],
            r"groups",
        ),
        (
            lambda: [Conv(2, 3), Residual([Conv(4, 3, groups=4), Conv(2, 3)])],
            r"layer 1.0 \(Conv\) cannot take an input of shape \(.*2, 6, 6\): expected a channel",
        ),
        (
            lambda: [Residual([], shortcut=[Flatten(), Pool()])],
            r"layer 0.shortcut.1 \(Pool\) cannot take an input of shape \(.*36\)",
        ),
        (
            lambda: [Parallel([[], [Sequential([Linear(3)])]])],
            r"layer 0.1.0.0 \(Linear\) cannot take an input of shape .*Flatten",
        ),
    ],
)
def test_shapes_that_do_not_fit(make, message, rng):
    X, y = stripes(12, rng)
    for call in (
        lambda: as_network(make()).fit(X, y),
        lambda: as_network(make()).build((1, 6, 6)),
        lambda: as_network(make()).check_gradients(X, y),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_container_alone_says_what_does_not_fit():
    with pytest.raises(ValueError, match=r"^Residual adds \(2, 6, 6\) and \(1, 6, 6\)"):
        Residual([Conv(2, 3)])._setup((1, 1, 6, 6), 0)
    with pytest.raises(ValueError, match=r"^Residual adds"):
        Residual([Flatten()]).output_shape((1, 1, 6, 6))
    layer = Sequential([Sequential([Linear(3)])])
    layer._setup((2, 4), 0)
    with pytest.raises(ValueError, match=r"layer 0.0 \(Linear\) cannot take an input of shape"):
        layer.fprop(np.zeros((2, 4, 1), np.float32))


TWICE = {
    "in a row": lambda c: Sequential([c, c]),
    "inside": lambda c: Sequential([c, Sequential([Sequential([c])])]),
    "shortcut": lambda c: Residual([c], shortcut=[c]),
    "branches": lambda c: Parallel([c, [c]]),
    "branch": lambda c: Sequential([Parallel([[], [c]]), Residual([Residual([c])])]),
}


@pytest.mark.parametrize("make", TWICE.values(), ids=TWICE)
def test_the_same_object_twice(make, rng):
    X, y = stripes(12, rng)
    with pytest.raises(ValueError, match="same object twice.*expected one object per layer"):
        as_network([make(Conv(1, 3))])
    with pytest.raises(ValueError, match="same object twice"):
        make(Conv(1, 3))._setup((1, 1, 6, 6), 0)
    conv = Conv(1, 3)
    with pytest.raises(ValueError, match=r"layer 1.* \(Conv\) is also layer 0,"):
        as_network([conv, Sequential([conv])])
    network = as_network([Sequential([conv])])
    network.layers[0].layers.append(conv)
    for call in (network.fit, network.check_gradients):
        with pytest.raises(ValueError, match=r"layer 0.1 \(Conv\) is also layer 0.0"):
            call(X, y)
    with pytest.raises(ValueError, match="same object twice"):
        network.build((1, 6, 6), 3)


def test_a_container_inside_of_itself():
    layer = Sequential([Conv(1, 3)])
    layer.layers.append(layer)
    with pytest.raises(ValueError, match="same object twice"):
        as_network([layer])
    with pytest.raises(ValueError, match="same object twice"):
        layer._setup((1, 1, 6, 6), 0)


@pytest.mark.parametrize(
    "intruder, error, message",
    [
        (MeanSquaredError(), ValueError, r"layer 0.1 \(MeanSquaredError\) is inside of another la"),
        ("relu", TypeError, r"layer 0 \(Sequential\) has 'relu' inside .*, expected an instance"),
    ],
)
def test_what_is_no_layer_put_into_a_list(intruder, error, message, rng):
    X, y = stripes(12, rng)
    network = as_network([Sequential([Conv(1, 3)])])
    fitted = as_network([Sequential([Conv(1, 3)])]).fit(X, y, max_iter=1)
    before = fitted.state_dict()
    for each in (network, fitted):
        each.layers[0].layers.append(intruder)
    for call in (
        lambda: network.fit(X, y),
        lambda: network.build((1, 6, 6)),
        lambda: fitted.predict(X),
        lambda: fitted.fit(X, y),
    ):
        with pytest.raises(error, match=message):
            call()
    fitted.layers[0].layers.pop()
    fitted.predict(X)
    assert same(list(before.values()), list(fitted.state_dict().values()))


def test_nested_layers_belong_to_one_network(rng):
    X, y = stripes(12, rng)
    inner = Conv(1, 3)
    first = as_network([Residual([inner])]).fit(X, y, max_iter=1)
    with pytest.raises(ValueError, match=r"layer 0.1.0 \(Conv\) belongs to another network"):
        as_network([Parallel([[], [inner]])]).fit(X, y)
    first.predict(X)


# --- copies, files, text --------------------------------------------------------------------


@structures
def test_copies_and_files_have_the_same_bits(name, rng, dtype, tmp_path):
    X, y = stripes(20, rng, dtype)
    network = network_of(name).fit(X, y, max_iter=1)
    state, probs = network.state_dict(), network.predict_proba(X)
    network.save(tmp_path / "network.safetensors")
    for other in (
        copy.deepcopy(network),
        pickle.loads(pickle.dumps(network)),
        NeuralNetwork.load(tmp_path / "network.safetensors"),
    ):
        assert list(other.state_dict()) == list(state)
        assert same(list(other.state_dict().values()), list(state.values()))
        assert np.array_equal(other.predict_proba(X), probs)
        assert repr(other.layers) == repr(network.layers)
        for param in other.params():
            param[...] = 0
        other.fit(X, y, max_iter=1)
    assert np.array_equal(network.predict_proba(X), probs)


@structures
def test_repr_and_config_make_the_layer_again(name):
    for layer in STRUCTURES[name]():
        assert repr(eval(repr(layer))) == repr(layer)
        assert repr(type(layer)(**layer.config())) == repr(layer)


def test_repr():
    assert repr(Sequential([Conv(1, 3)])) == (
        "Sequential(layers=[Conv(n_feats=1, filter_shape=(3, 3))])"
    )
    assert repr(Residual([Flatten()])) == "Residual(layers=[Flatten()])"
    assert repr(Residual([], shortcut=[])) == "Residual(layers=[], shortcut=[])"
    assert repr(Parallel([[], [Flatten()], Flatten()], "mul")) == (
        "Parallel(branches=([], [Flatten()], Flatten()), mode='mul')"
    )


def test_children_have_the_names_of_their_arrays():
    relu, tanh = Activation("relu"), Activation("tanh")
    assert Sequential([relu, tanh]).children == {"0": relu, "1": tanh}
    assert Conv(1, 3).children == {}
    residual = Residual([relu], shortcut=[tanh])
    assert list(residual.children) == ["0", "shortcut"]
    assert residual.children["shortcut"].children == {"0": tanh}
    assert list(Residual([relu]).children) == ["0"]
    parallel = Parallel([relu, [tanh]])
    assert parallel.children["0"] is relu
    assert parallel.children["1"].children == {"0": tanh}
    names = [name for name, _ in walk(numbered([residual, parallel]))]
    assert names == ["0", "0.0", "0.shortcut", "0.shortcut.0", "1", "1.0", "1.1", "1.1.0"]
