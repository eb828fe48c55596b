"""GELU and its gradient against SciPy, for every target."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special

EDGES = [-np.inf, -1e30, -40.5, -40, -39, -0.0, 0.0, 5, 39.5, 40, 41, 1e30, np.inf, np.nan]


def slope(x):
    with np.errstate(invalid="ignore"):
        return special.ndtr(x) + np.where(
            np.abs(x) < 50, x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), 0
        )


def test_values(kernels, dtype):
    x = np.linspace(-12, 12, 40_001).astype(dtype)
    exact = x.astype(float)
    rtol = 1.2e-7 if dtype == "f4" else 3e-14  # at -12 the exponent, 72, has a rounding error
    assert_allclose(kernels.gelu(x), exact * special.ndtr(exact), rtol=rtol)
    grad = kernels.bprop_gelu(x, np.full_like(x, 2), None)
    assert_allclose(grad, 2 * slope(exact), rtol=rtol, atol=1e-7 if dtype == "f4" else 2e-15)
    middle = x[np.abs(x) < 1]
    if dtype == "f8":
        assert_allclose(kernels.gelu(middle), middle * special.ndtr(middle), rtol=1e-15)


def test_edges(kernels, dtype):
    x = np.array(EDGES, dtype)
    with np.errstate(all="raise"):
        y, grad = kernels.gelu(x), kernels.bprop_gelu(x, np.ones_like(x), None)
    assert_array_equal(
        y,
        np.where(
            x > 30,
            x,
            np.where(np.isnan(x), np.nan, np.where(x == 5, kernels.gelu(np.full(1, 5, dtype)), 0)),
        ),
    )
    assert_array_equal(grad[:5], 0)
    assert_array_equal(grad[5:7], 0.5)
    assert_array_equal(grad[8:13], 1)
    assert np.isnan(grad[13])
    assert_array_equal(np.signbit(y[5:7]), [True, False])


@pytest.mark.parametrize("size", [0, 1, 7, 16_384, 100_003])
def test_any_size_and_number_of_threads(kernels, dtype, rng, size):
    x, output_grad = rng.normal(scale=3, size=(2, size)).astype(dtype)
    y, grad = kernels.gelu(x, n_threads=1), kernels.bprop_gelu(x, output_grad, None, n_threads=1)
    assert_allclose(y, x * special.ndtr(x.astype(float)), rtol=1e-6)
    for n_threads in (None, 2, 3):
        out = np.full_like(x, np.nan)
        assert kernels.gelu(x, out, n_threads=n_threads) is out
        assert_array_equal(out, y)
        assert kernels.bprop_gelu(x, output_grad, out, n_threads=n_threads) is out
        assert_array_equal(out, grad)
    for i in range(0, size, max(size // 5, 1)):  # the bits of a value don't depend on its place
        assert_array_equal(kernels.gelu(x[i : i + 1]), y[i : i + 1])


def test_any_layout(kernels, dtype, rng):
    x, output_grad = rng.normal(size=(2, 4, 3, 5)).astype(dtype)
    for lay_out in (lambda a: a.T, lambda a: a[:, ::-1], lambda a: np.asfortranarray(a)):
        given, out = lay_out(x), lay_out(np.empty_like(x))
        assert_array_equal(kernels.gelu(given, out), lay_out(kernels.gelu(x)))
        assert_array_equal(
            kernels.bprop_gelu(given, lay_out(output_grad), out),
            lay_out(kernels.bprop_gelu(x, output_grad, None)),
        )


def test_wrong_calls(kernels):
    x, y = np.ones(5, np.float32), np.zeros(5, np.float32)
    for call, error, message in (
        (lambda: kernels.gelu([1.0]), TypeError, "input is a list, expected a NumPy array"),
        (lambda: kernels.gelu(x.astype("f2")), TypeError, "input has dtype float16"),
        (lambda: kernels.gelu(x, np.ones(4, "f4")), ValueError, r"output has shape \(4,\)"),
        (lambda: kernels.gelu(x, np.ones(5)), TypeError, "output has dtype float64"),
        (lambda: kernels.gelu(x, x), ValueError, "output overlaps input"),
        (lambda: kernels.gelu(x, y, n_threads=0), ValueError, "n_threads is 0"),
        (lambda: kernels.bprop_gelu(x, x[:4], y), ValueError, "output_grad has shape"),
        (lambda: kernels.bprop_gelu(x, np.ones(5), y), TypeError, "output_grad has dtype"),
        (lambda: kernels.bprop_gelu(x, x, x), ValueError, "input_grad overlaps input"),
        (lambda: kernels.bprop_gelu(y + 1, x, x), ValueError, "input_grad overlaps output_grad"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert (x == 1).all() and (y == 0).all()
