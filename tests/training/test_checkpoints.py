"""Checkpoints: a training that is resumed ends with the bits of one that was never stopped."""

import os
import shutil
import sys
from contextlib import ExitStack

import numpy as np
import pytest
from checkpoints import (
    OPTIMIZERS,
    WEIGHTS,
    Noise,
    X,
    Y,
    call,
    falling,
    kill_at_random,
    n_right,
    network,
    stopping,
    summary,
)
from trouble import assert_nothing_lent, bits, everything

from nnet import (
    SGD,
    Activation,
    Callback,
    Checkpoint,
    DivergedError,
    EarlyStopping,
    Flatten,
    Linear,
    LogRegression,
    NeuralNetwork,
    ProgressBar,
)

pytest.importorskip("safetensors")

RNGS = {
    "int": lambda: 7,
    "Generator": lambda: np.random.default_rng(7),
    "RandomState": lambda: np.random.RandomState(7),
    "None": lambda: None,
}


class Copying:
    """Keeps the checkpoint of each epoch: a copy is made in the next one, or after the last."""

    def __init__(self, path):
        self.path, self.copies = path, []

    def __call__(self, progress):
        if progress.epoch > len(self.copies) + 1:
            self.copy()

    def copy(self):
        self.copies.append(self.path.with_name(f"copy{len(self.copies) + 1}"))
        shutil.copy(self.path, self.copies[-1])


def checkpoints_of(path, net, **options):
    """The checkpoints of each epoch of a training that is never stopped."""
    copying = Copying(path)
    net.fit(**options, callbacks=[stopping(), Checkpoint(path), copying])
    copying.copy()
    assert len(copying.copies) == options["max_iter"]
    return copying.copies


@pytest.mark.parametrize("make_rng", RNGS.values(), ids=RNGS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_training_ends_with_the_same_bits(optimizer, make_rng, tmp_path):
    net, options = network(make_rng()), call(optimizer)
    paths = checkpoints_of(tmp_path / "c", net, **options)
    for path in paths:
        twin = network(make_rng())
        twin.fit(**options, callbacks=[stopping(), Checkpoint(path)], resume=path)
        assert everything(twin, X) == everything(net, X)
        assert list(twin.history_) == list(net.history_)  # in the same order
        assert path.read_bytes() == paths[-1].read_bytes()


BATCHES = [(X[:40], Y[:40], WEIGHTS[:40]), (X[40:], Y[40:], WEIGHTS[40:])]
CALLS = {
    "plain": {},
    "float64": {"X": X.astype(np.float64)},
    "no shuffling": {"shuffle": False},
    "validation data": {"validation_fraction": None, "validation_data": (X, Y)},
    "batches": {
        "X": BATCHES,
        "y": None,
        "batch_size": None,
        "sample_weight": None,
        "validation_fraction": None,
        "validation_data": BATCHES,
    },
}


@pytest.mark.parametrize("name", CALLS)
def test_kinds_of_calls(name, tmp_path):
    options = call(**CALLS[name])
    net = network()
    for path in checkpoints_of(tmp_path / "c", net, **options)[1:3]:
        twin = network().fit(**options, callbacks=[stopping()], resume=path)
        assert everything(twin, X) == everything(net, X)


def test_max_iter_may_grow(tmp_path):
    paths = checkpoints_of(tmp_path / "c", network(), **call(max_iter=2))
    longer = network().fit(**call(max_iter=5), callbacks=[stopping()])
    for path in paths:
        twin = network().fit(**call(max_iter=5), callbacks=[stopping()], resume=path)
        assert everything(twin, X) == everything(longer, X)
    with pytest.raises(ValueError, match="max_iter is 1, expected at least 2"):
        network().fit(**call(max_iter=1), callbacks=[stopping()], resume=paths[0])


def test_a_warm_start_is_resumed(tmp_path):
    """Also over a network that has been trained on since then."""

    def begun():
        return network().fit(**call(max_iter=2))

    net = begun()
    paths = checkpoints_of(tmp_path / "c", net, **call(), warm_start=True)
    for start in (begun, network, lambda: begun().fit(**call(max_iter=3), warm_start=True)):
        twin = start().fit(**call(), callbacks=[stopping()], warm_start=True, resume=paths[1])
        assert everything(twin, X) == everything(net, X)
    # The random numbers of the epochs are neither those of before nor of the same again.
    assert bits(net) != bits(begun().fit(**call(max_iter=4), callbacks=[stopping()]))


def test_what_came_to_its_end_is_not_trained_again(tmp_path):
    path = tmp_path / "c"
    callbacks = [EarlyStopping("val_loss", patience=1, min_delta=9.0), Checkpoint(path)]
    net = network().fit(**call(max_iter=9), callbacks=callbacks)
    assert len(net.loss_history_) == 2 and callbacks[0].best_epoch == 1
    for max_iter in (9, 12):  # what stopped it counts as before
        twin = network().fit(**call(max_iter=max_iter), callbacks=callbacks, resume=path)
        assert everything(twin, X) == everything(net, X)


@pytest.mark.parametrize("every, expected", [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])])
def test_every(every, expected, tmp_path):
    path, found = tmp_path / "c", []

    def watch(progress):
        if path.exists():
            path.unlink()
            found.append(progress.epoch - 1)

    network().fit(**call(max_iter=5), callbacks=[Checkpoint(path, every=every), watch])
    assert [*found, *[5] * path.exists()] == expected


# --- what stops a training -------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, DivergedError])
def test_exceptions_in_the_middle_of_an_epoch(error, tmp_path):
    """One after the other, at every step of the later epochs, each in a training that goes on."""
    path, expected = tmp_path / "c", network().fit(**call(), callbacks=[stopping()])
    n_steps = []
    network().fit(**call(), callback=n_steps.append)
    net = network(rng=0)
    for step in range(4, len(n_steps), 3):
        left = [step]

        def stop(progress, left=left):
            done = 3 * (progress.epoch - 1) + -(-progress.n_seen // 32)
            if done == left[0]:
                raise error

        options = {"resume": path} if path.exists() else {}
        with pytest.raises(error):
            net.fit(**call(), callbacks=[stopping(), Checkpoint(path), stop], **options)
        assert_nothing_lent(net)
    assert path.exists()
    net.fit(**call(), callbacks=[stopping(), Checkpoint(path)], resume=path)
    assert everything(net, X) == everything(expected, X)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_processes(tmp_path):
    n_killed, found = kill_at_random(tmp_path / "c", 3, max_iter=100)
    assert n_killed > 0 and os.listdir(tmp_path) == ["c"]
    assert found == summary(network().fit(**call(max_iter=100), callbacks=[stopping()]))


# --- what is refused -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("c") / "c"
    network().fit(**call(), callbacks=[stopping(), Checkpoint(path)])
    return path


def fraction(y, predictions):
    return float(np.mean(y == predictions))


def others(part):
    values = {"X": X, "y": Y, "w": WEIGHTS}[part].copy()
    values[1] = 2
    return values


REFUSED = {
    "fewer images": (
        {"X": X[:90], "y": Y[:90], "sample_weight": WEIGHTS[:90]},
        r"the shape of X is \(90, 1, 8, 8\), expected \(96, 1, 8, 8\)",
    ),
    "an image": ({"X": others("X")}, "X .*differs from that in the training"),
    "a dtype": ({"X": X.astype(float)}, "the dtype of X is float64, expected float32"),
    "labels": ({"y": Y[::-1]}, "^y differs from that in the training"),
    "a label": ({"y": others("y")}, "^y differs from that in the training"),
    "names of labels": ({"y": Y + 1, "class_weight": {1: 2.0}}, "classes differs from that"),
    "weights": ({"sample_weight": others("w")}, "sample_weight or class_weight.* differs"),
    "no weights": ({"sample_weight": None}, "sample_weight or class_weight differs"),
    "class weights": ({"class_weight": {0: 3.0}}, "sample_weight or class_weight differs"),
    "another fraction": ({"validation_fraction": 0.3}, "validation_fraction is 0.3, expected 0.2"),
    "no validation": ({"validation_fraction": None}, "validation_fraction is None, expected 0.2"),
    "validation data": (
        {"validation_fraction": None, "validation_data": (X, Y)},
        "validation_data is given, expected None",
    ),
    "batch_size": ({"batch_size": 31}, "batch_size is 31, expected 32"),
    "shuffle": ({"shuffle": False}, "shuffle is False, expected True"),
    "momentum": ({"momentum": 0.8}, r"optimizer is SGD\(.*0.8.*\), expected SGD\(.*0.9"),
    "rate": ({"learning_rate": 0.1}, "learning_rate is 0.1, expected 0.05"),
    "schedule": ({"learning_rate": falling}, r"optimizer is|learning_rate is"),
    "optimizer": (
        {"optimizer": SGD(momentum=0.9, nesterov=True), "momentum": 0},
        r"optimizer is SGD\(.*nesterov=True\)",
    ),
    "metrics": ({"metrics": [n_right, fraction]}, "metrics is n_right, fraction, expected n_right"),
    "early stopping": ({"callbacks": []}, r"callbacks is None, expected EarlyStopping\(monitor="),
    "patience": ({"callbacks": [EarlyStopping("n_right", 98, mode="max")]}, "callbacks is"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("fitted", [False, True])
def test_other_data_and_options_are_refused(name, fitted, checkpoint):
    options, message = REFUSED[name]
    net = network()
    if fitted:
        net.fit(**call(max_iter=1))
    before = everything(net, X) if fitted else str(vars(net))
    keywords = {"callbacks": [stopping()], **call(**options), "resume": checkpoint}
    with pytest.raises(ValueError, match=message) as caught:
        net.fit(**keywords)
    assert str(checkpoint) in str(caught.value)
    assert len(str(caught.value)) < 400 and not any(
        len(word) == 64 for word in str(caught.value).split()
    )
    assert (everything(net, X) if fitted else str(vars(net))) == before
    assert_nothing_lent(net)


def frozen():
    net = network()
    net.layers[0].trainable = False
    return net


def changed(i, layer):
    net = network()
    net.layers[i] = layer
    return net


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: network(1), "rng is 1, expected 0"),
        (lambda: network(None), "rng is None, expected 0"),
        (lambda: network(np.random.default_rng(0)), "rng is Generator, expected 0"),
        (frozen, r"what is trained is 5.W, .*expected 0.W, 0.b, 5.W"),
        (lambda: changed(2, Activation("tanh")), r"layer 2 is Activation\(.*tanh.*expected .*relu"),
        (
            lambda: changed(6, Activation("tanh")),
            "layer 6 is Activation.*checkpoints.Noise",
        ),
        (lambda: changed(5, Linear(5)), "layer 5 is"),
    ],
)
def test_another_network_is_refused(make, message, checkpoint):
    net = make()
    with pytest.raises(ValueError, match=message):
        net.fit(**call(), callbacks=[stopping()], resume=checkpoint)
    assert net.input_shape_ is None


def test_more_or_fewer_layers_are_refused(checkpoint):
    short = NeuralNetwork([Flatten(), Linear(3), LogRegression()], rng=0)
    long = network()
    long.layers.insert(3, Noise())
    for net in (short, long):
        with pytest.raises(ValueError, match=r"layer \d is .*, expected"):
            net.fit(**call(), callbacks=[stopping()], resume=checkpoint)


def test_what_shows_a_training_does_not_matter(checkpoint):
    watching = [ProgressBar(), Callback(), lambda progress: None]
    expected = everything(network().fit(**call(), callbacks=[stopping()]), X)
    net = network().fit(**call(verbose=True), callbacks=[*watching, stopping()], resume=checkpoint)
    assert everything(net, X) == expected


def test_files_that_are_no_checkpoints(checkpoint, tmp_path):
    whole, path = checkpoint.read_bytes(), tmp_path / "file"
    net = network().fit(**call(max_iter=1))
    NeuralNetwork([Linear(3), LogRegression()], 0).fit(X[:, 0, 0], Y).save(tmp_path / "model")
    model, before = (tmp_path / "model").read_bytes(), everything(net, X)
    middle = len(whole) // 2
    broken = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    cuts = [whole[:length] for length in (1, 100, middle, len(whole) - 1)]
    for contents in (b"", b"no checkpoint", model, broken, *cuts, whole + b"1"):
        path.write_bytes(contents)
        with pytest.raises(ValueError, match="file .*(network, which Neural|damaged|whole)"):
            net.fit(**call(), callbacks=[stopping()], resume=path)
    for missing, error in [(tmp_path / "none", FileNotFoundError), (tmp_path, OSError)]:
        with pytest.raises(error):
            net.fit(**call(), resume=missing)
    for nothing in (3, True, b"\0", ""):
        with pytest.raises((TypeError, ValueError), match="resume is"):
            net.fit(**call(), resume=nothing)
    assert everything(net, X) == before
    with pytest.raises(
        ValueError, match=r"is a Checkpoint, from which fit\(..., resume=path\) goes"
    ):
        NeuralNetwork.load(checkpoint)


# --- iterables ---------------------------------------------------------------------------------


class Shuffled:
    """Other batches in each epoch."""

    def __init__(self, what):
        self.what, self.rng = what, np.random.default_rng(0)

    def __iter__(self):
        order = self.rng.permutation(len(X))
        w = np.ones(len(X)) if self.what != "weights" else 1.0 + order
        yield (X[order] if self.what == "X" else X), (Y[order] if self.what == "y" else Y), w


@pytest.mark.parametrize("what", ["X", "y", "weights"])
@pytest.mark.parametrize("where", ["X", "validation_data"])
def test_batches_must_repeat(what, where, tmp_path):
    options = {"X": BATCHES, "max_iter": 2} | {where: Shuffled(what)}
    net = network().fit(**options)
    before = everything(net, X)
    for again in (net, network()):
        with pytest.raises(ValueError, match=f"{where} gives other batches in each epoch, expect"):
            again.fit(**options, callbacks=[Checkpoint(tmp_path / "c"), pytest.fail])
        assert list(tmp_path.iterdir()) == []
        assert_nothing_lent(again)
    assert everything(net, X) == before and again.input_shape_ is None


class Changing:
    """The same batches, but from the second epoch on another last one, or fewer or more."""

    def __init__(self, more):
        self.more, self.n_passes = more, 0

    def __iter__(self):
        self.n_passes += 1
        yield BATCHES[0]
        yield from self.more if self.n_passes > 3 else BATCHES[1:]


@pytest.mark.parametrize("more", [[BATCHES[0]], [], [BATCHES[1]] * 2])
def test_a_batch_that_changes_later_ends_the_training_before_it(more, tmp_path):
    seen = []
    net = network()
    callbacks = [Checkpoint(tmp_path / "c"), lambda progress: seen.append(bits(net))]
    with pytest.raises(ValueError, match="validation_data gives other batches in each epoch"):
        net.fit(X, Y, max_iter=3, validation_data=Changing(more), callbacks=callbacks)
    assert len(net.loss_history_) == 1 and bits(net) != seen[0]
    seen.clear()
    with pytest.raises(ValueError, match="X gives other batches|X gave only 40 images"):
        net.fit(Changing(more), max_iter=3, callbacks=callbacks)
    assert len(net.loss_history_) == 1 and len(seen) == 3


@pytest.mark.parametrize(
    "change, name",
    [
        (lambda X, y, w: (X + 1, y, w), "X"),
        (lambda X, y, w: (X, (y + 1) % 3, w), "y"),
        (lambda X, y, w: (X, y, w + 1), "sample_weight"),
        (lambda X, y, w: (X, y), "sample_weight"),
        (lambda X, y, w: (X[:-1], y[:-1], w[:-1]), "the shape of X"),
    ],
)
def test_other_batches_are_refused(change, name, tmp_path):
    options = call(**CALLS["batches"], class_weight=None)
    network().fit(**options, callbacks=[Checkpoint(tmp_path / "c")])
    options["X"] = [change(*batch) for batch in BATCHES]
    with pytest.raises(ValueError, match=f"^{name} .*expected"):
        network().fit(**options, resume=tmp_path / "c")


# --- what cannot be written ----------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_refused_before_any_work(tmp_path):
    net = network()
    for path, error in [(tmp_path / "no" / "c", FileNotFoundError), (tmp_path, ValueError)]:
        with pytest.raises(error):
            net.fit(**call(), callbacks=[Checkpoint(path)])
        assert net.input_shape_ is None


def failing_folder(folder, patch):
    shutil.rmtree(folder)


def full_disk(folder, patch):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    patch.callback(resource.setrlimit, resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("break_it", [failing_folder, full_disk])
def test_a_checkpoint_that_cannot_be_written(break_it, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    seen = []
    with ExitStack() as stack:

        def watch(progress):
            seen.append(bits(progress.network))
            if progress.epoch == 2 and not progress.epoch_done and len(seen) == 4:
                seen.append((folder / "c").read_bytes())
                break_it(folder, stack)

        net = network()
        with pytest.raises(OSError):
            net.fit(**call(), callbacks=[Checkpoint(folder / "c"), watch])
    content = seen.pop(4)
    assert bits(net) == seen[-1] and len(net.loss_history_) == 2
    assert_nothing_lent(net)
    if folder.exists():
        assert [path.name for path in folder.iterdir()] == ["c"]
        assert (folder / "c").read_bytes() == content
        net.fit(**call(), resume=folder / "c")
        assert everything(net, X) == everything(network().fit(**call()), X)


def test_a_state_that_is_no_number_is_refused(tmp_path):
    class Telling(Callback):
        def state(self):
            return {"word": "text"}

    with pytest.raises(TypeError, match="word='text', expected numbers"):
        network().fit(**call(), callbacks=[Telling(), Checkpoint(tmp_path / "c")])
    assert os.listdir(tmp_path) == []


def test_a_missing_package_is_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    net = network()
    with pytest.raises(ImportError, match="pip install safetensors"):
        net.fit(**call(), callbacks=[Checkpoint(tmp_path / "c")])
    assert net.input_shape_ is None


@pytest.mark.parametrize("arguments, error", [((3,), TypeError), (("",), ValueError)])
def test_paths(arguments, error):
    with pytest.raises(error, match="path is"):
        Checkpoint(*arguments)
    for every, kind in [(0, ValueError), (1.5, TypeError)]:
        with pytest.raises(kind, match="every is"):
            Checkpoint("c", every)
