"""NeuralNetwork.build: a network without data, which predicts, and takes parameters."""

import copy

import numpy as np
import pytest
from networks import mlp, same, small_cnn, stripes

from nnet import (
    Activation,
    BinaryCrossEntropy,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    LogRegression,
    MeanSquaredError,
    NeuralNetwork,
    Pool,
    Residual,
    Sequential,
)

SHAPE = (1, 6, 6)


def regressor(n_out=1, rng=0):
    return NeuralNetwork([Conv(4, 3), GlobalAveragePool(), Linear(n_out), MeanSquaredError()], rng)


def test_the_parameters_are_those_that_fit_begins_with(rng, dtype):
    X, y = stripes(30, rng, dtype)
    fitted = small_cnn(rng=7).fit(X, y, learning_rate=0, max_iter=1)
    for n_outputs in (None, 3, np.int64(3)):
        built = small_cnn(rng=7)
        assert built.build(SHAPE, n_outputs, dtype) is built
        assert same(built.params(), fitted.params())
        assert built.params()[0].dtype == built.dtype_ == dtype
        assert np.array_equal(built.predict_proba(X), fitted.predict_proba(X))
        assert built.classes_.tolist() == [0, 1, 2]
        assert built.input_shape_ == SHAPE and built.target_shape_ == ()
        assert built.loss_history_ == built.val_loss_history_ == built.val_error_history_ == []


@pytest.mark.parametrize(
    "kind, loss, other",
    [
        ("softmax", LogRegression, BinaryCrossEntropy),
        ("sigmoid", BinaryCrossEntropy, LogRegression),
    ],
)
def test_activations_that_losses_have_are_refused(kind, loss, other):
    last = Activation(kind)
    for layers, name in (([last], "1"), ([Sequential([Sequential([last])])], "1.0.0")):
        message = rf"^layer {name} \(Activation\) is a {kind} right before {loss.__name__}\(\), "
        with pytest.raises(ValueError, match=message):
            NeuralNetwork([Linear(3), *layers, loss()])
    network = NeuralNetwork([Linear(3), loss()])
    network.layers.insert(1, last)
    with pytest.raises(ValueError, match=f"is a {kind} right before"):
        network.build((4,))
    for each in (other, MeanSquaredError, type("Own", (loss,), {})):
        NeuralNetwork([Linear(3), Activation(kind), each()]).build((4,))


def test_what_follows(rng, tmp_path):
    """Parameters are loaded; the network is saved, copied, checked and trained."""
    pytest.importorskip("safetensors")
    X, y = stripes(30, rng)
    fitted = small_cnn().fit(X, y, 0.1, 2)
    built = small_cnn(rng=1).build(list(SHAPE), dtype=np.float32)
    built.load_state_dict(fitted.state_dict())
    probs = fitted.predict_proba(X)
    assert np.array_equal(built.predict_proba(X), probs)
    assert built.error(X, y) == fitted.error(X, y)
    built.save(tmp_path / "file")
    for network in (NeuralNetwork.load(tmp_path / "file"), copy.deepcopy(built)):
        assert np.array_equal(network.predict_proba(X), probs)
    assert len(built.check_gradients(X[:3], y[:3], max_checks=2)) == 6
    built.fit(X, np.array(list("abc"))[y], 0.1, 2)
    assert same(built.params(), small_cnn(rng=1).fit(X, y, 0.1, 2).params())
    assert built.classes_.tolist() == ["a", "b", "c"]


def test_a_fitted_network_is_built_afresh(rng):
    X, y = stripes(30, rng)
    network = small_cnn().fit(X, y, 0.1, 1)
    network.build((2, 8, 9), dtype="float64")
    assert network.loss_history_ == []
    assert network.predict(np.zeros((2, 2, 8, 9))).shape == (2,)
    assert same(network.params(), small_cnn().build((2, 8, 9), 3, np.float64).params())


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState])
def test_a_generator_gives_each_build_a_number(make):
    generator = make(3)
    first = regressor(rng=generator).build(SHAPE).params()
    assert not same(first, regressor(rng=generator).build(SHAPE).params())
    assert same(first, regressor(rng=make(3)).build(SHAPE).params())


@pytest.mark.parametrize(
    "n_scores, n_outputs, target_shape",
    [
        (1, None, ()),
        (1, 1, ()),
        (1, (1,), ()),
        (1, (), ()),
        (3, None, (3,)),
        (3, 3, (3,)),
        (3, [3], (3,)),
    ],
)
def test_regression(n_scores, n_outputs, target_shape, tmp_path):
    pytest.importorskip("safetensors")
    X = np.ones((5, *SHAPE), np.float32)
    network = regressor(n_scores).build(SHAPE, n_outputs)
    assert network.classes_ is None and network.target_shape_ == target_shape
    assert network.predict(X).shape == (5, *target_shape)
    network.save(tmp_path / "file")
    assert np.array_equal(NeuralNetwork.load(tmp_path / "file").predict(X), network.predict(X))
    assert network.error(X, np.zeros((5, *target_shape))) > 0
    network.fit(X, np.zeros((5, *target_shape)), 0.01, 1)


def test_regression_on_images():
    network = NeuralNetwork([Conv(2, 3), MeanSquaredError()], rng=0).build((3, 5, 6), (2, 5, 6))
    assert network.predict(np.zeros((2, 3, 5, 6))).shape == (2, 2, 5, 6)


@pytest.mark.parametrize("shape", [(20,), 20, (2, 20), (2, 1, 20)])
def test_features_and_signals(shape):
    dense = np.ndim(shape) == 0 or len(shape) == 1
    windows = [] if dense else [Conv(4, (1, 5)), Pool((1, 2), (1, 2)), Flatten()]
    network = NeuralNetwork([*windows, Linear(3), LogRegression()], rng=0).build(shape, 3)
    shape = (shape,) if np.ndim(shape) == 0 else shape
    assert network.input_shape_ == shape
    assert network.predict(np.zeros((4, *shape))).shape == (4,)
    assert network.params()[0].shape == ((20, 3) if dense else (2, 4, 1, 5))


WRONG = {
    "too many axes": (
        ((1, 6, 6, 1),),
        ValueError,
        r"input_shape is \(1, 6, 6, 1\), expected 1 to 3",
    ),
    "no axes": (((),), ValueError, r"input_shape is \(\), expected 1 to 3"),
    "empty axis": (((0, 6, 6),), ValueError, "input_shape is 0, expected at least 1"),
    "negative": (((1, -6, 6),), ValueError, "input_shape is -6"),
    "float": (((1, 6.0, 6),), TypeError, "input_shape is 6.0, expected an integer"),
    "text": (("166",), TypeError, "input_shape is '1', expected an integer"),
    "None": ((None,), TypeError, "input_shape is None"),
    "features": (((36,),), ValueError, r"36\), .* for layer 0 \(Conv\): X\.reshape\(-1, 1, 6, 6\)"),
    "no channel axis": (((6, 7),), ValueError, "to_bc01"),
    "too small": (((1, 1, 1),), ValueError, r"layer 2 \(Pool\) cannot take"),
    "too large": (((1, 2**40, 2**40),), ValueError, r"layer 0 \(Conv\) cannot take"),
    "no outputs": ((SHAPE, 0), ValueError, "n_outputs is 0, expected at least 2"),
    "one class": ((SHAPE, 1), ValueError, "n_outputs is 1, expected at least 2"),
    "other classes": (
        (SHAPE, 4),
        ValueError,
        r"layer 7 \(LogRegression\) gets \(3,\) values .* 4 classes",
    ),
    "shape of classes": ((SHAPE, (3,)), TypeError, r"n_outputs is \(3,\), expected an integer"),
    "float classes": ((SHAPE, 3.0), TypeError, "n_outputs is 3.0"),
    "int32": ((SHAPE, 3, "int32"), TypeError, "dtype is 'int32', expected float32 or float64"),
    "float16": (
        (SHAPE, 3, np.float16),
        TypeError,
        "dtype is .*float16.*, expected float32 or float64",
    ),
    "big-endian": ((SHAPE, 3, np.dtype(float).newbyteorder()), TypeError, "expected float32 or"),
    "no dtype": ((SHAPE, 3, None), TypeError, "dtype is None, expected float32 or float64"),
    "unknown dtype": (
        (SHAPE, 3, "real"),
        TypeError,
        "dtype is 'real', expected float32 or float64",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_leave_what_was_there(name, rng):
    arguments, error, message = WRONG[name]
    X, y = stripes(30, rng)
    network = small_cnn()
    with pytest.raises(error, match=message):
        network.build(*arguments)
    assert network.input_shape_ is None
    with pytest.raises(ValueError, match="not fitted yet, expected a call of fit or build"):
        network.predict(X)

    generator = np.random.default_rng(0)
    network = small_cnn(rng=generator).build((5, 9, 4)).fit(X, y, 0.1, 1)
    probs, params, state = network.predict_proba(X), network.params(), generator.bit_generator.state
    with pytest.raises(error, match=message):
        network.build(*arguments)
    assert np.array_equal(network.predict_proba(X), probs)
    assert all(new is old for new, old in zip(network.params(), params))
    assert generator.bit_generator.state == state
    assert len(network.loss_history_) == 1


def test_one_score_is_no_classification():
    network = NeuralNetwork([Linear(1), LogRegression()])
    with pytest.raises(
        ValueError, match=r"n_outputs of layer 1 \(LogRegression\) is 1, expected at"
    ):
        network.build((4,))


def test_a_failing_build_vouches_for_no_shape():
    """Only a network that was built for images that look transposed trains on them."""
    X = np.zeros((6, 16, 16, 3), np.float32)
    network = NeuralNetwork([Conv(2, 3), Flatten(), Linear(3), LogRegression()])
    with pytest.raises(ValueError, match="gets"):
        network.build(X.shape[1:], 4)
    with pytest.raises(ValueError, match="to_bc01"):
        network.fit(X, np.arange(6) % 3)
    network.build(X.shape[1:], 3).fit(X, np.arange(6) % 3, max_iter=1)


def test_layers_that_do_not_fit():
    layers = [Residual([Conv(2, 3)]), Flatten(), Linear(2), LogRegression()]
    with pytest.raises(ValueError, match=r"layer 0 \(Residual\) adds \(2, 6, 6\) and \(3, 6, 6\)"):
        NeuralNetwork(layers).build((3, 6, 6))
    other = mlp().build((36,))
    with pytest.raises(ValueError, match="belongs to another network"):
        NeuralNetwork(other.layers).build((36,))


BAD_STATES = {
    "None": (lambda state: None, TypeError, "state is a NoneType, expected a dict"),
    "list": (lambda state: list(state.values()), TypeError, "state is a list, expected a dict"),
    "missing": (lambda state: {"0.W": state["0.W"]}, ValueError, "lacks"),
    "unknown": (lambda state: {**state, "9.W": state["0.W"]}, ValueError, r"unknown \['9.W'\]"),
    "shape": (
        lambda state: {**state, "2.b": np.zeros(4, np.float32)},
        ValueError,
        r"state\['2.b'\] has shape",
    ),
    "dtype": (lambda state: {**state, "2.b": np.zeros(3)}, TypeError, r"state\['2.b'\] has dtype"),
    "object": (lambda state: {**state, "2.b": None}, ValueError, r"state\['2.b'\] has shape"),
}


@pytest.mark.parametrize("name", BAD_STATES)
def test_states_that_do_not_fit_change_nothing(name):
    change, error, message = BAD_STATES[name]
    network = mlp().build((36,))
    state = network.state_dict()
    with pytest.raises(error, match=message):
        network.load_state_dict(change({name: array + 1 for name, array in state.items()}))
    assert same(network.params(), list(state.values()))
    with pytest.raises(ValueError, match="not fitted yet, expected a call of fit or build"):
        mlp().load_state_dict(state)


@pytest.mark.parametrize(
    "rate",
    [
        1j,
        "0.1",
        b"1",
        [0.1],
        np.array([0.1]),
        np.array("a"),
        -1,
        np.nan,
        np.inf,
        10**400,
        np.array(1j),
    ],
)
def test_learning_rates_that_are_none(rate, rng):
    X, y = stripes(6, rng)
    for value in (rate, lambda epoch: rate):
        with pytest.raises((TypeError, ValueError), match="learning_rate is .* expected a finite"):
            mlp().fit(X.reshape(6, -1), y, learning_rate=value)


@pytest.mark.parametrize("rate", [np.array(0.1), np.float32(0.1), np.array(0.1, np.float32), 1, 0])
def test_learning_rates_of_any_type(rate, rng):
    X, y = stripes(6, rng)
    expected = mlp().fit(X.reshape(6, -1), y, learning_rate=float(rate), max_iter=1)
    assert same(mlp().fit(X.reshape(6, -1), y, rate, max_iter=1).params(), expected.params())


@pytest.mark.parametrize("seed", [-1, np.int64(-2), 1.5, "x", 1j, [1], np.random])
def test_seeds_that_are_none(seed):
    with pytest.raises((TypeError, ValueError), match="rng is .*, expected"):
        mlp(rng=seed)
    network = mlp()
    network.rng = seed
    with pytest.raises((TypeError, ValueError), match="rng is .*, expected"):
        network.build((36,))
