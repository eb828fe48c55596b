"""Folders of images: their classes, their order, and batches that are read when they are needed."""

import shutil

import numpy as np
import pytest

import nnet
from nnet.files import image_files

pytest.importorskip("PIL")
from pictures import COLOURS, colour_folder


@pytest.fixture
def folder(tmp_path):
    return colour_folder(tmp_path / "colours")


def test_classes_are_the_sorted_names(folder):
    data = nnet.image_folder(folder)
    assert data.classes == sorted(COLOURS) == ["blue", "green", "red"]
    assert len(data.paths) == 24 and len(data) == 1
    assert data.labels.tolist() == ["blue"] * 8 + ["green"] * 8 + ["red"] * 8
    assert data.preparation.shape == (3, 12, 12)
    assert "24 images of 3 classes" in repr(data)


def test_ten_sorts_before_two_in_whatever_order_the_folder_lists(tmp_path, monkeypatch):
    for name in "2", "10", "1":
        colour_folder(tmp_path / "some", n=1) if name == "2" else None
        shutil.copytree(tmp_path / "some" / "red", tmp_path / "numbers" / name)
    listdir = image_files.os.listdir
    for order in sorted, lambda names: sorted(names, reverse=True):
        monkeypatch.setattr(image_files.os, "listdir", lambda path, o=order: o(listdir(path)))
        data = nnet.image_folder(tmp_path / "numbers")
        assert data.classes == ["1", "10", "2"]
        assert data.labels.tolist() == ["1", "10", "2"]


def test_hidden_and_loose_files_are_left_out(folder):
    (folder / ".git").mkdir()
    (folder / "README.txt").write_text("what this is")
    (folder / "red" / ".DS_Store").write_text("no image")
    assert len(nnet.image_folder(folder).paths) == 24


def test_an_empty_class_is_an_error(folder):
    (folder / "yellow").mkdir()
    (folder / "yellow" / ".keep").write_text("")
    with pytest.raises(ValueError, match="yellow has no images, expected some for each class"):
        nnet.image_folder(folder)


def test_folders_that_are_none(folder, tmp_path):
    with pytest.raises(ValueError, match="red has no folders in it, expected one for each class"):
        nnet.image_folder(folder / "red")
    with pytest.raises(ValueError, match="blue is a folder, expected nothing but images in .*ours"):
        nnet.image_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        nnet.image_folder(tmp_path / "missing")
    with pytest.raises(ValueError, match="shuffle is 'always', expected True, False or 'once'"):
        nnet.image_folder(folder, shuffle="always")


def test_arguments_of_others_are_told(folder):
    with pytest.raises(TypeError, match="image_folder has no argument 'image_size', expected size"):
        nnet.image_folder(folder, image_size=3)
    with pytest.raises(TypeError, match="load_images has no argument 'color_mode', expected mode"):
        nnet.load_images(folder / "red", color_mode="L")


def test_batches_have_all_images_once(folder):
    data = nnet.image_folder(folder, batch_size=7)
    X, y = data.load()
    assert X.shape == (24, 3, 12, 12) and y.tolist() == data.labels.tolist()
    epochs = [list(data) for _ in range(2)]
    for batches in epochs:
        assert [len(X) for X, _ in batches] == [7, 7, 7, 3] and len(data) == 4
        images = np.concatenate([X for X, _ in batches])
        labels = np.concatenate([y for _, y in batches])
        order = np.argsort(labels, kind="stable")
        assert labels[order].tolist() == y.tolist()
        assert sorted(image.tobytes() for image in images) == sorted(x.tobytes() for x in X)
    assert epochs[0][0][1].tolist() != epochs[1][0][1].tolist()


@pytest.mark.parametrize("shuffle", [False, "once"])
def test_orders_that_stay(folder, shuffle):
    data = nnet.image_folder(folder, batch_size=24, shuffle=shuffle)
    one, other = next(iter(data))[1].tolist(), next(iter(data))[1].tolist()
    assert one == other and (one == sorted(one)) == (shuffle is False)


def test_orders_follow_from_the_seed(folder):
    def orders(seed):
        data = nnet.image_folder(folder, seed=seed)
        return [y.tolist() for _ in range(3) for _, y in data]

    assert orders(1) == orders(1) != orders(2)


def test_parts(folder):
    part = nnet.image_folder(folder).part([0, 9, 23])
    assert part.classes == ["blue", "green", "red"]
    assert [path.rpartition("/")[2] for path in part.paths] == ["0.png", "1.png", "7.png"]
    whole = nnet.image_folder(folder)
    assert whole.part(whole.labels == "red").classes == ["red"]
    assert whole.part(slice(-1, None)).paths == whole.paths[-1:]
    assert whole.part([]).paths == []


def test_no_more_than_a_batch_is_read_at_once(folder, monkeypatch):
    read, lengths = image_files.Preparation.read, []

    def spy(self, paths):
        lengths.append(len(paths))
        return read(self, paths)

    data = nnet.image_folder(folder, batch_size=5)
    monkeypatch.setattr(image_files.Preparation, "read", spy)
    next(iter(data))
    assert lengths == [5]


def test_a_network_trains_on_a_folder(folder):
    layers = [nnet.Standardize(), nnet.Conv(4, 3), nnet.GlobalAveragePool(), nnet.Linear(3)]
    network = nnet.NeuralNetwork([*layers, nnet.LogRegression()], rng=0)
    data = nnet.image_folder(folder, size=8, batch_size=8)
    network.fit(data, learning_rate=0.05, max_iter=20)
    assert network.classes_.tolist() == ["blue", "green", "red"]
    assert network.score(*data.load()) == 1


def test_a_broken_file_is_named_before_training_starts(folder):
    whole = (folder / "red" / "3.png").read_bytes()
    (folder / "red" / "3.png").write_bytes(whole[:-40])
    layers = [nnet.Flatten(), nnet.Linear(3), nnet.LogRegression()]
    network = nnet.NeuralNetwork(layers, rng=0)
    told = []
    with pytest.raises(ValueError, match="3.png is not a whole image"):
        network.fit(nnet.image_folder(folder, batch_size=4), callback=told.append)
    assert not told and network.input_shape_ is None
