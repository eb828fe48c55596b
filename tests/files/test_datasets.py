"""Digits, .npz files and the split: what comes in is whole, or is refused."""

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from nnet.files.datasets import damage_named, load_arrays, load_digits, split


def test_digits():
    X, y = load_digits()
    assert X.shape == (1797, 8, 8) and X.min() == 0 and X.max() == 16
    assert y.shape == (1797,) and set(y) == set(range(10))


def test_split_is_scikit_learns():
    X, y = load_digits()
    expected = train_test_split(X, y, test_size=0.2, stratify=y, random_state=0)
    for part, other in zip(split(X, y, 0.2), expected, strict=True):
        assert np.array_equal(part, other)
    assert len(split(X, y, 0.2)[1]) == 360


def test_split_refuses_classes_of_one_image():
    with pytest.raises(ValueError, match="cannot hold out 0.2 of the images: "):
        split(np.ones((5, 1)), np.arange(5), 0.2)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_arrays_come_back_in_the_order_asked_for(tmp_path, write):
    write(tmp_path / "a.npz", y=np.array(["a", "b"]), X=np.arange(6.0).reshape(2, 3), z=3)
    X, y = load_arrays(tmp_path / "a.npz", "X", "y")
    assert np.array_equal(X, np.arange(6.0).reshape(2, 3)) and y.tolist() == ["a", "b"]


def test_members_that_are_no_arrays_are_refused(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("X.npy", b"no array")
    with pytest.raises(ValueError, match="a.npz is damaged"):
        load_arrays(tmp_path / "a.npz", "X")


def test_pickles_are_never_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path / "sprung").touch, ()

    np.savez(tmp_path / "a.npz", X=np.array([Trap()], object))
    with pytest.raises(ValueError, match="a.npz holds Python objects"):
        load_arrays(tmp_path / "a.npz", "X")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_damaged_files_are_whole_or_refused(tmp_path, write):
    """Truncated anywhere, or with any byte changed: a ValueError, or the arrays as they were."""
    X, y = np.arange(24.0).reshape(2, 3, 4), np.array([1, 2])
    write(tmp_path / "a.npz", X=X, y=y)
    whole = (tmp_path / "a.npz").read_bytes()
    rng = np.random.default_rng(5)
    damaged = [whole[:n] for n in range(0, len(whole), 7)]
    for _ in range(300):
        position = rng.integers(len(whole))
        changed = bytes([whole[position] ^ (1 << rng.integers(8))])
        damaged.append(whole[:position] + changed + whole[position + 1 :])
    n_refused = 0
    for contents in damaged:
        (tmp_path / "b.npz").write_bytes(contents)
        try:
            loaded = load_arrays(tmp_path / "b.npz", "X", "y")
        except ValueError as error:
            assert "b.npz" in str(error)
            n_refused += 1
        else:
            assert np.array_equal(loaded[0], X) and np.array_equal(loaded[1], y)
    assert n_refused > len(damaged) // 2


def test_errors_without_a_text_are_told_by_their_kind(tmp_path):
    with pytest.raises(ValueError, match="a.npy is damaged: EOFError$"), damage_named("a.npy"):
        raise EOFError


def test_arrays_that_are_too_large_name_the_file():
    with pytest.raises(MemoryError, match="^a.npy: Unable to allocate"), damage_named("a.npy"):
        raise MemoryError("Unable to allocate 93 TiB")
