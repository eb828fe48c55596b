"""How images were prepared stands in the file of a network; files without it are as before."""

import json

import pytest

import nnet
from nnet.files import tensors
from nnet.files.image_files import Preparation

safetensors = pytest.importorskip("safetensors")


def network(preparation=None):
    layers = [nnet.Flatten(), nnet.Linear(2), nnet.LogRegression()]
    network = nnet.NeuralNetwork(layers, rng=0).build((1, 4, 5))
    network.preparation = preparation
    return network


def test_it_comes_back(path):
    network(Preparation((4, 5), "L", crop=True)).save(path)
    assert nnet.NeuralNetwork.load(path).preparation == Preparation((4, 5), "L", crop=True)


def test_files_without_it_do_not_mention_it(path):
    network().save(path)
    assert b"preparation" not in path.read_bytes()
    assert nnet.NeuralNetwork.load(path).preparation is None


def test_one_that_does_not_fit_is_not_saved(path):
    with pytest.raises(ValueError, match=r"images of shape \(3, 4, 5\), expected \(1, 4, 5\)"):
        network(Preparation((4, 5), "RGB")).save(path)
    with pytest.raises(TypeError, match="preparation is 'L', expected None or a Preparation"):
        network("L").save(path)
    assert not path.exists()


@pytest.mark.parametrize(
    "changes",
    [{"size": [5, 4]}, {"size": "big"}, {"mode": "RGBA"}, {"filter": "lanczos"}, {"more": 1}],
)
def test_forged_ones_are_refused(path, changes):
    network(Preparation((4, 5), "L")).save(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        content = json.loads(file.metadata()["nnet"])
        arrays = {name: file.get_tensor(name) for name in list(file.keys())}
    description = content["network"]
    description["preparation"] |= changes
    tensors.write(path, "nnet", "network", description, arrays)
    with pytest.raises(ValueError, match="is damaged or was changed: "):
        nnet.NeuralNetwork.load(path)


def test_fit_takes_that_of_a_folder(tmp_path):
    pytest.importorskip("PIL")
    from pictures import colour_folder

    data = nnet.image_folder(colour_folder(tmp_path / "colours"), size=(4, 5), mode="L")
    mine = network()
    mine.layers[1] = nnet.Linear(3)
    mine.fit(data, max_iter=1)
    assert mine.preparation == data.preparation
