"""Files are replaced in one step, and what killed writers leave goes with the next one."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nnet
from nnet import Checkpoint, Linear, LogRegression, NeuralNetwork
from nnet.files import replacing
from nnet.files.replacing import replace

needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and locks")
FOLDER = Path(nnet.__file__).resolve().parents[1]
WRITER = """
import os, sys
from nnet.files.replacing import replace
def fsync(handle):
    print("writing", flush=True)
    sys.stdin.readline()
os.fsync = fsync
replace({!r}, b"theirs" * 1000)
"""


def writer(path):
    """A process that has begun to write a file, and waits for a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER.format(str(path))],
        cwd=FOLDER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "writing\n"
    return process


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@needs_posix
@pytest.mark.parametrize("name", ["file", "[1]*.x", ".hidden"])
def test_what_killed_writers_leave_goes_with_the_next_write(name, tmp_path):
    path = tmp_path / name
    for n_left in (1, 2):
        process = writer(path)
        process.kill()
        process.communicate()
        assert len(names(tmp_path)) == n_left and not path.exists()
    replace(path, b"mine")
    assert names(tmp_path) == [name] and path.read_bytes() == b"mine"


@needs_posix
def test_a_writer_that_lives_is_left_alone(tmp_path):
    path = tmp_path / "file"
    process = writer(path)
    replace(path, b"mine")
    assert path.read_bytes() == b"mine" and len(names(tmp_path)) == 2
    process.communicate("\n")
    assert process.returncode == 0
    assert path.read_bytes() == b"theirs" * 1000 and names(tmp_path) == ["file"]


@needs_posix
def test_a_file_that_is_gone_before_it_is_locked_is_begun_anew(tmp_path, monkeypatch):
    from nnet.files import replacing

    flock, path, taken = replacing.fcntl.flock, tmp_path / "file", []

    def taking(file, flags):
        if not taken:
            taken.append(file.name)
            os.remove(file.name)
        return flock(file, flags)

    monkeypatch.setattr(replacing.fcntl, "flock", taking)
    replace(path, b"mine")
    assert taken and path.read_bytes() == b"mine" and names(tmp_path) == ["file"]


@needs_posix
def test_without_locks_files_are_written_all_the_same(tmp_path, monkeypatch):
    from nnet.files import replacing

    def flock(file, flags):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(replacing.fcntl, "flock", flock)
    left = tmp_path / "file.01234567.partial"
    left.write_bytes(b"theirs")
    replace(tmp_path / "file", b"mine")
    assert names(tmp_path) == ["file", left.name]


def test_other_files_are_left_alone(tmp_path):
    others = ["file.partial", "file.model.partial", "file.0123456.partial", "x.01234567.partial"]
    for other in others:
        (tmp_path / other).write_bytes(b"theirs")
    replace(tmp_path / "file", b"mine")
    assert names(tmp_path) == sorted(["file", *others])


@pytest.mark.parametrize("name", ["no folder/file", "x" * 250])
def test_errors_have_the_name_that_was_given(name, tmp_path):
    with pytest.raises(OSError) as caught:
        replace(tmp_path / name, b"mine")
    assert ".partial" not in str(caught.value) and names(tmp_path) == []


def test_a_folder_that_is_not_there_is_refused_before_all_else(tmp_path):
    pytest.importorskip("safetensors")
    network = NeuralNetwork([Linear(2), LogRegression()], rng=0).build(3)
    network.layers[0].W[...] = float("nan")
    path = tmp_path / "no folder" / "file"
    with pytest.raises(FileNotFoundError, match=f"There is no such folder: '{path.parent}'"):
        network.save(path)
    with pytest.raises(FileNotFoundError, match=f"There is no such folder: '{path.parent}'"):
        Checkpoint(path).on_fit_begin(network, [])


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o444])
def test_a_file_that_is_replaced_keeps_its_mode(tmp_path, mode):
    if sys.platform == "win32":
        pytest.skip("needs modes")
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    replace(path, b"new")
    assert path.read_bytes() == b"new" and path.stat().st_mode & 0o777 == mode


def test_the_error_of_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(replacing.os, "fsync", full)
    with pytest.raises(OSError) as caught:
        replace(tmp_path / "file", b"mine")
    assert caught.value.filename == str(tmp_path / "file") and names(tmp_path) == []


def test_looking_whether_a_file_can_be_written(tmp_path, monkeypatch):
    """It leaves nothing, changes nothing, and removes what killed writers have left."""
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "file.01234567.partial").write_bytes(b"half")
    replacing.check_writable(tmp_path / "file")
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == b"old"
    with pytest.raises(FileNotFoundError) as caught:
        replacing.check_writable(tmp_path / "no folder" / "file")
    assert caught.value.filename == str(tmp_path / "no folder")
    remove = os.remove
    monkeypatch.setattr(replacing.os, "remove", lambda path: [remove(path), remove(path)])
    replacing.check_writable(tmp_path / "file")  # another writer was faster
