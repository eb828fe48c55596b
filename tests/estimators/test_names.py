"""Names of other libraries, and misspelt ones: errors say what to type."""

import re

import pytest

pytest.importorskip("sklearn", "1.6")

import numpy as np

import nnet
from nnet import AdamW, CNNClassifier, CNNRegressor, Conv, Linear
from nnet.estimators.hints import HINTS

X, Y = np.eye(12)[np.arange(36) % 12], np.arange(36) % 3
OTHERS = {
    "lr": "learning_rate_init",
    "weight_decay": "alpha",
    "patience": "n_iter_no_change",
    "min_delta": "tol",
    "optimizer": "solver",
    "epochs": "max_iter",
    "max_epochs": "max_iter",
    "seed": "random_state",
    "rng": "random_state",
    "validation_split": "validation_fraction",
    "callbacks": "nnet.NeuralNetwork.fit, which has it",
    "metrics": "nnet.NeuralNetwork.fit, which has it",
    "validation_data": "nnet.NeuralNetwork.fit, which has it",
    "n_jobs": "n_threads",
    "hidden_layer_sizes": 'layers="linear100,relu"',
    "nesterovs_momentum": "none: momentum is plain; nnet.NeuralNetwork.fit, which has it",
    "shuffle": "none: every epoch has an order of its own",
    "loss": "a loss as the last of layers, such as LogRegression()",
    "device": "none: nnet computes on CPUs",
}
MISSPELT = {
    "learning_rate_int": "learning_rate_init",
    "bach_size": "batch_size",
    "earlystopping": "early_stopping",
    "maxiter": "max_iter",
    "Alpha": "alpha",
    "n_iter_no_changes": "n_iter_no_change",
    "input_shap": "input_shape",
}


@pytest.mark.parametrize("cls", [CNNClassifier, CNNRegressor])
@pytest.mark.parametrize("name", OTHERS)
def test_names_of_other_libraries(cls, name):
    expected = re.escape(OTHERS[name])
    with pytest.raises(TypeError, match=rf"no argument '{name}', expected {expected}$"):
        cls(**{name: 1})
    with pytest.raises(
        ValueError,
        match=rf"^Invalid parameter '{name}' for .* {cls.__name__}, expected {expected}$",
    ):
        cls().set_params(**{name: 1})


@pytest.mark.parametrize("name", MISSPELT)
def test_misspelt_names(name):
    expected = rf"expected one of \(.*\): did you mean '{MISSPELT[name]}'\?$"
    with pytest.raises(TypeError, match=expected):
        CNNClassifier(**{name: 1})
    with pytest.raises(ValueError, match=expected):
        CNNClassifier().set_params(**{name: 1})


def test_a_regressor_has_no_class_weight():
    for call in (CNNRegressor, CNNRegressor().set_params):
        with pytest.raises((TypeError, ValueError), match="expected sample_weight of fit$"):
            call(class_weight="balanced")


def test_hints_are_for_what_is_no_parameter():
    for cls in (CNNClassifier, CNNRegressor):
        assert not set(cls.HINTS) & set(cls().get_params())
    assert set(CNNRegressor.HINTS) == {*HINTS, "class_weight"}


def test_parameters_are_set():
    assert CNNClassifier().set_params(max_iter=3, alpha=0).get_params()["max_iter"] == 3


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"layers": "lenet"}, ValueError, r"did you mean 'lenet5'\?$"),
        ({"layers": "LeNet5"}, ValueError, r"did you mean 'lenet5'\?$"),
        ({"layers": "resnet"}, ValueError, r"did you mean 'resnet8'\?$"),
        ({"layers": "linear8,rellu"}, ValueError, r"layer 'rellu': .* did you mean 'relu'\?; or"),
        ({"layers": "covn8-3x3"}, ValueError, r"did you mean 'conv'\?; or"),
        ({"learning_rate": "adaptive"}, ValueError, r"did you mean 'plateau'\?$"),
        ({"learning_rate": "invscaling"}, ValueError, r"did you mean 'exponential'\?$"),
        ({"learning_rate": "cosin"}, ValueError, r"did you mean 'cosine'\?$"),
        ({"solver": "Adam"}, ValueError, r"did you mean 'adam'\?$"),
        ({"solver": "lbfgs"}, ValueError, r"expected one of \(.*\)$"),
        ({"solver": AdamW(0.1)}, TypeError, "solver is AdamW.*, expected its name, .* alpha of"),
        ({"solver": AdamW}, TypeError, "solver is .*AdamW.*, expected its name, .* alpha of"),
    ],
)
def test_words(options, error, message):
    with pytest.raises(error, match=message):
        CNNClassifier(**options).fit(X, Y)


def test_misspelt_words_of_layers():
    with pytest.raises(ValueError, match=r"did you mean 'relu'\?$"):
        nnet.Activation("rellu")
    with pytest.raises(TypeError, match=r"did you mean 'n_out'\?$"):
        Linear(nout=3)
    with pytest.raises(TypeError, match="expected filter_shape$"):
        Conv(3, kernel_size=3)
