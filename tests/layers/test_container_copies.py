"""Copies, files and texts of Sequential, Residual and Parallel."""

import copy
import pickle

import numpy as np
import pytest
from networks import same, stripes
from structures import STRUCTURES, network_of

import nnet.layers
from nnet import (
    Activation,
    Conv,
    Flatten,
    Linear,
    LogRegression,
    NeuralNetwork,
    Parallel,
    Residual,
    Sequential,
)
from nnet.layers.tree import layers_in, numbered, walk

structures = pytest.mark.parametrize("name", STRUCTURES)


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
        assert repr(eval(repr(layer), dict(vars(nnet.layers)))) == repr(layer)
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


def test_copies_hold_what_the_layer_holds():
    layer = Sequential([Residual([Linear(3)], shortcut=[Linear(3)]), Parallel([[], Flatten()])])
    for twin in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(twin) == repr(layer)
        for ours, theirs in zip(layers_in({"": layer}), layers_in({"": twin}), strict=True):
            assert vars(ours).keys() == vars(theirs).keys()


class Knowing(Activation):
    """Knows the layer around it."""

    around: object = None


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))],
    ids=["deepcopy", "pickle"],
)
def test_a_layer_that_knows_the_one_around_it(copied):
    inner = Knowing("tanh")
    inner.around = Sequential([Flatten(), inner])
    for original in (Residual([inner.around]), inner.around):
        twin = copied(original)
        around = twin.layers[0] if isinstance(twin, Residual) else twin
        assert around.layers[1].around is around
        assert around is not inner.around


class Block(Sequential):
    def __init__(self):
        super().__init__([Linear(3), Activation("tanh")])


def test_a_failing_fit_leaves_the_attributes_of_own_containers():
    X, y = np.eye(4, dtype=np.float32), np.arange(4) % 2
    network = NeuralNetwork([Block(), Linear(2), LogRegression()], rng=0).fit(X, y, 0.01, 1)
    before = vars(network.layers[0]).keys() - {"_running"}
    with pytest.raises(ZeroDivisionError):
        network.fit(X, y, lambda epoch: 1 / 0)
    assert vars(network.layers[0]).keys() - {"_running"} == before
