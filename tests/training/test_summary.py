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
layer                  output  params  state  multiply-adds  sees
-----------------------------------------------------------------
0 Conv(2, 3) (frozen)  2x8x8       20                 1,152   3x3
1 Residual()           2x8x8       42      4          2,304   5x5
  1.0 Conv(2, 3)       2x8x8       38                 2,304   5x5
  1.1 BatchNorm()      2x8x8        4      4                  5x5
2 Flatten()            128                                    all
3 Linear(3)            3          387                   384   all
4 LogRegression()      3                                      all
-----------------------------------------------------------------
449 parameters (20 of them frozen), 4 values of state
3,840 multiply-adds for an image (1, 8, 8) of float32
"""

TREE = """
0 Conv(2, 3)
1 Residual()
  1.0 Conv(2, 3)
  1.1 BatchNorm()
2 Flatten()
3 Linear(3)
4 LogRegression()
"""


def small():
    layers = [Conv(2, 3), Residual([Conv(2, 3), BatchNorm()]), Flatten(), Linear(3)]
    return NeuralNetwork([*layers, LogRegression()])


def test_the_table():
    network = small()
    with pytest.raises(ValueError, match="not fitted"):
        network.summary()
    network.build((1, 8, 8)).freeze(0)
    assert str(network) == repr(network.summary()) == TABLE.strip()


def test_the_tree_of_a_network_that_is_not_set_up():
    network = small()
    tree, rule, why = str(network).rpartition("-" * 17 + "\n")
    assert tree == TREE.lstrip()
    assert " ".join(why.split()) == (
        "no shapes and numbers: this network is not fitted yet, expected a call of fit or build "
        "first"
    )
    network.build((1, 8, 8)).layers[-2] = Linear(5)
    assert TREE.strip().replace("Linear(3)", "Linear(5)") in str(network)
    assert "no shapes and numbers: layer 3 (Linear)" in str(network)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_table_is_as_wide_as_the_terminal(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    network = NeuralNetwork(zoo.small_unet(), rng=0)
    lines = str(network).splitlines()
    assert max(map(len, lines)) <= width
    network.build((1, 64, 64)).freeze("6.1.7.1.7")
    lines = str(network).splitlines()
    if width == 120:
        (line,) = [line for line in lines if "6.1.7.1.7" in line]
        assert line.strip().startswith("6.1.7.1.7 ConvTranspose(32, 2, strides=2) (frozen)  32x32x")
    else:
        assert max(map(len, lines[:-2])) <= max(width, 73)  # where the layers have 24
        assert sum("... (frozen)  32x32x32 " in line for line in lines) == 1
        (line,) = [line for line in lines if line.startswith("    6.1.8")]
        assert "..." in line and line.endswith("36x36")
    heads, cells = lines[0], lines[2:-3]
    for head, end in zip(("params", "state", "multiply-adds", "sees"), (0, 0, 0, 0)):
        end = heads.index(head) + len(head)
        assert all(line[end - 1 : end + 2].strip() in ("", line[end - 1]) for line in cells)


class Wordy(Activation):
    def __repr__(self):
        return "Wordy(\n    'relu',\n)"


@pytest.mark.parametrize(
    "layer, words",
    [
        (Pool(), "Pool(3)"),
        (Pool(mode="avg"), "Pool(3, mode='avg')"),
        (Pool((2, 3), (1, 2)), "Pool((2, 3), strides=(1, 2))"),
        (Conv(4, 5, padding_mode=((1, 1), (2, 2))), "Conv(4, 5, padding_mode=(1, 2))"),
        (DepthwiseConv(3), "DepthwiseConv(3)"),
        (Sequential([]), "Sequential()"),
        (Residual([], [Conv(1, 1)]), "Residual()"),
        (Parallel([[], []], "concat"), "Parallel(mode='concat')"),
        (SeparableConv(4, 5, strides=2), "SeparableConv(4, 5, strides=2)"),
        (Wordy("relu"), "Wordy( 'relu', )"),
    ],
)
def test_the_words_of_a_layer(layer, words):
    """The call that makes it; a list of layers has lines of its own."""
    assert str(NeuralNetwork([layer, Linear(2), LogRegression()])).startswith(f"0 {words}\n")


def test_a_network_is_shown_as_what_makes_it():
    network = NeuralNetwork([Flatten(), Linear(2), LogRegression()], rng=3)
    assert repr(network) == (
        "NeuralNetwork([\n    Flatten(),\n    Linear(n_out=2),\n    LogRegression(),\n], rng=3)"
    )
    assert repr(eval(repr(network))) == repr(network)


def test_signals_and_rows():
    network = built([Conv(4, 5), Pool(2, 2), Flatten(), Linear(3)], (2, 50))
    assert row(network, "1").receptive_field == (1, 6)
    assert "4x25 " in str(network) and " 6\n" in str(network)
    assert "0 Conv(4, 5) " in str(network) and "1 Pool(2, strides=2) " in str(network)
    assert str(network).endswith("multiply-adds for a signal (2, 50) of float32")
    network = built([Linear(5), Linear(3)], (7,))
    assert row(network, "0").receptive_field is None
    assert "sees" not in str(network) and "state" not in str(network)
    assert str(network).endswith("multiply-adds for a row of 7 values of float32")


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
