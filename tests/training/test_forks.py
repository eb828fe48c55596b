"""Children of a process that forks predict, train and save, whatever its threads were at."""

import os

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

START = """
import copy, multiprocessing, os, pickle, sys, threading, time, traceback, warnings
sys.path[:0] = {folders!r}
warnings.simplefilter("ignore", DeprecationWarning)  # of threads beside a fork
import numpy as np
from trouble import assert_nothing_lent, bits, cnn, everything, images
from nnet import NeuralNetwork, Conv, Layer

X, Y = images()
PATH = "network.safetensors"
started, go_on = threading.Event(), threading.Event()


class Slow(Layer):
    "Waits in the middle of a pass, once `armed`."

    armed = False

    def fprop(self, input):
        if Slow.armed and threading.current_thread() is not threading.main_thread():
            started.set()
            go_on.wait(50)
        return input

    def bprop(self, output_grad):
        return output_grad

    def output_shape(self, input_shape):
        return input_shape


def slow_cnn(**options):
    return NeuralNetwork([Slow(), *cnn().layers], **dict(rng=0) | options)


def child_of(function):
    "Fork: what the child does is done in time and without an error."
    pid = os.fork()
    if pid == 0:
        code, Slow.armed = 1, False
        try:
            function()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    end = time.monotonic() + 50
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert status == 0, "the child failed"
            return
        if time.monotonic() > end:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            raise AssertionError("the child hangs")
        time.sleep(0.002)


def in_thread(function):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    assert started.wait(50)
    return thread


def use(network, expected):
    "All that a child may do with a fitted network."
    def use_it():
        assert everything(network, X) == expected
        assert everything(pickle.loads(pickle.dumps(network)), X) == expected
        assert everything(copy.deepcopy(network), X) == expected
        assert_nothing_lent(network)
        assert network.error(X, Y) <= 1
        threads = [threading.Thread(target=network.predict, args=[X]) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        twin = network.fit(X, Y, max_iter=1) and bits(network)
        network.fit(X, Y, max_iter=1)
        assert bits(network) == twin or not isinstance(network.rng, int)
        network.load_state_dict(network.state_dict())
        assert_nothing_lent(network)
    return use_it


def finish(thread):
    go_on.set()
    thread.join(50)
    assert not thread.is_alive()
    print("done")
"""

CASES = {
    "predicting": """
network = slow_cnn().fit(X, Y, max_iter=1)
expected = everything(network, X)
Slow.armed = True
thread = in_thread(lambda: network.predict(X))
for _ in range(3):
    child_of(use(network, expected))
finish(thread)
""",
    "fitting": """
network = slow_cnn(rng=np.random.default_rng(2)).fit(X, Y, max_iter=1)
expected = everything(network, X)
def train():
    network.fit(X[:, :, 1:], Y, lambda epoch: setattr(Slow, "armed", epoch == 2) or 0.1, max_iter=3)
thread = in_thread(train)
assert everything(network, X)[:3] == expected[:3]
child_of(use(network, expected))
finish(thread)
assert network.input_shape_ == (1, 7, 8)
""",
    "in the first fit": """
network = slow_cnn()
def train():
    network.fit(X, Y, lambda epoch: setattr(Slow, "armed", epoch == 2) or 0.1, max_iter=3)
thread = in_thread(train)
def child():
    assert network.input_shape_ is None
    network.fit(X, Y, max_iter=3)
    assert bits(network) == bits(slow_cnn().fit(X, Y, max_iter=3))
child_of(child)
finish(thread)
assert bits(network) == bits(slow_cnn().fit(X, Y, max_iter=3))
""",
    "building": """
network = slow_cnn().fit(X, Y, max_iter=1)
expected = everything(network, X)
class Setup(Slow):
    def _setup(self, input_shape, rng):
        Slow.fprop(self, None)
network.layers[0].__class__ = Setup
Slow.armed = True
thread = in_thread(lambda: network.build((1, 9, 9), 3))
child_of(use(network, expected))
finish(thread)
""",
    "in a callback": """
network = slow_cnn().fit(X, Y, max_iter=1)
shown = []
def callback(progress):
    if progress.epoch == 2 and progress.epoch_done:
        shown.append(everything(network, X))
        started.set()
        go_on.wait(50)
thread = in_thread(lambda: network.fit(X, Y, max_iter=2, callback=callback))
child_of(use(network, shown[0]))
finish(thread)
assert shown[0][0] == bits(network)
""",
    "several networks": """
networks = [slow_cnn(rng=i).fit(X, Y, max_iter=1) for i in range(3)]
expected = [everything(network, X) for network in networks]
Slow.armed = True
threads = [in_thread(lambda: networks[0].predict(X)), in_thread(lambda: networks[1].fit(X, Y))]
time.sleep(0.1)
def child():
    for network, before in zip(networks, expected):
        use(network, before)()
child_of(child)
Slow.armed = False
for thread in threads:
    go_on.set()
    thread.join(50)
print("done")
""",
    "forks in a callback": """
network = slow_cnn().fit(X, Y, max_iter=1)
first = network.state_dict()
def callback(progress):
    seen = everything(network, X)
    def child():
        assert everything(network, X) == seen
        assert everything(pickle.loads(pickle.dumps(network)), X) == seen
        network.fit(X, Y, max_iter=1)
        use(network, everything(network, X))()
        assert network.build((1, 9, 9), 3).input_shape_ == (1, 9, 9)
    child_of(child)
    thread = threading.Thread(target=child_of, args=[use(network, seen)])
    thread.start()
    thread.join(50)
    assert not thread.is_alive()
network.fit(X, Y, max_iter=2, batch_size=48, callback=callback)
assert bits(network) == bits(slow_cnn().fit(X, Y, max_iter=2, batch_size=48))
print("done")
""",
    "forks in a learning rate": """
network = slow_cnn()
def rate(epoch):
    def child():
        if epoch == 0:
            assert network.input_shape_ is None
        network.fit(X, Y, max_iter=2)
        assert bits(network) == bits(slow_cnn().fit(X, Y, max_iter=2))
    child_of(child)
    return 0.1
network.fit(X, Y, rate, max_iter=2)
assert bits(network) == bits(slow_cnn().fit(X, Y, max_iter=2))
print("done")
""",
    "a child that trains and goes on": """
network = slow_cnn()
refused = []
def callback(progress):
    if progress.epoch_done and progress.epoch == 1:
        def child():
            try:
                network.fit(X, Y, max_iter=2, callback=forked)
            except RuntimeError as error:
                refused.append(str(error))
        def forked(inner):
            if inner.epoch_done:
                child_of(lambda: network.fit(X, Y, max_iter=1) and bits(network))
        child()
        assert "is being trained" in refused.pop()
        pid = os.fork()
        if pid == 0:
            network.fit(X, Y, max_iter=1, callback=forked)
            trained.append(bits(network))
        else:
            assert os.waitpid(pid, 0)[1] == 0
trained = []
try:
    network.fit(X, Y, max_iter=3, callback=callback)
except RuntimeError as error:
    code = 1
    if "forked in a callback" in str(error) and bits(network) == trained[0]:
        assert_nothing_lent(network)
        code = 0
    os._exit(code)
assert bits(network) == bits(slow_cnn().fit(X, Y, max_iter=3))
print("done")
""",
    "a child that goes on": """
network = slow_cnn()
children = []
def callback(progress):
    if progress.epoch == 2 and not children:
        children.append(os.fork())
network.fit(X, Y, max_iter=3, callback=callback)
assert bits(network) == bits(slow_cnn().fit(X, Y, max_iter=3))
if children[0] == 0:
    os._exit(0)
assert os.waitpid(children[0], 0)[1] == 0
print("done")
""",
    "forks in a layer": """
network = slow_cnn().fit(X, Y, max_iter=1)
expected = everything(network, X)
class Forking(Slow):
    def fprop(self, input):
        if self.armed:
            Forking.armed = False
            probs = []
            child_of(lambda: probs.append(network.predict_proba(X).tobytes()))
            def child():
                "Others wait for the pass that goes on in the child too."
                thread = threading.Thread(target=network.predict, args=[X], daemon=True)
                thread.start()
                thread.join(0.2)
                assert thread.is_alive()
            child_of(child)
        return input
network.layers[0].__class__ = Forking
Forking.armed = True
network.predict(X)
assert everything(network, X) == expected
assert_nothing_lent(network)
print("done")
""",
    "a pool of processes": """
network = slow_cnn().fit(X, Y, max_iter=1)
expected = network.predict(X)
Slow.armed = True
thread = in_thread(lambda: network.predict(X))
def predict(rows):
    Slow.armed = False
    return network.predict(X[rows])
def train(seed):
    network.rng = seed
    return bits(network.fit(X, Y, max_iter=1))
with multiprocessing.get_context("fork").Pool(2) as pool:
    parts = pool.map_async(predict, [slice(i, i + 24) for i in range(0, 96, 24)]).get(50)
    trained = pool.map_async(train, range(4)).get(50)
finish(thread)
assert np.array_equal(np.concatenate(parts), expected)
assert trained == [train(seed) for seed in range(4)]
""",
    "many kernels' threads": """
network = slow_cnn()
layers = network.layers
network = NeuralNetwork([layers[0], Conv(32, (3, 3)), Conv(32, (3, 3)), *layers[1:]], rng=0)
big = np.random.default_rng(0).normal(size=(64, 1, 32, 32)).astype(np.float32)
network.fit(big, Y[:64], 1e-3, max_iter=1)
expected = network.predict_proba(big)
def predict():
    while not go_on.is_set():
        network.predict(big)
        started.set()
def child():
    assert np.array_equal(network.predict_proba(big), expected)
    network.fit(big[:8], Y[:8], 1e-3, max_iter=1)
thread = in_thread(predict)
for _ in range(8):
    child_of(child)
finish(thread)
""",
    "saving": """
network = cnn().fit(X, Y, max_iter=1)
expected = bits(network)
def save():
    while not go_on.is_set():
        network.save(PATH)
        started.set()
def child():
    network.save(PATH + ".child")
    assert bits(NeuralNetwork.load(PATH + ".child")) == expected
    network.fit(X, Y, max_iter=1)
thread = in_thread(save)
for _ in range(5):
    child_of(child)
finish(thread)
""",
    "importing": """
import nnet
from importlib.machinery import PathFinder


class Finder:
    "A thread that imports the module of this name waits in its middle."

    name = None

    def find_spec(self, name, path=None, target=None):
        if name != Finder.name or threading.current_thread() is threading.main_thread():
            return None
        spec = PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def wait_and_execute(module):
            started.set()
            go_on.wait(50)
            execute(module)
        spec.loader.exec_module = wait_and_execute
        return spec


def at_fork():
    "Called before nnet's own: the import goes on when the fork is done, or waits for it."
    threading.Timer(0.1, go_on.set).start()


def forget(name):
    package, _, attribute = name.rpartition(".")
    del sys.modules[name]
    vars(sys.modules[package or "__main__"]).pop(attribute, None)
    vars(nnet).pop("Conv", None)


def use(name, function):
    started.clear(), go_on.clear()
    function()
    forget(name)
    Finder.name = name
    thread = in_thread(function)
    child_of(function)
    thread.join(50)
    assert not thread.is_alive()


sys.meta_path.insert(0, Finder())
os.register_at_fork(before=at_fork)
network = cnn().fit(X, Y, max_iter=1)
network.save(PATH)
def train(**options):
    return cnn().fit(X, Y, max_iter=1, **options)
def keep():
    train(callbacks=[nnet.Checkpoint(f"checkpoint{os.getpid()}")])
keep()
CHECKPOINT = f"checkpoint{os.getpid()}"
for name, function in [
    ("nnet.files.saving", lambda: network.save(f"{PATH}{os.getpid()}")),
    ("nnet.files.saving", lambda: NeuralNetwork.load(PATH)),
    ("safetensors.numpy", lambda: sys.modules["nnet.files.tensors"].import_safetensors()),
    ("nnet.files.tensors", keep),
    ("nnet.files.checkpoints", keep),
    ("nnet.files.checkpoints", lambda: train(resume=CHECKPOINT)),
    ("nnet.training.gradients", lambda: network.check_gradients(X[:2], Y[:2], max_checks=1)),
    ("tqdm.auto", lambda: train(callbacks=[nnet.ProgressBar()])),
    ("decimal", lambda: network.predict(X.astype(object))),
    ("nnet._api", lambda: nnet.Conv),
    ("nnet.zoo", lambda: nnet.zoo),
]:
    use(name, function)
print("done")
""",
}


@pytest.mark.parametrize("name", CASES)
def test_children(name, run_python):
    for package in {"saving": ["safetensors"], "importing": ["safetensors", "tqdm"]}.get(name, []):
        pytest.importorskip(package)
    folders = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    done = run_python(START.format(folders=folders) + CASES[name], timeout=200)
    assert done.stdout.splitlines()[-1:] == ["done"], done.stderr
    assert done.returncode == 0
    assert done.stderr == ""
