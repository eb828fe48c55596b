"""Trouble around the `nnet` command: full disks, folders that go, closed streams, Ctrl-C."""

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import nnet
from nnet.cli import fitting
from nnet.cli.spellings import SPELLINGS, usual
from nnet.files import replacing

ROOT = Path(nnet.__file__).resolve().parents[1]
OTHER = "is not a regular file, expected one to replace, or a new name"
SMALL = ["--layers", "conv4-3x3,relu,gap", "--epochs", "2", "-q"]
NUMPY = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
    [None for _ in range(10000)]
except KeyboardInterrupt:
    raise ImportError("something else")
"""
# Starts Python. A shell's background jobs ignore SIGINT; whoever starts the tests, these must not.
HEED = (
    f"{sys.executable} -c 'import signal, os, sys; signal.signal(2, signal.SIG_DFL); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])'"
)
needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")


def shell(command, **variables):
    """The command as its script runs it, from a shell."""
    pytest.importorskip("nnet_command")
    script = f"{sys.executable} -m nnet_command"
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables}
    environment.pop("PYTHONUNBUFFERED", None)  # where nothing is left to be flushed
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
        tmp_path: f"cannot write: {tmp_path} {OTHER}",
        tmp_path / "no" / "a.csv": f"cannot write {tmp_path}/no/a.csv: There is no such folder",
        data: f"cannot write {data}: it is an input",
        f"{tmp_path}/no/": f"cannot write: {tmp_path}/no/ {OTHER}",
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


@pytest.mark.parametrize("test_fraction", [0, 0.2])
def test_an_image_that_breaks_in_a_training_keeps_the_best_epoch(
    run_nnet, tmp_path, monkeypatch, test_fraction
):
    """Where images are read anew in each epoch. The model is written before the test images."""
    pytest.importorskip("PIL")
    from pictures import colour_folder

    folder = colour_folder(tmp_path / "colours")
    monkeypatch.setattr(nnet.cli.data, "IN_MEMORY", 0)
    call = nnet.cli.watch.Watch.__call__

    def spoil(watch, progress):
        call(watch, progress)
        for path in folder.glob("*/*.png"):
            path.write_bytes(path.read_bytes()[:60])

    monkeypatch.setattr(fitting.Watch, "__call__", spoil)
    monkeypatch.setattr(nnet.cli.data.Files, "to_validate", lambda files: None)
    options = ["-o", tmp_path / "m", *SMALL, "--test-fraction", test_fraction]
    code, out, err = run_nnet("train", folder, *options)
    assert (code, out) == (2, f"wrote {tmp_path / 'm'}\n")
    first, *others = err.splitlines()
    assert first.startswith(f"nnet: error: {folder}/") and first.endswith(": keeping epoch 1")
    assert " is not a whole image that Pillow reads: " in first
    assert len(others) == bool(test_fraction)  # an image to test on is named too
    assert nnet.NeuralNetwork.load(tmp_path / "m").classes_.tolist() == ["blue", "green", "red"]


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
    for command in "{nnet}", f"{sys.executable} -m nnet":
        done = shell(f"{command} info", **variables)
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
@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full"])
def test_without_standard_error_work_goes_on(model, save_npz, bright_rows, tmp_path, redirected):
    """Nothing of it reaches standard output, and no training ends with the disk of its log."""
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    data = save_npz(X=bright_rows()[0] / 255)
    done = shell(f"{{nnet}} predict {model} {data} {redirected}")  # which warns
    assert done.returncode == 0 and done.stdout.startswith("row,") and "warning" not in done.stdout
    options = f"--layers gap --epochs 2 -o {tmp_path}/m"
    done = shell(f"{{nnet}} train {data} {options} {redirected}")
    assert done.returncode == 0 and done.stdout.startswith("test accuracy ")
    assert done.stdout.endswith(f"wrote {tmp_path}/m\n") and done.stdout.count("\n") == 2


def test_warnings_are_lines(run_nnet, model, save_npz, monkeypatch):
    def predict(*args):
        warnings.warn("look\nthere", UserWarning, stacklevel=1)
        return np.ones((30, 3))

    monkeypatch.setattr(nnet.NeuralNetwork, "predict_proba", predict)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, _, err = run_nnet("predict", model, save_npz())
    assert (code, err) == (0, "nnet: warning: look there\n")


@pytest.mark.parametrize("name", ["two  spaces", "new\nline", "\x1b[31mred"])
def test_names_of_files_are_told_as_they_are(refused, name):
    """But for characters that move the cursor."""
    line = refused("train", name)
    shown = name.replace("\n", " ").replace("\x1b", "\\x1b")
    assert line == f"{shown}: No such file or directory"


@needs_posix
def test_ctrl_c_during_start_up_is_one_line(tmp_path):
    """NumPy, which is loaded first, is one that is interrupted, and makes another error of it."""
    pytest.importorskip("nnet_command")
    (tmp_path / "numpy.py").write_text(NUMPY)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    for module in "nnet", "nnet_command":
        done = shell(f"{HEED} -m {module} info", PYTHONPATH=path)
        assert (done.returncode, done.stdout) == (128 + signal.SIGINT, "")
        assert done.stderr == "nnet: interrupted\n"


def test_ctrl_c_after_start_up_is_an_exception_again():
    nnet_command = pytest.importorskip("nnet_command")
    before = signal.getsignal(signal.SIGINT), sys.excepthook
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        nnet_command.begin()
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        nnet_command.end()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert sys.excepthook is sys.__excepthook__
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup and background jobs have it
        nnet_command.begin()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before[0])
        sys.excepthook = before[1]


@needs_posix
def test_programs_of_others_keep_their_ctrl_c(tmp_path):
    """Their package may import nnet before its `python -m` has come to an end too."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").write_text("import sys, nnet\nassert sys.argv[0] == '-m'")
    (tmp_path / "theirs" / "__main__.py").write_text(
        "import signal, sys\n"
        "print(signal.getsignal(2) is signal.default_int_handler)\n"
        "print(sys.excepthook is sys.__excepthook__)"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = shell(f"{HEED} -m theirs nnet", PYTHONPATH=path)
    assert done.stdout == "True\nTrue\n", done.stderr


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


def test_huge_images_are_named_where_the_layers_are_not_the_users_own(refused, tmp_path):
    pytest.importorskip("PIL")
    from pictures import colour_folder

    line = refused("train", colour_folder(tmp_path / "colours"), "--size", "90000x80000", "-q")
    assert line.startswith("images of 90000x80000: layer 'conv16-3x3' after the images: it takes")


# --- spellings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        "--lr 0.2 --batch_size 5",
        "--learning_rate=0.2 --bs=5",
        "--lr=0.2 --batch 5",
        "-lr 0.2 --BATCH 5",
    ],
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
    for command in "train", "evaluate":
        with pytest.raises(SystemExit):
            nnet.cli.main([command, "--help"])
    options = capsys.readouterr().out
    assert all(option.partition("=")[0] in options for option in SPELLINGS.values())
    assert not set(SPELLINGS) & set(SPELLINGS.values())
    assert usual("--x_y=a_b") == "--x-y=a_b" and usual("-o_") == "-o_" and usual("a_b") == "a_b"


@pytest.mark.parametrize(
    "given, meant",
    [("--epoch=3", "--epochs"), ("--layer", "--layers"), ("--momentun", "--momentum")],
)
def test_others_are_suggested(refused, given, meant):
    line = refused("train", given)
    assert line == f"unrecognized arguments: {given}: did you mean {meant}?"
    for nothing in "--nothing", "--gpu", "--dropout=0.5", "-v":
        assert refused("train", nothing) == f"unrecognized arguments: {nothing}"


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
            line = refused(*command, path)
            assert line == f"{path} is not a regular file, expected one of images or arrays"
        assert "not a regular file" in refused("train", save_npz(), "--resume", path)
