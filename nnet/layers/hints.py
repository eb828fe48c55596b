"""Hints: what other libraries call otherwise, for errors that say what to type."""

import reprlib
from functools import wraps

from nnet._lazy import IMPORTS

# Arguments: names that a function may have instead, and for others what is expected.
OTHER_NAMES = {
    "kernel_size": ("filter_shape", "pool_shape"),
    "pool_size": ("pool_shape",),
    "filters": ("n_feats",),
    "out_channels": ("n_feats",),
    "units": ("n_out",),
    "out_features": ("n_out",),
    "num_classes": ("n_classes", "n_outputs"),
    "n_classes": ("n_outputs",),
    "num_groups": ("n_groups",),
    "stride": ("strides",),
    "padding": ("padding_mode", "pads"),
    "bias": ("use_bias",),
    "scale_factor": ("factor",),
    "interpolation": ("mode",),
    "p": ("rate",),
    "epsilon": ("eps",),
    "kernel_initializer": ("weight_scale",),
    "random_state": ("rng",),
    "seed": ("rng",),
    "lr": ("learning_rate",),
    "learning_rate_init": ("learning_rate",),
    "initial_learning_rate": ("learning_rate",),
    "min_lr": ("min_learning_rate",),
    "eta_min": ("min_learning_rate",),
    "max_lr": ("max_learning_rate",),
    "solver": ("optimizer",),
    "sample_weights": ("sample_weight",),
    "validation_split": ("validation_fraction",),
    "augmentation": ("augment",),
    "scheduler": ("learning_rate",),
    "restore_best_weights": ("restore_best",),
    "filepath": ("path",),
    **dict.fromkeys(("epochs", "n_epochs", "num_epochs", "max_epochs"), ("max_iter", "n_epochs")),
    **dict.fromkeys(("T_max", "total_steps", "decay_steps"), ("n_epochs",)),
}
OWN_SHAPE = "none: a layer takes them from its input"
OTHER_WAYS = {
    **dict.fromkeys(("in_channels", "in_features", "num_features", "num_channels"), OWN_SHAPE),
    "activation": "Activation(...) as the next layer",
    "input_shape": "fit(X, y), which sees it, or network.build(input_shape)",
    **dict.fromkeys(("early_stopping", "patience"), "callbacks=[EarlyStopping(patience=...)]"),
    "progress": "callbacks=[ProgressBar()]",
    "loss": "a loss as the last layer, such as LogRegression()",
    "device": "none: nnet computes on CPUs",
    "save_best_only": "EarlyStopping(), which puts the best epoch back at the end",
    "weight_decay": "weight_decay of the layers, or AdamW(weight_decay=...)",
    **dict.fromkeys(("weight", "class_weight"), "class_weight of fit"),
    "from_logits": "none: it always takes scores, which are logits",
    "verbose": "none: fit(..., verbose=True) says so",
    "affine": "none: it always has gamma and beta",
    "align_corners": "none: it is as with align_corners=False",
}
OTHER_WORDS = {
    "swish": "silu",
    "adaptive": "plateau",
    "invscaling": "exponential",
    "symmetric": "reflect",
    **dict.fromkeys(("edge", "replicate"), "nearest"),
    "circular": "wrap",
    "zeros": "constant",
}
ALIKE = 0.75  # of difflib's ratio: two words of which one is misspelt
# Attributes of a network.
OTHER_METHODS = {
    "evaluate": "score(X, y), or error(X, y)",
    "history": "history_",
    "parameters": "params(), or state_dict()",
    "compile": "fit(X, y, optimizer=...), with a loss as the last layer",
    "add": "layers.append(...)",
    "train": "fit(X, y): layers are in training there alone",
    "eval": "predict(X): layers are in training in fit alone",
    "forward": "outputs(X)",
    "transform": "outputs(X)",
    "to": "none: nnet computes on CPUs",
    "save_weights": "save(path), or state_dict()",
    "load_weights": "NeuralNetwork.load(path), or load_state_dict(state)",
}
# Names of the module.
OTHER_CLASSES = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv1d", "Conv2d"), "Conv"),
    **dict.fromkeys(("Conv2DTranspose", "ConvTranspose2d"), "ConvTranspose"),
    "DepthwiseConv2D": "DepthwiseConv",
    "SeparableConv2D": "SeparableConv",
    "Dense": "Linear",
    **dict.fromkeys(("MaxPool2d", "MaxPooling2D", "MaxPool2D"), "Pool(2, 2)"),
    **dict.fromkeys(("AvgPool2d", "AveragePooling2D"), 'Pool(2, 2, mode="avg")'),
    **dict.fromkeys(("GlobalAveragePooling2D", "AdaptiveAvgPool2d"), "GlobalAveragePool"),
    "GlobalMaxPooling2D": "GlobalMaxPool",
    **{name: f'Activation("{name.lower()}")' for name in ("ReLU", "Sigmoid", "Tanh", "Softmax")},
    **{name: f'Activation("{name.lower()}")' for name in ("GELU", "SiLU", "ELU", "SELU", "ReLU6")},
    "LeakyReLU": 'Activation("leaky_relu")',
    **dict.fromkeys(("BatchNorm1d", "BatchNorm2d", "BatchNormalization"), "BatchNorm"),
    "GroupNormalization": "GroupNorm",
    **dict.fromkeys(("Dropout2d", "SpatialDropout2D"), "Dropout(rate, channels=True)"),
    **dict.fromkeys(("ZeroPad2d", "ZeroPadding2D"), "Pad"),
    "UpSampling2D": "Upsample",
    **dict.fromkeys(("CrossEntropyLoss", "SparseCategoricalCrossentropy"), "LogRegression"),
    **dict.fromkeys(("BCEWithLogitsLoss", "BinaryCrossentropy"), "BinaryCrossEntropy"),
    "MSELoss": "MeanSquaredError",
    "L1Loss": "MeanAbsoluteError",
    **dict.fromkeys(("HuberLoss", "SmoothL1Loss"), "Huber"),
    **dict.fromkeys(("Model", "Module"), "NeuralNetwork"),
    **dict.fromkeys(("ModelCheckpoint", "BackupAndRestore"), "Checkpoint"),
    "ReduceLROnPlateau": "ReduceOnPlateau",
    "StepLR": "StepDecay",
    "ExponentialLR": "ExponentialDecay",
    "CosineAnnealingLR": "CosineDecay",
    "OneCycleLR": "OneCycle",
    "filter2D": "correlate",
    "convolve": "correlate(image, kernel[::-1, ::-1]) for kernels of odd size",
    "uniform_filter": "correlate(image, np.full((n, n), 1 / n**2))",
    **dict.fromkeys(("dilate", "grey_dilation"), "maximum_filter"),
    **dict.fromkeys(("erode", "grey_erosion"), "minimum_filter"),
}


CHANNELS_ARE_FOUND = "it finds the number of channels itself"


def with_hints(by_position="", /, **hints):
    """Decorates a function: arguments that it does not have are refused by what to type.

    Parameters
    ----------
    by_position : str
        What to say, beside the names there are, where too many arguments have none.
    hints : str
        What is expected in place of an argument of this name, before what the tables have.
    """

    def decorate(function):
        code = function.__code__
        n_most = code.co_argcount
        named = code.co_varnames[: n_most + code.co_kwonlyargcount]
        known = tuple(name for name in named if name != "self")
        n_self = len(named) - len(known)
        required = known[: n_most - n_self - len(function.__defaults__ or ())]

        @wraps(function)
        def checked(*args, **options):
            if len(args) > n_most:
                refuse_by_position(called(args), known, n_most - n_self, args[n_self:], by_position)
            for name in options:
                if name not in known:
                    expected = expected_for(name, known, hints)
                    raise TypeError(f"{called(args)} has no argument {name!r}, expected {expected}")
            missing = [name for name in required[len(args) - n_self :] if name not in options]
            if missing:
                call = as_named_call(called(args), known, n_most - n_self)
                raise TypeError(f"{called(args)} lacks {', '.join(missing)}, expected {call}")
            return function(*args, **options)

        def called(args):
            is_init = function.__name__ == "__init__" and args
            return type(args[0]).__name__ if is_init else function.__name__

        return checked

    return decorate


def refuse_by_position(what, known, n_most, args, advice):
    """The error of too many arguments without a name: what has one."""
    shown, expected = ", ".join(map(reprlib.repr, args)), as_named_call(what, known, n_most)
    raise TypeError(f"got {what}({shown}), expected {expected}{advice and ': ' + advice}")


def as_named_call(what, known, n_most):
    """A call, with the names of its arguments: some of them by position."""
    return f"{what}({', '.join([*known[:n_most], *[f'{name}=' for name in known[n_most:]]])})"


def near_word(value, words):
    """Which of some words is meant by one that others write, or that is misspelt; or None."""

    def plain(word):
        return word.lower().replace("_", "").replace("-", "")

    meant = plain(OTHER_WORDS.get(value.lower(), value))
    known = {plain(word): word for word in words}
    if meant in known:
        return known[meant]
    with IMPORTS:
        from difflib import get_close_matches  # few programs need it

    near = get_close_matches(meant, known, 1, ALIKE)
    return known[near[0]] if near else None


def did_you_mean(value, words):
    """What to say of a wrong word, as the end of an error: nothing, if it is like no other."""
    meant = near_word(value, words)
    return "" if meant is None else f": did you mean {meant!r}?"


def expected_for(name, known, hints):
    """What to type in place of an argument."""
    if name in hints:
        return hints[name]
    others = [other for other in OTHER_NAMES.get(name, ()) if other in known]
    if others:
        return others[0]
    return OTHER_WAYS.get(name) or f"one of {known}{did_you_mean(name, known)}"


def layer_for(value):
    """What to type in place of what is no layer."""
    if isinstance(value, str):
        return f"a layer such as Activation({value!r})"
    if isinstance(value, type):
        return f"an object such as {value.__name__}(...), not its class"
    if isinstance(value, (list, tuple)):
        return "a layer: Sequential([...]) makes one of a list"
    return "a layer, of nnet or of a class of yours that is derived from Layer"
