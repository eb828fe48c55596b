"""Trouble around the `nnet` command: full disks, folders that go, closed streams, Ctrl-C."""

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import nnet
from nnet.cli import fitting
from nnet.cli.spellings import SPELLINGS, usual
from nnet.files import replacing

ROOT = Path(nnet.__file__).resolve().parents[1]
SMALL = ["--layers", "conv4-3x3,relu,gap", "--epochs", "2", "-q"]
needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")


@pytest.fixture
def refused(run_nnet):
    def refused(*args):
        code, out, err = run_nnet(*args)
        assert code == 2 and out == "" and err.count("\n") == 1, err
        return err.removeprefix("nnet: error: ").rstrip("\n")

    return refused


@pytest.fixture
def model(run_nnet, save_npz, tmp_path):
    assert run_nnet("train", save_npz(), "-o", tmp_path / "model", *SMALL)[0] == 0
    return tmp_path / "model"


def shell(command, **variables):
    """The command as its script runs it, from a shell."""
    pytest.importorskip("nnet_command")
    script = f"{sys.executable} -m nnet_command"
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables}
    return subprocess.run(
        command.format(nnet=script),
        shell=True,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


# --- outputs --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_outputs_are_checked_before_any_work(refused, model, save_npz, tmp_path, command):
    data = save_npz()
    for output, message in {
        tmp_path: f"cannot write {tmp_path}: it is not a regular file",
        tmp_path / "no" / "a.csv": f"cannot write {tmp_path}/no/a.csv: No such file or directory",
        data: f"cannot write {data}: it is an input",
        f"{tmp_path}/no/": f"cannot write {tmp_path}/no/: it is the name of a folder",
        "": "argument -o/--output: path is '', expected the name of a file",
    }.items():
        assert refused(command, "missing" if output != data else model, data, "-o", output) == (
            message
        )


def full(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_full_disk_leaves_the_old_csv(refused, model, save_npz, tmp_path, monkeypatch, command):
    output = tmp_path / "out.csv"
    output.write_text("precious")
    monkeypatch.setattr(replacing.os, "fsync", full)
    line = refused(command, model, save_npz(), "-o", output)
    assert line == f"{output}: No space left on device"
    assert output.read_text() == "precious"
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("trouble", ["full", "folder"])
def test_a_model_that_cannot_be_written_is_kept(
    run_nnet, save_npz, bright_rows, tmp_path, monkeypatch, trouble
):
    """The disk is full, or the folder is gone, only at the end of the training."""
    (tmp_path / "out").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    fit = nnet.NeuralNetwork.fit

    def spoil(network, **options):
        fit(network, **options)
        if trouble == "folder":
            shutil.rmtree(tmp_path / "out")
            return
        fsync = os.fsync

        def full_there(handle):
            if "/out/" in os.readlink(f"/proc/self/fd/{handle}"):
                full()
            fsync(handle)

        monkeypatch.setattr(replacing.os, "fsync", full_there)

    if trouble == "full" and not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    monkeypatch.setattr(nnet.NeuralNetwork, "fit", spoil)
    output = tmp_path / "out" / "m"
    code, out, err = run_nnet("train", save_npz(), "-o", output, *SMALL)
    (kept,) = (tmp_path / "tmp").iterdir()
    reason = "No space left on device" if trouble == "full" else "There is no such folder"
    assert (code, out) == (2, "")
    expected = f"nnet: error: cannot write {output}: {reason}; the model is kept in {kept}\n"
    assert err == expected and not output.exists()
    assert len(nnet.NeuralNetwork.load(kept).predict(bright_rows()[0][:, None])) == 30


def test_a_checkpoint_that_cannot_be_written_keeps_the_best_epoch(
    run_nnet, save_npz, tmp_path, monkeypatch
):
    (tmp_path / "gone").mkdir()
    call = nnet.cli.watch.Watch.__call__

    def remove(watch, progress):
        if progress.epoch == 2:
            shutil.rmtree(tmp_path / "gone", ignore_errors=True)
        return call(watch, progress)

    monkeypatch.setattr(fitting.Watch, "__call__", remove)
    options = ["-o", tmp_path / "m", *SMALL, "--resume", tmp_path / "gone" / "kept"]
    code, out, err = run_nnet("train", save_npz(), *options)
    assert code == 2 and out.endswith(f"wrote {tmp_path / 'm'}\n")
    assert err == f"nnet: error: {tmp_path}/gone: There is no such folder: keeping epoch 2\n"
    assert (tmp_path / "m").exists()


def test_images_that_vanish_in_a_training_keep_the_best_epoch(run_nnet, tmp_path, monkeypatch):
    pytest.importorskip("PIL")
    from pictures import colour_folder

    folder = colour_folder(tmp_path / "colours")
    monkeypatch.setattr(nnet.cli.data, "IN_MEMORY", 3000)  # the test images fit
    call = nnet.cli.watch.Watch.__call__

    def remove(watch, progress):
        call(watch, progress)
        shutil.rmtree(folder, ignore_errors=True)

    monkeypatch.setattr(nnet.cli.data, "BATCH", 3)
    monkeypatch.setattr(fitting.Watch, "__call__", remove)
    options = ["-o", tmp_path / "m", *SMALL, "--test-fraction", "0"]
    code, out, err = run_nnet("train", folder, *options)
    assert (code, out) == (2, f"wrote {tmp_path / 'm'}\n")
    assert err.startswith(f"nnet: error: {folder}/") and err.endswith(
        ": No such file or directory: keeping epoch 1\n"
    )


def test_what_killed_runs_have_left_goes_at_the_next(run_nnet, model, save_npz, tmp_path, refused):
    left = [tmp_path / f"{name}.01234567.partial" for name in ("m", "out.csv", "kept")]
    for path in left:
        path.write_bytes(b"half")
    others = tmp_path / "other.01234567.partial"
    others.write_bytes(b"theirs")
    refused("train", save_npz(), "-o", tmp_path / "m", "--layers", "?")  # at the start already
    assert not left[0].exists()
    assert run_nnet("predict", model, save_npz(), "-o", tmp_path / "out.csv")[0] == 0
    options = ["-o", tmp_path / "m", *SMALL, "--resume", tmp_path / "kept"]
    assert run_nnet("train", save_npz(), *options)[0] == 0
    assert list(tmp_path.glob("*.partial")) == [others]


@needs_posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_an_existing_file_keeps_its_mode(run_nnet, model, save_npz, tmp_path, mode):
    for output, args in (tmp_path / "m", ["train"]), (tmp_path / "o", ["predict", model]):
        output.write_text("old")
        output.chmod(mode)
        more = SMALL if args == ["train"] else []
        assert run_nnet(*args, save_npz(), "-o", output, *more)[0] == 0
        assert stat.S_IMODE(output.stat().st_mode) == mode and output.read_bytes() != b"old"


@needs_posix
def test_devices_are_written_to(run_nnet, model, save_npz):
    assert run_nnet("predict", model, save_npz(), "-o", "/dev/null") == (0, "", "")


# --- the start ------------------------------------------------------------------------------


@needs_posix
@pytest.mark.parametrize(
    "variables, message",
    [
        ({"NNET_NUM_THREADS": "abc"}, "NNET_NUM_THREADS is 'abc', expected an integer from 1 to"),
        ({"NNET_TARGET": "abc"}, "NNET_TARGET is 'abc', expected one of ("),
    ],
)
def test_bad_variables_are_one_line(variables, message):
    done = shell("{nnet} info", **variables)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"nnet: error: {message}")


@needs_posix
def test_a_closed_stdout_is_one_line(model, save_npz):
    data = save_npz()
    for command in "info", f"predict {model} {data}", f"evaluate {model} {data}":
        done = shell(f"{{nnet}} {command} >&-")
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert done.stderr.startswith("nnet: error: there is no standard output, expected ")
    done = shell(f"{{nnet}} predict {model} {data} -o {model}.csv >&-")
    assert (done.returncode, done.stderr) == (0, "") and Path(f"{model}.csv").exists()


@needs_posix
def test_a_closed_stderr_leaves_stdout_alone(model):
    done = shell(f"{{nnet}} predict {model} missing 2>&-")
    assert (done.returncode, done.stdout) == (2, "")


@needs_posix
def test_ctrl_c_during_start_up_is_one_line(tmp_path):
    """NumPy, which is loaded first, is one that is interrupted."""
    pytest.importorskip("nnet_command")
    (tmp_path / "numpy.py").write_text("raise KeyboardInterrupt")
    done = shell("{nnet} info", PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert (done.returncode, done.stdout) == (128 + signal.SIGINT, "")
    assert done.stderr == "nnet: interrupted\n"


# --- memory ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layers, piece",
    [
        ("gap,linear9999,linear999999999,relu", "linear999999999"),
        ("conv9999999-99x99,gap", "conv9999999-99x99"),
        ("conv4-3x3,up99999,gap", "up99999"),
    ],
)
def test_huge_layers_are_named(refused, save_npz, tmp_path, layers, piece):
    line = refused("train", save_npz(), "-o", tmp_path / "m", "--layers", layers)
    assert line.startswith(f"--layers: layer {piece!r} after ") and "memory" in line


# --- spellings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args", ["--lr 0.2 --batch_size 5", "--learning_rate=0.2 --bs=5", "--lr=0.2 --batch 5"]
)
def test_usual_spellings_are_understood(run_nnet, save_npz, tmp_path, monkeypatch, args):
    seen = {}
    fit = nnet.NeuralNetwork.fit

    def spy(network, **options):
        seen.update(options)
        return fit(network, **options)

    monkeypatch.setattr(nnet.NeuralNetwork, "fit", spy)
    options = ["-o", tmp_path / "m", *SMALL, *args.split(), "--optimizer", "SGD"]
    assert run_nnet("train", save_npz(), *options)[0] == 0
    assert seen["learning_rate"].learning_rate == 0.2 and seen["batch_size"] == 5


def test_every_spelling_is_of_an_option(capsys):
    with pytest.raises(SystemExit):
        nnet.cli.main(["train", "--help"])
    options = capsys.readouterr().out
    assert all(f"{option}" in options for option in SPELLINGS.values())
    assert not set(SPELLINGS) & set(SPELLINGS.values())
    assert usual("--x_y=a_b") == "--x-y=a_b" and usual("-o_") == "-o_" and usual("a_b") == "a_b"


@pytest.mark.parametrize(
    "given, meant",
    [("--epoch=3", "--epochs"), ("--layer", "--layers"), ("--momentun", "--momentum")],
)
def test_others_are_suggested(refused, given, meant):
    line = refused("train", given)
    assert line == f"unrecognized arguments: {given}: did you mean {meant}?"
    assert refused("info", "--nothing") == "unrecognized arguments: --nothing"


@pytest.mark.parametrize("mode, n_channels", [("L", 1), ("grey", 1), ("rgb", 3), ("RGB", 3)])
def test_modes(run_nnet, tmp_path, mode, n_channels):
    pytest.importorskip("PIL")
    from pictures import colour_folder

    folder = colour_folder(tmp_path / "colours")
    options = ["-o", tmp_path / "m", *SMALL, "--color-mode", mode]
    assert run_nnet("train", folder, *options)[0] == 0
    assert nnet.NeuralNetwork.load(tmp_path / "m").input_shape_ == (n_channels, 12, 12)


@needs_posix
def test_devices_and_pipes_are_no_models(refused, save_npz, model, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in "/dev/zero", tmp_path / "pipe":
        assert refused("predict", path, save_npz()) == (
            f"{path} is not a regular file, expected a model"
        )
        for command in ["train"], ["predict", model], ["evaluate", model]:
            assert refused(*command, path) == f"{path} is not a regular file, expected one"
        assert "not a regular file" in refused("train", save_npz(), "--resume", path)
