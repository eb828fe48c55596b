"""The table of a network's layers, and the same as data."""

import math

import numpy as np
import pytest

from nnet import (
    Activation,
    BatchNorm,
    Conv,
    ConvTranspose,
    DepthwiseConv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    GroupNorm,
    Layer,
    Linear,
    LogRegression,
    MeanSquaredError,
    NeuralNetwork,
    Pad,
    Parallel,
    Pool,
    Residual,
    SeparableConv,
    Sequential,
    Upsample,
    zoo,
)


def built(layers, input_shape, loss=LogRegression, **options):
    return NeuralNetwork([*layers, loss()], rng=0).build(input_shape, **options)


def row(network, name):
    (found,) = [row for row in network.summary().rows if row.name == name]
    return found


def test_a_small_network_as_data():
    layers = [Conv(4, 3), BatchNorm(), Pool(2, 2), Flatten(), Linear(3)]
    network = built(layers, (2, 6, 8))
    network.freeze([0, 1])
    summary = network.summary()
    assert [row.name for row in summary.rows] == list("012345")
    assert [row.layer for row in summary.rows] == network.layers
    assert [row.output_shape for row in summary.rows] == [
        *[(4, 6, 8)] * 2,
        (4, 3, 4),
        (48,),
        (3,),
        (3,),
    ]
    assert [row.n_params for row in summary.rows] == [76, 8, 0, 0, 147, 0]
    assert [row.n_state for row in summary.rows] == [0, 8, 0, 0, 0, 0]
    assert [row.multiply_adds for row in summary.rows] == [72 * 48, 0, 0, 0, 144, 0]
    assert [row.receptive_field for row in summary.rows] == [
        *[(3, 3)] * 2,
        (4, 4),
        *[(math.inf, math.inf)] * 3,
    ]
    assert [row.is_frozen for row in summary.rows] == [True, True, *[False] * 4]
    assert (summary.n_params, summary.n_frozen, summary.n_state) == (231, 84, 8)
    assert summary.multiply_adds == 72 * 48 + 144 and summary.input_shape == (2, 6, 8)


TABLE = """
layer                    output     parameters  state  multiply-adds   sees
---------------------------------------------------------------------------
0 Conv(2, 3x3) (frozen)  2 x 8 x 8          20                 1,152  3 x 3
1 Residual               2 x 8 x 8          42      4          2,304  5 x 5
  1.0 Conv(2, 3x3)       2 x 8 x 8          38                 2,304  5 x 5
  1.1 BatchNorm()        2 x 8 x 8           4      4                 5 x 5
2 Flatten()              128                                            all
3 Linear(3)              3                 387                   384    all
4 LogRegression()        3                                              all
---------------------------------------------------------------------------
449 parameters (20 of them frozen), 4 values of state, 3,840 multiply-adds for an image \
(1, 8, 8) of float32
"""


def test_the_table():
    layers = [Conv(2, 3), Residual([Conv(2, 3), BatchNorm()]), Flatten(), Linear(3)]
    network = NeuralNetwork([*layers, LogRegression()])
    assert "Residual(layers=[Conv(n_feats=2" in str(network)  # nothing is known of it yet
    with pytest.raises(ValueError, match="not fitted"):
        network.summary()
    network.build((1, 8, 8)).freeze(0)
    last, network.layers[-2] = network.layers[-2], Linear(5)
    assert str(network) == repr(network)
    network.layers[-2] = last
    assert str(network) == repr(network.summary()) == TABLE.strip().replace("\\\n", "")


def test_a_network_is_shown_as_what_makes_it():
    network = NeuralNetwork([Flatten(), Linear(2), LogRegression()], rng=3)
    assert repr(network) == (
        "NeuralNetwork([\n    Flatten(),\n    Linear(n_out=2),\n    LogRegression(),\n], rng=3)"
    )
    assert repr(eval(repr(network))) == repr(network)


def test_signals_and_rows():
    network = built([Conv(4, 5), Pool(2, 2), Flatten(), Linear(3)], (2, 50))
    assert row(network, "1").receptive_field == (1, 6)
    assert "4 x 25 " in str(network) and " 6\n" in str(network)
    network = built([Linear(5), Linear(3)], (7,))
    assert row(network, "0").receptive_field is None
    assert "sees" not in str(network) and "state" not in str(network)


@pytest.mark.parametrize("make", [zoo.resnet8, zoo.mobile_small, zoo.lenet5, zoo.all_conv])
def test_sums_of_the_zoo(make):
    network = NeuralNetwork(make(), rng=0).build((3, 32, 32))
    summary = network.summary()
    assert summary.n_params == sum(param.size for param in network.params())
    assert summary.n_params + summary.n_state == sum(a.size for a in network.state_dict().values())
    assert summary.multiply_adds == sum(
        row.multiply_adds for row in summary.rows if not row.layer.children
    )


class Own(Layer):
    def fprop(self, input):
        return input

    bprop = fprop

    def output_shape(self, input_shape):
        return input_shape


def test_nobody_knows_what_layers_of_ones_own_see():
    network = built([Conv(2, 3), Own(), Conv(2, 3), Flatten(), Linear(3)], (1, 8, 8))
    assert row(network, "0").receptive_field == (3, 3)
    assert row(network, "1").receptive_field is row(network, "2").receptive_field is None
    assert row(network, "2").multiply_adds == 36 * 64


REACHES = {
    "conv": [Conv(2, 3), Conv(2, (5, 3), dilation=(1, 2))],
    "strides": [Conv(2, 3, 2), Conv(2, 3), Pool((2, 3), (2, 1), "avg")],
    "depthwise": [DepthwiseConv(3), SeparableConv(2, 5)],
    "transposed": [Conv(2, 3), ConvTranspose(2, 4, 2), Conv(2, 3)],
    "transposed, dilation": [ConvTranspose(2, 3, 2, dilation=2)],
    "upsample": [Upsample(2), Conv(2, 3)],
    "bilinear": [Conv(2, 3, 2), Upsample(2, "bilinear")],
    "others": [Pad(1), Activation("sigmoid"), Dropout(), Conv(2, 3), BatchNorm()],
    "residual": [Residual([Conv(2, 3), Conv(2, 3)], shortcut=[Conv(2, 1)]), Conv(2, 3)],
    "parallel": [Parallel([[Conv(2, 3)], [Conv(2, 1), Conv(2, 7)]], mode="concat")],
    "nested": [Sequential([Pool(2, 2, mode="avg"), Residual([Conv(1, 3)])])],
}


@pytest.mark.parametrize("case", REACHES)
def test_what_a_pixel_sees_is_where_its_gradient_is(case):
    """Of all outputs in the middle one sees as much as is told, and none sees more."""
    network = built(REACHES[case], (1, 24, 24), MeanSquaredError, dtype="float64")
    for param in network.params():
        param[...] = np.abs(param) + 0.1
    layers = network.layers[:-1]
    X = np.random.default_rng(0).uniform(1, 2, (1, 1, 24, 24))
    output = X
    for layer in layers:
        layer.training = not isinstance(layer, (Dropout, BatchNorm))
        output = layer.fprop(output)
    most = np.zeros(2, int)
    middle = output.shape[2] // 2
    for y, x in np.ndindex(4, 4):
        grad = np.zeros_like(output)
        grad[0, :, middle - y, middle - x] = 1
        for layer in layers[::-1]:
            if isinstance(layer, (Dropout, BatchNorm)):
                continue  # which pass it where it is
            grad = layer.bprop(grad)
        seen = [np.flatnonzero(np.abs(grad[0, 0]).max(axis=axis)) for axis in (1, 0)]
        most = np.maximum(most, [np.ptp(places) + 1 if len(places) else 0 for places in seen])
    told = row(network, str(len(layers) - 1)).receptive_field
    assert [math.ceil(length) for length in told] == most.tolist()


def test_what_sees_all():
    for layers in ([GlobalAveragePool()], [GroupNorm(1), GlobalAveragePool()]):
        network = built([*layers, Linear(2)], (1, 4, 4))
        assert row(network, "0").receptive_field == (math.inf, math.inf)
