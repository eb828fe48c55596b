"""Layers as text: what each piece means, and which piece an error names."""

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
    GlobalMaxPool,
    Linear,
    LogRegression,
    Pad,
    Pool,
    SeparableConv,
    Upsample,
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
            Conv(16, (3, 3), 2, weight_decay=0.5, padding_mode="valid", dilation=(3, 1), groups=4),
        ),
        (
            "conv16-3-full-s1x2",
            Conv(16, 3, (1, 2), weight_scale="he", weight_decay=0.5, padding_mode="full"),
        ),
        ("pool2", Pool(2, 2)),
        ("pool1x2", Pool((1, 2), (1, 2))),
        ("pool3-s2-same", Pool(3, 2, padding_mode="same")),
        ("avgpool2-valid", Pool(2, 2, "avg", "valid")),
        ("conv16-3-p1", Conv(16, 3, padding_mode=1, weight_decay=0.5)),
        ("dw3x5", DepthwiseConv((3, 5), weight_decay=0.5)),
        (
            "dw3-s2-d3x1-m4-p0x1",
            DepthwiseConv(
                3, 2, padding_mode=(0, 1), depth_multiplier=4, dilation=(3, 1), weight_decay=0.5
            ),
        ),
        ("sep32-3x3", SeparableConv(32, (3, 3), weight_decay=0.5)),
        (
            "sep32-3-s2-m2-valid",
            SeparableConv(32, 3, 2, padding_mode="valid", depth_multiplier=2, weight_decay=0.5),
        ),
        ("convt16-3x3", ConvTranspose(16, (3, 3), weight_decay=0.5)),
        (
            "convt16-3-s2-p1-o1-d2-g4",
            ConvTranspose(
                16, 3, 2, padding_mode=1, output_padding=1, dilation=2, groups=4, weight_decay=0.5
            ),
        ),
        ("pool3-s2-p1-ceil", Pool(3, 2, padding_mode=1, ceil_mode=True)),
        ("avgpool2-p0-ceil", Pool(2, 2, "avg", 0, ceil_mode=True)),
        ("gap", GlobalAveragePool()),
        ("bn", BatchNorm()),
        ("gmp", GlobalMaxPool()),
        ("pad1", Pad(1)),
        ("pad1x0-reflect", Pad((1, 0), "reflect")),
        ("pad2-symmetric", Pad(2, "symmetric")),
        ("up2", Upsample(2)),
        ("up2x1-bilinear", Upsample((2, 1), "bilinear")),
        ("dropout0.5", Dropout(0.5)),
        ("dropout.25-channels", Dropout(0.25, channels=True)),
        ("dropout0", Dropout(0)),
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
        ("", "expected conv16-3x3, pool2, avgpool2, gap, gmp, bn, linear64, dw3x3, "),
        ("ReLU", "expected conv16-3x3, pool2"),
        ("dropout", "expected a rate, as in dropout0.5"),
        ("dropout0.5.5", "expected a rate, as in dropout0.5"),
        ("dropout1", "rate is 1.0, expected a number of at least 0 and less than 1"),
        ("dropout0.5-s2", "unknown option '-s2', expected one of -channels"),
        ("dw", "expected the size of its filters, as in dw3x3"),
        ("dw3-g2", "unknown option '-g2', expected one of -s2, -d2, -m2, -p2, -same, "),
        ("dw3-m2x2", "expected a number of filters for each channel"),
        ("sep32", "expected the size of its filters, as in sep16-3x3"),
        ("convt3x3-3", "expected a number of filters, as in convt16-3x3"),
        ("pool2-ceil", "ceil_mode is True, expected explicit padding"),
        ("pad", "expected a size, as in pad1 or pad1x2"),
        ("pad1-same", "unknown option '-same', expected one of -zeros, -nearest, "),
        ("up", "expected a factor, as in up2 or up2x1"),
        ("up0", "factor is (0, 0)"),
        ("up2-cubic", "unknown option '-cubic', expected one of -nearest, -bilinear"),
        ("gmp2", "expected conv16-3x3, pool2"),
        ("conv1.5-3", "expected a number of filters, as in conv16-3x3"),
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
        ("conv8-3-q2", "unknown option '-q2', expected one of -s2, -d2, -g2, -p2, -same, -valid"),
        ("conv8-3-s", "unknown option '-s'"),
        ("conv8-3-", "unknown option '-'"),
        ("conv8-3-s2-s3", "option '-s3' sets strides for a second time"),
        ("conv8-3-same-valid", "option '-valid' sets padding_mode for a second time"),
        ("conv99999999999-3", "expected a number of filters"),
        ("pool", "expected a size, as in pool2 or pool2x2"),
        ("pool2-d2", "unknown option '-d2', expected one of -s2, -p2, -same, -valid, -full"),
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


def test_complete_counts_the_layers_inside():
    layers, n_params = complete(parse_layers("sep4-3-m2,convt6-2-s2,dw3,up2,gmp"), (3, 4, 4), 5)
    sizes = 6 * 9, 6 * 4 + 4, 4 * 6 * 4 + 6, 6 * 9 + 6, 6 * 5 + 5
    assert n_params == sum(sizes)
    assert _kinds(layers)[-2:] == [Linear, LogRegression]


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
        ("gmp,up2", "layer 'up2' after 'gmp': expected 4 axes"),
        ("pad4-reflect", "layer 'pad4-reflect' after the images: border_mode 'reflect' can pad"),
        ("convt2-3-o1", "layer 'convt2-3-o1' after the images: output_padding is (1, 1)"),
    ],
)
def test_errors_name_the_pieces_that_do_not_fit(spec, message):
    with pytest.raises(ValueError) as error:
        complete(parse_layers(spec), (1, 4, 4), 2)
    assert str(error.value).startswith(message)
