"""Hints: what users of other libraries type, and what these estimators have for it."""

import re
from contextlib import contextmanager

from nnet.layers.hints import expected_for
from nnet.training.layouts import ADVICE
from nnet.training.progress import DivergedError

OF_FIT = "nnet.NeuralNetwork.fit, which has it"
OF_OPTIMIZERS = "none: nnet.NeuralNetwork.fit has it, as optimizer=Adam(...)"
HINTS = {
    **dict.fromkeys(("lr", "optimizer__lr", "initial_learning_rate"), "learning_rate_init"),
    **dict.fromkeys(("scheduler", "lr_scheduler", "lr_schedule"), "learning_rate"),
    **dict.fromkeys(("weight_decay", "l2", "reg_lambda", "C"), "alpha"),
    **dict.fromkeys(("patience", "early_stopping_rounds"), "n_iter_no_change"),
    **dict.fromkeys(("min_delta", "threshold"), "tol"),
    **dict.fromkeys(("restore_best", "restore_best_weights"), "early_stopping=True, which does so"),
    "optimizer": "solver",
    **dict.fromkeys(("rng", "seed"), "random_state"),
    **dict.fromkeys(("n_jobs", "num_threads"), "n_threads"),
    **dict.fromkeys(("hidden_layer_sizes", "hidden_units"), 'layers="linear100,relu"'),
    "activation": 'layers="linear100,relu", in which the functions stand',
    **dict.fromkeys(("module", "model", "build_fn"), "layers"),
    **dict.fromkeys(("loss", "criterion"), "a loss as the last of layers, such as LogRegression()"),
    **dict.fromkeys(("nesterovs_momentum", "nesterov"), f"none: momentum is plain; {OF_FIT}"),
    "shuffle": "none: every epoch has an order of its own",
    **dict.fromkeys(("beta_1", "beta_2", "epsilon", "betas", "eps"), OF_OPTIMIZERS),
    **dict.fromkeys(("callback", "callbacks", "metrics", "validation_data"), OF_FIT),
    **dict.fromkeys(("clip_norm", "clip_value", "resume"), OF_FIT),
    **dict.fromkeys(("power_t", "max_fun"), "none"),
}


def check_names(estimator, names):
    """Refuse what are no parameters of an estimator, in scikit-learn's words and by the hints."""
    known = tuple(estimator.get_params(deep=False))
    for name in names:
        if name.partition("__")[0] not in known:
            expected = expected_for(name, known, estimator.HINTS)
            raise ValueError(
                f"Invalid parameter {name!r} for estimator {type(estimator).__name__}, expected "
                f"{expected}"
            )


@contextmanager
def in_own_words(estimator, image_shape):
    """A context whose errors name the estimator's parameters, where those of the network differ."""
    try:
        yield
    except (ValueError, DivergedError) as error:
        text = str(error)
        if len(image_shape) == 2:
            text = text.replace(ADVICE, f"input_shape={(1, *image_shape)} for grey images")
        if isinstance(estimator.learning_rate, str):
            text = text.replace("smaller learning_rate", "smaller learning_rate_init")
        text = re.sub(r"(learning_rate\w* than) ([\d.e+-]*\d)", _rounded, text)
        text = re.sub("scale X( and y)? to values around 1", estimator._SCALING, text)
        error.args = (text,)
        raise


def _rounded(match):
    return f"{match[1]} {float(match[2]):.3g}"
