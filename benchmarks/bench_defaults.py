"""What `nnet train` and CNNClassifier reach without an option, beside logistic regression."""

import json
import statistics
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np

import images
from common import make_parser, matching, parse, run, run_child
from nnet.cli import main
from targets import DEFAULTS

LIBRARIES = ("logistic", "estimator")  # besides nnet, which is the command
LABELS = {"logistic": "logistic", "nnet": "nnet train", "estimator": "CNNClassifier"}
TINY = {"tiny": "digits"}
N_TINY = 60  # images


def data(name, options):
    """X, X_test, y, y_test: as they are."""
    if not options.quick:
        return images.split(name)
    return tuple(array[:N_TINY] for array in images.split(TINY[name]))


def sets(options):
    return list(matching(TINY if options.quick else images.SETS, options))


# --- in the child process ---------------------------------------------------------------


def command(X, X_test, y, y_test, seed, options):
    """The accuracy of `nnet train` and `nnet evaluate`."""
    more = ["--epochs", "1"] if options.quick else []
    with tempfile.TemporaryDirectory() as folder:
        names = "train.npz", "test.npz", "model", "scores"
        train, test, model, scores = (str(Path(folder, name)) for name in names)
        np.savez(train, X=as_images(X), y=y)
        np.savez(test, X=as_images(X_test), y=y_test)
        seeded = ["--seed", str(seed), "--test-fraction", "0", "--layout", "NCHW", *more]
        said = StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            code = main(["train", train, "-o", model, *seeded])
            code = code or main(["evaluate", model, test, "--format", "json", "-o", scores])
        if code:
            sys.exit(said.getvalue())
        return json.loads(Path(scores).read_text())["accuracy"]


def as_images(X):
    """Signals as images of one row: the command has no other word for them."""
    return X[:, :, None] if X.ndim == 3 else X


def estimator(X, X_test, y, y_test, seed, options):
    from nnet import CNNClassifier

    more = {"max_iter": 1} if options.quick else {}
    model = CNNClassifier(input_shape=X.shape[1:], random_state=seed, **more)
    return model.fit(X, y).score(X_test, y_test)


def logistic(X, X_test, y, y_test, seed, options):
    """Of standardised pixels; the seed does not matter."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    rows, rows_test = (each.reshape(len(each), -1).astype(float) for each in (X, X_test))
    return model.fit(rows, y).score(rows_test, y_test)


ACCURACIES = {"nnet": command, "estimator": estimator, "logistic": logistic}


def measure(options):
    """What the images are, and for each seed the accuracy and seconds of a training."""
    (name,) = sets(options)
    X, X_test, y, y_test = data(name, options)
    seeds = range(1 if options.child == "logistic" else options.rounds)
    accuracies, times = [], []
    for seed in seeds:
        start = time.perf_counter()
        found = ACCURACIES[options.child](X, X_test, y, y_test, seed, options)
        times.append(time.perf_counter() - start)
        accuracies.append(100 * float(found))
    about = {
        "set": name,
        "shape": "x".join(map(str, X.shape[1:])),
        "from, to": f"{X.min():.3g}, {X.max():.3g}",
        "classes": len(np.unique(y)),
        "to train": len(X),
        "to test": len(X_test),
    }
    return {"about": about, "accuracies": accuracies, "seconds": statistics.median(times)}


# --- in the parent ----------------------------------------------------------------------


def collect(options):
    libraries = [*(each for each in LIBRARIES if each in options.compare), "nnet"]
    rows = []
    for name in sets(options):
        found = {each: run_child(each, options.threads[0], "--only", name) for each in libraries}
        rows.append(found["nnet"]["about"])
        for library, result in found.items():
            rows[-1] |= columns(LABELS[library], **result)
    return {"figures": {DEFAULTS: rows}}


def columns(label, about, accuracies, seconds):
    """Mean and lowest accuracy; one alone is both."""
    row = {f"{label} %": f"{statistics.mean(accuracies):.2f}"}
    if len(accuracies) > 1:
        row[f"{label}, lowest"] = f"{min(accuracies):.2f}"
    return row | {f"{label} s": seconds}


if __name__ == "__main__":
    parser = make_parser("defaults", LIBRARIES, threads=(1,), dtypes=("float32",))
    parser.add_argument("--rounds", type=int, default=5, help="seeds of each; default: 5")
    run("defaults", parse(parser), measure, collect)
