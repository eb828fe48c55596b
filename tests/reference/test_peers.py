"""The specification against PyTorch."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from test_loops import CASES, POOLS, make_arrays

from nnet import reference
from nnet.geometry import conv_geometry


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def torch_conv(torch, imgs, filters, case):
    """Padded explicitly, without PyTorch's own rules; its filters are (k, c, h, w)."""
    options = {"border_mode": "zeros", **case[-1]}
    groups = options.pop("groups", 1)
    g = conv_geometry(*case[2:4], *case[5:7], **options)
    modes = {"zeros": "constant", "nearest": "replicate", "reflect": "reflect", "wrap": "circular"}
    pads = (g.left, g.right, g.top, g.bottom)
    if options["border_mode"] == "symmetric":  # PyTorch has none
        rows = np.pad(np.arange(case[2]), (g.top, g.bottom), mode="symmetric")
        cols = np.pad(np.arange(case[3]), (g.left, g.right), mode="symmetric")
        padded = imgs[:, :, rows][:, :, :, cols]
    else:
        padded = torch.nn.functional.pad(imgs, pads, mode=modes[options["border_mode"]])
    return torch.nn.functional.conv2d(
        padded,
        filters.transpose(0, 1),
        stride=(g.stride_y, g.stride_x),
        dilation=(g.dilation_y, g.dilation_x),
        groups=groups,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_convolution_equals_pytorch(torch, rng, name, dtype):
    case = CASES[name]
    arrays = make_arrays(case, lambda shape: rng.standard_normal(shape).astype(dtype))
    imgs, filters, convout_grad = arrays
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays[:2]]
    expected = torch_conv(torch, *tensors, case)
    expected.backward(torch.tensor(convout_grad))
    tolerance = {"atol": 100 * np.finfo(dtype).eps, "rtol": 100 * np.finfo(dtype).eps}
    convout = reference.conv_bc01(imgs, filters, **case[-1])
    imgs_grad, filters_grad = reference.bprop_conv_bc01(imgs, convout_grad, filters, **case[-1])
    assert_allclose(convout, expected.detach().numpy(), **tolerance)
    assert_allclose(imgs_grad, tensors[0].grad.numpy(), **tolerance)
    assert_allclose(filters_grad * len(imgs), tensors[1].grad.numpy(), **tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("share", [0, 0.05, 0.5, 1])
@pytest.mark.parametrize("name", ["2x2", "3x3 stride 2", "valid"])
def test_max_pooling_of_nan_equals_pytorch(torch, rng, name, share, dtype):
    """NaN wins; of several in a window the last, as in PyTorch 2.13."""
    h, w, pool_h, pool_w, stride_y, stride_x, _ = POOLS[name]
    imgs = rng.integers(0, 4, (2, 3, h, w)).astype(dtype)
    imgs[rng.random(imgs.shape) < share] = np.nan
    imgs[rng.random(imgs.shape) < 0.1] = -np.inf
    expected, indices = torch.nn.functional.max_pool2d(
        torch.tensor(imgs), (pool_h, pool_w), (stride_y, stride_x), return_indices=True
    )
    poolout, switches = reference.pool_bc01(
        imgs, None, None, pool_h, pool_w, stride_y, stride_x, padding_mode="valid"
    )
    assert_array_equal(poolout, expected.numpy())
    assert_array_equal(switches[..., 0] * w + switches[..., 1], indices.numpy())


@pytest.mark.parametrize("pads", [(0, 0), (1, 1), (1, 0)])
@pytest.mark.parametrize("pool", [(3, 3, 1, 1), (3, 2, 2, 2), (2, 3, 2, 1)])
def test_pooling_equals_pytorch(torch, rng, pool, pads):
    imgs = rng.standard_normal((2, 2, 6, 7))
    tensor = torch.tensor(imgs, requires_grad=True)
    window, strides = pool[:2], pool[2:]
    functional = torch.nn.functional
    for options, expected in (
        ({"mode": "max"}, functional.max_pool2d(tensor, window, strides, pads)),
        (
            {"mode": "avg"},
            functional.avg_pool2d(tensor, window, strides, pads, count_include_pad=False),
        ),
        (
            {"mode": "avg", "count_include_pad": True},
            functional.avg_pool2d(tensor, window, strides, pads, count_include_pad=True),
        ),
    ):
        options = {**options, "padding_mode": pads}
        poolout, switches = reference.pool_bc01(imgs, None, None, *pool, **options)
        assert_allclose(poolout, expected.detach().numpy(), atol=1e-12)
        grad = rng.standard_normal(poolout.shape)
        (expected_grad,) = torch.autograd.grad(expected, tensor, torch.tensor(grad))
        imgs_grad = reference.bprop_pool_bc01(grad, switches, np.empty_like(imgs), *pool, **options)
        assert_allclose(imgs_grad, expected_grad.numpy(), atol=1e-12)
