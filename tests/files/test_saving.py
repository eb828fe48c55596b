"""Saved networks: the same bits come back, and nothing else is accepted."""

import json
import os
import re
import struct
import sys

import numpy as np
import pytest
from saved_files import LABELS, fitted, refused

from nnet import (
    BatchNorm,
    Conv,
    Flatten,
    GlobalAveragePool,
    Layer,
    Linear,
    LogRegression,
    MeanSquaredError,
    NeuralNetwork,
    Parallel,
    Residual,
    SeparableConv,
    Sequential,
)
from nnet.files import saving
from nnet.layers.tree import frozen_in, numbered, walk

safetensors = pytest.importorskip("safetensors")


@pytest.mark.parametrize("kind", LABELS)
def test_the_same_bits_come_back(kind, path, dtype):
    network, X = fitted(LABELS[kind], dtype)
    network.save(path)
    loaded = NeuralNetwork.load(path)
    assert np.array_equal(loaded.predict_proba(X), network.predict_proba(X))
    assert np.array_equal(loaded.predict(X), network.predict(X))
    assert loaded.predict(X).dtype == network.predict(X).dtype
    assert loaded.dtype_ == dtype
    assert [layer.config() for layer in loaded.layers] == [
        layer.config() for layer in network.layers
    ]
    assert loaded.loss_history_ == []


@pytest.mark.parametrize("shape", [(), (1,), (3,)])
def test_regression(shape, path):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(10, 2, 8)), rng.normal(size=(10, *shape))
    layers = [Conv(3, (1, 3)), GlobalAveragePool(), Linear(max([1, *shape])), MeanSquaredError()]
    network = NeuralNetwork(layers, rng=0).fit(X, y, 0.01, 1)
    network.save(str(path))
    loaded = NeuralNetwork.load(str(path))
    assert np.array_equal(loaded.predict(X), network.predict(X))
    assert loaded.predict(X).shape == y.shape
    assert loaded.classes_ is None


def test_a_loaded_network_is_whole(saved):
    network, X = fitted()
    loaded = NeuralNetwork.load(saved)
    y = network.predict(X)
    assert loaded.error(X, y) == 0
    assert len(loaded.check_gradients(X[:2], y[:2])) == 5
    loaded.fit(X, np.arange(12) % 3, 0.01, max_iter=1)
    assert loaded.predict(X).max() <= 2
    loaded.save(saved)  # replaces the file it came from
    assert np.array_equal(NeuralNetwork.load(saved).predict_proba(X), loaded.predict_proba(X))


def saved_layers(path):
    with safetensors.safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["nnet"])["network"]["layers"]


def trainables(network):
    return {name: layer.trainable for name, layer in walk(numbered(network.layers))}


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["0"],
        ["1"],
        ["1.0.1"],
        ["1.shortcut"],
        ["1.shortcut.0"],
        ["2.0"],
        ["2.1", "3.depthwise"],
        ["3", "4"],
        ["5"],
    ],
    ids=str,
)
def test_frozen_layers_stay_frozen(names, path):
    layers = [
        Conv(2, 3),
        Residual([Sequential([Conv(2, 1), BatchNorm()])], shortcut=[Conv(2, 1)]),
        Parallel([[Conv(1, 1), BatchNorm()], BatchNorm()], mode="concat"),
        SeparableConv(2, 3),
        BatchNorm(),
        GlobalAveragePool(),
        Linear(3),
        LogRegression(),
    ]
    X, y = np.random.default_rng(0).normal(size=(8, 1, 4, 4)), np.arange(8) % 3
    network = NeuralNetwork(layers, rng=0).fit(X, y, max_iter=1)
    network.save(path)
    plain = saved_layers(path)
    network.freeze(names)
    network.save(path)
    assert (saved_layers(path) == plain) == (not names)
    loaded = NeuralNetwork.load(path)
    assert trainables(loaded) == trainables(network)
    before = loaded.state_dict()
    loaded.fit(X, y, max_iter=1, warm_start=True)
    frozen = frozen_in(numbered(loaded.layers))
    fixed = [name for name, layer in walk(numbered(loaded.layers)) if id(layer) in frozen]
    for name, array in loaded.state_dict().items():
        is_fixed = name.rpartition(".")[0] in fixed
        assert not is_fixed or np.array_equal(array, before[name]), name
    loaded.save(path)
    assert trainables(NeuralNetwork.load(path)) == trainables(network)


def test_one_row_alone_is_frozen(path):
    """Not the layers in it, which `freeze` would freeze too."""
    residual = Residual([Conv(1, 1)], shortcut=[Conv(1, 1)])
    residual.children["shortcut"].trainable = False
    network = NeuralNetwork([residual, Flatten(), Linear(3), LogRegression()])
    network.build((1, 4, 4), 3).save(path)
    assert trainables(NeuralNetwork.load(path)) == trainables(network)


def test_numpy_scalars_as_options(path):
    X, y = np.zeros((4, 1, 5, 5)), np.arange(4) % 2
    layers = [
        Conv(np.int64(2), np.array([3, 3]), padding_mode=np.int64(1), weight_scale=np.float32(0.5)),
        Flatten(),
        Linear(np.int32(2), use_bias=np.bool_(True)),
        LogRegression(),
    ]
    network = NeuralNetwork(layers).fit(X, y, max_iter=1)
    network.save(path)
    assert np.array_equal(NeuralNetwork.load(path).predict_proba(X), network.predict_proba(X))


def test_the_file_holds_no_activations(saved):
    network, X = fitted()
    assert saved.stat().st_size < 4000 + 2 * sum(param.nbytes for param in network.params())


# --- writing ------------------------------------------------------------------------


def test_not_fitted(path):
    with pytest.raises(ValueError, match="not fitted yet"):
        NeuralNetwork([Linear(2), LogRegression()]).save(path)
    assert not path.exists()


class Linear2(Linear):
    pass


def test_own_layers_are_refused(path):
    X, y = np.eye(4), np.arange(4) % 2
    Linear2.__name__ = "Linear"  # a name alone does not make it nnet's
    network = NeuralNetwork([Linear2(2), LogRegression()]).fit(X, y, max_iter=1)
    with pytest.raises(ValueError, match="layer 0 is a Linear of yours, expected a name"):
        network.save(path)
    assert not path.exists()


def test_a_failing_save_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        fitted(dtype=np.float64)[0].save(saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_a_link_stays_a_link(saved, tmp_path):
    link = tmp_path / "link.safetensors"
    link.symlink_to(saved)
    fitted(dtype=np.float64)[0].save(link)
    assert link.is_symlink()
    assert NeuralNetwork.load(saved).dtype_ == np.float64


def test_missing_files_and_packages(path, saved, monkeypatch):
    with pytest.raises(FileNotFoundError):
        NeuralNetwork.load(path.parent / "nothing.safetensors")
    with pytest.raises(FileNotFoundError):
        fitted()[0].save(path.parent / "no folder" / "model.safetensors")
    with pytest.raises(OSError):
        NeuralNetwork.load(path.parent)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for use in (lambda: fitted()[0].save(path), lambda: NeuralNetwork.load(path)):
        with pytest.raises(ImportError, match="pip install safetensors"):
            use()


# --- files that are not whole ---------------------------------------------------------


def test_truncated_files(saved):
    data = saved.read_bytes()
    for length in [*range(0, 40, 3), len(data) // 3, len(data) // 2, len(data) - 1]:
        saved.write_bytes(data[:length])
        refused(saved, "not a whole safetensors file")


def test_longer_files(saved):
    saved.write_bytes(saved.read_bytes() + b"\0")
    refused(saved, "not a whole safetensors file")


def test_any_changed_byte_is_found(saved):
    data = saved.read_bytes()
    (header,) = struct.unpack("<Q", data[:8])
    text = data[8 : 8 + header].rstrip()  # blanks after the header mean nothing
    positions = np.random.default_rng(0).permutation(len(text))[:100] + 8
    positions = [*positions, *range(8 + header, len(data), 97), len(data) - 1]
    for position in positions:
        changed = bytearray(data)
        changed[position] ^= 1
        saved.write_bytes(changed)
        refused(saved)


def test_foreign_files(path):
    import safetensors.numpy

    path.write_bytes(b"PK\3\4 certainly a zip file")
    refused(path, "not a whole safetensors file")
    safetensors.numpy.save_file({"W": np.zeros(3)}, path)
    refused(path, "a safetensors file, but nnet did not save it")
    with pytest.raises(ValueError, match="no checkpoint of a training"):
        fitted()[0].fit(np.eye(4), [0, 1, 0, 1], resume=path)
    safetensors.numpy.save_file({"W": np.zeros(3)}, path, {"nnet": "hello"})
    refused(path, "damaged or was changed")
    safetensors.numpy.save_file({"W": np.zeros(3)}, path, {"nnet": "[" * 100_000})
    refused(path, "damaged or was changed")


# --- paths and labels --------------------------------------------------------------------


def test_paths_of_every_kind(tmp_path):
    network, X = fitted()
    text = str(tmp_path / "ä.safetensors")
    for path in (tmp_path / "a", text, os.fsencode(text)):
        network.save(path)
        assert np.array_equal(NeuralNetwork.load(path).predict(X), network.predict(X))


@pytest.mark.parametrize("path", [None, 3, 1.5, ["model"], True, "", "a\0b", b"a\0b"])
def test_what_is_no_path(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network, _ = fitted()
    kind, expected = TypeError, "a string or a path"
    if isinstance(path, (str, bytes)):
        kind, expected = ValueError, "the name of a file"
    for use in (network.save, NeuralNetwork.load):
        with pytest.raises(kind, match=f"^path is {re.escape(repr(path))}, expected {expected}$"):
            use(path)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("values, message", [([7, -5, 9], "not sorted"), ([7, 7, 9], "not sorted")])
def test_labels_that_were_changed_are_not_saved(saved, values, message):
    network, _ = fitted()
    before = saved.read_bytes()
    network._model.classes[:] = values
    with pytest.raises(ValueError, match=message):
        network.save(saved)
    assert saved.read_bytes() == before


def test_an_array_that_was_reshaped_in_place_is_not_saved(saved):
    network, _ = fitted()
    before, W = saved.read_bytes(), network.layers[7].W
    W.resize(W.shape[::-1], refcheck=False)
    with pytest.raises(ValueError, match=r"^layer 7 \(Linear\)\.W has shape \(3, "):
        network.save(saved)
    assert saved.read_bytes() == before


def test_other_formats_are_refused(saved):
    import safetensors.numpy

    content = {"format": 2, "sha256": "", "network": {}}
    saved.write_bytes(safetensors.numpy.save({}, {"nnet": json.dumps(content)}))
    refused(saved, "its format is 2, this version reads 1")


def test_every_layer_can_be_saved():
    classes = {cls for cls in vars(saving.nnet.layers).values() if isinstance(cls, type)}
    own = {cls.__name__ for cls in classes if issubclass(cls, Layer) and cls is not Layer}
    assert set(saving.LAYERS) == own


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="no device to name")
def test_a_device_is_not_replaced_by_a_file(tmp_path):
    """An administrator might."""
    network = NeuralNetwork([Linear(2), LogRegression()], rng=0).fit(np.eye(4), [0, 1, 0, 1])
    for path in (os.devnull, tmp_path):
        with pytest.raises(ValueError, match="is not a regular file"):
            network.save(path)
    assert not os.path.isfile(os.devnull)
