#!/usr/bin/env bash
# MLPClassifier's early stopping holds back the same share of each class only if there are two.
#
# Of three or more classes it draws without regard to them, although its documentation speaks of a
# stratified split: a class of 10 % may have no image in the validation set, or, if it is rarer
# still, none left in the training set, by the luck of random_state. The score that decides when to
# stop then ignores that class. A single image of a class is refused with two classes, and goes
# unnoticed with three.
#
# nnet: validation_fraction takes its share of each class, and names one with too few images.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'END'
import warnings
from unittest import mock

import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier, _multilayer_perceptron

warnings.simplefilter("ignore")  # of a single epoch
print("scikit-learn", sklearn.__version__)
split = _multilayer_perceptron.train_test_split


def held_back(counts, seed):
    """How many images of the last class are in the validation set, of 10 % of all."""
    found = []

    def watched(*arrays, **options):
        parts = split(*arrays, **options)
        found.append(int(parts[3][:, -1].sum()))  # the classes are columns by then
        return parts

    y = np.repeat(np.arange(len(counts)), counts)
    X = np.random.default_rng(0).normal(size=(len(y), 2))
    with mock.patch.object(_multilayer_perceptron, "train_test_split", watched):
        MLPClassifier((2,), early_stopping=True, max_iter=1, random_state=seed).fit(X, y)
    return found[0]


two = [held_back((180, 20), seed) for seed in range(20)]
three = [held_back((90, 90, 20), seed) for seed in range(20)]
print("of 20 images, held back by seed: with two classes", two, "with three", three)
assert set(two) == {2} and 0 in three and max(three) > 2

assert held_back((90, 109, 1), 0) in (0, 1)
try:
    held_back((199, 1), 0)
except ValueError as error:
    print("a class of one image: three classes are fitted, two give:", str(error).partition(",")[0])
else:
    raise SystemExit("two classes are fitted too")
END
