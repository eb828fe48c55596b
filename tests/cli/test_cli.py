"""The `nnet` command, as a user meets it: files in, files and lines out, exit codes."""

import csv
import io
import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import nnet
from nnet.cli import main
from nnet.cli.watch import Watch
from nnet.training.progress import Progress

ROOT = Path(nnet.__file__).resolve().parents[1]
SMALL = ["--layers", "conv4-3x3,relu,gap", "--epochs", "2", "--threads", "1"]
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f\x80-\x9f]")  # all control characters but \n


def command(*args):
    return [sys.executable, "-m", "nnet", *map(str, args)]


def environment():
    """One thread and this nnet, for a process that starts in some other folder."""
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    return {**os.environ, "NNET_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The bare `nnet train`, once for all tests."""
    folder = tmp_path_factory.mktemp("digits")
    done = subprocess.run(
        command("train"), cwd=folder, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    np.savez(folder / "images.npz", X=load_digits().images)
    return SimpleNamespace(
        model=folder / "model.safetensors",
        images=folder / "images.npz",
        stdout=done.stdout,
        stderr=done.stderr,
    )


# --- the digits -------------------------------------------------------------------


def test_bare_train_reaches_98_percent(digits):
    """The accuracy that it reports is that of the model it wrote, on scikit-learn's own split."""
    X, y = load_digits().images[:, None], load_digits().target
    _, X_test, _, y_test = train_test_split(X, y, test_size=0.2, stratify=y, random_state=0)
    network = nnet.NeuralNetwork.load(digits.model)
    n_right = np.sum(network.predict(X_test) == y_test)
    assert n_right / len(y_test) >= 0.98
    expected = f"test accuracy {n_right / len(y_test):.2%} ({n_right} of {len(y_test)} images)"
    assert digits.stdout == f"{expected}\nwrote model.safetensors\n"


def test_without_a_terminal_an_epoch_is_a_line(digits):
    assert not CONTROL.search(digits.stderr)
    lines = digits.stderr.splitlines()
    assert lines[0] == "1437 images to train on, 360 to test on: 8x8 grey, 10 classes"
    assert re.fullmatch(r"\d+ parameters, 1 thread", lines[1])
    names = "epoch loss accuracy test_loss test_accuracy learning_rate images/s"
    assert lines[2].split() == names.split()
    epoch = r" *\d+/20 +[\d.]+ +[\d.]+% +[\d.]+ +[\d.]+% +[\d.e-]+ +[\d,]+"
    assert len(lines) == 23
    for line in lines[3:]:
        assert re.fullmatch(epoch, line) and len(line) == len(lines[2]) <= 80


def test_n_params_is_true(digits):
    network = nnet.NeuralNetwork.load(digits.model)
    n_params = sum(param.size for param in network.params())
    assert digits.stderr.splitlines()[1] == f"{n_params} parameters, 1 thread"


def test_predict_takes_the_raw_digits(run_nnet, digits):
    code, out, err = run_nnet("predict", digits.model, digits.images)
    assert code == 0 and err == ""
    rows = list(csv.reader(io.StringIO(out)))
    assert rows[0] == ["row", "label", *"0123456789"]
    assert [row[0] for row in rows[1:]] == [str(i) for i in range(1797)]
    network = nnet.NeuralNetwork.load(digits.model)
    X = load_digits().images[:, None]
    assert [int(row[1]) for row in rows[1:]] == network.predict(X).tolist()
    probabilities = np.array([row[2:] for row in rows[1:]], np.float32)
    assert np.array_equal(probabilities, network.predict_proba(X))
    assert np.mean(network.predict(X) == load_digits().target) >= 0.98


def test_predict_to_a_file(run_nnet, digits, tmp_path):
    _, out, _ = run_nnet("predict", digits.model, digits.images)
    file = tmp_path / "out.csv"
    assert run_nnet("predict", digits.model, digits.images, "-o", file) == (0, "", "")
    assert file.read_bytes().decode() == out


def test_predict_into_a_broken_pipe_is_quiet(digits):
    process = subprocess.Popen(
        command("predict", digits.model, digits.images),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline().startswith(b"row,label,")
    process.stdout.close()  # as `head -1` does
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("to_file", [False, True])
def test_predict_to_a_full_disk(digits, to_file):
    args = command("predict", digits.model, digits.images, *(["-o", "/dev/full"] * to_file))
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            args, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.returncode == 2
    assert re.fullmatch("nnet: error: (/dev/full: )?No space left on device\n", done.stderr)


def test_predict_warns_of_other_units(run_nnet, digits, tmp_path):
    np.savez(tmp_path / "percent.npz", X=load_digits().images / 16)
    code, out, err = run_nnet("predict", digits.model, tmp_path / "percent.npz")
    assert code == 0 and out
    assert err.startswith("nnet: warning: the values of X vary 0.063 times as much as in training")


@pytest.mark.parametrize("dtype", ["u1", "f4", "f8", "i8"])
def test_dark_images_are_in_the_units_of_training(run_nnet, dtype, tmp_path, capsys):
    """Whether all are bytes or only some can be told: what is scaled is up to the dtype alone."""
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (60, 6, 6)).astype(dtype), np.arange(60) % 2
    X[30:] //= 4
    model, data, dark = (tmp_path / name for name in ("model", "data.npz", "dark.npz"))
    np.savez(data, X=X, y=y)
    np.savez(dark, X=X[30:])
    assert run_nnet("train", data, "-o", model, *SMALL)[0] == 0
    code, of_all, err = run_nnet("predict", model, data)
    assert (code, err) == (0, "")
    of_dark = run_nnet("predict", model, dark)[1]
    of_dark, of_all = (re.sub(r"(?m)^\d+,", "", lines).splitlines() for lines in (of_dark, of_all))
    assert of_dark[1:] == of_all[31:]
    scale = nnet.NeuralNetwork.load(model).layers[0].scale
    assert scale == pytest.approx(X.std(dtype=float) / (255 if dtype == "u1" else 1), rel=0.1)


# --- the user's own arrays --------------------------------------------------------


def test_train_then_predict_own_arrays(run_nnet, save_npz, bright_rows, tmp_path):
    names = np.array(["one, two", 'a "b"', "é"])
    X, y = bright_rows()
    model = tmp_path / "own.safetensors"
    options = ["--layers", "conv4-3x3,relu,linear8,relu", "--epochs", "30", "--batch-size", "8"]
    code, out, _ = run_nnet("train", save_npz(y=names[y]), "-o", model, *options, "--threads", "1")
    assert code == 0
    assert out == f"test accuracy 100.00% (6 of 6 images)\nwrote {model}\n"
    assert run_nnet("predict", model, save_npz(y=None), "-o", tmp_path / "out.csv") == (0, "", "")
    with open(tmp_path / "out.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["row", "label", *sorted(names)]
    assert [row[1] for row in rows[1:]] == names[y].tolist()


@pytest.mark.parametrize("labels", [[-3, 7, 100], [0.0, 1.0, 2.0], [b"a", b"b", b"c"]])
def test_labels_of_any_kind(run_nnet, save_npz, bright_rows, tmp_path, labels):
    _, y = bright_rows()
    model = tmp_path / "m.safetensors"
    assert run_nnet("train", save_npz(y=np.array(labels)[y]), "-o", model, *SMALL)[0] == 0
    _, out, _ = run_nnet("predict", model, save_npz())
    expected = [x.decode() if isinstance(x, bytes) else str(x) for x in labels]
    assert out.splitlines()[0].split(",") == ["row", "label", *expected]
    assert {line.split(",")[1] for line in out.splitlines()[1:]} <= set(expected)


def test_layouts_of_one_data_set_give_one_model(run_nnet, save_npz, bright_rows, tmp_path):
    """uint8, channels first and last, the layout told and found; predict finds it, too."""
    X, y = bright_rows(shape=(6, 6, 3), dtype=np.uint8)
    forms = {"last": X, "first": X.transpose(0, 3, 1, 2)}
    models, tables = {}, {}
    for name, images in forms.items():
        for layout in [], ["--layout", {"last": "NHWC", "first": "NCHW"}[name]]:
            model = tmp_path / f"{name}{len(layout)}"
            assert run_nnet("train", save_npz(X=images), "-o", model, *SMALL, *layout)[0] == 0
            models[model] = model.read_bytes()
        for model in models:
            tables[name, model] = run_nnet("predict", model, save_npz(X=images))
    assert len(set(models.values())) == 1
    assert len(set(tables.values())) == 1
    assert nnet.NeuralNetwork.load(model).input_shape_ == (3, 6, 6)


def test_predict_finds_a_layout_that_training_was_told(run_nnet, save_npz, bright_rows, tmp_path):
    X, _ = bright_rows(shape=(6, 6, 7))  # 7 channels: nothing that could be guessed
    model = tmp_path / "m"
    assert run_nnet("train", save_npz(X=X), "-o", model, "--layout", "NHWC", *SMALL)[0] == 0
    assert run_nnet("predict", model, save_npz(X=X))[0] == 0


def test_three_grey_images_are_no_colours(run_nnet, save_npz, bright_rows, tmp_path):
    model = tmp_path / "m"
    assert run_nnet("train", save_npz(), "-o", model, *SMALL)[0] == 0
    code, out, _ = run_nnet("predict", model, save_npz(X=bright_rows(n=3)[0]))
    assert code == 0 and len(out.splitlines()) == 4


def test_predict_nothing(run_nnet, save_npz, tmp_path):
    model = tmp_path / "m"
    assert run_nnet("train", save_npz(), "-o", model, *SMALL)[0] == 0
    assert run_nnet("predict", model, save_npz(X=np.zeros((0, 6, 6)))) == (
        0,
        "row,label,0,1,2\n",
        "",
    )


def test_predict_with_networks_from_python(run_nnet, save_npz, bright_rows, tmp_path):
    """Flat inputs, and networks without standardisation, are taken as they are."""
    X, y = bright_rows()
    flat = X.reshape(len(X), -1) / 255
    network = nnet.NeuralNetwork([nnet.Linear(3), nnet.LogRegression()], rng=0)
    network.fit(flat, y, max_iter=2).save(tmp_path / "m")
    np.savez(tmp_path / "flat.npz", X=flat)
    code, out, err = run_nnet("predict", tmp_path / "m", tmp_path / "flat.npz")
    assert code == 0 and err == ""
    rows = [line.split(",") for line in out.splitlines()[1:]]
    assert np.array_equal(np.array(rows)[:, 2:].astype(float), network.predict_proba(flat))


def test_same_seed_same_bits(run_nnet, save_npz, tmp_path):
    data = save_npz()
    for name, seed in [("a", "1"), ("b", "1"), ("c", "2")]:
        assert run_nnet("train", data, "-o", tmp_path / name, *SMALL, "--seed", seed)[0] == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_options_reach_the_network(run_nnet, save_npz, tmp_path, monkeypatch):
    seen = {}
    fit = nnet.NeuralNetwork.fit

    def spy(network, X, y, **options):
        threads = nnet.get_num_threads()
        seen.update(options, network=network, n=len(X), threads=threads)
        return fit(network, X, y, **options)

    monkeypatch.setattr(nnet.NeuralNetwork, "fit", spy)
    before = nnet.get_num_threads()
    args = "--epochs 4 --batch-size 5 --learning-rate 0.2 --momentum 0.5 --weight-decay 0.25"
    args += " --optimizer sgd"
    args += " --threads 1 --test-fraction 0.5 --seed 3 --quiet --layers conv2-3x3,linear3"
    code, out, err = run_nnet("train", save_npz(), "-o", tmp_path / "m", *args.split())
    assert code == 0 and err == "" and out.startswith("test accuracy")
    assert seen["max_iter"] == 4 and seen["batch_size"] == 5 and seen["momentum"] == 0.5
    rates = [seen["learning_rate"](10 * epoch, epoch, 10, 4) for epoch in range(4)]
    falling = 0.1 * (1 + np.cos(np.deg2rad([30, 80, 130])))  # 36 steps, after 4 of warm-up
    np.testing.assert_allclose(rates, [0.04, *falling])
    assert seen["n"] == 15 and len(seen["validation_data"][1]) == 15
    assert seen["threads"] == 1 and nnet.get_num_threads() == before
    assert seen["network"].rng == 3
    decays = [
        layer.weight_decay for layer in seen["network"].layers if hasattr(layer, "weight_decay")
    ]
    assert decays == [0.25, 0.25, 0.25]


def test_default_layers_depend_on_the_size(run_nnet, save_npz, bright_rows, tmp_path):
    kinds = {}
    for size in 15, 16:
        data = save_npz(X=bright_rows(shape=(20, size))[0])
        assert run_nnet("train", data, "-o", tmp_path / "m", "--epochs", "1")[0] == 0
        layers = nnet.NeuralNetwork.load(tmp_path / "m").layers
        kinds[size] = [type(layer).__name__ for layer in layers if not hasattr(layer, "type")]
    norm, ends = ["Conv", "BatchNorm"], ["Linear", "LogRegression"]
    assert kinds == {
        15: ["Standardize", *norm, *norm, "Pool", *norm, "Pool", "Flatten", *ends],
        16: ["Standardize", *[*norm, "Pool"] * 2, "Flatten", "Linear", *ends],
    }


def test_train_on_everything(run_nnet, save_npz, bright_rows, tmp_path):
    """Without test images, classes of one image are welcome."""
    _, y = bright_rows()
    code, out, err = run_nnet(
        "train",
        save_npz(y=np.where(np.arange(30) == 0, 9, y)),
        "-o",
        tmp_path / "m",
        *SMALL,
        "--test-fraction",
        "0",
    )
    assert code == 0 and out == f"wrote {tmp_path / 'm'}\n"
    assert err.startswith("30 images to train on, 0 to test on: 6x6 grey, 4 classes\n")
    assert "test accuracy" not in err


def test_standardisation_is_learned_from_the_training_images(
    run_nnet, save_npz, bright_rows, tmp_path
):
    X, y = bright_rows()
    assert (
        run_nnet("train", save_npz(), "-o", tmp_path / "m", *SMALL, "--test-fraction", "0")[0] == 0
    )
    layer = nnet.NeuralNetwork.load(tmp_path / "m").layers[0]
    np.testing.assert_allclose([layer.mean, layer.scale], [X.mean(), X.std()], rtol=1e-6)


def test_constant_images_train(run_nnet, save_npz, tmp_path):
    assert run_nnet("train", save_npz(X=np.ones((30, 6, 6))), "-o", tmp_path / "m", *SMALL)[0] == 0
    assert nnet.NeuralNetwork.load(tmp_path / "m").layers[0].scale == 1


def test_labels_that_the_terminal_cannot_show(run_nnet, save_npz, bright_rows, tmp_path):
    names = np.array(["é", "b", "c"])
    assert (
        run_nnet("train", save_npz(y=names[bright_rows()[1]]), "-o", tmp_path / "m", *SMALL)[0] == 0
    )
    done = subprocess.run(
        command("predict", tmp_path / "m", save_npz()),
        env={**environment(), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "nnet: error: cannot write labels or names of files in ascii: use --output FILE\n"
    )


# --- Ctrl-C and the terminal ------------------------------------------------------


def test_ctrl_c_writes_the_best_model(save_npz, bright_rows, tmp_path):
    """After the second epoch's line, in the middle of ten thousand epochs."""
    # A shell's background jobs ignore SIGINT; whoever starts the tests, this process must not.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from nnet.cli import main; sys.exit(main())"
    args = ["train", save_npz(), "-o", tmp_path / "m", *SMALL, "--epochs", "10000"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not process.stderr.readline().startswith("    2/10000 "):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert re.fullmatch(r"nnet: interrupted: keeping epoch \d+", err.splitlines()[-1])
    assert "Traceback" not in err
    assert out.endswith(f"wrote {tmp_path / 'm'}\n") and out.startswith("test accuracy ")
    assert len(nnet.NeuralNetwork.load(tmp_path / "m").predict(bright_rows()[0][:, None])) == 30


def test_ctrl_c_before_there_is_a_model(run_nnet, save_npz, tmp_path, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(nnet.NeuralNetwork, "fit", interrupt)
    message = "nnet: interrupted in the first epoch: no model was written\n"
    code, out, err = run_nnet("train", save_npz(), "-o", tmp_path / "m", *SMALL, "-q")
    assert (code, out, err) == (130, "", message)
    assert not (tmp_path / "m").exists()


def test_the_epoch_of_lowest_training_loss_is_kept():
    watch = Watch(quiet=True)
    param = np.zeros(3)
    network = SimpleNamespace(state_dict=lambda: {"0.W": param.copy()})
    for epoch, loss in enumerate([3.0, 1.0, 2.0], start=1):
        param[:] = epoch
        watch(Progress(network, epoch, 3, 5, 10, 0.5, 0.5, 1.0))  # half an epoch decides nothing
        watch(Progress(network, epoch, 3, 10, 10, loss, 0.5, 1.0, 0.4, 0.1 * epoch))
    assert watch.best.epoch == 2
    assert watch.best_state["0.W"].tolist() == [2, 2, 2]


def test_the_best_epoch_is_written(run_nnet, save_npz, tmp_path, monkeypatch):
    """The parameters of the best epoch, and its accuracy, although training went on."""
    fit = nnet.NeuralNetwork.fit

    def spoil(network, X, y, **options):
        fit(network, X, y, **options)
        for param in network.params():
            param[...] = 7

    data = save_npz()
    run_nnet("train", data, "-o", tmp_path / "a", *SMALL)
    monkeypatch.setattr(nnet.NeuralNetwork, "fit", spoil)
    run_nnet("train", data, "-o", tmp_path / "b", *SMALL)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_bar(save_npz, tmp_path):
    import fcntl
    import termios

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    process = subprocess.Popen(
        command("train", save_npz(), "-o", tmp_path / "m", *SMALL),
        env={**environment(), "LC_ALL": "C.UTF-8"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # Linux's way of saying that the other end is closed
            piece = b""
        if not piece:
            break
        shown += piece
    os.close(ours)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and not CONTROL.search(out)
    states = re.split("[\r\n]+", shown.decode())
    bar = r"epoch \d/2 \|.{10}\| \S+, loss [\d.]+, accuracy [\d.]+%.* images/s *"
    assert any(re.fullmatch(bar, state) for state in states), states
    lines = [state for state in states if re.fullmatch(r" +\d/2 .*% .*% .* [\d,]+", state)]
    assert [line.split()[0] for line in lines] == ["1/2", "2/2"]
    assert not states[-1].strip()  # the bar is gone


# --- nnet info and nnet alone -----------------------------------------------------


def test_info(run_nnet, capsys):
    nnet.show_config()
    expected = capsys.readouterr().out
    assert "compiler:" in expected and run_nnet("info") == (0, expected, "")


@pytest.mark.parametrize(
    "args",
    [
        ["--version"],
        ["--help"],
        ["train", "--help"],
        ["predict", "-h"],
        ["evaluate", "-h"],
        ["explain", "-h"],
    ],
)
def test_version_and_help(args, capsys):
    with pytest.raises(SystemExit) as exit:
        main(args)
    assert exit.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out == f"nnet {nnet.__version__}\n" if args == ["--version"] else "usage: nnet" in out
    assert max(map(len, out.splitlines())) <= 80


def test_the_script_calls_this_function(run_nnet, monkeypatch, capsys):
    tomllib = pytest.importorskip("tomllib")
    scripts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"][
        "scripts"
    ]
    assert scripts == {"nnet": "nnet_command:main"}
    nnet_command = pytest.importorskip("nnet_command")
    monkeypatch.setattr(sys, "argv", ["nnet", "info"])
    expected = run_nnet("info")
    assert (nnet_command.main(), *capsys.readouterr()) == expected
