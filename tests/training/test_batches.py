"""Where batches come from: arrays, memory-mapped files, iterables such as a DataLoader."""

import tracemalloc

import numpy as np
import pytest
from trouble import assert_nothing_lent, bits, cnn, everything, images, losses_allowed

from nnet import Activation, Flatten, Linear, LogRegression, MeanSquaredError, NeuralNetwork

X, Y = images()
WEIGHTS = np.random.default_rng(0).uniform(0, 2, len(X))
CUTS = [(0, 40), (40, 80), (80, 96)]
BATCHES = [(X[a:b], Y[a:b]) for a, b in CUTS]
WEIGHTED = [(X[a:b], Y[a:b], WEIGHTS[a:b]) for a, b in CUTS]
IN_TURN = {"batch_size": 40, "shuffle": False, "max_iter": 3}


class Giving:
    """An iterable that gives what a function of the pass's number returns."""

    def __init__(self, give):
        self.give, self.n_passes = give, 0

    def __iter__(self):
        self.n_passes += 1
        return iter(self.give(self.n_passes))


# --- iterables ------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["list", "tuple", "object", "lists"])
def test_batches_are_as_the_arrays_in_turn(kind, weighted):
    batches = WEIGHTED if weighted else BATCHES
    given = {
        "list": batches,
        "tuple": tuple(batches),
        "object": Giving(lambda n: batches),
        "lists": list(map(list, batches)),  # as a DataLoader gives them
    }[kind]
    if not weighted and kind == "lists":
        given = [[*batch, None] for batch in batches]
    weights = {"sample_weight": WEIGHTS} if weighted else {}
    expected = cnn().fit(X, Y, **IN_TURN, **weights, validation_data=(X, Y))
    for validation in (BATCHES, BATCHES[:2] + BATCHES[2:], [list(batch) for batch in BATCHES]):
        network = cnn().fit(given, max_iter=3, validation_data=validation)
        assert bits(network) == bits(expected)
        assert network.loss_history_ == expected.loss_history_
        np.testing.assert_allclose(network.val_loss_history_, expected.val_loss_history_)


@pytest.mark.parametrize("kind", ["pair of lists", "two batches", "two lists", "triples"])
def test_validation_data_of_two_or_three(kind):
    """A pair of arrays, and two batches, look alike."""
    lists = [list(batch) for batch in BATCHES]
    data = {
        "pair of lists": [X.tolist(), Y.tolist()],
        "two batches": BATCHES[:2],
        "two lists": lists[:2],
        "triples": lists,
    }[kind]
    last = {"pair of lists": 96, "triples": 96}.get(kind, 80)
    network = cnn().fit(X, Y, max_iter=1, validation_data=data)
    expected = cnn().fit(X, Y, max_iter=1, validation_data=(X[:last], Y[:last]))
    np.testing.assert_allclose(network.val_loss_history_, expected.val_loss_history_)


def test_how_often_they_are_asked_for():
    """Once to be looked at, then once in each epoch; validation too."""
    data, validation = Giving(lambda n: BATCHES), Giving(lambda n: BATCHES)
    seen = []
    cnn().fit(data, max_iter=3, validation_data=validation, callback=seen.append)
    assert data.n_passes == validation.n_passes == 4
    assert [p.n_seen for p in seen] == [40, 80, 96] * 3 and {p.n_imgs for p in seen} == {96}
    assert [p.epoch_done for p in seen] == [False, False, True] * 3


def test_their_arrays_may_be_filled_anew():
    """The memory of a batch may serve the next one."""

    def give(n):
        memory, labels = np.empty((48, 1, 8, 8), np.float32), np.empty(48, int)
        for start in (0, 48):
            memory[...], labels[...] = X[start : start + 48], Y[start : start + 48]
            yield memory, labels

    options = {"metrics": [lambda y, p: float(np.mean(y == p))]}
    network = cnn().fit(Giving(give), max_iter=2, **options)
    expected = cnn().fit(X, Y, batch_size=48, shuffle=False, max_iter=2, **options)
    assert everything(network, X) == everything(expected, X)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_kinds_of_values(dtype):
    values = (X - X.min()).astype(dtype)
    batches = [(values[a:b], [str(label) for label in Y[a:b]]) for a, b in CUTS]
    network = cnn().fit(batches, max_iter=2)
    expected = cnn().fit(values, Y.astype(str), batch_size=40, shuffle=False, max_iter=2)
    assert bits(network) == bits(expected)
    assert network.classes_.tolist() == ["0", "1", "2"]


def test_classes_may_be_in_later_batches_and_batches_empty():
    order = np.argsort(Y, kind="stable")
    cuts = [(0, 0), (0, 32), (32, 32), (32, 64), (64, 96)]
    batches = [(X[order][a:b], Y[order][a:b]) for a, b in cuts]
    network = cnn().fit(batches, max_iter=2)
    expected = cnn().fit(X[order], Y[order], batch_size=32, shuffle=False, max_iter=2)
    assert bits(network) == bits(expected)


@pytest.mark.parametrize("n_targets", [0, 2])
def test_regression(n_targets):
    y = np.random.default_rng(0).normal(size=(96, n_targets) if n_targets else 96)
    options = {"learning_rate": 0.01, "max_iter": 3}

    def network():
        return NeuralNetwork([Flatten(), Linear(max(n_targets, 1)), MeanSquaredError()], rng=0)

    batches = network().fit([(X[a:b], y[a:b]) for a, b in CUTS], **options)
    arrays = network().fit(X, y, batch_size=40, shuffle=False, **options)
    assert bits(batches) == bits(arrays) and batches.history_ == arrays.history_
    assert batches.target_shape_ == y.shape[1:] and batches.predict(X).shape == y.shape


def test_torch_loaders():
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    tensors = [torch.from_numpy(array) for array in (X, Y, WEIGHTS)]
    loader = DataLoader(TensorDataset(*tensors), batch_size=40)
    validation = DataLoader(TensorDataset(*tensors[:2]), batch_size=7)
    network = cnn().fit(loader, max_iter=3, validation_data=validation)
    expected = cnn().fit(X, Y, **IN_TURN, sample_weight=WEIGHTS, validation_data=(X, Y))
    assert bits(network) == bits(expected)
    np.testing.assert_allclose(network.val_loss_history_, expected.val_loss_history_)
    shuffled = DataLoader(TensorDataset(*tensors[:2]), batch_size=40, shuffle=True)
    assert len(cnn().fit(shuffled, max_iter=2).loss_history_) == 2
    assert bits(cnn().fit(*tensors[:2], max_iter=1)) == bits(cnn().fit(X, Y, max_iter=1))
    with pytest.raises(TypeError, match="X gives a Tensor as batch 0|expected pairs"):
        cnn().fit(DataLoader(tensors[0], batch_size=40))


# --- iterables that are refused ----------------------------------------------------------------


def test_what_gives_its_batches_only_once():
    for once in (iter(BATCHES), (batch for batch in BATCHES), map(tuple, BATCHES)):
        with pytest.raises(TypeError, match=r"X is a \w+, which gives its batches once"):
            cnn().fit(once)
        with pytest.raises(TypeError, match=r"validation_data is a \w+, which gives its batches"):
            cnn().fit(X, Y, validation_data=iter(BATCHES))
    one = iter(BATCHES)
    with pytest.raises(ValueError, match="only 0 images in epoch 1, expected 96"):
        cnn().fit(Giving(lambda n: one))


@pytest.mark.parametrize("n_first, how", [(2, "more"), (3, "only 80")])
@pytest.mark.parametrize("epoch", [1, 2])
def test_other_numbers_of_images(n_first, how, epoch):
    """The last step is kept, as after any exception in training."""
    n_images = [80, 96][n_first - 2]
    data = Giving(lambda n: BATCHES[: n_first if n <= epoch else 5 - n_first])
    network, seen = cnn(), []
    with pytest.raises(
        ValueError, match=f"X gave {how} images in epoch {epoch}, expected {n_images}"
    ):
        network.fit(data, max_iter=4, callback=lambda p: seen.append(bits(network)))
    assert len(network.loss_history_) == epoch - 1
    assert_nothing_lent(network)


@pytest.mark.parametrize(
    "data, error, message",
    [
        ([], ValueError, "X has no images"),
        ([(X[:0], Y[:0])], ValueError, "X has no images"),
        ([X, Y], TypeError, "X gives a ndarray as batch 0, expected pairs"),
        ((X, Y), TypeError, "X gives a ndarray as batch 0, expected pairs"),
        ([(X,)], TypeError, "X gives a tuple as batch 0, expected pairs"),
        ({"X": X, "y": Y}, TypeError, "X gives a str as batch 0"),
        (5, TypeError, "X is a int, expected an array with y, or batches such as a DataLoader"),
        (X, TypeError, "y is None and X is a ndarray, expected y too"),
        ([*BATCHES, (X[:5], Y[:4])], ValueError, "X of batch 3 has 5 images and y of batch 3"),
        ([*BATCHES, (X[:5, :, 1:], Y[:5])], ValueError, "X of batch 3 has shape"),
        ([*BATCHES, (X[:5] * np.nan, Y[:5])], ValueError, r"X of batch 3\[0\] has NaN"),
        ([*BATCHES, (X[:5], Y[:5], -Y[:5])], ValueError, "sample_weight of batch 3 has negative"),
        ([(X, Y * 0)], ValueError, r"y of X has only one class, 0, expected"),
        (
            [*BATCHES, (X[:5], ["0"] * 5)],
            TypeError,
            "y of batch 3 has dtype <U1, expected labels l",
        ),
        ([(X, ["a", "b"] * 48), *BATCHES], TypeError, "y of batch 1 has dtype int64, expected lab"),
    ],
)
def test_refused_before_any_work(data, error, message):
    network = cnn()
    with pytest.raises(error, match=message):
        network.fit(data)
    assert network.input_shape_ is None


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_size": 40}, "batch_size is given beside batches, expected None"),
        ({"sample_weight": WEIGHTS}, "sample_weight is given beside batches, expected pairs"),
        ({"validation_fraction": 0.2}, "validation_fraction is given beside batches, expected arr"),
    ],
)
def test_options_of_arrays_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        cnn().fit(BATCHES, **options)


@pytest.mark.parametrize("value", [X, 3, (X,), "data"])
def test_other_validation_data_are_refused(value):
    with pytest.raises((TypeError, ValueError), match="validation"):
        cnn().fit(X, Y, validation_data=value)


NEW_LABEL = [*BATCHES, (X[:5], Y[:5] + 7)]


@pytest.mark.parametrize(
    "train, message",
    [
        (
            lambda net: net.fit(X, Y, validation_data=NEW_LABEL),
            r"^validation_data: y of batch 3 has the label 7, expected one of .*\[0, 1, 2\]$",
        ),
        (lambda net: net.fit(BATCHES, validation_data=NEW_LABEL), "^validation_data: y of batch 3"),
        (lambda net: net.fit(NEW_LABEL, warm_start=True), "^y of batch 3 has the label 7"),
        (lambda net: net.partial_fit(NEW_LABEL), "^y of batch 3 has the label 7, expected one of"),
        (lambda net: cnn().partial_fit(NEW_LABEL, classes=[0, 1, 2]), "^y of batch 3 has the l"),
        (lambda net: net.fit(X, Y, validation_data=[*BATCHES, (X, Y.astype(str))]), "^validation_"),
    ],
)
def test_labels_that_are_not_among_the_known_classes(train, message):
    net = cnn().fit(X, Y, max_iter=1)
    before = everything(net, X)
    with pytest.raises((TypeError, ValueError), match=message):
        train(net)
    assert everything(net, X) == before
    assert_nothing_lent(net)


@pytest.mark.parametrize(
    "batch, message",
    [
        ((X[:5] * np.nan, Y[:5]), r"X of batch 3\[0\] has NaN, infinite or too large values"),
        ((X[:5].astype(float) * 1e300, Y[:5]), r"X of batch 3\[0\] has NaN, infinite or too large"),
        ((X[:5, :, 1:], Y[:5]), "X of batch 3 has shape"),
        ((X[:5], Y[:4]), "X of batch 3 has 5 images and validation_data: y of batch 3 has shape"),
        ((X[:5], Y[:5, None]), "y of batch 3 has shape"),
        ((X[:5], Y[:5] + 0.5), "y of batch 3 has fractional values"),
        ((X[:5], Y[:5], -Y[:5]), "sample_weight of batch 3 has negative"),
    ],
)
def test_wrong_batches_of_the_validation_are_named_so(batch, message):
    net = cnn()
    with pytest.raises(ValueError, match=f"^validation_data: {message}"):
        net.fit(X, Y, validation_data=[*BATCHES, batch])
    assert net.input_shape_ is None


def test_what_goes_wrong_in_a_later_epoch_is_named_so_too():
    changing = Giving(lambda n: NEW_LABEL if n == 2 else BATCHES)
    with pytest.raises(ValueError, match="^validation_data: y of batch 3 has the label 7"):
        cnn().fit(X, Y, validation_data=changing)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("where", ["X", "validation_data"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_exceptions_in_an_iterable(error, where, n):
    """In the n-th pass, after a batch: the first pass only looks."""

    def give(n_pass):
        yield BATCHES[0]
        if n_pass == n:
            raise error
        yield from BATCHES[1:]

    network = cnn().fit(X, Y, max_iter=1)
    before, seen = everything(network, X), []
    with losses_allowed(), pytest.raises(error):
        data = {"X": BATCHES} | {where: Giving(give)}
        network.fit(**data, max_iter=3, callback=lambda p: seen.append(bits(network)))
    assert_nothing_lent(network)
    if n == 1:
        assert everything(network, X) == before
    elif where == "X":
        assert bits(network) == seen[-1]
    assert len(network.loss_history_) == (1 if n == 1 else n - 2)


# --- memory-mapped files -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_memory_mapped_file_is_never_read_as_a_whole(dtype, shuffle, tmp_path):
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 200, (4000, 1, 16, 16)).astype(dtype)
    labels = np.arange(4000) % 3
    np.save(tmp_path / "X.npy", whole)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")

    def network():
        return NeuralNetwork(
            [Flatten(), Linear(4), Activation("tanh"), Linear(3), LogRegression()], 0
        )

    options = {"max_iter": 2, "batch_size": 64, "shuffle": shuffle, "validation_fraction": 0.1}
    weights = np.linspace(0.5, 1, 4000)
    expected = bits(network().fit(whole, labels, 1e-4, **options, sample_weight=weights))
    tracemalloc.start()
    try:
        trained = network().fit(mapped, labels, 1e-4, **options, sample_weight=weights)
        score = trained.score(mapped, labels)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert bits(trained) == expected and 0 < score < 1
    assert peak < whole.size * trained.dtype_.itemsize / 4


def test_targets_may_be_memory_mapped(tmp_path):
    y = np.random.default_rng(0).normal(size=(96, 2))
    np.save(tmp_path / "y.npy", y)
    network = NeuralNetwork([Flatten(), Linear(2), MeanSquaredError()], rng=0)
    mapped = np.load(tmp_path / "y.npy", mmap_mode="r")
    before = bits(network.fit(X, y, 0.01, max_iter=2))
    assert bits(network.fit(X, mapped, 0.01, max_iter=2)) == before


def test_bools_beside_numbers_are_of_two_kinds():
    y = np.arange(20) % 3
    X = np.zeros((20, 1, 4, 4))
    batches = [(X[:10], y[:10] > 0), (X[10:], y[10:])]
    with pytest.raises(TypeError, match="y of batch 1 has dtype int64, expected labels like bool"):
        NeuralNetwork([Flatten(), Linear(3), LogRegression()], rng=0).fit(batches)
