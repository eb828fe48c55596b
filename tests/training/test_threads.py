"""A network that several threads use: all but the one that trains see the last finished fit."""

import copy
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from trouble import (
    PATIENCE,
    assert_nothing_lent,
    bits,
    cnn,
    everything,
    images,
    in_thread,
    steps,
)

from nnet import SGD, Layer, Linear, NeuralNetwork

X, Y = images()


class Pausing:
    """A fit in a thread of its own, which a callback or the reading of data can hold."""

    def __init__(self, function):
        self.paused, self.goes_on = threading.Event(), threading.Event()
        self.error = None

        def target():
            try:
                function(self)
            except BaseException as error:
                self.error = error
            self.paused.set()

        self.thread = threading.Thread(target=target, daemon=True)
        self.thread.start()
        assert self.paused.wait(PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.end()

    def pause(self):
        self.paused.set()
        assert self.goes_on.wait(PATIENCE)

    def end(self):
        self.goes_on.set()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


def paused_between_steps(network, *args, after=1, **options):
    """A fit that is held where nobody but itself may see its steps: in the learning rate."""

    def train(pausing):
        def rate(epoch):
            if epoch == after:
                pausing.pause()
            return 0.1

        network.fit(*args, rate, max_iter=3, **options)

    return Pausing(train)


def test_before_the_first_fit_has_ended_the_network_is_not_fitted():
    network = cnn()
    with paused_between_steps(network, X, Y):
        for method in ("predict", "predict_proba"):
            with pytest.raises(ValueError, match="not fitted yet"):
                getattr(network, method)(X)
        with pytest.raises(ValueError, match="not fitted yet"):
            network.error(X, Y)
        with pytest.raises(AttributeError, match="not fitted yet"):
            network.classes_  # noqa: B018
        assert network.input_shape_ is None
        assert copy.deepcopy(network).input_shape_ is None
        assert pickle.loads(pickle.dumps(network)).input_shape_ is None
        assert len(network.check_gradients(X[:3], Y[:3], max_checks=2)) == 4
    assert bits(network) == bits(cnn().fit(X, Y, max_iter=3))


@pytest.mark.parametrize(
    "other", [images(), images(n_classes=4), images(side=6), images(dtype=np.float64)]
)
@pytest.mark.parametrize("after", [0, 1, 2])
def test_everyone_sees_the_last_finished_fit(other, after, tmp_path):
    pytest.importorskip("safetensors")
    X2, y2 = other
    network = cnn()
    network.fit(X, Y, max_iter=2, validation_data=(X, Y))
    before = everything(network, X)
    error = network.error(X, Y)
    if y2.max() == 3:
        network.layers[4] = Linear(4)
    callback = (lambda progress: None) if after == 2 else None
    with paused_between_steps(network, X2, y2, after=after, callback=callback) as pausing:
        for see in (lambda f: f(), in_thread):
            assert see(lambda: everything(network, X)) == before
            assert see(lambda: network.error(X, Y)) == error
            for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
                assert everything(twin, X) == before
        network.save(tmp_path / "network")
        assert bits(NeuralNetwork.load(tmp_path / "network")) == before[0]
        assert len(network.check_gradients(X[:3], Y[:3], max_checks=2)) == 4
        with pytest.raises(RuntimeError, match="is being trained"):
            network.fit(X, Y)
        with pytest.raises(RuntimeError, match="is being trained"):
            network.build((1, 8, 8), 3)
        with pytest.raises(RuntimeError, match="is being trained"):
            network.load_state_dict(network.state_dict())
        assert everything(network, X) == before
        pausing.end()
        assert pausing.error is None
    fresh = cnn(n_classes=y2.max() + 1).fit(X2, y2, max_iter=3)
    assert everything(network, X2) == everything(fresh, X2)
    assert_nothing_lent(network)


def test_a_refused_second_fit_changes_nothing():
    """Also when it is refused long after the first has begun."""
    network = cnn().fit(X, Y, max_iter=1)
    with paused_between_steps(network, X, Y):
        for _ in range(3):
            with pytest.raises(RuntimeError):
                network.fit(X[:10], Y[:10])
    assert bits(network) == bits(cnn().fit(X, Y, max_iter=3))


def test_predictions_beside_fits():
    """Each is whole: of one of the fits that had ended."""
    small, large = images(), images(dtype=np.float64)
    network = cnn(rng=None).fit(*small, max_iter=1)
    seen, allowed, done = set(), {network.predict_proba(X).tobytes()}, []

    def predict():
        while not done:
            model_probs = network.predict_proba(X)
            network.predict(X)
            network.error(X, Y)
            assert network.classes_.tolist() == [0, 1, 2]
            assert network.input_shape_ == (1, 8, 8)
            assert len(network.loss_history_) == 1
            seen.add(model_probs.tobytes())

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(predict) for _ in range(2)]
        try:
            for i in range(20):
                network.fit(*(large if i % 2 else small), max_iter=1, batch_size=20)
                allowed.add(network.predict_proba(X).tobytes())
        finally:
            done.append(True)
        for future in futures:
            future.result(PATIENCE)
    assert seen <= allowed


def test_files_and_copies_beside_a_fit(tmp_path):
    pytest.importorskip("safetensors")
    network = cnn().fit(X, Y, max_iter=1)
    allowed, done = {bits(network)}, []
    path = tmp_path / "network"

    def train():
        try:
            for _ in range(15):
                network.rng += 1
                network.fit(X, Y, max_iter=2, batch_size=20)
                allowed.add(bits(network))
        finally:
            done.append(True)

    thread = threading.Thread(target=train)
    thread.start()
    found = set()
    while not done:
        network.save(path)
        twins = (
            NeuralNetwork.load(path),
            copy.deepcopy(network),
            pickle.loads(pickle.dumps(network)),
        )
        found.update(map(bits, twins))
    thread.join()
    assert found <= allowed


class Counting(Layer):
    """Keeps something that grows while others may copy it."""

    def __init__(self):
        self.passes = {}

    def fprop(self, input):
        self.passes[len(self.passes)] = input.shape
        return input

    def bprop(self, output_grad):
        return output_grad

    def output_shape(self, input_shape):
        return input_shape


def test_copies_beside_the_first_fit_are_not_fitted():
    network = cnn()
    network.layers.insert(1, Counting())
    untrained = vars(network.layers[5])["W"]
    with paused_between_steps(network, X, Y) as pausing:
        for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert twin.input_shape_ is None
            assert twin.layers[1].passes == {} and twin.layers[5].W is untrained
            with pytest.raises(ValueError, match="not fitted"):
                twin.predict(X)
        pausing.end()
    assert pausing.error is None
    expected = bits(network)
    assert bits(twin.fit(X, Y, max_iter=3)) == bits(network.fit(X, Y, max_iter=3)) == expected


def test_in_a_callback_everyone_sees_the_last_step():
    network, expected = cnn().fit(X, Y, max_iter=1), []
    trajectory = steps(cnn(), X, Y, max_iter=2, batch_size=32)

    def callback(progress):
        for see in (lambda f: f(), in_thread):
            assert see(lambda: bits(network)) == trajectory[len(expected)]
            probs = see(lambda: network.predict_proba(X))
            assert see(lambda: list(network.loss_history_)) == network.loss_history_
        with ThreadPoolExecutor(3) as pool:
            for same in pool.map(network.predict_proba, [X] * 3):
                assert np.array_equal(probs, same)
        expected.append(probs)

    network.fit(X, Y, max_iter=2, batch_size=32, callback=callback)
    assert len(expected) == len(trajectory) == 6
    assert bits(network) == trajectory[-1]


def test_a_prediction_from_a_callback_may_outlive_it():
    """Each is of one moment: of a step that a callback showed, or of the last finished fit."""
    network, shown, futures = cnn().fit(X, Y, max_iter=1), [], []
    shown.append(network.predict_proba(X, 8).tobytes())
    with ThreadPoolExecutor(2) as pool:

        def callback(progress):
            shown.append(network.predict_proba(X, 8).tobytes())
            futures.extend(pool.submit(network.predict_proba, X, 8) for _ in range(2))

        network.fit(X, Y, 0.05, max_iter=5, batch_size=32, callback=callback)
        for future in futures:
            assert future.result(PATIENCE).tobytes() in shown


class SlowToCopy(Layer):
    """Takes a while, in which a training that does not wait takes many steps."""

    def __getstate__(self):
        time.sleep(0.05)
        return super().__getstate__()

    def fprop(self, input):
        return input

    def bprop(self, output_grad):
        return output_grad

    def output_shape(self, input_shape):
        return input_shape


def test_a_copy_from_a_callback_may_outlive_it():
    """The next step waits until it is made: it is not of two steps."""
    layers = cnn().layers
    network = NeuralNetwork([*layers[:3], SlowToCopy(), *layers[3:]], rng=0)
    shown, futures = set(), []
    with ThreadPoolExecutor(1) as pool:

        def callback(progress):
            shown.add(bits(network))
            if progress.epoch == 2:
                futures.append(pool.submit(network.state_dict))
                time.sleep(0.01)  # it has begun

        network.fit(X, Y, max_iter=6, batch_size=48, callback=callback)
    for future in futures:
        arrays = future.result(PATIENCE).values()
        assert b"".join(array.tobytes() for array in arrays) in shown


def test_two_networks_train_in_two_threads():
    alone = [bits(cnn(rng=i).fit(X, Y, max_iter=3)) for i in range(2)]
    networks = [cnn(rng=i) for i in range(2)]
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(network.fit, X, Y, max_iter=3) for network in networks]
        for future in futures:
            future.result(PATIENCE)
    assert list(map(bits, networks)) == alone


def test_one_of_two_fits_is_refused():
    """Whichever comes second; the other's bits are those of a fit alone."""
    alone = bits(cnn().fit(X, Y, max_iter=5))
    for _ in range(10):
        network, barrier = cnn(), threading.Barrier(4)

        def fit(network=network, barrier=barrier):
            barrier.wait(PATIENCE)
            try:
                network.fit(X, Y, max_iter=5)
            except RuntimeError as error:
                return str(error)

        with ThreadPoolExecutor(4) as pool:
            answers = [future.result(PATIENCE) for future in [pool.submit(fit) for _ in range(4)]]
        assert None in answers
        assert all(answer is None or "is being trained" in answer for answer in answers)
        assert bits(network) == alone


def test_an_option_changed_beside_predictions():
    """Whoever predicts takes it up, or has begun before."""
    network = cnn().fit(X, Y, max_iter=1)
    allowed = set()
    for mode in ("max", "avg"):
        network.layers[2].mode = mode
        allowed.add(network.predict_proba(X).tobytes())
    done, seen = [], set()

    def predict():
        while not done:
            seen.add(network.predict_proba(X).tobytes())

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(predict) for _ in range(2)]
        for _ in range(100):
            network.layers[1].type = "relu"  # nothing but another plan
            network.predict(X)
        done.append(True)
        for future in futures:
            future.result(PATIENCE)
    assert seen <= allowed


def test_one_optimizer_for_two_trainings_at_once():
    optimizer, network = SGD(momentum=0.5), cnn()
    with paused_between_steps(network, X, Y, optimizer=optimizer) as pausing:
        other = cnn(rng=1).fit(X, Y, max_iter=1, optimizer=optimizer)
        assert bits(other) == bits(cnn(rng=1).fit(X, Y, 0.1, max_iter=1, momentum=0.5))
        pausing.end()
        assert pausing.error is None
