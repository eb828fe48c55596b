"""Each layer by itself: gradients against central differences, shapes, values, errors."""

import inspect
import json

import numpy as np
import pytest
from scipy import special

import nnet.layers
from nnet import (
    Activation,
    Conv,
    ConvTranspose,
    DepthwiseConv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    Layer,
    Linear,
    LogRegression,
    MeanSquaredError,
    Pad,
    ParamMixin,
    Pool,
    Standardize,
    Upsample,
)
from nnet.layers.activation import FUNCTIONS
from nnet.layers.linear import matmul

IMAGES = (3, 4, 6, 7)
LAYERS = [
    (Conv(3, 3), IMAGES),
    (Conv(3, (2, 5)), IMAGES),
    (Conv(3, (4, 1), strides=(2, 3), use_bias=False), IMAGES),
    (Conv(4, (3, 2), groups=2, weight_scale="glorot"), IMAGES),
    (Conv(8, 3, groups=4, padding_mode="valid"), IMAGES),
    (Conv(2, (3, 2), padding_mode="full", weight_scale=0.1), IMAGES),
    (Conv(2, 3, strides=2, padding_mode=(2, 1)), IMAGES),
    (Conv(2, 3, padding_mode=((0, 2), (1, 0)), dilation=(2, 1)), IMAGES),
    (Conv(2, 3, border_mode="nearest", dilation=2), IMAGES),
    (Conv(2, 3, border_mode="reflect", strides=(1, 2)), IMAGES),
    (Conv(2, (5, 3), border_mode="wrap", weight_decay=0.1), IMAGES),
    (Conv(2, (2, 5), border_mode="symmetric", strides=2), IMAGES),
    (Conv(2, 1, strides=3), IMAGES),
    (Conv(2, (1, 5)), (3, 2, 1, 9)),
    (DepthwiseConv(3, 2, depth_multiplier=2, weight_decay=0.1), IMAGES),
    (DepthwiseConv((2, 3), border_mode="wrap", use_bias=False), IMAGES),
    (ConvTranspose(3, 3, 2), IMAGES),
    (ConvTranspose(4, (2, 3), (3, 1), padding_mode="valid", groups=2, weight_decay=0.1), IMAGES),
    (ConvTranspose(2, 3, 2, padding_mode=1, output_padding=1, use_bias=False), (3, 4, 3, 4)),
    (ConvTranspose(2, (1, 3), 1, padding_mode=((0, 0), (2, 1)), dilation=2), (3, 2, 1, 9)),
    (Pool(), IMAGES),
    (Pool(2, 2), IMAGES),
    (Pool((3, 2), (2, 3), padding_mode="valid"), IMAGES),
    (Pool((2, 3), (1, 2), padding_mode="same"), IMAGES),
    (Pool(3, 2, padding_mode=1), IMAGES),
    (Pool(mode="avg"), IMAGES),
    (Pool((2, 4), 2, mode="avg", padding_mode="same"), IMAGES),
    (Pool(3, (1, 2), mode="avg", padding_mode=1, count_include_pad=True), IMAGES),
    (Pool(2, (4, 3), padding_mode=1, ceil_mode=True), IMAGES),
    (Pool(3, 2, "avg", ((0, 1), (1, 0)), True, True), IMAGES),
    (GlobalAveragePool(), IMAGES),
    (GlobalMaxPool(), IMAGES),
    (Pad(2, value=3.0), IMAGES),
    (Pad(((1, 0), (2, 3)), "reflect"), IMAGES),
    (Pad((3, 0), "wrap"), IMAGES),
    (Pad(((2, 4), (7, 0)), "symmetric"), IMAGES),
    (Pad((2, 4), "nearest"), IMAGES),
    (Upsample(2), IMAGES),
    (Upsample((1, 3), "bilinear"), IMAGES),
    (Upsample((4, 1), "bilinear"), (2, 1, 1, 3)),
    (Dropout(0), IMAGES),
    (Linear(5), (3, 7)),
    (Linear(5, weight_scale="glorot", use_bias=False), (3, 7)),
    (Linear(1, weight_decay=0.5), (4, 1)),
    (Flatten(), IMAGES),
    (Standardize(0.5, 2.0), (3, 2, 4, 5)),
    (LogRegression(), (3, 5)),
    (MeanSquaredError(), (3, 2)),
    *[(Activation(type), (3, 2, 4, 5)) for type in FUNCTIONS],
    (Activation("softmax"), (3, 4)),
]


def name(value):
    if not isinstance(value, Layer):
        return None
    parameters = inspect.signature(type(value)).parameters.values()
    config = value.config()
    given = [f"{p.name}={config[p.name]}" for p in parameters if config[p.name] != p.default]
    return f"{type(value).__name__}({', '.join(given)})"


def fresh(layer):
    """A layer of the same configuration that no other test has used."""
    return type(layer)(**layer.config())


def central_differences(function, array, eps=1e-6):
    grad = np.empty_like(array)
    for i in range(array.size):
        value = array.flat[i]
        array.flat[i] = value + eps
        above = function()
        array.flat[i] = value - eps
        below = function()
        array.flat[i] = value
        grad.flat[i] = (above - below) / (2 * eps)
    return grad


def assert_close(actual, desired):
    np.testing.assert_allclose(actual, desired, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("layer, input_shape", LAYERS, ids=name)
def test_gradients(layer, input_shape, rng):
    layer = fresh(layer)
    layer.dtype = np.dtype(np.float64)
    layer._setup(input_shape, rng)
    input = rng.normal(size=input_shape)
    output_grad = rng.normal(size=layer.output_shape(input_shape))

    def objective():
        return np.sum(layer.fprop(input) * output_grad)

    expected = central_differences(objective, input)
    layer.fprop(input)
    assert_close(layer.bprop(output_grad), expected)
    if isinstance(layer, ParamMixin):
        assert len(layer.params()) == len(layer.param_grads()) == 1 + layer.use_bias
        for param, grad in zip(layer.params(), layer.param_grads()):
            param += 0.1 * rng.normal(size=param.shape)  # biases start as zeros
            objective()
            layer.bprop(output_grad)
            # Parameters take the mean over the images.
            assert_close(grad, central_differences(objective, param) / len(input))


@pytest.mark.parametrize("layer, input_shape", LAYERS, ids=name)
def test_output_shape_and_dtype(layer, input_shape, rng, dtype):
    layer = fresh(layer)
    layer.dtype = dtype
    layer._setup(input_shape, rng)
    for n_imgs in (1, input_shape[0]):
        shape = (n_imgs, *input_shape[1:])
        output = layer.fprop(rng.normal(size=shape).astype(dtype))
        assert output.shape == layer.output_shape(shape)
        assert output.dtype == dtype
        input_grad = layer.bprop(rng.normal(size=output.shape).astype(dtype))
        assert input_grad.shape == shape
        assert input_grad.dtype == dtype


@pytest.mark.parametrize("layer, input_shape", LAYERS, ids=name)
def test_config_rebuilds_the_layer(layer, input_shape):
    config = json.loads(json.dumps(layer.config()))
    config = {key: tuple(map(as_tuple, v)) if type(v) is list else v for key, v in config.items()}
    assert type(layer)(**config).config() == layer.config()


def as_tuple(value):
    return tuple(value) if isinstance(value, list) else value


def test_all_layers_are_exported():
    classes = [value for value in vars(nnet.layers).values() if inspect.isclass(value)]
    assert {cls.__name__ for cls in classes} == set(nnet.layers.__all__)
    assert all(getattr(nnet, cls.__name__) is cls for cls in classes)


# --- Conv and Linear ------------------------------------------------------------


@pytest.mark.parametrize(
    "padding_mode, expected",
    [("same", (3, 2, 9, 8)), ("valid", (3, 2, 5, 7)), ("full", (3, 2, 13, 9))],
)
def test_output_shape_of_padding_modes(padding_mode, expected):
    # A layer of 2015 exchanged 'full' and 'valid', and read past the shape's end.
    assert Conv(2, (5, 2), padding_mode=padding_mode).output_shape((3, 4, 9, 8)) == expected


def test_linear_is_the_matrix_product(rng, dtype):
    layer = Linear(4)
    layer.dtype = dtype
    layer._setup((5, 3), rng)
    layer.b[:] = [1, 2, 3, 4]
    x = rng.normal(size=(5, 3)).astype(dtype)
    np.testing.assert_allclose(layer.fprop(x), x @ layer.W + layer.b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "m, k, n", [(1, 1, 1), (3, 50, 7), (70, 5, 2), (2, 5, 70), (0, 3, 2), (3, 0, 2)]
)
def test_matmul(m, k, n, rng, dtype):
    a, b = rng.normal(size=(m, k)).astype(dtype), rng.normal(size=(k, n)).astype(dtype)
    out = np.full((m, n), np.nan, dtype)
    assert matmul(a, b, out) is out
    np.testing.assert_allclose(out, a @ b, rtol=1e-4, atol=1e-5)
    assert np.array_equal(
        matmul(np.asfortranarray(a), b[:, ::-1][:, ::-1], np.empty_like(out)), out
    )


@pytest.mark.parametrize(
    "layer, input_shape, fan_in, fan_out",
    [
        (Conv(64, (3, 5)), (1, 32, 8, 8), 32 * 15, 64 * 15),
        (Conv(64, (3, 5), groups=4), (1, 32, 8, 8), 8 * 15, 16 * 15),
        (Linear(100), (1, 200), 200, 100),
    ],
    ids=name,
)
def test_initial_weights(layer, input_shape, fan_in, fan_out, rng):
    stds = {"he": np.sqrt(2 / fan_in), "glorot": np.sqrt(2 / (fan_in + fan_out)), 0.25: 0.25, 0: 0}
    for weight_scale, std in stds.items():
        layer = type(layer)(**layer.config() | {"weight_scale": weight_scale})
        layer._setup(input_shape, rng)
        np.testing.assert_allclose(np.std(layer.W), std, rtol=0.05)
        assert abs(np.mean(layer.W)) <= 0.05 * std
        assert not layer.b.any()
        assert layer.W.dtype == layer.b.dtype == np.float32


@pytest.mark.parametrize(
    "layer, input_shape",
    [(Conv(2, 3, weight_decay=0.5), IMAGES), (Linear(2, weight_decay=0.5), (3, 4))],
)
def test_weight_decay_shrinks_weights_but_not_biases(layer, input_shape, rng):
    layer = fresh(layer)
    layer.dtype = np.dtype(np.float64)
    layer._setup(input_shape, rng)
    layer.b += 1
    output = layer.fprop(rng.normal(size=input_shape))
    layer.bprop(rng.normal(size=output.shape))
    W_grad, b_grad = layer.param_grads()
    W_inc, b_inc = layer.param_incs()
    np.testing.assert_allclose(W_inc, W_grad + 0.5 * layer.W)  # a step is W -= rate * W_inc
    assert np.array_equal(b_inc, b_grad)


@pytest.mark.parametrize("layer, input_shape", [(Conv(2, 3), IMAGES), (Linear(2), (3, 4))])
def test_no_input_gradient_where_none_is_needed(layer, input_shape, rng):
    layer = fresh(layer)
    layer._setup(input_shape, rng)
    output = layer.fprop(rng.normal(size=input_shape).astype(np.float32))
    layer.bprop(np.ones_like(output))
    expected = [grad.copy() for grad in layer.param_grads()]
    layer.need_input_grad = False
    assert layer.bprop(np.ones_like(output)) is None
    assert all(map(np.array_equal, layer.param_grads(), expected))


def test_standardize(rng, dtype):
    x = rng.normal(3, 5, size=(20, 1, 8, 8)).astype(dtype)
    y = Standardize(x.mean(), x.std()).fprop(x)
    assert y.dtype == dtype
    np.testing.assert_allclose([y.mean(), y.std()], [0, 1], atol=1e-5)


# --- losses ---------------------------------------------------------------------


def test_log_regression_loss_and_gradient(rng):
    layer, scores, target = LogRegression(), rng.normal(size=(4, 3)), np.array([0, 2, 1, 2])
    probs = special.softmax(scores, axis=1)
    np.testing.assert_allclose(layer.fprop(scores), probs)
    np.testing.assert_allclose(
        layer.loss(scores, target), -np.mean(np.log(probs[range(4), target]))
    )
    numeric = central_differences(lambda: layer.loss(scores, target), scores)
    assert_close(layer.input_grad(scores, target), numeric * 4)  # per image, undivided


def test_log_regression_is_stable(dtype):
    scores = np.array([[0, 1e4, -1e4], [-1e30, 0, 1e30]], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        probs = LogRegression().fprop(scores)
        loss = LogRegression().loss(scores, np.array([0, 2]))
        grad = LogRegression().input_grad(scores, np.array([0, 2]))
    assert probs.dtype == grad.dtype == dtype
    assert np.array_equal(probs, [[0, 1, 0], [0, 0, 1]])
    assert loss == 5e3  # the mean of 1e4 and 0
    assert np.array_equal(grad, [[-1, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize("shape", [(4, 1), (4, 3), (2, 3, 2, 2)])
def test_mean_squared_error(shape, rng):
    layer, scores, target = MeanSquaredError(), rng.normal(size=shape), rng.normal(size=shape)
    np.testing.assert_allclose(layer.loss(scores, target), np.mean((scores - target) ** 2))
    numeric = central_differences(lambda: layer.loss(scores, target), scores)
    assert_close(layer.input_grad(scores, target), numeric * len(scores))


# --- work arrays ------------------------------------------------------------------


@pytest.mark.parametrize("layer, input_shape", LAYERS, ids=name)
def test_results_are_new_arrays_outside_of_a_network(layer, input_shape, rng):
    layer = fresh(layer)
    layer._setup(input_shape, rng)
    first = layer.fprop(rng.normal(size=input_shape).astype(np.float32))
    before = first.copy()
    layer.fprop(rng.normal(size=input_shape).astype(np.float32))
    assert np.array_equal(first, before)


@pytest.mark.parametrize("layer, input_shape", LAYERS, ids=name)
def test_nothing_is_kept_while_predicting(layer, input_shape, rng):
    layer = fresh(layer)
    layer._setup(input_shape, rng)
    layer.training = False

    def attributes():  # without the note of who last asked for an array
        return {key: id(value) for key, value in vars(layer).items() if key != "_access"}

    before = attributes()
    layer.fprop(rng.normal(size=input_shape).astype(np.float32))
    assert attributes() == before


# --- errors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: Conv(0, 3), ValueError, "n_feats is 0, expected at least 1"),
        (lambda: Conv(1.5, 3), TypeError, "n_feats is 1.5, expected an integer"),
        (lambda: Conv(2, (3, 3, 3)), ValueError, "filter_shape"),
        (lambda: Conv(2, 0), ValueError, "filter_shape is"),
        (lambda: Conv(2, 3, strides=0), ValueError, "strides is"),
        (lambda: Conv(2, 3, dilation=-1), ValueError, "dilation is"),
        (
            lambda: Conv(3, 3, groups=2),
            ValueError,
            "n_feats is 3, expected a multiple of groups = 2",
        ),
        (lambda: Conv(4, 9, padding_mode="none"), ValueError, "padding_mode is 'none'"),
        (lambda: Conv(2, 3, border_mode="none"), ValueError, "border_mode is 'none'"),
        (lambda: Conv(2, 3, use_bias="no"), TypeError, "use_bias is 'no', expected True or False"),
        (
            lambda: Conv(2, 3, weight_scale="big"),
            TypeError,
            "weight_scale is 'big'.*'he' or 'glorot'",
        ),
        (lambda: Linear(2, weight_scale=-1), ValueError, "weight_scale is -1"),
        (lambda: Linear(2, weight_decay=np.nan), ValueError, "weight_decay is nan"),
        (lambda: Linear(2, weight_decay=None), TypeError, "weight_decay is None"),
        (lambda: Linear("2"), TypeError, "n_out is '2'"),
        (lambda: Pool(3, padding_mode="none"), ValueError, "padding_mode is 'none'"),
        (lambda: Pool(2, mode="min"), ValueError, "mode is 'min', expected 'max' or 'avg'"),
        (lambda: Pool(2, count_include_pad=2), TypeError, "count_include_pad is 2"),
        (lambda: Activation("swish"), ValueError, "type is 'swish', expected one of"),
        (lambda: Standardize(np.nan), ValueError, "mean is nan, expected None or a finite"),
        (
            lambda: Standardize(0, 0),
            ValueError,
            "scale is 0, expected None or a finite number greater than 0",
        ),
        (lambda: Standardize("0"), TypeError, "mean is '0'"),
        (lambda: Layer(), TypeError, "abstract"),
    ],
)
def test_constructor_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "layer, input_shape, message",
    [
        (
            Conv(2, 3),
            (5, 8),
            r"expected 4 axes \(n_imgs, n_channels, img_h, img_w\), got shape \(5, 8\)",
        ),
        (Conv(4, 3, groups=2), (5, 3, 8, 8), "channel count that groups = 2 divides, got 3"),
        (Conv(4, 3), (5, 0, 8, 8), "no empty axis"),
        (Conv(4, 9, padding_mode="valid"), (5, 3, 8, 8), "larger than the padded image"),
        (Pool(), (5, 8), "expected 4 axes"),
        (GlobalAveragePool(), (5, 8), "expected 4 axes"),
        (
            Linear(2),
            (5, 3, 8, 8),
            r"expected 2 axes .*, got shape \(5, 3, 8, 8\): put a Flatten\(\)",
        ),
        (LogRegression(), (5, 3, 8, 8, 8), r"expected 2 axes \(n_imgs, n_classes\)"),
        (LogRegression(), (5, 3, 0, 8), "expected no empty axis"),
    ],
    ids=name,
)
def test_setup_errors(layer, input_shape, message, rng):
    with pytest.raises(ValueError, match=message):
        layer._setup(input_shape, rng)


def test_repr_shows_what_is_not_default():
    assert repr(Conv(4, 3, groups=2)) == "Conv(n_feats=4, filter_shape=(3, 3), groups=2)"
    assert repr(Flatten()) == "Flatten()"


def test_bias_gradient_over_many_rows():
    """Naively summed, float32 is off by 1e-2 of it here."""
    layer, n_imgs = Linear(2), 300_000
    layer._setup((1, 3), np.random.default_rng(0))
    layer.fprop(np.zeros((n_imgs, 3), np.float32))
    layer.bprop(np.full((n_imgs, 2), 0.1, np.float32))
    np.testing.assert_allclose(layer.b_grad, np.float64(np.float32(0.1)), rtol=1e-6)
