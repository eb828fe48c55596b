"""What other libraries call otherwise is refused with what to type."""

import inspect
import pickle
from contextlib import suppress
from importlib.util import find_spec

import pytest

import nnet
from nnet import zoo
from nnet.layers import hints


def network():
    return nnet.NeuralNetwork([nnet.Linear(2), nnet.LogRegression()])


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: nnet.Conv(8, kernel_size=3),
            "Conv has no argument 'kernel_size', .* filter_shape",
        ),
        (lambda: nnet.Conv(filters=8, filter_shape=3), "'filters', expected n_feats"),
        (lambda: nnet.Conv(8, 3, activation="relu"), r"Activation\(...\) as the next layer"),
        (lambda: nnet.Pool(kernel_size=2), "Pool has no argument 'kernel_size', .* pool_shape"),
        (lambda: nnet.Pool(2, stride=2), "'stride', expected strides"),
        (lambda: nnet.Linear(in_features=4, out_features=2), "takes them from its input"),
        (lambda: nnet.BatchNorm(epsilon=1e-3), "'epsilon', expected eps"),
        (lambda: nnet.Dropout(p=0.5), "'p', expected rate"),
        (lambda: nnet.SeparableConv(8, padding="same"), "'padding', expected padding_mode"),
        (lambda: zoo.lenet5(num_classes=5), "lenet5 has no argument .* expected n_classes"),
        (lambda: nnet.EarlyStopping(restore_best_weights=True), "expected restore_best"),
        (lambda: nnet.Checkpoint("file", save_best_only=True), r"expected EarlyStopping\(\)"),
        (lambda: nnet.CosineDecay(0.1, T_max=10), "CosineDecay has .* expected n_epochs"),
        (lambda: nnet.NeuralNetwork([], seed=0), "NeuralNetwork has .* expected rng"),
        (lambda: network().build((4,), num_classes=2), "build has .* expected n_outputs"),
        (lambda: network().fit(0, 0, epochs=2), "fit has no argument 'epochs', expected max_iter"),
        (lambda: network().fit(0, 0, scheduler=2), "expected learning_rate"),
        (lambda: network().fit(0, 0, loss="mse"), "expected a loss as the last layer"),
        (lambda: network().fit(0, 0, other=2), r"expected one of \('X', 'y', "),
        (lambda: network().partial_fit(0, 0, epochs=2), r"expected one call for each epoch"),
        (lambda: network().partial_fit(0, 0, max_iter=2), r"expected one call for each epoch"),
    ],
)
def test_arguments(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def parameters_of_everything():
    values = [getattr(nnet, name) for name in nnet.__all__]
    methods = [nnet.NeuralNetwork.fit, nnet.NeuralNetwork.build, *vars(zoo).values()]
    for value in [*values, *methods]:
        if callable(value) and getattr(value, "__module__", "").startswith("nnet"):
            with suppress(ValueError):  # the kernels have no signature
                yield from inspect.signature(value).parameters


def test_what_is_expected_exists():
    names = set(parameters_of_everything())
    missing = {name for others in hints.OTHER_NAMES.values() for name in others} - names
    assert not missing
    for expected in hints.OTHER_CLASSES.values():
        assert expected.partition("(")[0] in nnet.__all__
    for name in hints.OTHER_CLASSES:
        assert not hasattr(nnet, name)
    for name in hints.OTHER_METHODS:
        assert not hasattr(network(), name)


@pytest.mark.parametrize(
    "owner, name, message",
    [
        (network(), "evaluate", r"'evaluate', expected score\(X, y\)"),
        (network(), "other", "'NeuralNetwork' object has no attribute 'other'"),
        (network(), "classes_", "not fitted yet"),
        (nnet, "Conv2d", "no attribute 'Conv2d', expected Conv"),
        (nnet, "MaxPool2d", r"'MaxPool2d', expected Pool\(2, 2\)"),
    ],
)
def test_attributes(owner, name, message):
    with pytest.raises(AttributeError, match=message):
        getattr(owner, name)


def test_networks_are_pickled_as_before():
    assert pickle.loads(pickle.dumps(network())).layers[0].n_out == 2


def test_load_is_not_for_instances(tmp_path):
    with pytest.raises(AttributeError, match=r"expected network = NeuralNetwork.load\(path\)"):
        network().load(tmp_path / "file")


def test_the_module_shows_what_is_public():
    shown = {name for name in dir(nnet) if not name.startswith("__")}
    estimators = nnet.ESTIMATORS if find_spec("sklearn") else ()
    assert shown == {*nnet.__all__, *nnet.ROOMS, *estimators} - {"__version__"}


@pytest.mark.parametrize(
    "layer, expected",
    [
        ("relu", r"Activation\('relu'\)"),
        (nnet.Flatten, r"Flatten\(...\), not its class"),
        ([nnet.Flatten()], r"Sequential\(\[...\]\)"),
        (3, "a class of yours"),
    ],
)
def test_what_is_no_layer(layer, expected):
    with pytest.raises(TypeError, match=rf"layers\[0\] is .*, expected .*{expected}"):
        nnet.NeuralNetwork([layer, nnet.Linear(2), nnet.LogRegression()])
    with pytest.raises(TypeError, match=rf"layers\[0\] is .*, expected .*{expected}"):
        nnet.Sequential([layer])
