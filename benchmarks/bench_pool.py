"""Pooling: the compiled kernels against loops, NumPy, PyTorch and a plain copy of the input."""

from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import nnet
from common import Benchmark, Operation, main, median_time
from nnet import reference
from nnet.geometry import pool_geometry
from nnet.layers.pool import MAX_PLACES


class Case(NamedTuple):
    imgs: tuple  # (n_imgs, n_channels, img_h, img_w)
    mode: str
    window: tuple  # (pool_h, pool_w, stride_y, stride_x)
    padding_mode: str

    @property
    def geometry(self):
        return pool_geometry(*self.imgs[2:], *self.window, self.padding_mode)

    @property
    def options(self):
        return {"mode": self.mode, "padding_mode": self.padding_mode}


def all_cases():
    """Every window on every image size: {name: Case}."""
    cases = {}
    for imgs in [(64, 32, 32, 32), (128, 12, 28, 28), (64, 64, 16, 16)]:
        for mode in ("max", "avg"):
            for size, stride in [(2, 2), (3, 2), (3, 1)]:
                window = size, size, stride, stride
                name = f"{','.join(map(str, imgs))} {mode} {size}x{size} stride {stride}"
                cases[name] = Case(imgs, mode, window, "centered")
            name = f"{','.join(map(str, imgs))} {mode} global"
            cases[name] = Case(imgs, mode, imgs[2:] * 2, "valid")
    return cases


# --- pooling in NumPy ---------------------------------------------------------


def numpy_pool(
    imgs,
    poolout,
    switches,
    *window,
    mode="max",
    padding_mode="centered",
    count_include_pad=False,
    ceil_mode=False,
    need_switches=True,
):
    """`nnet.pool_bc01` on a view of all windows; no benchmark lets them overhang."""
    assert not ceil_mode
    pool_h, pool_w, stride_y, stride_x = window
    g = pool_geometry(*imgs.shape[2:], *window, padding_mode)
    filling = -np.inf if mode == "max" else 0
    windows = _windows(imgs, g, window, filling)
    if mode == "avg":
        if count_include_pad:
            return np.divide(windows.sum((-2, -1)), pool_h * pool_w, out=poolout), None
        return np.divide(windows.sum((-2, -1)), _n_pixels(imgs.shape, g, window), out=poolout), None
    if not need_switches:
        return windows.max((-2, -1), out=poolout), None
    best = windows.reshape(*windows.shape[:4], -1).argmax(-1)
    rows = best // pool_w + np.arange(g.out_h)[:, None] * stride_y - g.top
    cols = best % pool_w + np.arange(g.out_w) * stride_x - g.left
    if switches.dtype == np.uint8:
        switches[...] = best
    else:
        np.stack((rows, cols), axis=-1, out=switches)
    n, c = np.ogrid[: imgs.shape[0], : imgs.shape[1]]
    poolout[...] = imgs[n[..., None, None], c[..., None, None], rows, cols]
    return poolout, switches


def numpy_bprop_pool(
    poolout_grad,
    switches,
    imgs_grad,
    *window,
    mode="max",
    padding_mode="centered",
    count_include_pad=False,
    ceil_mode=False,
):
    """`nnet.bprop_pool_bc01`: a sum over the switches, or over the pixels of the windows."""
    assert not ceil_mode
    n_imgs, n_channels, img_h, img_w = imgs_grad.shape
    if mode == "max":
        if switches.dtype == np.uint8:
            switches = _pairs(switches, pool_geometry(img_h, img_w, *window, padding_mode), window)
        plane = np.arange(n_imgs * n_channels).reshape(n_imgs, n_channels, 1, 1)
        places = (plane * img_h + switches[..., 0]) * img_w + switches[..., 1]
        sums = np.bincount(places.ravel(), poolout_grad.ravel(), imgs_grad.size)
        imgs_grad[...] = sums.reshape(imgs_grad.shape)
        return imgs_grad
    g = pool_geometry(img_h, img_w, *window, padding_mode)
    pool_h, pool_w, stride_y, stride_x = window
    count = pool_h * pool_w if count_include_pad else _n_pixels(imgs_grad.shape, g, window)
    part = poolout_grad / np.asarray(count, poolout_grad.dtype)
    height, width = g.top + img_h + g.bottom, g.left + img_w + g.right
    padded = np.zeros((n_imgs, n_channels, height, width), imgs_grad.dtype)
    for i in range(pool_h):
        for j in range(pool_w):
            rows = slice(i, i + (g.out_h - 1) * stride_y + 1, stride_y)
            cols = slice(j, j + (g.out_w - 1) * stride_x + 1, stride_x)
            padded[:, :, rows, cols] += part
    imgs_grad[...] = padded[:, :, g.top : g.top + img_h, g.left : g.left + img_w]
    return imgs_grad


def _pairs(places, g, window):
    """Rows and columns in the image of places in windows."""
    tops, lefts = np.arange(g.out_h) * g.stride_y - g.top, np.arange(g.out_w) * g.stride_x - g.left
    rows, cols = np.divmod(places.astype(np.intp), window[1])
    return np.stack((rows + tops[:, None], cols + lefts), axis=-1)


def _windows(imgs, g, window, filling):
    """(n_imgs, n_channels, out_h, out_w, pool_h, pool_w)."""
    pads = (0, 0), (0, 0), (g.top, g.bottom), (g.left, g.right)
    padded = np.pad(imgs, pads, constant_values=filling)
    views = sliding_window_view(padded, window[:2], axis=(2, 3))
    return views[:, :, :: window[2], :: window[3]][:, :, : g.out_h, : g.out_w]


def _n_pixels(shape, g, window):
    """How many real pixels each window has: (1, 1, out_h, out_w)."""
    ones = np.ones((1, 1, *shape[2:]), np.float32)
    return _windows(ones, g, window, 0).sum((-2, -1))


# --- the benchmark ------------------------------------------------------------

KERNELS = {
    "loops": (reference.pool_bc01, reference.bprop_pool_bc01),
    "numpy": (numpy_pool, numpy_bprop_pool),
    "nnet": (nnet.pool_bc01, nnet.bprop_pool_bc01),
    "pairs": (nnet.pool_bc01, nnet.bprop_pool_bc01),
}


def operations(library, case, dtype):
    """Forward, with the places of the maxima, and backward."""
    rng = np.random.default_rng(0)
    imgs = rng.standard_normal(case.imgs).astype(dtype)
    out_shape = *case.imgs[:2], case.geometry.out_h, case.geometry.out_w
    poolout_grad = rng.standard_normal(out_shape).astype(dtype)
    others = {"copy": copy_runs, "torch": torch_runs, "torch-channels-last": torch_runs}
    runs = others.get(library, kernel_runs)
    return {
        name: Operation(
            seconds=partial(median_time, run),
            result=arrays_of and (lambda run=run, arrays_of=arrays_of: arrays_of(run())),
            rates={"GB/s": 1e-9 * (imgs.nbytes + poolout_grad.nbytes)},
        )
        for name, run, arrays_of in runs(library, case, imgs, poolout_grad)
    }


def kernel_runs(library, case, imgs, poolout_grad):
    """(name, run, its result as arrays) of nnet's functions."""
    if library == "pairs" and case.mode == "avg":
        return []
    pool, bprop = KERNELS[library]
    poolout, imgs_grad = np.empty_like(poolout_grad), np.empty_like(imgs)
    switches = None
    if case.mode == "max":
        switches = np.empty((*poolout.shape, 2), np.intp)
        if library == "nnet" and np.prod(case.window[:2]) <= MAX_PLACES:  # as the layers choose it
            switches = np.empty(poolout.shape, np.uint8)

    def forward():
        return pool(imgs, poolout, switches, *case.window, **case.options)

    def backward():
        return bprop(poolout_grad, switches, imgs_grad, *case.window, **case.options)

    def as_arrays(out):
        poolout, switches = out
        if switches is None:
            return [poolout]
        if switches.dtype == np.uint8:
            switches = _pairs(switches, case.geometry, case.window)
        return [poolout, switches]

    forward()  # the switches
    return [
        ("forward", forward, as_arrays),
        ("backward", backward, lambda grad: [grad]),
    ]


def copy_runs(library, case, imgs, poolout_grad):
    """The least that reading or writing the images can take."""
    copy = np.empty_like(imgs)
    run = partial(np.copyto, copy, imgs)
    return [("forward", run, None), ("backward", run, None)]


def torch_runs(library, case, *arrays):
    """The same of PyTorch, where a switch is one number: row * width + column."""
    import torch

    order = torch.channels_last if library.endswith("last") else torch.contiguous_format
    imgs, poolout_grad = (torch.tensor(a).contiguous(memory_format=order) for a in arrays)
    where, aten = case.geometry, torch.ops.aten
    window = case.window[:2], case.window[2:], [where.top, where.left]
    torch.set_grad_enabled(False)

    def max_as_arrays(out):
        poolout, places = (tensor.numpy() for tensor in out)
        return [poolout, np.stack(np.divmod(places, imgs.shape[3]), axis=-1)]

    if case.mode == "max":
        more = [1, 1], False  # dilation, ceil_mode
        places = aten.max_pool2d_with_indices(imgs, *window, *more)[1]
        pool = partial(aten.max_pool2d_with_indices, imgs, *window, *more)
        bprop = partial(aten.max_pool2d_with_indices_backward, poolout_grad, imgs, *window, *more)
        return [
            ("forward", pool, max_as_arrays),
            ("backward", partial(bprop, places), lambda grad: [grad.numpy()]),
        ]
    more = False, False  # ceil_mode, count_include_pad
    pool = partial(aten.avg_pool2d, imgs, *window, *more)
    if case.window[:2] == case.imgs[2:]:  # nn.AdaptiveAvgPool2d(1) does this: 2 to 17 times as fast
        pool = partial(imgs.mean, (2, 3), keepdim=True)
    bprop = partial(aten.avg_pool2d_backward, poolout_grad, imgs, *window, *more, None)
    return [
        ("forward", pool, lambda out: [out.numpy()]),
        ("backward", bprop, lambda grad: [grad.numpy()]),
    ]


BENCHMARK = Benchmark(
    name="pooling",
    libraries=("loops", "numpy", "copy", "pairs", "torch", "torch-channels-last"),
    cases=all_cases(),
    loops_case=("1,8,32,32 max 2x2 stride 2", Case((1, 8, 32, 32), "max", (2,) * 4, "centered")),
    tiny_case=Case((2, 3, 6, 6), "max", (3, 3, 2, 2), "centered"),
    small=lambda case: case._replace(imgs=(2, 2, *case.imgs[2:])),
    operations=operations,
)

if __name__ == "__main__":
    main(BENCHMARK)
