"""Sequential, Residual and Parallel: what they refuse, by name."""

import numpy as np
import pytest
from networks import same, stripes
from structures import as_network

from nnet import (
    Activation,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    LogRegression,
    MeanSquaredError,
    Parallel,
    Pool,
    Residual,
    Sequential,
)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: Sequential(Conv(1, 3)), TypeError, "layers is Conv.*, expected a list of layers"),
        (lambda: Sequential(3), TypeError, "layers is 3, expected a list of layers"),
        (lambda: Sequential([Conv(1, 3), "relu"]), TypeError, r"layers\[1\] is 'relu', expected"),
        (
            lambda: Sequential([Conv]),
            TypeError,
            r"layers\[0\] is .*, expected an object",
        ),
        (lambda: Residual([LogRegression()]), ValueError, r"layers\[0\] is a LogRegression, expe"),
        (lambda: Residual([], shortcut=Conv(1, 3)), TypeError, "shortcut is Conv.*, expected a li"),
        (lambda: Residual([], shortcut=[1]), TypeError, r"shortcut\[0\] is 1, expected"),
        (lambda: Parallel([]), ValueError, "branches is empty, expected at least one branch"),
        (lambda: Parallel(Conv(1, 3)), TypeError, "branches is Conv.*, expected a list of lists"),
        (lambda: Parallel(None), TypeError, "branches is None, expected a list of lists"),
        (lambda: Parallel([[1]]), TypeError, r"branches\[0\]\[0\] is 1, expected a layer"),
        (lambda: Parallel([[], 1]), TypeError, r"branches\[1\] is 1, expected a list"),
        (lambda: Parallel([[], MeanSquaredError()]), ValueError, "is a MeanSquaredError, expected"),
        (lambda: Parallel([[]], "max"), ValueError, "mode is 'max', expected one of"),
        (lambda: Parallel([[]], 1), TypeError, "mode is 1, expected one of"),
    ],
)
def test_constructor_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: [Residual([Conv(2, 3)])],
            r"layer 0 \(Residual\) adds \(2, 6, 6\) and \(1, 6, 6\) .*: give shortcut=\[Conv",
        ),
        (
            lambda: [Sequential([Residual([Conv(2, 3)], shortcut=[Conv(2, 1, 2)])])],
            r"layer 0.0 \(Residual\) adds \(2, 6, 6\) and \(2, 3, 3\)",
        ),
        (
            lambda: [Conv(2, 3), Parallel([[Conv(3, 3)], [], [Conv(3, 3)]])],
            r"layer 1 \(Parallel\) joins \[\(3, 6, 6\), \(2, 6, 6\), \(3, 6, 6\)\] for each image",
        ),
        (
            lambda: [Parallel([[Conv(3, 3, 2)], []], "concat")],
            r"layer 0 \(Parallel\) joins .* by mode 'concat', expected shapes that fit: sides",
        ),
        (
            lambda: [Parallel([[GlobalAveragePool()], []], "concat")],
            r"layer 0 \(Parallel\) joins \[\(1,\), \(1, 6, 6\)\] for each image by mode 'concat'",
        ),
        (
            lambda: [Conv(2, 3), Parallel([[Flatten(), Linear(3)], []], "mul")],
            r"layer 1 \(Parallel\) joins \[\(3,\), \(2, 6, 6\)\] for each image by "
            "mode 'mul', expected shapes that fit$",
        ),
        (
            lambda: [Conv(2, 3), Activation("relu"), Sequential([Conv(3, 3, groups=2)])],
            r"groups",
        ),
        (
            lambda: [Conv(2, 3), Residual([Conv(4, 3, groups=4), Conv(2, 3)])],
            r"layer 1.0 \(Conv\) cannot take an input of shape \(.*2, 6, 6\): expected a channel",
        ),
        (
            lambda: [Residual([], shortcut=[Flatten(), Pool()])],
            r"layer 0.shortcut.1 \(Pool\) cannot take an input of shape \(.*36\)",
        ),
        (
            lambda: [Parallel([[], [Sequential([Linear(3)])]])],
            r"layer 0.1.0.0 \(Linear\) cannot take an input of shape .*Flatten",
        ),
    ],
)
def test_shapes_that_do_not_fit(make, message, rng):
    X, y = stripes(12, rng)
    for call in (
        lambda: as_network(make()).fit(X, y),
        lambda: as_network(make()).build((1, 6, 6)),
        lambda: as_network(make()).check_gradients(X, y),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_container_alone_says_what_does_not_fit():
    with pytest.raises(ValueError, match=r"^Residual adds \(2, 6, 6\) and \(1, 6, 6\)"):
        Residual([Conv(2, 3)])._setup((1, 1, 6, 6), 0)
    with pytest.raises(ValueError, match=r"^Residual adds"):
        Residual([Flatten()]).output_shape((1, 1, 6, 6))
    layer = Sequential([Sequential([Linear(3)])])
    layer._setup((2, 4), 0)
    with pytest.raises(ValueError, match=r"layer 0.0 \(Linear\) cannot take an input of shape"):
        layer.fprop(np.zeros((2, 4, 1), np.float32))


TWICE = {
    "in a row": lambda c: Sequential([c, c]),
    "inside": lambda c: Sequential([c, Sequential([Sequential([c])])]),
    "shortcut": lambda c: Residual([c], shortcut=[c]),
    "branches": lambda c: Parallel([c, [c]]),
    "branch": lambda c: Sequential([Parallel([[], [c]]), Residual([Residual([c])])]),
}


@pytest.mark.parametrize("make", TWICE.values(), ids=TWICE)
def test_the_same_object_twice(make, rng):
    X, y = stripes(12, rng)
    with pytest.raises(ValueError, match="same object twice.*expected one object per layer"):
        as_network([make(Conv(1, 3))])
    with pytest.raises(ValueError, match="same object twice"):
        make(Conv(1, 3))._setup((1, 1, 6, 6), 0)
    conv = Conv(1, 3)
    with pytest.raises(ValueError, match=r"layer 1.* \(Conv\) is also layer 0,"):
        as_network([conv, Sequential([conv])])
    network = as_network([Sequential([conv])])
    network.layers[0].layers.append(conv)
    for call in (network.fit, network.check_gradients):
        with pytest.raises(ValueError, match=r"layer 0.1 \(Conv\) is also layer 0.0"):
            call(X, y)
    with pytest.raises(ValueError, match="same object twice"):
        network.build((1, 6, 6), 3)


def test_a_container_inside_of_itself():
    layer = Sequential([Conv(1, 3)])
    layer.layers.append(layer)
    with pytest.raises(ValueError, match="same object twice"):
        as_network([layer])
    with pytest.raises(ValueError, match="same object twice"):
        layer._setup((1, 1, 6, 6), 0)


@pytest.mark.parametrize(
    "intruder, error, message",
    [
        (MeanSquaredError(), ValueError, r"layer 0.1 \(MeanSquaredError\) is inside of another la"),
        ("relu", TypeError, r"layer 0 \(Sequential\) has 'relu' inside .*, expected an instance"),
    ],
)
def test_what_is_no_layer_put_into_a_list(intruder, error, message, rng):
    X, y = stripes(12, rng)
    network = as_network([Sequential([Conv(1, 3)])])
    fitted = as_network([Sequential([Conv(1, 3)])]).fit(X, y, max_iter=1)
    before = fitted.state_dict()
    for each in (network, fitted):
        each.layers[0].layers.append(intruder)
    for call in (
        lambda: network.fit(X, y),
        lambda: network.build((1, 6, 6)),
        lambda: fitted.predict(X),
        lambda: fitted.fit(X, y),
    ):
        with pytest.raises(error, match=message):
            call()
    fitted.layers[0].layers.pop()
    fitted.predict(X)
    assert same(list(before.values()), list(fitted.state_dict().values()))


def test_nested_layers_belong_to_one_network(rng):
    X, y = stripes(12, rng)
    inner = Conv(1, 3)
    first = as_network([Residual([inner])]).fit(X, y, max_iter=1)
    with pytest.raises(ValueError, match=r"layer 0.1.0 \(Conv\) belongs to another network"):
        as_network([Parallel([[], [inner]])]).fit(X, y)
    first.predict(X)
