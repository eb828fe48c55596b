"""Functions of each value, and their gradients: against closed forms, the plain loops, PyTorch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special
from test_conv_process import guarded

from nnet import reference
from nnet._dense import ACTIVATIONS
from nnet.dispatch import load
from nnet.layers.activation import KEEPING_INPUT

SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
ROOT = 2 * np.sqrt(2 / np.pi)


def twice_u(x):
    """(1 + tanh(u)) / 2 is the sigmoid of it, for gelu_tanh's u."""
    return ROOT * (x + 0.044715 * x**3)


def expm1(x):
    return special.expm1(np.minimum(x, 0))


# Values and slopes at x, computed in double: without cancellation.
EXACT = {
    "relu": (lambda x: np.maximum(x, 0), lambda x: x > 0),
    "leaky_relu": (lambda x: np.where(x > 0, x, 0.01 * x), lambda x: np.where(x > 0, 1, 0.01)),
    "relu6": (lambda x: np.clip(x, 0, 6), lambda x: (x > 0) & (x < 6)),
    "hard_sigmoid": (lambda x: (np.clip(x, -3, 3) + 3) / 6, lambda x: (np.abs(x) < 3) / 6),
    "hard_swish": (
        lambda x: x * (np.clip(x, -3, 3) + 3) / 6,
        lambda x: np.where(np.abs(x) < 3, x / 3 + 0.5, x >= 3),
    ),
    "sigmoid": (special.expit, lambda x: special.expit(x) * special.expit(-x)),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "elu": (lambda x: np.maximum(x, 0) + expm1(x), lambda x: np.where(x > 0, 1, expm1(x) + 1)),
    "selu": (
        lambda x: SELU_SCALE * (np.maximum(x, 0) + SELU_ALPHA * expm1(x)),
        lambda x: SELU_SCALE * np.where(x > 0, 1, SELU_ALPHA * (expm1(x) + 1)),
    ),
    "softplus": (
        lambda x: special.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0),
        special.expit,
    ),
    "silu": (
        lambda x: x * special.expit(x),
        lambda x: special.expit(x) * (1 + x * special.expit(-x)),
    ),
    "gelu": (
        lambda x: x * special.ndtr(x),
        lambda x: special.ndtr(x) + x * np.exp(-(x**2) / 2) * ROOT / 4,
    ),
    "gelu_tanh": (
        lambda x: x * special.expit(twice_u(x)),
        lambda x: (
            special.expit(twice_u(x))
            * (1 + x * special.expit(-twice_u(x)) * ROOT * (1 + 3 * 0.044715 * x**2))
        ),
    ),
}


def results(kernels, type, x, output_grad, **options):
    """The values and the gradients."""
    y = kernels.activate(x, type=type, **options)
    kept = x if type in KEEPING_INPUT else y
    return y, kernels.bprop_activate(kept, output_grad, type=type, **options)


@pytest.mark.parametrize("type", ACTIVATIONS)
def test_to_the_last_bits(kernels, dtype, type):
    """Values to 3 times the rounding, also those near 0; slopes to 4 times that of 1."""
    x = np.concatenate([np.linspace(-30, 30, 40_001), np.linspace(-1, 1, 40_001)]).astype(dtype)
    value, slope = EXACT[type]
    exact, limits = value(x.astype(float)), np.finfo(dtype)
    y, grad = results(kernels, type, x, np.full_like(x, 2))
    rtol = 3 * limits.eps
    if dtype == "f8" and type.startswith("gelu"):  # SciPy's exponents have a rounding error
        rtol = 1e-13
    visible = np.abs(exact) > limits.tiny * 40  # below, a denormal factor has lost bits
    assert_allclose(y[visible], exact[visible], rtol=rtol, atol=limits.eps / 1e6)
    assert_allclose(y[~visible], exact[~visible], rtol=0, atol=40 * limits.tiny)
    assert_allclose(grad, 2 * slope(x.astype(float)), rtol=0, atol=8 * limits.eps)


def test_the_tail_of_gelu(kernels, dtype):
    """x times the normal distribution by mpmath 1.3.0. PyTorch 2.13.0: 17 % off at -5, 0 at -6."""
    x = np.array([-5, -6, -8, -10], dtype)
    expected = [-1.4332578593959696e-6, -5.9195258702261888e-9]
    expected += [-4.9767684594174273e-15, -7.6198530241605261e-23]
    assert_allclose(kernels.activate(x, type="gelu"), expected, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("type", ACTIVATIONS)
def test_it_is_the_loops(kernels, dtype, rng, type):
    x = (3 * rng.normal(size=(3, 4, 2, 3))).astype(dtype)
    rtol = 4 * np.finfo(dtype).eps
    expected = reference.activation(x, type)
    assert_allclose(kernels.activate(x, type=type), expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("type", ACTIVATIONS)
def test_it_is_torch(kernels, dtype, rng, type):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    renamed = {
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "hard_sigmoid": F.hardsigmoid,
        "hard_swish": F.hardswish,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    }
    x, output_grad = (4 * rng.normal(size=(2, 3000))).astype(dtype)
    x[:5] = 0, 3, -3, 6, -6
    tensor = torch.tensor(x, requires_grad=True)
    expected = (renamed.get(type) or getattr(F, type))(tensor)
    expected.backward(torch.tensor(output_grad))
    y, grad = results(kernels, type, x, output_grad)
    # PyTorch's own sixth is a float.
    atol = 5e-6 if dtype == "f4" else 2e-8 if type == "hard_sigmoid" else 1e-13
    assert_allclose(y, expected.detach().numpy(), rtol=1e-6, atol=atol)
    grads = tensor.grad.numpy()
    if type == "hard_swish":  # where it has jumps
        grads[[1, 2]] = grad[[1, 2]]
    assert_allclose(grad, grads, rtol=1e-6, atol=atol)


LIMITS = {  # of the value and the slope at minus infinity, and of the slope at infinity
    "leaky_relu": (-np.inf, 0.01, 1),
    "relu6": (0, 0, 0),
    "sigmoid": (0, 0, 0),
    "hard_sigmoid": (0, 0, 0),
    "tanh": (-1, 0, 0),
    "elu": (-1, 0, 1),
    "selu": (-SELU_SCALE * SELU_ALPHA, 0, SELU_SCALE),
}
BOUNDED = {"relu6": 6, "sigmoid": 1, "hard_sigmoid": 1, "tanh": 1}


@pytest.mark.parametrize("type", ACTIVATIONS)
def test_edges(kernels, dtype, type):
    """The limits from 1000 on, where relu has no more of its own; zeros keep a zero's value."""
    large = np.array([1e3, 1e30, np.finfo(dtype).max / 2, np.inf], dtype)
    low, low_slope, high_slope = LIMITS.get(type, (0, 0, 1))
    y, grad = results(kernels, type, -large, np.ones_like(large))
    assert_allclose(y, -large * 0.01 if type == "leaky_relu" else [low] * 4, rtol=3e-7)
    assert_allclose(grad, low_slope, rtol=3e-7)
    y, grad = results(kernels, type, large, np.ones_like(large))
    assert_allclose(y, BOUNDED.get(type, large * (SELU_SCALE if type == "selu" else 1)), rtol=3e-7)
    assert_allclose(grad, high_slope, rtol=3e-7)
    y, _ = results(kernels, type, np.array([-0.0, 0.0], dtype), np.ones(2, dtype))
    assert_allclose(y, EXACT[type][0](np.zeros(2)), rtol=3e-7)
    y, _ = results(kernels, type, np.array([np.nan, 1, -np.nan], dtype), np.ones(3, dtype))
    assert_array_equal(np.isnan(y), [True, False, True])


@pytest.mark.parametrize("type", ["relu", "tanh"])
def test_zeros_keep_their_sign(kernels, dtype, type):
    """As in layers that compute a relu themselves."""
    zeros = np.array([0.0, -0.0], dtype)
    assert_array_equal(np.signbit(kernels.activate(zeros, type=type)), [False, True])


@pytest.mark.parametrize("type", ACTIVATIONS)
def test_tiny_values(kernels, dtype, type):
    """Those that are near 0 at 0 are x times the slope there, down to denormal numbers."""
    limits = np.finfo(dtype)
    x = np.array([limits.eps, 1e-20, limits.tiny, 4 * limits.smallest_subnormal], dtype) / 64 * 64
    value, slope = EXACT[type]
    if value(np.zeros(1)) == 0:
        for sign in (1, -1):
            exact = x * np.asarray(slope(np.array([sign * 1e-300])), float)
            y = sign * kernels.activate(sign * x, type=type)
            assert_allclose(y, exact, rtol=3 * limits.eps, atol=limits.smallest_subnormal)


@pytest.mark.parametrize("bad", [np.nan, -0.0, np.inf])
def test_gradient_of_relu(kernels, dtype, rng, bad):
    """The gradient where the output is positive, else 0, whatever the gradient is."""
    output = np.maximum(rng.normal(size=70), 0).astype(dtype)
    output[:3] = bad
    output_grad = rng.normal(size=70).astype(dtype)
    output_grad[output == 0] = np.nan
    grad = kernels.bprop_activate(output, output_grad, type="relu")
    assert_array_equal(grad, np.where(output > 0, output_grad, 0))


# --- any arrays, any number of threads ----------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(
    type=st.sampled_from(ACTIVATIONS),
    size=st.one_of(
        st.integers(0, 70),
        st.builds(lambda n, k: n * 16_384 + k, st.integers(1, 3), st.integers(-20, 20)),
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_bits_depend_on_nothing_else(kernels, dtype, type, size, seed):
    """Neither on the number of threads, nor on a value's place, in vectors and parts."""
    rng = np.random.default_rng(seed)
    x, output_grad = rng.normal(scale=3, size=(2, size)).astype(dtype)
    expected = results(kernels, type, x, output_grad, n_threads=1)
    for n_threads in (None, 2, 3):
        for found, array in zip(
            results(kernels, type, x, output_grad, n_threads=n_threads), expected
        ):
            assert_array_equal(found, array)
    for i in {0, size // 2, size - 1} & set(range(size)):
        for n in (1, 5):
            alone = results(kernels, type, x[i : i + n], output_grad[i : i + n])
            for found, array in zip(alone, expected):
                assert_array_equal(found, array[i : i + n])


@pytest.mark.parametrize("type", ACTIVATIONS)
def test_many_values_on_several_threads(kernels, dtype, rng, type):
    x, output_grad = rng.normal(scale=3, size=(2, 250_001)).astype(dtype)
    one = results(kernels, type, x, output_grad, n_threads=1)
    for found, array in zip(results(kernels, type, x, output_grad, n_threads=2), one):
        assert_array_equal(found, array)


@pytest.mark.parametrize("type", ACTIVATIONS)
def test_any_layout(kernels, dtype, rng, type):
    x, output_grad = rng.normal(size=(2, 4, 3, 5)).astype(dtype)
    y, grad = results(kernels, type, x, output_grad)
    kept = x if type in KEEPING_INPUT else y
    for lay_out in (lambda a: a.T, lambda a: a[:, ::-1], lambda a: np.asfortranarray(a)):
        out = lay_out(np.empty_like(x))
        assert kernels.activate(lay_out(x), out, type=type) is out
        assert_array_equal(out, lay_out(y))
        given = lay_out(kept), lay_out(output_grad)
        assert kernels.bprop_activate(*given, out, type=type) is out
        assert_array_equal(out, lay_out(grad))


def run_guarded(target):
    """All arrays beside guard pages: a stray access kills the process."""
    functions = {each.__name__: each for each in load("_dense", target)}
    for dtype in (np.float32, np.float64):
        for at_end in (True, False):
            for n in (1, 7, 8, 9, 15, 16, 17, 33, 16_385):
                x, grad, out = (guarded(np.ones(n, dtype), at_end) for _ in range(3))
                for type in ACTIVATIONS:
                    functions["activate"](x, out, type=type)
                    functions["bprop_activate"](x, grad, out, type=type)
    print("in bounds")


def test_nothing_outside_the_arrays_is_touched(run_guarded_apart):
    done = run_guarded_apart()
    assert done.stdout == "in bounds\n", f"exit code {done.returncode}\n{done.stderr}"


def test_wrong_calls(kernels):
    x, y = np.ones(5, np.float32), np.zeros(5, np.float32)

    def forward(*arrays, type="gelu", **options):
        return kernels.activate(*arrays, type=type, **options)

    def backward(*arrays, type="relu", **options):
        return kernels.bprop_activate(*arrays, type=type, **options)

    for call, error, message in (
        (lambda: kernels.activate(x), TypeError, "type"),
        (lambda: forward(x, y, type="softmax"), ValueError, "type is 'softmax', expected one of"),
        (lambda: forward(x, y, type=["relu"]), ValueError, r"type is \['relu'\], expected one of"),
        (lambda: backward(x, x, y, type=None), ValueError, "type is None, expected one of .'relu'"),
        (lambda: forward([1.0]), TypeError, "input is a list, expected a NumPy array"),
        (lambda: forward(x.astype("f2")), TypeError, "input has dtype float16"),
        (lambda: forward(x, np.ones(4, "f4")), ValueError, r"output has shape \(4,\)"),
        (lambda: forward(x, np.ones(5)), TypeError, "output has dtype float64"),
        (lambda: forward(x, x), ValueError, "output overlaps input"),
        (lambda: forward(x, y, n_threads=0), ValueError, "n_threads is 0"),
        (lambda: backward(None, x, y), TypeError, "kept is None, expected a NumPy array"),
        (lambda: backward(x, x[:4], y), ValueError, "output_grad has shape"),
        (lambda: backward(x, np.ones(5), y), TypeError, "output_grad has dtype"),
        (lambda: backward(x, x, np.ones(4, "f4")), ValueError, r"input_grad has shape \(4,\)"),
        (lambda: backward(x, x, x), ValueError, "input_grad overlaps kept"),
        (lambda: backward(y + 1, x, x), ValueError, "input_grad overlaps output_grad"),
        (lambda: backward(x, x, y, n_threads=1.0), TypeError, "n_threads is 1.0"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert (x == 1).all() and (y == 0).all()
