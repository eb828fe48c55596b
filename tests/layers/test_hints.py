"""What other libraries call otherwise is refused with what to type."""

import inspect
import pickle
import re
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
        (lambda: nnet.LogRegression(weight=[1, 2]), "'weight', expected class_weight of fit"),
        (lambda: nnet.BinaryCrossEntropy(from_logits=True), "it always takes scores"),
        (lambda: nnet.EarlyStopping(verbose=1), r"none: fit\(..., verbose=True\) says so"),
        (lambda: nnet.BatchNorm(affine=False), "none: it always has gamma and beta"),
        (lambda: nnet.Upsample(2, align_corners=False), "none: .* with align_corners=False"),
        (lambda: nnet.Activation(activation="relu"), "'activation', expected type"),
        (lambda: nnet.Activation("leaky_relu", negative_slope=0.2), "none: it is 0.01"),
        (lambda: nnet.Compose(transforms=[]), "'transforms', expected augmentations"),
        (lambda: nnet.Rotate(angle=3), "'angle', expected degrees"),
        (lambda: nnet.Flip(probability=1), "'probability', expected p"),
        (lambda: network().freeze(layer=1), r"one of \('layers',\)"),
        (lambda: network().freeze(), r"^freeze lacks layers, expected freeze\(layers\)$"),
        (lambda: nnet.Conv(), r"^Conv lacks n_feats, filter_shape, expected Conv\(n_feats, f"),
        (lambda: nnet.Conv(filter_shape=3), "^Conv lacks n_feats, expected"),
        (lambda: nnet.Conv(3), "^Conv lacks filter_shape, expected"),
        (lambda: network().fit(y=1), "^fit lacks X, expected"),
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


FOUND = "it finds the number of channels itself"


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: nnet.BatchNorm(16),
            f"got BatchNorm(16), expected BatchNorm(momentum=, eps=): {FOUND}",
        ),
        (
            lambda: nnet.GroupNorm(2, 16),
            f"got GroupNorm(2, 16), expected GroupNorm(n_groups, eps=): {FOUND}",
        ),
        (
            lambda: nnet.Dropout(0.5, True),
            "got Dropout(0.5, True), expected Dropout(rate, channels=)",
        ),
        (
            lambda: nnet.Linear(64, 10),
            "got Linear(64, 10), expected Linear(n_out, weight_scale=, weight_decay=, use_bias=): "
            "it finds the number of inputs itself",
        ),
        (lambda: nnet.Conv(3, 16, 3, 1), "expected Conv(n_feats, filter_shape, strides, weight_"),
        (
            lambda: nnet.ConvTranspose(3, 16, 3, 1),
            f"use_bias=, weight_scale=, weight_decay=): {FOUND}",
        ),
        (
            lambda: nnet.DepthwiseConv(3, 1, "same"),
            "DepthwiseConv(filter_shape, strides, padding_mode=,",
        ),
        (
            lambda: nnet.SeparableConv(8, 3, 1, "same"),
            "SeparableConv(n_feats, filter_shape, strides, p",
        ),
        (
            lambda: nnet.Pad(1, 1, 1, 1),
            "got Pad(1, 1, 1, 1), expected Pad(pads, border_mode, value)",
        ),
        (
            lambda: nnet.Compose(nnet.Flip(), 3),
            ", 3), expected Compose(augmentations): one list of them",
        ),
        (
            lambda: network().freeze(0, 1),
            "got freeze(0, 1), expected freeze(layers): one list of them, such as network.layers[",
        ),
        (lambda: network().unfreeze(0, 1), "got unfreeze(0, 1), expected unfreeze(layers): one"),
        (lambda: nnet.Activation("leaky_relu", 0.2), "Activation(type): no function has an option"),
        (
            lambda: nnet.Shift(2, 2),
            "got Shift(2, 2), expected Shift(pixels, fill=): Shift((2, 3)) is by at most 2 up",
        ),
        (
            lambda: nnet.Crop(28, 4),
            "got Crop(28, 4), expected Crop(padding, fill=): images keep their size",
        ),
        (lambda: nnet.Rotate(-5, 5), "expected Rotate(degrees, fill=): Rotate((-10, 10)) is from"),
        (lambda: nnet.Zoom(0.9, 1.1), "expected Zoom(scale, fill=): Zoom((0.9, 1.1)) is from one"),
        (lambda: nnet.CutOut(8, 8), "expected CutOut(size, fill=): CutOut((2, 3)) is 2 high"),
        (
            lambda: nnet.Brightness(0.8, 1.2),
            "got Brightness(0.8, 1.2), expected Brightness(factor, delta=): Brightness(0.2) is by",
        ),
        (
            lambda: nnet.AdamW(1e-3, 0.01),
            "got AdamW(0.001, 0.01), expected AdamW(learning_rate, beta1=, beta2=, eps=, weight_",
        ),
        (
            lambda: zoo.lenet5(10, "relu", 1),
            "got lenet5(10, 'relu', 1), expected lenet5(n_classes, act",
        ),
    ],
)
def test_too_many_by_position(call, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    "given, meant",
    [
        ("ReLU", "relu"),
        ("LeakyReLU", "leaky_relu"),
        ("Swish", "silu"),
        ("hardswish", "hard_swish"),
        ("Hard-Sigmoid", "hard_sigmoid"),
    ],
)
def test_words_of_others(given, meant):
    with pytest.raises(ValueError, match=rf"type is .*: did you mean '{meant}'\?$"):
        nnet.Activation(given)
    with pytest.raises(ValueError, match="'softmax'\\)$"):
        nnet.Activation("mish")


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
