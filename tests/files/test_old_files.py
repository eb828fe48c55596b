"""Files of 0.1.0 load for ever, and predict what they predicted then.

`files_of_0_1_0.json` was written by 0.1.0: a classifier with all its layers, and a regression
on signals, whose windows had a height then, as had a padding that was given as one number.
"""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from nnet import NeuralNetwork
from nnet.files.tensors import digest

safetensors = pytest.importorskip("safetensors")

OLD = json.loads(Path(__file__).with_name("files_of_0_1_0.json").read_text(encoding="utf-8"))


def ramp(shape, dtype):
    """The images that 0.1.0 saw: it does not take any library to make them again."""
    numbers = np.arange(np.prod(shape)).reshape(shape)
    return (numbers * 37 % 101 / 50 - 1).astype(dtype)


IMAGES, SIGNALS = ramp((12, 2, 6, 7), np.float32), ramp((6, 2, 9), np.float64)


@pytest.fixture
def old_file(tmp_path):
    def make(name):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(base64.b64decode("".join(OLD[name]["file"])))
        return path

    return make


def check_classifier(network):
    probs = OLD["classifier"]["predictions"]
    np.testing.assert_allclose(network.predict_proba(IMAGES)[: len(probs)], probs, rtol=2e-6)
    assert network.predict(IMAGES).tolist() == OLD["classifier"]["labels"]


def check_regression(network):
    np.testing.assert_allclose(
        network.predict(SIGNALS), OLD["regression"]["predictions"], rtol=1e-12
    )


CHECKS = {"classifier": check_classifier, "regression": check_regression}


def test_the_classifier(old_file):
    network = NeuralNetwork.load(old_file("classifier"))
    check_classifier(network)
    assert network.classes_.tolist() == ["left", "right", "über"]
    assert network.dtype_ == np.float32
    with safetensors.safe_open(old_file("classifier"), framework="numpy") as file:
        saved = json.loads(file.metadata()["nnet"])["network"]["layers"]
    assert [type(layer).__name__ for layer in network.layers] == [one["class"] for one in saved]
    for layer, one in zip(network.layers, saved):
        config = json.loads(json.dumps(layer.config()))
        assert {key: config[key] for key in one.keys() - {"class"}} == {
            key: value for key, value in one.items() if key != "class"
        }


def test_signals_had_a_height(old_file):
    network = NeuralNetwork.load(old_file("regression"))
    check_regression(network)
    assert network.dtype_ == np.float64
    values = OLD["regression"]["predictions"]
    errors = network.check_gradients(SIGNALS, values, max_checks=5)
    assert max(error.abs_error for error in errors) < 1e-6
    with pytest.raises(ValueError, match=r"the windows of layer 2 \(Conv\) are 3 high"):
        network.fit(SIGNALS, values)  # a new training takes signals for what they are now
    check_regression(network)
    network.layers[1].type = "relu"
    assert network.predict(SIGNALS).shape == (6, 2)
    network.layers[1].type = "tanh"
    check_regression(network)


@pytest.mark.parametrize("name", CHECKS)
def test_they_can_be_saved_again(name, old_file, tmp_path):
    NeuralNetwork.load(old_file(name)).save(tmp_path / "again")
    CHECKS[name](NeuralNetwork.load(tmp_path / "again"))


@pytest.mark.parametrize("name", CHECKS)
def test_options_that_are_missing_have_their_defaults(name, old_file):
    """As a file of a version has none that came later."""
    path = old_file(name)
    defaults = {"strides": [1, 1], "dilation": [1, 1], "groups": 1, "border_mode": "zeros"}
    defaults |= {"use_bias": True, "weight_decay": 0.0, "count_include_pad": False}
    import safetensors.numpy

    with safetensors.safe_open(path, framework="numpy") as file:
        content = json.loads(file.metadata()["nnet"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    n_dropped = 0
    for layer in content["network"]["layers"]:
        for key, value in defaults.items():
            if layer.get(key) == value:
                del layer[key]
                n_dropped += 1
    assert n_dropped > 8
    content["sha256"] = digest(content["network"], tensors)
    path.write_bytes(safetensors.numpy.save(tensors, {"nnet": json.dumps(content)}))
    CHECKS[name](NeuralNetwork.load(path))
