"""tests/training/test_interrupts.py and the saves beside a fit, for long."""

import signal
import threading

import pytest
from interrupts import METHODS, NEED_A_FILE, Case, interrupt_a_thread, interrupt_by_signals
from trouble import bits, cnn, images

from nnet import NeuralNetwork


@pytest.fixture(params=METHODS)
def case(request, tmp_path):
    pytest.importorskip("safetensors")
    return Case(request.param, tmp_path / "network" if request.param in NEED_A_FILE else None)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
def test_signals(case):
    n_interrupted = interrupt_by_signals(case, 2000, seed=1)
    print(f"{case.name}: {n_interrupted} of 2000 interrupted")


def test_exceptions_from_another_thread(case):
    interrupt_a_thread(case, 1000, seed=1)


def test_files_beside_a_fit(tmp_path):
    pytest.importorskip("safetensors")
    X, y = images()
    network, path, done = cnn(rng=None).fit(X, y, max_iter=1), tmp_path / "network", []
    finished = {bits(network)}

    def train():
        while not done:
            network.fit(X, y, max_iter=3)
            finished.add(bits(network))

    thread = threading.Thread(target=train)
    thread.start()
    try:
        loaded = set()
        for _ in range(3000):
            network.save(path)
            loaded.add(bits(NeuralNetwork.load(path)))
    finally:
        done.append(True)
        thread.join()
    print(f"{len(loaded)} different networks in 3000 files, {len(finished)} trainings")
    assert loaded <= finished
