"""Forged files: whole, with a right checksum, and yet refused before anything is made of them."""

import json

import numpy as np
import pytest
from saved_files import refused

from nnet import (
    Activation,
    Conv,
    Flatten,
    Linear,
    LogRegression,
    NeuralNetwork,
    Parallel,
    Pool,
    Residual,
    Sequential,
)
from nnet.files.tensors import digest
from nnet.layers.tree import MAX_DEPTH

pytest.importorskip("safetensors")


def forge(path, change):
    """Let a function change the description and the tensors of a saved network."""
    import safetensors
    import safetensors.numpy

    with safetensors.safe_open(path, framework="numpy") as file:
        content = json.loads(file.metadata()["nnet"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(content["network"], tensors)
    content["sha256"] = digest(content["network"], tensors)
    metadata = {"nnet": json.dumps(content)}
    path.write_bytes(safetensors.numpy.save(tensors, metadata))


def set_layer(i, **changes):
    return lambda network, tensors: network["layers"][i].update(changes)


def set_key(**changes):
    return lambda network, tensors: network.update(changes)


def drop(*keys):
    def change(value, tensors):
        for key in keys[:-1]:
            value = value[key]
        del value[keys[-1]]

    return change


def set_tensor(name, array):
    return lambda network, tensors: tensors.update({name: array})


FORGERIES = {
    "no layers": (drop("layers"), "no 'layers'"),
    "empty layers": (set_key(layers=[]), "no layer has parameters"),
    "no loss": (lambda network, tensors: network["layers"].pop(), "expected the last layer"),
    "layers of another type": (set_key(layers="Conv"), None),
    "unknown layer": (set_layer(1, **{"class": "system"}), "a layer of your own, 'system'"),
    "base class": (set_layer(1, **{"class": "Layer"}), "a layer of your own, 'Layer'"),
    "path as layer": (set_layer(1, **{"class": "os.system"}), "a layer 'os.system'"),
    "list as layer": (set_layer(1, **{"class": ["Conv"]}), r"a layer \['Conv'\], expected one of"),
    "unknown option": (set_layer(1, evil=1), "evil"),
    "bad option": (set_layer(1, n_feats=-1), "n_feats is -1"),
    "float option": (set_layer(1, n_feats=4.0), "n_feats is 4.0"),
    "huge option": (set_layer(1, n_feats=10**18), "its tensor 1.W"),
    "huge filter": (set_layer(1, filter_shape=[10**30, 1]), "filter_shape is"),
    "huge number": (set_layer(1, weight_scale=10**400), None),
    "huge padding": (set_layer(1, padding_mode=2**31 - 2), None),
    "huge Linear": (set_layer(7, n_out=10**15), None),
    "huge image": (set_key(input_shape=[2, 10**9, 10**9]), "its tensor 7.W"),
    "negative image": (set_key(input_shape=[2, -6, 7]), "a length is -6"),
    "too many axes": (set_key(input_shape=[2, 6, 7, 1]), "a shape"),
    "target shape": (set_key(target_shape=[3]), r"expected one label per image: \(n_imgs,\)"),
    "other loss": (
        lambda network, tensors: network["layers"].__setitem__(8, {"class": "MeanSquaredError"}),
        r"layer 8 \(MeanSquaredError\) does not fit y, expected a loss for labels",
    ),
    "dtype": (set_key(dtype="float64"), "its tensor .* expected float64"),
    "object dtype": (set_key(dtype="object"), "its dtype is 'object'"),
    "no classes": (set_key(classes=None), None),
    "too few classes": (set_key(classes={"dtype": "int64", "values": [1]}), "fewer than 2"),
    "other classes": (
        set_key(classes={"dtype": "int64", "values": [1, 2]}),
        r"gets \(3,\) values for each image, expected \(2,\) for the 2 classes",
    ),
    "unsorted": (set_key(classes={"dtype": "int64", "values": [1, 3, 2]}), "not sorted"),
    "mixed classes": (
        set_key(classes={"dtype": "int64", "values": [1, "a", 3]}),
        "not a list of 'int64'",
    ),
    "class objects": (
        set_key(classes={"dtype": "object", "values": [1, 2, 3]}),
        "not a list of 'object'",
    ),
    "wide classes": (
        set_key(classes={"dtype": "U99999999999", "values": list("abc")}),
        "not a list of",
    ),
    "too large class": (set_key(classes={"dtype": "uint8", "values": [1, 2, 300]}), None),
    "missing tensor": (lambda network, tensors: tensors.pop("1.b"), "its tensors are"),
    "extra tensor": (set_tensor("9.W", np.zeros(3)), "its tensors are"),
    "tensor shape": (set_tensor("1.b", np.zeros(5, np.float32)), r"its tensor 1.b is .*\(5,\)"),
    "tensor dtype": (set_tensor("1.b", np.zeros(4, np.float16)), "its tensor 1.b is .*F16"),
    "integer tensor": (set_tensor("1.b", np.zeros(4, np.int32)), "its tensor 1.b is .*I32"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_files(name, saved):
    forge(saved, lambda network, tensors: None)
    NeuralNetwork.load(saved)  # it is the change that is refused
    change, message = FORGERIES[name]
    forge(saved, change)
    refused(saved, message)


# --- forged files of layers in layers --------------------------------------------------


def fitted_containers():
    layers = [
        Conv(4, 3),
        Sequential([Activation("relu"), Residual([Conv(4, 3)], [Conv(4, 1)])]),
        Parallel([[Pool(2, 2)], Conv(4, 2, 2, padding_mode="valid")], "concat"),
        Flatten(),
        Linear(3),
        LogRegression(),
    ]
    X = np.random.default_rng(0).normal(size=(12, 2, 6, 7)).astype(np.float32)
    return NeuralNetwork(layers, rng=0).fit(X, np.arange(12) % 3, 0.01, 1), X


@pytest.fixture
def saved_containers(path):
    fitted_containers()[0].save(path)
    return path


RELU = {"class": "Activation", "type": "relu"}


def nested(depth, kind="Sequential"):
    config = RELU
    for _ in range(depth - 1):
        key, value = ("branches", [config]) if kind == "Parallel" else ("layers", [config])
        config = {"class": kind, key: value}
    return config


def set_path(*keys_and_value):
    *keys, last, new = keys_and_value

    def change(value, tensors):
        for key in keys:
            value = value[key]
        value[last] = new

    return change


NOT_OPTIONS = {
    "layer": {"class": "Linear", "n_out": 3},
    "list of a layer": [RELU],
    "empty object": {},
    "object": {"a": 1},
    "empty list": [],
    "lists": [[[]]],
    "null": None,
    "long tuple": [1, 2, 3, 4],
    "fraction": 1.5,
    "negative": -1,
    "huge": 10**400,
    "text": "relu\nrelu",
}
OPTIONS = {
    "n_feats": ("layers", 0, "n_feats"),
    "filter_shape": ("layers", 0, "filter_shape"),
    "strides": ("layers", 0, "strides"),
    "padding_mode": ("layers", 0, "padding_mode"),
    "border_mode": ("layers", 0, "border_mode"),
    "groups": ("layers", 0, "groups"),
    "use_bias": ("layers", 0, "use_bias"),
    "nested n_feats": ("layers", 1, "layers", 1, "layers", 0, "n_feats"),
    "layer": ("layers", 1),
    "layers": ("layers", 1, "layers"),
    "layer inside": ("layers", 1, "layers", 0),
    "shortcut": ("layers", 1, "layers", 1, "shortcut"),
    "branches": ("layers", 2, "branches"),
    "branch": ("layers", 2, "branches", 0),
    "mode": ("layers", 2, "mode"),
    "class": ("layers", 1, "layers", 0, "class"),
    "trainable": ("layers", 1, "trainable"),
    "trainable inside": ("layers", 1, "layers", 0, "trainable"),
    "all layers": ("layers",),
    "signals": ("signals",),
    "input_shape": ("input_shape",),
    "dtype": ("dtype",),
    "classes": ("classes",),
    "values of classes": ("classes", "values"),
    "dtype of classes": ("classes", "dtype"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_another_kind_are_refused(name, saved_containers):
    data = saved_containers.read_bytes()
    for value in NOT_OPTIONS.values():
        saved_containers.write_bytes(data)
        forge(saved_containers, set_path(*OPTIONS[name], value))
        refused(saved_containers, "damaged or was changed")


CONTAINER_FORGERIES = {
    "loss inside": (
        set_path("layers", 1, "layers", [{"class": "LogRegression"}]),
        "a loss to be the last",
    ),
    "loss as branch": (
        set_path("layers", 2, "branches", 0, {"class": "MeanSquaredError"}),
        "a loss to be the last",
    ),
    "loss as shortcut": (
        set_path("layers", 1, "layers", 1, "shortcut", [{"class": "MeanSquaredError"}]),
        "a loss to be the last",
    ),
    "unknown inside": (
        set_path("layers", 1, "layers", [{"class": "os.system"}]),
        "a layer 'os.system'",
    ),
    "abstract inside": (
        set_path("layers", 1, "layers", [{"class": "Container"}]),
        "a layer of your own, 'Container'",
    ),
    "no class inside": (set_path("layers", 1, "layers", [{"type": "relu"}]), "no 'class'"),
    "private option": (set_path("layers", 0, "_owner", 1), "no argument '_owner'"),
    "option of Python": (set_path("layers", 0, "self", 1), "no argument 'self'"),
    "option of two lines": (set_path("layers", 0, "a\nb", 1), r"no argument 'a\\nb'"),
    "long option": (set_path("layers", 0, "a" * 10**6, 1), r"'a{300,}\.\.\.$"),
    "huge inside": (
        set_path("layers", 1, "layers", 1, "layers", 0, "n_feats", 10**15),
        r"layer 1\.1 \(Residual\) adds",
    ),
    "huge window": (
        set_path("layers", 2, "branches", 0, 0, "pool_shape", [2**31 - 1] * 2),
        r"layer 2\.0\.0 \(Pool\) cannot take",
    ),
    "text as trainable": (set_path("layers", 0, "trainable", "no"), "trainable 'no', expected tr"),
    "unknown frozen": (
        set_path("layers", 1, "layers", 1, "frozen", ["shortcut", "x"]),
        r"frozen \['shortcut', 'x'\], expected some of \('0', 'shortcut'\)",
    ),
    "frozen text": (set_path("layers", 1, "layers", 1, "frozen", "shortcut"), "frozen 'shortcut'"),
    "frozen lists": (set_path("layers", 1, "frozen", [[]]), r"frozen \[\[\]\]"),
    "missing option": (drop("layers", 0, "n_feats"), "n_feats"),
    "missing layers": (drop("layers", 1, "layers", 1, "layers"), "layers"),
    "missing branches": (drop("layers", 2, "branches"), "branches"),
    "missing shortcut": (drop("layers", 1, "layers", 1, "shortcut"), "its tensors are"),
    "signals of images": (set_key(signals=True), "expected signals to have 2 axes"),
    "no parameters": (
        set_key(layers=[{"class": "Flatten"}, {"class": "LogRegression"}]),
        "no layer has parameters",
    ),
    "many layers": (set_path("layers", 1, "layers", [RELU] * 20_000), "its tensors are"),
    "long labels": (
        set_key(
            classes={"dtype": "str", "values": ["a" * 10**6, *map(str, range(10**5, 2 * 10**5))]}
        ),
        "its classes take more than",
    ),
}


@pytest.mark.parametrize("name", CONTAINER_FORGERIES)
def test_forged_containers(name, saved_containers):
    change, message = CONTAINER_FORGERIES[name]
    forge(saved_containers, change)
    refused(saved_containers, message)


def test_missing_options_have_their_defaults(path):
    network, X = fitted_containers()
    network.layers[2].mode = "concat"
    network.save(path)
    for keys in (("strides",), ("use_bias",), ("weight_scale",), ("dilation",), ("groups",)):
        forge(path, drop("layers", 0, *keys))
        forge(path, drop("layers", 1, "layers", 1, "layers", 0, *keys))
    forge(path, drop("signals"))
    assert np.array_equal(NeuralNetwork.load(path).predict_proba(X), network.predict_proba(X))


@pytest.mark.parametrize("kind", ["Sequential", "Residual", "Parallel"])
def test_deep_files(kind, saved_containers):
    """They are refused before anything that calls itself reads them."""
    data = saved_containers.read_bytes()
    for depth in (MAX_DEPTH, 150, 200, 300):  # inside of layer 1
        saved_containers.write_bytes(data)
        forge(saved_containers, set_path("layers", 1, "layers", 0, nested(depth, kind)))
        refused(saved_containers, "is 101 levels deep, expected at most 100|is nested too deep")


def test_deep_options(saved_containers):
    lists = []
    for _ in range(300):
        lists = [lists]
    forge(saved_containers, set_path("layers", 0, "padding_mode", lists))
    refused(saved_containers, "is nested too deep, expected layers of at most 100 levels")


def test_a_number_allocates_nothing(saved_containers):
    import tracemalloc

    tracemalloc.start()
    try:
        for keys in (("n_feats",), ("filter_shape",), ("padding_mode",), ("strides",)):
            for number in (10**6, 2**31 - 2, 10**12):
                fitted_containers()[0].save(saved_containers)
                forge(saved_containers, set_path("layers", 0, *keys, number))
                refused(saved_containers)
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()
