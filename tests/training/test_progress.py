"""What a training shows: lines of a verbose one, and the progress bar."""

import io
import os
import struct
import sys
import threading
from contextlib import suppress

import numpy as np
import pytest
from trouble import PATIENCE, bits, cnn, everything, images

from nnet import (
    DivergedError,
    EarlyStopping,
    ExponentialDecay,
    ProgressBar,
)

X, Y = images()


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def stream(monkeypatch):
    """A terminal, for bars that start no thread of their own."""
    tqdm = pytest.importorskip("tqdm.auto").tqdm
    monkeypatch.setattr(tqdm, "monitor_interval", 0)
    return Terminal()


def test_a_terminal_gets_a_bar(stream):
    network = cnn().fit(X, Y, max_iter=3, callbacks=[ProgressBar(stream)], validation_data=(X, Y))
    assert bits(network) == bits(cnn().fit(X, Y, max_iter=3))
    shown = stream.getvalue()
    history = network.history_
    values = f"loss {history['loss'][-1]:.4f}, accuracy {history['accuracy'][-1]:.1%}"
    assert f"00:00, {values}, val_accuracy {history['val_accuracy'][-1]:.1%}, " in shown
    assert "epoch 3/3 |##########| " in shown and "images/s" in shown
    assert shown.endswith("\n")  # the bar stays, and what is printed next stands below it


@pytest.mark.parametrize("width", [0, 60, 120])
def test_a_real_terminal_gets_a_bar_as_wide_as_it_is(width):
    pty, tty, fcntl, termios = map(pytest.importorskip, ("pty", "tty", "fcntl", "termios"))
    pytest.importorskip("tqdm")
    reader, terminal = pty.openpty()
    tty.setraw(terminal)  # what is written comes as it is
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, width, 0, 0))
    shown = []

    def read():
        with suppress(OSError):  # the terminal is closed
            while text := os.read(reader, 65536):
                shown.append(text)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    with os.fdopen(terminal, "w") as stream:
        assert stream.isatty()
        network = cnn().fit(X, Y, max_iter=3, callbacks=[ProgressBar(stream)])
        stream.flush()
    thread.join(PATIENCE)
    os.close(reader)
    text = b"".join(shown).decode()
    values = f"loss {network.history_['loss'][-1]:.4f}, accuracy "
    assert text.endswith("\n") and "epoch 3/3 |" in text and values in text
    assert max(map(len, text.strip("\n").split("\r"))) <= (width or 80)


def test_the_bar_may_go_and_serve_again(stream):
    bar = ProgressBar(stream, leave=False)
    for _ in range(2):
        cnn().fit(X, Y, max_iter=2, callbacks=[bar])
        assert stream.getvalue().endswith("\r")
        assert stream.getvalue().count("epoch 1/2") >= 1
        stream.truncate(0)


def test_what_is_no_terminal_gets_nothing(capsys):
    pytest.importorskip("tqdm")
    stream = io.StringIO()
    cnn().fit(X, Y, max_iter=2, callbacks=[ProgressBar(stream), ProgressBar()])
    assert stream.getvalue() == "" and capsys.readouterr() == ("", "")


def huge(epoch):
    return 1e30 if epoch else 0.1


@pytest.mark.parametrize(
    "options, error",
    [
        ({"learning_rate": huge, "batch_size": 8}, DivergedError),
        ({"callback": lambda p: 1 / (p.epoch - 2)}, TypeError),
        ({"learning_rate": lambda epoch: 0.1 / (1 - epoch)}, ZeroDivisionError),
    ],
)
def test_the_bar_is_closed_however_a_training_ends(options, error, stream):
    bar = ProgressBar(stream)
    with pytest.raises(error):
        cnn().fit(X, Y, **{"max_iter": 5, "callbacks": [bar], **options})
    assert bar._bar is None and "epoch 1/5" in stream.getvalue()


def test_lines_above_the_bar(stream):
    bar = ProgressBar(stream)
    cnn().fit(X, Y, max_iter=2, callbacks=[bar, lambda p: bar.write(f"seen {p.n_seen}")])
    lines = [line.rpartition("\r")[2] for line in stream.getvalue().split("\n")]
    assert [line for line in lines if line.startswith("seen")] == ["seen 64", "seen 96"] * 2


def test_a_terminal_without_a_width_gets_a_bar(stream, monkeypatch):
    monkeypatch.setattr(stream, "fileno", lambda: 0)
    monkeypatch.setattr(os, "get_terminal_size", lambda fileno: os.terminal_size((0, 0)))
    cnn().fit(X, Y, max_iter=2, callbacks=[ProgressBar(stream)])
    assert "epoch 2/2 |##########|" in stream.getvalue()


def right_half(y, predictions):
    return np.mean((y == predictions)[: len(y) // 2])


def test_the_lines_of_a_verbose_training(capsys):
    stopping = EarlyStopping("right_half", patience=1, mode="max")
    options = {"metrics": right_half, "callbacks": [stopping], "validation_data": (X, Y)}
    network = cnn().fit(X, Y, ExponentialDecay(0.01, 0.5), 3, verbose=True, **options)
    *lines, outcome = capsys.readouterr().out.splitlines()
    history = network.history_
    for i, line in enumerate(lines):
        shown = [
            f"{name} {history[name][i]:{'.2%' if 'accuracy' in name else '.4f'}}"
            for name in ("loss", "accuracy", "right_half")
        ]
        assert line.startswith(f"epoch {i + 1}/3: {', '.join(shown)}, val_loss ")
        assert f", learning_rate {0.01 * 0.5**i:.3g}, " in line
    best = f"right_half {stopping.best:.4f} was best, in epoch {stopping.best_epoch}"
    assert outcome == f"after epoch {len(lines)}/3: {best}, whose arrays are restored"
    cnn().fit(X, Y, 0.01, 1, verbose=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert "learning_rate" not in line


def test_what_is_printed_beside_a_bar_stands_above_it(stream, monkeypatch):
    monkeypatch.setattr(sys, "stdout", stream)
    cnn().fit(X, Y, max_iter=2, verbose=True, callbacks=[ProgressBar(stream)])
    lines = [line.rpartition("\r")[2] for line in stream.getvalue().split("\n")]
    assert [line[:9] for line in lines if ": loss" in line] == ["epoch 1/2", "epoch 2/2"]


def test_a_missing_tqdm_is_named_before_any_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    network = cnn().fit(X, Y, max_iter=1)
    before = everything(network, X)
    with pytest.raises(ImportError, match="needs the package tqdm: pip install tqdm$"):
        network.fit(X, Y, callbacks=[ProgressBar()])
    assert everything(network, X) == before


@pytest.mark.parametrize("arguments", [(3,), (None, "yes")])
def test_other_arguments_of_a_bar(arguments):
    with pytest.raises(TypeError, match="(file|leave) is"):
        ProgressBar(*arguments)
