"""Options of layers, each by itself: checked when it is set, kept in config and repr."""

import inspect
import json
from functools import partial

import numpy as np
import pytest

import nnet.layers
from nnet import (
    Activation,
    BatchNorm,
    BinaryCrossEntropy,
    Conv,
    ConvTranspose,
    DepthwiseConv,
    Dropout,
    Flatten,
    GroupNorm,
    Huber,
    Layer,
    Linear,
    LogRegression,
    Pad,
    Parallel,
    Pool,
    Residual,
    SeparableConv,
    Sequential,
    Standardize,
    Upsample,
)
from nnet.layers.activation import FUNCTIONS

COUNT = [1, 7, np.int64(3)], [0, -1, 1.0, "1", None, [1], 1j, np.array([1])]
PAIR = (
    [1, (2, 3), [3, 2], np.array([1, 2]), np.int32(4)],
    [
        0,
        (1, 0),
        (1, 2, 3),
        1.5,
        (1.0, 2),
        "ab",
        None,
        {1: 2, 3: 4},
        2**31,
    ],
)
PADS = (
    [0, 2, (1, 0), ((1, 0), (2, 1)), [1, 2], np.array([1, 2]), np.int64(1), "same", "valid"],
    [
        -1,
        (0, -1),
        1.0,
        "none",
        None,
        (1, 2, 3),
        ((1, 2), (3, 4), (5, 6)),
        {},
        b"same",
    ],
)
REAL = (
    [0, 0.5, 3, np.float32(0.25), np.array(0.5)],
    [-1, np.nan, np.inf, "x", None, 1j, [0.1], 10**400],
)
ABOVE_0 = [1, 0.5], [0, -1, np.nan, np.inf, "1", None, False, [1]]
SHARE = [0, 0.5, np.float32(0.25), 1], [-0.1, 1.5, np.nan, "x", None, [0.1], True]
BOOL = [True, False, 0, 1, np.bool_(True)], [2, 1.0, "True", None, []]
ROW = (
    [[], [Flatten()], (Flatten(), Activation("tanh"))],
    [
        None,
        5,
        Flatten(),
        [Flatten],
        ["relu"],
        [[Flatten()]],
        [LogRegression()],
    ],
)


def words(*good):
    return list(good), ["", good[0].upper(), None, 1, [good[0]], good[0].encode()]


OPTIONS = {
    (Conv, "n_feats"): COUNT,
    (Conv, "filter_shape"): PAIR,
    (Conv, "strides"): PAIR,
    (Conv, "dilation"): PAIR,
    (Conv, "padding_mode"): PADS,
    (Conv, "border_mode"): words("zeros", "nearest", "reflect", "wrap", "symmetric"),
    (Conv, "groups"): ([1, np.int8(1)], COUNT[1]),
    (Pool, "pool_shape"): PAIR,
    (Pool, "strides"): PAIR,
    (Pool, "mode"): words("max", "avg"),
    (Pool, "padding_mode"): ([*PADS[0], "centered"], PADS[1]),
    (Pool, "count_include_pad"): BOOL,
    (Pool, "ceil_mode"): BOOL,
    (DepthwiseConv, "depth_multiplier"): COUNT,
    (SeparableConv, "n_feats"): COUNT,
    (SeparableConv, "depth_multiplier"): COUNT,
    (ConvTranspose, "n_feats"): COUNT,
    (ConvTranspose, "groups"): ([1, np.int8(1)], COUNT[1]),
    (ConvTranspose, "padding_mode"): PADS,
    (ConvTranspose, "output_padding"): ([0, (0, 0), (1, 0)], [-1, (0, -1), 1.0, "same", None]),
    (Pad, "pads"): (PADS[0][:-2], [*PADS[1], "same", "valid"]),
    (Pad, "border_mode"): words("zeros", "nearest", "reflect", "wrap", "symmetric"),
    (Pad, "value"): ([0, -2.5, np.float64(3)], [np.nan, np.inf, "0", None, 1j, True, [1]]),
    (Upsample, "factor"): PAIR,
    (Upsample, "mode"): words("nearest", "bilinear"),
    (Dropout, "rate"): ([0, 0.5, np.float32(0.25), 1 - 1e-9], [1, -0.1, np.nan, "x", None, True]),
    (Dropout, "channels"): BOOL,
    (Linear, "n_out"): COUNT,
    (LogRegression, "label_smoothing"): SHARE,
    (BinaryCrossEntropy, "label_smoothing"): SHARE,
    (Huber, "delta"): ABOVE_0,
    (Activation, "type"): words(*FUNCTIONS),
    (Standardize, "mean"): ([0, -2.5, np.float64(3)], [np.nan, np.inf, "0", 1j, True, [1]]),
    (Standardize, "scale"): ([1, 0.5], [0, -1, np.nan, np.inf, "1", False, [1]]),
    (BatchNorm, "momentum"): SHARE,
    (BatchNorm, "eps"): ABOVE_0,
    (GroupNorm, "n_groups"): COUNT,
    (GroupNorm, "eps"): ABOVE_0,
    (Sequential, "layers"): ROW,
    (Residual, "layers"): ROW,
    (Residual, "shortcut"): ([None, *ROW[0]], ROW[1][1:]),
    (Parallel, "branches"): (
        [[[]], [Flatten(), [Flatten()]]],
        [[], None, 5, [5], Flatten(), [[5]], [LogRegression()]],
    ),
    (Parallel, "mode"): words("sum", "concat", "mul"),
}
OPTIONS |= (
    {
        (cls, name): values
        for cls in (DepthwiseConv, SeparableConv)
        for name in ("filter_shape", "strides", "dilation", "padding_mode", "border_mode")
        for values in [OPTIONS[Conv, name]]
    }
    | {(ConvTranspose, name): PAIR for name in ("filter_shape", "strides", "dilation")}
    | {
        (cls, name): values
        for cls in (Conv, DepthwiseConv, SeparableConv, ConvTranspose, Linear)
        for name, values in {
            "weight_scale": ([*REAL[0], "he", "glorot"], [*REAL[1], "He"]),
            "weight_decay": REAL,
            "use_bias": BOOL,
        }.items()
    }
)


def make(cls, **options):
    """A layer whose other options are as simple as can be, and fit any of the ones above."""
    needed = {
        Conv: {"n_feats": 4, "filter_shape": 3},
        Pool: {"mode": "avg", "padding_mode": 0},
        DepthwiseConv: {"filter_shape": 3},
        SeparableConv: {"n_feats": 4, "filter_shape": 3},
        ConvTranspose: {"n_feats": 4, "filter_shape": 3},
        Pad: {"pads": 1},
        Upsample: {"factor": 2},
        Linear: {"n_out": 3},
        Activation: {"type": "relu"},
        GroupNorm: {"n_groups": 2},
        Residual: {"layers": []},
        Parallel: {"branches": [[]]},
    }.get(cls, {})
    return cls(**needed | options)


def test_all_options_are_tested():
    classes = [cls for cls in vars(nnet.layers).values() if isinstance(cls, type)]
    own = [cls for cls in classes if issubclass(cls, Layer) and not inspect.isabstract(cls)]
    assert {(cls, name) for cls in own for name in inspect.signature(cls).parameters} == set(
        OPTIONS
    )


@pytest.mark.parametrize("cls, name", OPTIONS, ids=lambda value: getattr(value, "__name__", value))
def test_an_option_is_checked_whenever_it_is_set(cls, name):
    good, bad = OPTIONS[cls, name]
    for value in good:
        built, changed = make(cls, **{name: value}), make(cls)
        setattr(changed, name, value)
        assert repr(built) == repr(changed)
    for value in bad:
        layer = make(cls)
        before = repr(layer)
        uses = partial(make, cls, **{name: value}), partial(setattr, layer, name, value)
        for use in uses:
            with pytest.raises((ValueError, TypeError), match=name) as caught:
                use()
            assert "expected" in str(caught.value), caught.value
        assert repr(layer) == before, value


PLAIN = [key for key in OPTIONS if key[0] not in (Sequential, Residual, Parallel)]


@pytest.mark.parametrize("cls, name", PLAIN, ids=lambda value: getattr(value, "__name__", value))
def test_config_makes_the_layer_again(cls, name):
    """Through JSON, as in a file: an int is still an int, which for signals is no pair."""
    for value in OPTIONS[cls, name][0]:
        layer = make(cls, **{name: value})
        config = json.loads(json.dumps(layer.config()))
        again = cls(**config)
        assert repr(again) == repr(layer)
        assert json.loads(json.dumps(again.config())) == config
        if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
            assert config[name] == value


def test_a_list_that_was_given_as_an_option_may_change_later():
    pads, window = [1, [2, 0]], [3, 3]
    layer = Conv(2, window, padding_mode=pads)
    pads[0], window[0] = 5, 1
    assert layer.padding_mode == (1, (2, 0)) and layer.filter_shape == (3, 3)


def test_options_that_exclude_each_other():
    with pytest.raises(ValueError, match="n_feats is 4, expected a multiple of groups = 3"):
        Conv(4, 3, groups=3)
    with pytest.raises(ValueError, match="count_include_pad is True, expected False"):
        Pool(count_include_pad=True)
