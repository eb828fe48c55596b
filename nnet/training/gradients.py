"""Gradients by central differences: the check of every layer's bprop."""

import copy
from typing import NamedTuple

import numpy as np

from nnet._atomic import AtWork
from nnet.layers import ParamMixin
from nnet.layers.streams import as_generator, as_streams, saved_state
from nnet.layers.tree import collect, describe, frozen_in, named_arrays, numbered, walk
from nnet.training.batches import Encoding
from nnet.training.data import as_images, check_lengths
from nnet.training.setup import set_up


class GradientError(NamedTuple):
    """How far one parameter array's gradient is from central differences."""

    name: str
    abs_error: float  # largest absolute difference
    rel_error: float  # the same, divided by the largest absolute gradient


def check(network, X, y, eps, max_checks):
    """One GradientError for each array that training changes, measured on a copy."""
    X = as_images(X, np.float64)
    check_lengths(X, y)
    twin = copy.deepcopy(network)
    fitted = twin._model
    arrays = None if fitted is None else fitted.copied_arrays()
    model, target = _set_up(twin, X, y, fitted)
    children = numbered(model.layers)
    frozen = frozen_in(children)
    layers = [
        (describe(name, layer), layer)
        for name, layer in walk(children)
        if isinstance(layer, ParamMixin) and id(layer) not in frozen
    ]
    if arrays is not None:
        for name, array in named_arrays(children).items():
            array[...] = arrays[name]
    names = [f"{name}.params()[{j}]" for name, layer in layers for j in range(len(layer.params()))]
    images = X.reshape(len(X), *model.image_shape)

    loans = model.loans(training=True, streams=as_streams(0))
    rewinds = [saved_state(work.rng) for _, work in loans]

    def compare():
        for rewind in rewinds:  # layers draw the same numbers every time
            rewind()
        return model.loss.compare(model.program.fprop(images), target)

    at_work = AtWork(model)
    try:
        at_work.begin()
        at_work.lend(loans)
        model.program.bprop(np.asarray(compare().grad))
        params = collect([layer for _, layer in layers], "params")
        grads = [np.array(grad) for grad in collect([layer for _, layer in layers], "param_grads")]
        return [
            _compare(name, param, grad, lambda: compare().losses.mean(), eps, max_checks)
            for name, param, grad in zip(names, params, grads, strict=True)
        ]
    finally:
        at_work.end()


def _set_up(twin, X, y, fitted):
    """A Model in float64, and what its loss compares with."""
    encoding = Encoding(twin.layers[-1], np.float64) if fitted is None else Encoding.of(fitted)
    encoding.dtype, encoding.image_shape = X.dtype, X.shape[1:]
    labels = encoding.labels_or_values(y)
    if encoding.is_classifier and encoding.classes is None:
        encoding.classes = np.unique(labels)
    target = encoding.target(labels)
    streams, signals = as_streams(twin.rng), fitted and fitted.signals
    model = set_up(
        twin,
        streams,
        encoding,
        len(X),
        known_shape=twin._built_shape,
        signals=signals,
        keep_frozen=False,  # their arrays may be of float32, and are copied later
    )
    return model, model.as_target(target[:])


def _compare(name, param, grad, loss, eps, max_checks):
    if param.dtype != np.float64:
        raise TypeError(f"{name} has dtype {param.dtype}, expected the layer's dtype, now float64")
    picks = np.arange(param.size)
    if max_checks is not None and max_checks < param.size:
        picks = as_generator(0).choice(param.size, max_checks, replace=False)
    differences = np.empty(len(picks))
    for i, pick in enumerate(picks):
        value = param.flat[pick]
        param.flat[pick] = value + eps
        above = loss()
        param.flat[pick] = value - eps
        below = loss()
        param.flat[pick] = value
        differences[i] = (above - below) / (2 * eps)
    gradients = grad.flat[picks]
    abs_error = np.max(np.abs(gradients - differences))
    largest = max(np.max(np.abs(gradients)), np.max(np.abs(differences)))
    return GradientError(name, float(abs_error), float(abs_error / largest) if largest else 0.0)
