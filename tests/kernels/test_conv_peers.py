"""The convolution kernels against implementations by others: PyTorch and SciPy."""

from functools import cache

import numpy as np
import pytest
from convolutions import compiled, make_arrays, run_all
from numpy.testing import assert_allclose

# n, c, h, w, k, filter h, filter w, options: shapes of real networks, with small batches
NETWORKS = {
    "grey 28x28 5x5 valid": (3, 1, 28, 28, 10, 5, 5, {"padding_mode": "valid"}),
    "grey 28x28 5x5": (3, 1, 28, 28, 12, 5, 5, {}),
    "14x14 5x5": (3, 12, 14, 14, 16, 5, 5, {}),
    "rgb 32x32 to 12": (3, 3, 32, 32, 12, 3, 3, {}),
    "rgb 32x32 to 32": (3, 3, 32, 32, 32, 3, 3, {}),
    "32x32 3x3": (1, 32, 32, 32, 32, 3, 3, {}),
    "16x16 3x3": (2, 32, 16, 16, 64, 3, 3, {}),
    "8x8 3x3": (2, 64, 8, 8, 128, 3, 3, {}),
    "56x56 3x3": (1, 64, 56, 56, 64, 3, 3, {}),
    "16x16 1x1": (2, 64, 16, 16, 64, 1, 1, {}),
    "16x16 stride 2": (2, 32, 16, 16, 64, 3, 3, {"strides": (2, 2)}),
    "one image": (1, 3, 32, 32, 32, 3, 3, {}),
    "depthwise": (2, 64, 16, 16, 64, 3, 3, {"groups": 64}),
    "dilation 2": (2, 16, 16, 16, 16, 3, 3, {"dilation": (2, 2)}),
    "28x28 7x7": (2, 8, 28, 28, 8, 7, 7, {}),
}
VARIATIONS = (
    {},
    {"strides": (2, 1), "padding_mode": "same"},
    {"strides": (2, 3), "padding_mode": "full"},
    {"dilation": (2, 1), "border_mode": "reflect"},
    {"strides": (2, 2), "dilation": (1, 2), "border_mode": "nearest"},
    {"padding_mode": ((0, 2), (3, 1)), "border_mode": "wrap"},
    {"strides": (3, 2), "padding_mode": "valid", "dilation": (2, 2)},
    {"padding_mode": ((7, 8), (0, 9))},
)
TORCH_BORDERS = {"nearest": "replicate", "reflect": "reflect", "wrap": "circular"}


def torch_pads(case, options):
    """(left, right, top, bottom), worked out anew from the definition of the modes."""
    sizes, windows = case[2:4], case[5:7]
    mode = options.get("padding_mode", "same")
    pads = []
    for axis in (1, 0):
        reach = options.get("dilation", (1, 1))[axis] * (windows[axis] - 1)
        if mode == "same":
            stride = options.get("strides", (1, 1))[axis]
            total = max((-(-sizes[axis] // stride) - 1) * stride + reach + 1 - sizes[axis], 0)
            pads += [total // 2, total - total // 2]
        else:
            pads += {"valid": [0, 0], "full": [reach, reach]}.get(mode) or mode[axis]
    return pads


@cache
def torch_results(name, variation):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    case = NETWORKS[name]
    options = {**case[-1], **VARIATIONS[variation]}
    rng = np.random.default_rng(variation)
    arrays = make_arrays((*case[:-1], options), rng.standard_normal, np.float32)[:3]
    imgs, filters, convout_grad = (torch.tensor(a, dtype=torch.float64) for a in arrays)
    imgs.requires_grad_(True)
    filters.requires_grad_(True)
    border = options.get("border_mode", "zeros")
    padded = torch.nn.functional.pad(
        imgs, torch_pads(case, options), mode=TORCH_BORDERS.get(border, "constant")
    )
    convout = torch.nn.functional.conv2d(
        padded,
        filters.swapaxes(0, 1),
        stride=options.get("strides", 1),
        dilation=options.get("dilation", 1),
        groups=options.get("groups", 1),
    )
    grads = torch.autograd.grad(convout, (imgs, filters), convout_grad)
    expected = convout.detach().numpy(), grads[0].numpy(), grads[1].numpy() / len(imgs)
    return arrays, options, expected


@pytest.mark.parametrize("variation", range(len(VARIATIONS)))
@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_pytorch(kernels, dtype, name, variation):
    arrays, options, expected = torch_results(name, variation)
    actual = run_all(compiled(kernels), [a.astype(dtype) for a in arrays], options)
    for array, values in zip(actual, expected):
        scale = np.abs(values).max()
        assert_allclose(array, values, rtol=0, atol=30 * np.finfo(dtype).eps * scale)


@pytest.mark.parametrize("padding_mode", ["valid", "same", "full"])
@pytest.mark.parametrize("window", [(1, 1), (3, 3), (5, 3), (1, 7)])
def test_agrees_with_scipy_signal(kernels, rng, padding_mode, window):
    signal = pytest.importorskip("scipy.signal", reason="SciPy is not installed")
    imgs, filters = rng.standard_normal((2, 3, 9, 11)), rng.standard_normal((3, 4, *window))
    expected = [
        [sum(signal.correlate2d(img[c], filters[c, k], padding_mode) for c in range(3))
         for k in range(4)]
        for img in imgs
    ]  # fmt: skip
    actual = kernels.conv_bc01(imgs, filters, padding_mode=padding_mode)
    assert_allclose(actual, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "border_mode, scipy_mode",
    [
        ("zeros", "constant"),
        ("nearest", "nearest"),
        ("reflect", "mirror"),
        ("wrap", "grid-wrap"),
        ("symmetric", "reflect"),
    ],
)
def test_agrees_with_scipy_ndimage(kernels, rng, border_mode, scipy_mode):
    ndimage = pytest.importorskip("scipy.ndimage", reason="SciPy is not installed")
    imgs, filters = rng.standard_normal((2, 1, 7, 9)), rng.standard_normal((1, 3, 5, 3))
    expected = [
        [ndimage.correlate(img[0], filters[0, k], mode=scipy_mode) for k in range(3)]
        for img in imgs
    ]
    actual = kernels.conv_bc01(imgs, filters, border_mode=border_mode)
    assert_allclose(actual, expected, rtol=0, atol=1e-13)
