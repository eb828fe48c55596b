"""Dropout: what goes, how much of it, whose random numbers, and what predictions see."""

import copy

import numpy as np
import pytest
from networks import same, stripes
from structures import as_network

import nnet
from nnet import Activation, Conv, Dropout, NeuralNetwork, Parallel, Residual, Sequential


def set_up(layer, seed=0):
    layer._setup((1, 1, 1, 1), np.random.default_rng(seed))
    return layer


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_values_go_at_this_rate_and_the_mean_stays(rate, make, dtype):
    layer = Dropout(rate)
    layer._setup((1, 1), make(1))
    x = np.ones((50, 8, 20, 20), dtype)
    y = layer.fprop(x)
    assert y.dtype == dtype and y is not x and (x == 1).all()
    assert set(np.unique(y)) == {dtype.type(0), dtype.type(1 / (1 - rate))}
    assert np.mean(y == 0) == pytest.approx(rate, abs=0.005)
    per_channel = np.mean(y == 0, axis=(2, 3))
    assert per_channel.min() < per_channel.max()
    assert layer._kept[2].nbytes == x.size


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState])
def test_whole_channels(make, dtype):
    layer = Dropout(0.25, channels=True)
    layer._setup((1, 40, 5, 6), make(1))
    x = np.ones((100, 40, 5, 6), dtype)
    y = layer.fprop(x)
    kept = y[:, :, 0, 0] > 0
    assert np.array_equal(y, x * kept[:, :, None, None] * dtype.type(1 / 0.75))
    assert np.mean(kept) == pytest.approx(0.75, abs=0.03)
    assert layer._kept[2].nbytes == 4000


@pytest.mark.parametrize("channels", [False, True])
def test_the_gradient_is_masked_as_the_values_were(channels, rng, dtype):
    layer = set_up(Dropout(0.3, channels=channels))
    x, output_grad = rng.normal(size=(2, 6, 5, 4, 3)).astype(dtype)
    y = layer.fprop(x)
    factor = np.where(y != 0, dtype.type(1 / 0.7), 0).astype(dtype)
    np.testing.assert_allclose(y, x * factor, rtol=1e-6)
    grad = layer.bprop(output_grad)
    assert grad.dtype == dtype
    np.testing.assert_allclose(grad, output_grad * factor, rtol=1e-6)
    assert np.array_equal(grad == 0, y == 0)


def test_predictions_are_the_identity(rng):
    x = rng.normal(size=(4, 3, 2, 2))
    layer = set_up(Dropout(0.9))
    layer.training = False
    assert np.array_equal(layer.fprop(x), x)
    none = set_up(Dropout(0))
    assert np.array_equal(none.fprop(x), x)
    assert np.array_equal(none.bprop(x), x)


def test_draws_do_not_depend_on_the_type():
    masks = []
    for dtype in (np.float32, np.float64):
        masks.append(set_up(Dropout()).fprop(np.ones((9, 7), dtype)) > 0)
    assert np.array_equal(*masks)


def test_by_hand():
    """Other values go in every call; a seed given to _setup brings them back."""
    x = np.ones((4, 100))
    layer = Dropout()
    first, second, other = layer.fprop(x), layer.fprop(x), Dropout().fprop(x)
    assert not np.array_equal(first, second) and not np.array_equal(first, other)
    runs = []
    for _ in range(2):
        row = Sequential([Dropout(), Activation("relu"), Dropout()])
        row._setup((4, 100), 7)
        runs.append(np.stack([row.fprop(x), row.fprop(x)]))
    assert np.array_equal(*runs)
    assert not np.array_equal(*runs[0])
    assert np.mean(runs[0] == 0) == pytest.approx(0.75, abs=0.1)  # two masks, not one twice


def test_copies_by_hand_are_free_to_draw(rng):
    layer = set_up(Dropout())
    twin = copy.deepcopy(layer)
    assert twin.fprop(np.ones((3, 4))).shape == (3, 4)
    assert "_rng" not in vars(copy.deepcopy(layer))


@pytest.mark.parametrize("rate", [1, 1.5, -0.1, np.nan])
def test_refused_rates(rate):
    with pytest.raises(ValueError, match="rate is .*, expected a number of at least 0 and less"):
        Dropout(rate)


def test_channels_need_images():
    with pytest.raises(ValueError, match="expected 4 axes"):
        Dropout(0.5, channels=True)._setup((3, 4), np.random.default_rng(0))
    Dropout(0.5)._setup((3, 4), np.random.default_rng(0))


# --- in networks ------------------------------------------------------------------------


def layers():
    return [
        Conv(4, 3),
        Dropout(0.2, channels=True),
        Residual([Activation("relu"), Dropout(0.3), Conv(4, 3)]),
        Parallel([[Dropout(0.5)], [Conv(4, 1)], []]),
        Dropout(0.4),
    ]


@pytest.mark.parametrize("make", [int, np.random.default_rng, np.random.RandomState])
def test_same_seed_same_bits_for_any_number_of_threads(make, rng):
    X, y = stripes(24, rng)
    networks = []
    for seed, n_threads in ((3, 1), (3, 3), (4, 1)):
        with nnet.num_threads(n_threads):
            network = as_network(layers(), make(seed)).fit(X, y, 0.02, 2, batch_size=7)
            networks.append(network.params())
    assert same(networks[0], networks[1])
    assert not same(networks[0], networks[2])


def test_dropouts_have_streams_of_their_own(rng, monkeypatch):
    X, y = stripes(8, rng)
    masks = []
    draw = Dropout._draw

    def spy(layer, shape):
        masks.append(draw(layer, shape).copy())
        return masks[-1]

    monkeypatch.setattr(Dropout, "_draw", spy)
    as_network([Dropout(), Dropout()]).fit(X, y, 0.02, 2, batch_size=8)
    assert len(masks) == 4
    for i, mask in enumerate(masks):
        assert not any(np.array_equal(mask, other) for other in masks[:i])


def test_training_drops_and_predictions_do_not(rng):
    X, y = stripes(24, rng)
    network = as_network(layers()).fit(X, y, 0.02, 2)
    without = as_network([layer for layer in layers() if type(layer) is not Dropout])
    without.layers[1].layers.pop(1)
    without.layers[2].branches = [[], [Conv(4, 1)], []]
    without.build((1, 6, 6), 3)
    names = dict(zip(without.state_dict(), network.state_dict().values(), strict=True))
    without.load_state_dict(names)
    assert np.array_equal(network.predict_proba(X), without.predict_proba(X))
    assert network.predict_proba(X[:0]).shape == (0, 3)


def test_gradients(rng):
    """Every pass of check_gradients drops the same values; so a pass without would differ."""
    X, y = stripes(6, rng)
    for make in (lambda: 5, lambda: np.random.RandomState(5)):
        network = as_network(layers(), make()).fit(X, y, 0.02, 1)
        for error in network.check_gradients(X, y, max_checks=10):
            assert error.rel_error < 1e-3, error


def test_saved_and_loaded(rng, tmp_path):
    pytest.importorskip("safetensors")
    X, y = stripes(12, rng)
    network = as_network(layers()).fit(X, y, 0.02, 1)
    network.save(tmp_path / "file")
    loaded = NeuralNetwork.load(tmp_path / "file")
    assert [repr(layer) for layer in loaded.layers] == [repr(layer) for layer in network.layers]
    assert np.array_equal(loaded.predict_proba(X), network.predict_proba(X))


def test_a_rate_changed_in_a_callback_counts(rng):
    X, y = stripes(24, rng)
    network = as_network([Conv(2, 3), Dropout(0.0)])
    outputs = []
    for rate in (0.0, 0.5):
        network.fit(
            X, y, 0.02, 2, callback=lambda p, rate=rate: setattr(p.network.layers[1], "rate", rate)
        )
        outputs.append(network.params())
        network.layers[1].rate = 0.0
    assert not same(*outputs)


def test_the_default_rate_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    assert Dropout().rate == torch.nn.Dropout().p == torch.nn.Dropout2d().p == 0.5
