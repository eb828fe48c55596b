"""NeuralNetwork: training, prediction, work arrays."""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest
from networks import check, mlp, same, small_cnn, stripes
from threadpoolctl import threadpool_limits

import nnet
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
    Pool,
)

# --- learning -------------------------------------------------------------------


def test_learns_images(rng, dtype):
    X, y = stripes(100, rng, dtype)
    network = small_cnn()
    assert network.fit(X, y, max_iter=15, batch_size=10) is network
    X, y = stripes(50, rng, dtype)
    assert network.error(X, y) <= 0.02
    assert len(network.loss_history_) == 15
    assert network.loss_history_[-1] < 0.2 * network.loss_history_[0]
    probs = network.predict_proba(X)
    assert probs.shape == (50, 3)
    assert probs.dtype == dtype
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-5)
    assert np.array_equal(network.classes_[np.argmax(probs, axis=1)], network.predict(X))
    assert all(param.dtype == dtype for param in network.params())


@pytest.mark.parametrize("momentum, nesterov", [(0.9, False), (0.9, True)])
def test_learns_with_momentum(momentum, nesterov, rng):
    X, y = stripes(100, rng)
    network = small_cnn().fit(X, y, 0.02, 15, 10, momentum=momentum, nesterov=nesterov)
    assert network.error(X, y) == 0


def test_learns_signals(rng):
    y = np.arange(80) % 2
    X = rng.normal(scale=0.1, size=(80, 2, 20))
    X[y == 1] += np.sin(np.arange(20))
    layers = [Conv(4, (1, 5)), Activation("relu"), Pool((1, 2), (1, 2)), GlobalAveragePool()]
    network = NeuralNetwork([*layers, Linear(2), LogRegression()], rng=0)
    assert network.fit(X, y, max_iter=30).error(X, y) == 0
    assert network.input_shape_ == (2, 20)
    as_images = NeuralNetwork(copy.deepcopy(network.layers), rng=0)
    as_images.fit(X[:, :, None], y, max_iter=30)
    assert same(network.params(), as_images.params())


def test_learns_features(rng):
    X = rng.normal(size=(100, 5))
    y = (X[:, 0] > X[:, 1]).astype(int)
    assert mlp(n_classes=2).fit(X, y, max_iter=50, batch_size=10).error(X, y) < 0.05


@pytest.mark.parametrize("shape", [(), (1,), (2,)])
def test_learns_regression(shape, rng):
    X = rng.normal(size=(60, 4))
    y = (X @ rng.normal(size=(4, *shape)) + 3).astype(np.float32)
    network = NeuralNetwork([Linear(max([1, *shape])), MeanSquaredError()], rng=0)
    network.fit(X, y, max_iter=100, batch_size=20, validation_data=(X, y))
    predictions = network.predict(X)
    assert predictions.shape == y.shape
    assert network.error(X, y) == pytest.approx(np.mean((predictions - y) ** 2))
    assert network.error(X, y) < 1e-5
    assert network.val_loss_history_ == network.val_error_history_
    assert network.classes_ is None
    with pytest.raises(TypeError, match="MeanSquaredError.* predicts values"):
        network.predict_proba(X)


def test_regression_of_images(rng):
    X = rng.normal(size=(20, 1, 5, 5))
    network = NeuralNetwork([Conv(1, 3), MeanSquaredError()], rng=0).fit(X, 2 * X, 0.3, 60)
    assert network.predict(X).shape == X.shape
    assert network.error(X, 2 * X) < 1e-3


# --- one step, exactly ------------------------------------------------------------


def torch_twin(network, torch):
    """The same network in PyTorch: its filters have the output axis first."""
    nn, layers = torch.nn, []
    for layer in network.layers[:-1]:
        if isinstance(layer, Conv):
            layers.append(
                nn.Conv2d(layer.W.shape[0], layer.n_feats, layer.filter_shape, padding="same")
            )
            weight = layer.W.transpose(1, 0, 2, 3)
        elif isinstance(layer, Linear):
            layers.append(nn.Linear(*layer.W.shape))
            weight = layer.W.T
        else:
            layers.append(
                {Activation: nn.ReLU(), Pool: nn.MaxPool2d(2), Flatten: nn.Flatten()}[type(layer)]
            )
            continue
        layers[-1].weight.data = torch.tensor(np.ascontiguousarray(weight))
        layers[-1].bias.data = torch.tensor(layer.b)
    return nn.Sequential(*layers)


def as_ours(param):
    """A parameter of PyTorch with our order of axes."""
    array = param.detach().numpy()
    return array.swapaxes(0, 1) if array.ndim > 1 else array


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
def test_training_steps_equal_pytorch(rng, dtype):
    torch = pytest.importorskip("torch")
    X, y = stripes(32, rng, dtype)
    network = small_cnn()
    network.fit(X, y, learning_rate=0.0, max_iter=1)  # the initial parameters
    twin = torch_twin(network, torch)
    options = {"momentum": 0.9, "nesterov": True}
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, **options)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(twin(torch.tensor(X)), torch.tensor(y))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    network.fit(X, y, 0.1, max_iter=3, shuffle=False, batch_size=32, **options)
    np.testing.assert_allclose(network.loss_history_, losses, rtol=1e-5)
    for ours, theirs in zip(network.params(), twin.parameters()):
        np.testing.assert_allclose(ours, as_ours(theirs), rtol=1e-3, atol=1e-5)


def test_weight_decay_shrinks_the_weights(rng):
    # With weight decay's sign turned round, as in a library of 2015, they grow.
    X, y = np.zeros((10, 4), np.float32), np.arange(10) % 2
    network = NeuralNetwork([Linear(2, weight_decay=0.5), LogRegression()], rng=0)
    W = network.fit(X, y, 0.0, max_iter=1).layers[0].W.copy()
    network.fit(X, y, 0.1, max_iter=1, batch_size=10)  # from the same start
    np.testing.assert_allclose(network.layers[0].W, W * (1 - 0.1 * 0.5), rtol=1e-6)


class Recorder(Layer):
    """Passes everything on, and writes down the first pixel of each image."""

    def __init__(self):
        self.batches = []

    def fprop(self, input):
        if self.training:
            self.batches.append(input[:, 0].astype(int).tolist())
        return input

    def bprop(self, output_grad):
        return output_grad

    def output_shape(self, input_shape):
        return input_shape


def recorded(batch_size, shuffle, n_imgs=10):
    X, y = np.arange(n_imgs)[:, None] * np.ones(2), np.arange(n_imgs) % 2
    recorder = Recorder()
    network = NeuralNetwork([recorder, Linear(2), LogRegression()], rng=0)
    network.fit(X, y, 0.001, max_iter=3, batch_size=batch_size, shuffle=shuffle)
    return recorder.batches


@pytest.mark.parametrize(
    "batch_size, lengths", [(4, [4, 4, 2]), (5, [5, 5]), (1, [1] * 10), (99, [10])]
)
def test_every_image_is_used_once_in_each_epoch(batch_size, lengths):
    batches = recorded(batch_size, shuffle=True)
    assert [len(batch) for batch in batches] == lengths * 3
    for epoch in range(3):
        images = sum(batches[epoch * len(lengths) :][: len(lengths)], [])
        assert sorted(images) == list(range(10))


def test_each_epoch_shuffles():
    epochs = recorded(batch_size=10, shuffle=True)
    assert list(range(10)) not in epochs
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert recorded(batch_size=10, shuffle=False) == [list(range(10))] * 3


def test_images_and_targets_are_shuffled_together(rng):
    X, y = stripes(60, rng)
    assert small_cnn().fit(X, y, max_iter=20, batch_size=7).error(X, y) == 0


# --- reproducibility --------------------------------------------------------------


def test_same_seed_same_bits(rng):
    X, y = stripes(50, rng)
    network = small_cnn(rng=7).fit(X, y, max_iter=2)
    params = [param.copy() for param in network.params()]
    assert same(network.fit(X, y, max_iter=2).params(), params)  # afresh, not further
    assert same(small_cnn(rng=7).fit(X, y, max_iter=2).params(), params)
    assert not same(small_cnn(rng=8).fit(X, y, max_iter=2).params(), params)


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState])
def test_generators_are_consumed(make, rng):
    X, y = stripes(50, rng)
    network = small_cnn(rng=make(7)).fit(X, y, max_iter=2)
    params = [param.copy() for param in network.params()]
    assert same(small_cnn(rng=make(7)).fit(X, y, max_iter=2).params(), params)
    assert not same(network.fit(X, y, max_iter=2).params(), params)


def test_no_seed_differs_each_time(rng):
    X, y = stripes(20, rng)
    first, second = (small_cnn(rng=None).fit(X, y, max_iter=1) for _ in range(2))
    assert not same(first.params(), second.params())


@pytest.mark.parametrize("shape", [(2, 28, 28), (784,)])
def test_same_bits_for_every_number_of_threads(shape, rng):
    # Large enough that the kernels use several threads, and that a BLAS would round differently.
    X, y = rng.normal(size=(100, *shape)).astype(np.float32), np.arange(100) % 2
    convs = [Conv(16, 3), Activation("relu"), Pool(3, 2), Conv(16, 3), Flatten()]
    layers = [*(convs if len(shape) > 1 else []), Linear(100), Linear(2), LogRegression()]
    params = []
    for n_threads in (1, 2, 3):
        with threadpool_limits(n_threads), nnet.num_threads(n_threads):
            network = NeuralNetwork(copy.deepcopy(layers), rng=0)
            params.append(network.fit(X, y, 0.001, max_iter=1, batch_size=100).params())
            params[-1].append(network.predict_proba(X))
    assert same(params[0], params[1])
    assert same(params[0], params[2])


def test_fused_relu_equals_unfused(rng):
    class PlainActivation(Activation):  # not the very class that is fused
        pass

    X, y = stripes(40, rng)
    fused, unfused = small_cnn(), small_cnn()
    for i in (1, 4):
        unfused.layers[i] = PlainActivation("relu")
    fused.fit(X, y, max_iter=3)
    unfused.fit(X, y, max_iter=3)
    assert same(fused.params(), unfused.params())
    assert np.array_equal(fused.predict_proba(X), unfused.predict_proba(X))


def test_relu_is_fused_only_inside_the_network(rng):
    X, y = stripes(40, rng)
    network = small_cnn().fit(X, y, max_iter=1)
    conv, relu = network.layers[:2]
    assert conv.fprop(X).min() < 0
    assert relu.fprop(conv.fprop(X)).min() == 0


# --- work arrays ------------------------------------------------------------------


def test_steady_state_allocates_nothing_large(rng):
    X, y = rng.normal(size=(320, 2, 16, 16)).astype(np.float32), np.arange(320) % 2
    activations = [
        Activation(type) for type in ("sigmoid", "elu", "softplus", "leaky_relu", "tanh")
    ]
    network = NeuralNetwork(
        [
            Conv(8, 3, weight_decay=0.1),
            Activation("relu"),
            *activations,
            Pool(2, 2),
            Conv(8, 3),
            Pool(3, 1, mode="avg"),
            Flatten(),
            Linear(20, weight_decay=0.1),
            Activation("relu"),
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
    activation_bytes = 64 * 8 * 16 * 16 * 4
    assert max(peaks[2:]) < activation_bytes // 3


def total_bytes(network):
    return len(pickle.dumps(network))


def test_no_activations_are_kept(rng):
    X, y = stripes(200, rng)
    network = small_cnn().fit(X, y, max_iter=1)
    assert total_bytes(network) < X.nbytes // 2
    network.predict(X)
    network.error(X, y)
    network.check_gradients(X[:5], y[:5])
    assert total_bytes(network) < X.nbytes // 2
    for layer in network.layers:
        assert layer._kept is None and layer._work is None
        assert layer.training and layer.need_input_grad


class Spy(Flatten):
    """Counts backward calls."""

    calls = 0

    def bprop(self, output_grad):
        self.calls += 1
        return super().bprop(output_grad)


def test_no_gradient_below_the_first_parameters(rng, monkeypatch):
    X, y = stripes(12, rng)
    spy, linear = Spy(), Linear(4)
    results = []
    bprop = linear.bprop
    monkeypatch.setattr(linear, "bprop", lambda grad: results.append(bprop(grad)), raising=False)
    NeuralNetwork([spy, linear, Linear(3), LogRegression()], rng=0).fit(X, y, max_iter=1)
    assert spy.calls == 0
    assert results == [None]


# --- gradients --------------------------------------------------------------------


def test_check_gradients_before_and_after_fit(rng, dtype):
    X, y = stripes(20, rng, dtype)
    network = small_cnn(weight_decay=0.1)
    errors = network.check_gradients(X[:6], y[:6])
    check(errors)
    names = [error.name for error in errors]
    assert names[0] == "layer 0 (Conv).params()[0]"
    assert names[-1] == "layer 6 (Linear).params()[1]"
    assert len(names) == 6
    assert network.input_shape_ is None  # still not fitted
    network.fit(X, y, max_iter=2)
    with pytest.raises(ValueError, match="y has the label 5, expected one of those of fit"):
        network.check_gradients(X[:2], [0, 5])
    params = [param.copy() for param in network.params()]
    check(network.check_gradients(X[:2], y[:2], max_checks=None))
    assert same(network.params(), params)
    assert all(param.dtype == dtype for param in network.params())


def test_check_gradients_of_regression(rng):
    X, y = rng.normal(size=(5, 4)), rng.normal(size=(5, 2))
    check(NeuralNetwork([Linear(3), Linear(2), MeanSquaredError()], rng=0).check_gradients(X, y))


# --- progress ---------------------------------------------------------------------


def test_callback(rng):
    X, y = stripes(50, rng)
    reports = []
    network = small_cnn().fit(
        X, y, max_iter=2, batch_size=20, validation_data=(X[:9], y[:9]), callback=reports.append
    )
    assert [(p.epoch, p.n_seen, p.epoch_done) for p in reports] == [
        (epoch, n_seen, n_seen == 50) for epoch in (1, 2) for n_seen in (20, 40, 50)
    ]
    assert all(p.n_epochs == 2 and p.n_imgs == 50 and p.network is network for p in reports)
    assert all(0 <= p.accuracy <= 1 for p in reports)
    assert [p.seconds > 0 for p in reports] == [True] * 6
    assert [p.loss for p in reports if p.epoch_done] == network.loss_history_
    assert [p.val_loss for p in reports] == [None, None, network.val_loss_history_[0]] + [
        None,
        None,
        network.val_loss_history_[1],
    ]
    assert reports[-1].val_error == network.val_error_history_[-1] == network.error(X[:9], y[:9])


def test_loss_and_accuracy_are_means_over_all_images(rng):
    X, y = stripes(50, rng)
    reports = []
    network = small_cnn().fit(
        X, y, 0.0, 1, batch_size=20, validation_data=(X, y), callback=reports.append
    )
    assert reports[-1].loss == pytest.approx(reports[-1].val_loss, rel=1e-5)
    assert reports[-1].accuracy == pytest.approx(1 - network.error(X, y))


def test_callback_stops_training(rng):
    X, y = stripes(50, rng)
    network = small_cnn().fit(
        X, y, batch_size=20, callback=lambda p: p.epoch == 3 and p.n_seen == 40
    )
    assert len(network.loss_history_) == 2
    network.predict(X)


def test_predicting_in_a_callback_changes_nothing(rng):
    X, y = stripes(50, rng)
    plain = small_cnn().fit(X, y, max_iter=2, batch_size=20)
    nosy = small_cnn().fit(
        X,
        y,
        max_iter=2,
        batch_size=20,
        callback=lambda p: p.network.predict_proba(X).any() and None,
    )
    assert same(plain.params(), nosy.params())


def test_interrupt_leaves_a_usable_network(rng):
    X, y = stripes(50, rng)

    def interrupt(progress):
        if progress.epoch == 3:
            raise KeyboardInterrupt

    network = small_cnn()
    with pytest.raises(KeyboardInterrupt):
        network.fit(X, y, callback=interrupt)
    assert len(network.loss_history_) == 3
    assert network.predict(X).shape == (50,)
    assert all(layer._work is None for layer in network.layers)


def test_best_parameters_can_be_put_back(rng):
    X, y = stripes(50, rng)
    network = small_cnn().fit(X, y, max_iter=1)
    probs, best = network.predict_proba(X), [param.copy() for param in network.params()]
    network.fit(X, y, max_iter=3)
    for param, value in zip(network.params(), best):
        param[...] = value
    assert np.array_equal(network.predict_proba(X), probs)


def test_verbose(rng, capsys):
    X, y = stripes(20, rng)
    small_cnn().fit(X, y, max_iter=2)
    assert capsys.readouterr().out == ""
    small_cnn().fit(X, y, max_iter=2, verbose=True, validation_data=(X, y))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/2: loss ")
    assert all(word in lines[0] for word in ("accuracy", "val_loss", "val_accuracy", "images/s"))


def test_learning_rate_schedule(rng):
    X, y = stripes(20, rng)
    epochs = []
    constant = small_cnn().fit(X, y, 0.1, max_iter=3)
    scheduled = small_cnn().fit(X, y, lambda epoch: epochs.append(epoch) or 0.1, max_iter=3)
    assert same(constant.params(), scheduled.params())
    assert set(epochs) == {0, 1, 2}
    stopped = small_cnn().fit(X, y, lambda epoch: 0.1 if epoch < 1 else 0.0, max_iter=3)
    assert same(stopped.params(), small_cnn().fit(X, y, 0.1, max_iter=1).params())
