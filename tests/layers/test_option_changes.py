"""Options and arrays that change after fit: a network takes them up everywhere, or nowhere."""

import copy

import numpy as np
import pytest

from nnet import (
    Activation,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    LogRegression,
    MeanSquaredError,
    NeuralNetwork,
    Parallel,
    ParamMixin,
    Pool,
    Residual,
    Sequential,
    Standardize,
)
from nnet.layers.tree import collect, numbered, walk

rng = np.random.default_rng(20150423)
X = rng.normal(size=(24, 1, 8, 8)).astype(np.float32)
y = np.arange(24) % 3


def layers():
    return [
        Conv(8, (3, 3)),
        Activation("relu"),
        Pool((2, 2), (2, 2)),
        Sequential([Residual([Conv(8, 3, groups=2), Activation("tanh")], [Conv(8, 1)])]),
        Parallel([[Activation("relu")], Conv(8, 3)]),
        Flatten(),
        Linear(3),
        LogRegression(),
    ]


def residual(network):
    return network.layers[3].layers[0]


def of(i):
    return lambda network: network.layers[i]


def setting(find, **options):
    """A change of a layer's attributes: a function that returns another, which undoes it."""

    def change(network):
        layer = find(network)
        before = {name: getattr(layer, name) for name in options}
        for name, value in options.items():
            setattr(layer, name, value)
        return lambda: [setattr(layer, name, value) for name, value in before.items()]

    return change


def listed(find_list, change_list):
    """Likewise, a change of a list."""

    def change(network):
        list_ = find_list(network)
        before = list(list_)
        change_list(list_)
        return lambda: list_.__setitem__(slice(None), before)

    return change


def outside(network):
    return network.layers


TAKEN_UP = {
    "activation": setting(of(1), type="tanh"),
    "no bias": setting(of(0), use_bias=False),
    "no bias of Linear": setting(of(6), use_bias=False),
    "padding": setting(of(0), padding_mode=1),
    "border": setting(of(0), border_mode="wrap"),
    "dilation": setting(of(0), dilation=(2, 1)),
    "decay": setting(of(0), weight_decay=0.5),
    "pool mode": setting(of(2), mode="avg"),
    "pool window": setting(of(2), pool_shape=3),
    "pool padding": setting(of(2), padding_mode="same"),
    "nested activation": setting(lambda n: residual(n).layers[1], type="relu"),
    "nested bias": setting(lambda n: residual(n).layers[0], use_bias=False),
    "nested border": setting(lambda n: n.layers[4].branches[1], border_mode="nearest"),
    "branches": setting(of(4), mode="mul"),
    "shortcut": setting(residual, shortcut=None),
    "other row": setting(of(3), layers=[Activation("elu")]),
    "longer row": listed(lambda n: residual(n).layers, lambda row: row.append(Activation("elu"))),
    "longer branch": listed(
        lambda n: n.layers[4].branches[0], lambda row: row.append(Activation("tanh"))
    ),
    "longer list": listed(outside, lambda row: row.insert(1, Standardize(0.1, 2.0))),
    "shorter list": listed(outside, lambda row: row.pop(1)),
    "other list": lambda n: setattr(n, "layers", [*n.layers[:3], *n.layers[5:]]),
    "strides for pooling": lambda n: (setattr(n.layers[0], "strides", 2), n.layers.pop(2)),
}
SAME_BITS = "padding", "pool padding", "decay"  # as before, for these images
OTHER_PARAMETERS = (
    "no bias",
    "no bias of Linear",
    "nested bias",
    "shortcut",
    "other row",
    "other list",
)


def fitted(**options):
    network = NeuralNetwork(layers(), rng=0)
    return network.fit(X, y, 0.01, 1, **options)


def by_hand(network):
    """Probabilities from copies of the layers, called one by one: nothing is fused or planned."""
    output = X
    for layer in copy.deepcopy(network.layers):
        layer.training = False
        output = layer.fprop(output)
    return output


@pytest.mark.parametrize("name", TAKEN_UP)
def test_a_change_is_taken_up_everywhere(name, tmp_path):
    network = fitted()
    before = network.predict_proba(X)
    TAKEN_UP[name](network)
    probs = network.predict_proba(X)
    assert name in SAME_BITS or not np.array_equal(probs, before)
    np.testing.assert_allclose(probs, by_hand(network), rtol=1e-4, atol=1e-6)
    assert np.array_equal(network.predict(X), probs.argmax(axis=1))
    assert network.error(X, y) == np.mean(probs.argmax(axis=1) != y)
    assert np.array_equal(copy.deepcopy(network).predict_proba(X), probs)

    state = network.state_dict()
    assert len(state) == len(network.params())
    assert ("0.b" in state) == network.layers[0].use_bias
    network.load_state_dict({name: 2 * array for name, array in state.items()})
    assert not np.array_equal(network.predict_proba(X), probs)
    network.load_state_dict(state)
    assert np.array_equal(network.predict_proba(X), probs)

    errors = network.check_gradients(X[:4], y[:4], max_checks=5)
    assert len(errors) == len(state) and max(error.rel_error for error in errors) < 1e-3

    pytest.importorskip("safetensors")
    network.save(tmp_path / "file")
    loaded = NeuralNetwork.load(tmp_path / "file")
    assert np.array_equal(loaded.predict_proba(X), probs)
    assert loaded.state_dict().keys() == state.keys()


def step_by_hand(layers, X, y, learning_rate):
    """The parameters after one step, without a network."""
    *layers, loss = copy.deepcopy(layers)
    output = X
    for layer in layers:
        output = layer.fprop(output)
    grad = loss.input_grad(output, y)
    for layer in reversed(layers):
        grad = layer.bprop(grad)
    every = [layer for _, layer in walk(numbered(layers)) if isinstance(layer, ParamMixin)]
    params, incs = collect(every, "params"), collect(every, "param_incs")
    return [param - learning_rate * inc for param, inc in zip(params, incs, strict=True)]


@pytest.mark.parametrize("name", TAKEN_UP)
def test_a_callback_changes_the_steps_that_follow(name):
    network, expected = NeuralNetwork(layers(), rng=0), []

    def callback(progress):
        if not expected:
            TAKEN_UP[name](network)
            expected.append(step_by_hand(network.layers, X[12:], y[12:], 0.01))

    options = {"max_iter": 1, "batch_size": 12, "shuffle": False, "callback": callback}
    if name in OTHER_PARAMETERS:  # an optimizer may keep something for each
        with pytest.raises(ValueError, match=r"the callback left the parameters \["):
            network.fit(X, y, 0.01, **options)
        assert network.predict_proba(X).shape == (24, 3)
        return
    network.fit(X, y, 0.01, **options)
    for array, by_hand in zip(network.params(), expected[0], strict=True):
        np.testing.assert_allclose(array, by_hand, rtol=1e-4, atol=1e-5)


ALIEN = NeuralNetwork([Conv(8, (3, 3)), Flatten(), Linear(3), LogRegression()]).build((1, 8, 8))
REFUSED = {
    "filters": (
        setting(of(0), n_feats=4),
        r"layer 0 \(Conv\)\.W has shape \(1, 8, 3, 3\), expected",
    ),
    "window": (setting(of(0), filter_shape=5), r"layer 0 \(Conv\)\.W has shape"),
    "groups": (setting(of(0), groups=8), r"layer 0 \(Conv\) cannot take .* groups = 8 divides"),
    "odd groups": (setting(of(0), groups=3), r"layer 0 \(Conv\) .* multiple of groups = 3"),
    "outputs": (setting(of(6), n_out=5), r"layer 6 \(Linear\)\.W has shape \(128, 3\), expected"),
    "strides": (setting(of(2), strides=4), r"layer 6 \(Linear\)\.W has shape"),
    "padding": (setting(of(0), padding_mode="valid"), r"layer 6 \(Linear\)\.W has shape"),
    "reflection": (
        setting(of(0), padding_mode=9, border_mode="reflect"),
        r"layer 0 \(Conv\) cannot take .* can pad an image of height 8 by at most 7",
    ),
    "average": (setting(of(2), count_include_pad=True), r"layer 2 \(Pool\) .*count_include_pad"),
    "nested": (
        setting(lambda n: residual(n).layers[0], groups=4),
        r"layer 3\.0\.0 \(Conv\)\.W has shape \(4, 8, 3, 3\), expected \(2, 8, 3, 3\)",
    ),
    "branches": (setting(of(4), mode="concat"), r"layer 6 \(Linear\)\.W has shape"),
    "new layer": (
        listed(outside, lambda row: row.insert(1, Conv(8, 3))),
        r"layer 1 \(Conv\)\.W is None, expected an array",
    ),
    "new nested layer": (
        listed(lambda n: n.layers[4].branches[0], lambda row: row.append(Conv(8, 3))),
        r"layer 4\.0\.1 \(Conv\)\.W is None",
    ),
    "other loss": (
        listed(outside, lambda row: row.__setitem__(7, MeanSquaredError())),
        r"layer 7 \(MeanSquaredError\) does not fit y, expected a loss for labels",
    ),
    "no loss": (listed(outside, list.pop), r"layers\[6\] is a Linear, expected the last layer"),
    "no layer": (
        listed(outside, lambda row: row.insert(1, "relu")),
        r"layers\[1\] is 'relu', expected a layer such as",
    ),
    "twice": (listed(outside, lambda row: row.insert(1, row[1])), "the same object twice"),
    "alien": (
        listed(outside, lambda row: row.__setitem__(0, ALIEN.layers[0])),
        r"layer 0 \(Conv\) belongs to another network",
    ),
    "other scores": (
        setting(of(6), n_out=5, W=np.zeros((128, 5), np.float32), b=np.zeros(5, np.float32)),
        r"layer 7 \(LogRegression\) gets \(5,\) values for each image, expected \(3,\)",
    ),
    "bias": (setting(of(6), b=None, use_bias=True), r"layer 6 \(Linear\)\.b is None"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_change_is_refused_everywhere_and_may_be_put_back(name, tmp_path):
    pytest.importorskip("safetensors")
    change, message = REFUSED[name]
    network = fitted()
    network.save(tmp_path / "file")
    file, probs = (tmp_path / "file").read_bytes(), network.predict_proba(X)
    state = network.state_dict()
    undo = change(network)
    for call in (
        lambda: network.predict(X),
        lambda: network.predict_proba(X),
        lambda: network.error(X, y),
        lambda: network.params(),
        lambda: network.state_dict(),
        lambda: network.load_state_dict(state),
        lambda: network.save(tmp_path / "file"),
        lambda: copy.deepcopy(network),
        lambda: network.check_gradients(X[:2], y[:2]),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            call()
    assert (tmp_path / "file").read_bytes() == file
    undo()
    assert np.array_equal(network.predict_proba(X), probs)
    assert list(network.state_dict()) == list(state)
    assert len(network.check_gradients(X[:2], y[:2], max_checks=2)) == len(state)
    network.save(tmp_path / "file")
    assert np.array_equal(network.fit(X, y, 0.01, 1).predict_proba(X), probs)


@pytest.mark.parametrize("name", REFUSED)
def test_a_callback_is_refused_the_same(name):
    """The network keeps the parameters of the last step."""
    change, message = REFUSED[name]
    network, seen = NeuralNetwork(layers(), rng=0), []

    def callback(progress):
        seen.append(network.predict_proba(X))
        seen.append(change(network))

    with pytest.raises((ValueError, TypeError), match=message):
        network.fit(X, y, 0.01, batch_size=8, callback=callback)
    probs, undo = seen
    undo()
    assert np.array_equal(network.predict_proba(X), probs)


ARRAYS = {
    "float64": (lambda W: W.astype(float), r"has dtype <f8, expected [<>]f4: float32"),
    "transposed": (lambda W: W.T, r"has shape \(3, 128\), expected \(128, 3\)"),
    "big-endian": (lambda W: W.astype(">f4"), r"has dtype >f4, expected"),
    "halves": (lambda W: W.astype(np.float16), r"has dtype <f2, expected"),
    "objects": (lambda W: W.astype(object), r"has dtype \|O, expected"),
    "one column": (lambda W: W[:, :1], r"has shape \(128, 1\), expected \(128, 3\)"),
    "list": (lambda W: W.tolist(), r"is a list, expected a NumPy array of shape \(128, 3\)"),
    "number": (lambda W: 0.5, "is a float, expected a NumPy array"),
    "None": (lambda W: None, "is None, expected an array"),
    "masked": (lambda W: np.ma.array(W, mask=W > 0), "is a MaskedArray, expected a NumPy array"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_do_not_fit_are_refused(name, tmp_path):
    pytest.importorskip("safetensors")
    make_array, message = ARRAYS[name]
    network = fitted()
    network.save(tmp_path / "file")
    file, probs, state = (
        (tmp_path / "file").read_bytes(),
        network.predict_proba(X),
        network.state_dict(),
    )
    W = network.layers[6].W
    network.layers[6].W = make_array(W)
    for call in (
        lambda: network.save(tmp_path / "file"),
        lambda: network.predict(X),
        lambda: network.error(X, y),
        lambda: network.load_state_dict(state),
        lambda: network.check_gradients(X[:2], y[:2]),
    ):
        with pytest.raises((ValueError, TypeError), match=rf"^layer 6 \(Linear\)\.W {message}"):
            call()
    assert (tmp_path / "file").read_bytes() == file
    network.layers[6].W = W
    assert np.array_equal(network.predict_proba(X), probs)
    network.layers[6].W = make_array(W)
    network.fit(X, y, 0.01, 1)  # starts afresh
    assert np.array_equal(network.predict_proba(X), probs)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_not_saved(value, tmp_path):
    pytest.importorskip("safetensors")
    network = fitted()
    network.layers[0].b[1] = value
    with pytest.raises(ValueError, match=r"layer 0 \(Conv\)\.b has NaN or infinite values"):
        network.save(tmp_path / "file")
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize(
    "lay_out", [np.asfortranarray, lambda W: W.repeat(2, 1)[:, ::2], lambda W: W[::-1].copy()[::-1]]
)
def test_arrays_of_any_layout_fit(lay_out, tmp_path):
    pytest.importorskip("safetensors")
    network = fitted()
    probs = network.predict_proba(X)
    network.layers[6].W = lay_out(network.layers[6].W)
    network.save(tmp_path / "file")
    assert np.array_equal(NeuralNetwork.load(tmp_path / "file").predict_proba(X), probs)
    np.testing.assert_allclose(network.predict_proba(X), probs, rtol=1e-6)


def test_arrays_that_cannot_be_written_to():
    """No half of a state is loaded, no half of a step is made."""
    network = fitted()
    state = network.state_dict()
    network.layers[6].W.flags.writeable = False
    with pytest.raises(ValueError, match="6.W of the network is read-only"):
        network.load_state_dict({name: 2 * array for name, array in state.items()})
    assert all(np.array_equal(array, state[name]) for name, array in network.state_dict().items())

    steps = []

    def callback(progress):
        steps.append(progress.network.state_dict())
        progress.network.layers[6].W.flags.writeable = False

    with pytest.raises(ValueError, match="6.W is read-only"):
        network.fit(X, y, 0.01, callback=callback)
    (state,) = steps
    assert all(np.array_equal(array, state[name]) for name, array in network.state_dict().items())


def test_classes():
    network = fitted()
    with pytest.raises(AttributeError):
        network.classes_ = np.arange(3)
    with pytest.raises(ValueError, match="read-only"):
        network.classes_[0] = 7
    assert network.predict(X).flags.writeable


def test_the_list_of_branches_cannot_be_changed_in_place():
    with pytest.raises(AttributeError):
        Parallel([[], Flatten()]).branches.append([])


def test_layers_are_checked_when_they_are_set_or_used():
    network = NeuralNetwork(layers(), rng=0)
    for bad in (None, 5, Flatten(), [Flatten()], [Linear(3), "x"]):
        with pytest.raises((TypeError, ValueError), match="layers|layer has parameters"):
            network.layers = bad
    network.layers[1] = "relu"
    for use in (lambda: network.fit(X, y), lambda: network.build((1, 8, 8))):
        with pytest.raises(TypeError, match=r"layers\[1\] is 'relu'"):
            use()


def test_what_only_another_training_can_take():
    """The images of before are too small for the windows of now."""
    network = fitted()
    network.layers[0].filter_shape, network.layers[0].padding_mode = 9, "valid"
    with pytest.raises(ValueError, match=r"layer 0 \(Conv\)"):
        network.predict(X)
    large = rng.normal(size=(6, 1, 18, 18)).astype(np.float32)
    assert network.fit(large, np.arange(6) % 3, 0.01, 1).predict(large).shape == (6,)


def test_no_parameters_yet():
    for layer in (Conv(2, 3), Linear(2)):
        with pytest.raises(
            ValueError, match="has no parameters yet, expected a call of fit or build"
        ):
            layer.params()
    with pytest.raises(ValueError, match="not fitted yet, expected a call of fit or build"):
        NeuralNetwork([Linear(2), GlobalAveragePool(), LogRegression()]).params()
