"""Layers as text: what each piece means, and which piece an error names."""

import pytest

from nnet import (
    Activation,
    BatchNorm,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    LogRegression,
    Pool,
)
from nnet.layers.activation import FUNCTIONS
from nnet.layers.spec import complete, parse_layers


@pytest.mark.parametrize(
    "piece, layer",
    [
        ("conv16-3x5", Conv(16, (3, 5), weight_decay=0.5)),
        ("conv16-3", Conv(16, 3, weight_decay=0.5)),
        (
            "conv16-3x3-s2-d3x1-g4-valid",
            Conv(16, (3, 3), 2, "he", 0.5, "valid", dilation=(3, 1), groups=4),
        ),
        ("conv16-3-full-s1x2", Conv(16, 3, (1, 2), "he", 0.5, "full")),
        ("pool2", Pool(2, 2)),
        ("pool1x2", Pool((1, 2), (1, 2))),
        ("pool3-s2-same", Pool(3, 2, padding_mode="same")),
        ("avgpool2-valid", Pool(2, 2, "avg", "valid")),
        ("gap", GlobalAveragePool()),
        ("bn", BatchNorm()),
        ("linear64", Linear(64, weight_decay=0.5)),
        *[(name, Activation(name)) for name in FUNCTIONS],
    ],
)
def test_pieces(piece, layer):
    [(name, parsed)] = parse_layers(f" {piece} ", weight_decay=0.5)
    assert name == piece
    assert type(parsed) is type(layer) and parsed.config() == layer.config()


@pytest.mark.parametrize(
    "piece, message",
    [
        ("", "expected conv16-3x3, pool2, avgpool2, gap, bn, linear64 or one of relu, "),
        ("ReLU", "expected conv16-3x3, pool2"),
        ("dropout", "expected conv16-3x3, pool2"),
        ("16", "expected conv16-3x3, pool2"),
        ("linear64-s2", "expected conv16-3x3, pool2"),
        ("gap2", "expected conv16-3x3, pool2"),
        ("conv", "expected a number of filters, as in conv16-3x3"),
        ("conv3x3-3", "expected a number of filters, as in conv16-3x3"),
        ("conv16", "expected the size of its filters, as in conv16-3x3"),
        ("conv16-valid", "expected the size of its filters, as in conv16-3x3"),
        ("conv16-3x", "expected the size of its filters, as in conv16-3x3"),
        ("conv16-3x3x3", "expected the size of its filters, as in conv16-3x3"),
        ("conv16--3", "expected the size of its filters, as in conv16-3x3"),
        ("conv0-3", "n_feats is 0, expected at least 1"),
        ("conv8-0x3", "filter_shape is (0, 3)"),
        ("conv8-3-s0", "strides is (0, 0)"),
        ("conv8-3-g3", "n_feats is 8, expected a multiple of groups = 3"),
        ("conv8-3-g2x2", "expected a number of groups"),
        ("conv8-3-q2", "unknown option '-q2', expected one of -s2, -d2, -g2, -same, -valid, -full"),
        ("conv8-3-s", "unknown option '-s'"),
        ("conv8-3-", "unknown option '-'"),
        ("conv8-3-s2-s3", "option '-s3' sets strides for a second time"),
        ("conv8-3-same-valid", "option '-valid' sets padding_mode for a second time"),
        ("conv99999999999-3", "expected a number of filters"),
        ("pool", "expected a size, as in pool2 or pool2x2"),
        ("pool2-d2", "unknown option '-d2', expected one of -s2, -same, -valid, -full"),
        ("avgpool", "expected a size, as in avgpool2 or avgpool2x2"),
        ("linear", "expected a number of outputs, as in linear64"),
        ("linear8x8", "expected a number of outputs, as in linear64"),
        ("linear٣", "expected conv16-3x3, pool2"),
    ],
)
def test_errors_name_the_piece(piece, message):
    with pytest.raises(ValueError) as error:
        parse_layers(f"relu, {piece} ,conv8-3x3")
    assert str(error.value).startswith(f"layer {piece!r}: {message}")


def _kinds(layers):
    return [type(layer) for layer in layers]


def test_complete_adds_what_is_missing():
    layers, n_params = complete(parse_layers("conv4-3,pool2,linear5,relu"), (3, 8, 6), 7, 0.25)
    assert _kinds(layers) == [Conv, Pool, Flatten, Linear, Activation, Linear, LogRegression]
    assert n_params == (3 * 9 * 4 + 4) + (4 * 4 * 3 * 5 + 5) + (5 * 7 + 7)
    _, with_bn = complete(parse_layers("conv4-3,bn,pool2,linear5,bn,relu"), (3, 8, 6), 7)
    assert with_bn == n_params + 2 * 4 + 2 * 5
    assert layers[-2].n_out == 7 and layers[-2].weight_decay == 0.25
    assert _kinds(complete(parse_layers("relu"), (1, 4, 4), 2)[0]) == [
        Activation,
        Flatten,
        Linear,
        LogRegression,
    ]
    assert _kinds(complete(parse_layers("gap"), (1, 4, 4), 2)[0]) == [
        GlobalAveragePool,
        Linear,
        LogRegression,
    ]


@pytest.mark.parametrize(
    "spec, message",
    [
        (
            "pool9",
            "layer 'pool9' after the images: pooling stride 9 is larger than the image height 4",
        ),
        (
            "relu,conv4-5-valid",
            "layer 'conv4-5-valid' after 'relu': filter of height 5 spans 5 pixels",
        ),
        ("conv4-3,conv6-3-g3", "layer 'conv6-3-g3' after 'conv4-3': expected "),
        ("linear3,pool2", "layer 'pool2' after 'linear3': expected 4 axes"),
        ("gap,gap", "layer 'gap' after 'gap': expected 4 axes"),
    ],
)
def test_errors_name_the_pieces_that_do_not_fit(spec, message):
    with pytest.raises(ValueError) as error:
        complete(parse_layers(spec), (1, 4, 4), 2)
    assert str(error.value).startswith(message)
