"""Convolutions: the compiled kernels against loops, NumPy and PyTorch."""

from functools import partial
from typing import NamedTuple

import numpy as np

import nnet
from common import Benchmark, Operation, main, median_time
from nnet import reference
from nnet.geometry import as_pair, conv_geometry


class Case(NamedTuple):
    imgs: tuple  # (n_imgs, n_channels, img_h, img_w)
    n_feats: int
    fil_shape: tuple  # (fil_h, fil_w)
    options: dict

    @property
    def filters(self):
        group_channels = self.imgs[1] // self.options.get("groups", 1)
        return group_channels, self.n_feats, *self.fil_shape

    @property
    def geometry(self):
        options = {name: value for name, value in self.options.items() if name != "groups"}
        return conv_geometry(*self.imgs[2:], *self.filters[2:], **options)

    @property
    def convout(self):
        return self.imgs[0], self.n_feats, self.geometry.out_h, self.geometry.out_w


def named(n, c, h, w, n_feats, fil_shape, note="", **options):
    """A case, after its name."""
    fil_h, fil_w = as_pair(fil_shape, "fil_shape")
    name = f"{n},{c},{h},{w} -> {n_feats}, {fil_h}x{fil_w} {note}"
    return name.strip(), Case((n, c, h, w), n_feats, (fil_h, fil_w), options)


CASES = dict(
    [
        # 1 to 3 channels: what every network begins with
        named(128, 1, 28, 28, 10, 5, "valid", padding_mode="valid"),
        named(32, 1, 28, 28, 12, 5),
        named(64, 1, 28, 28, 6, 5),
        named(64, 3, 32, 32, 12, 3),
        named(64, 3, 32, 32, 32, 3),
        named(1, 3, 32, 32, 32, 3),
        # A stride comes with the same padding on both sides: PyTorch has no other kind.
        named(128, 3, 24, 24, 8, 3, "stride 2", strides=(2, 2), padding_mode=1),
        named(32, 3, 64, 64, 16, 7, "stride 2", strides=(2, 2), padding_mode=3),
        named(8, 1, 1, 4000, 16, (1, 9)),
        # 4 to 16 channels
        named(64, 4, 20, 20, 9, (2, 4), "valid", padding_mode="valid"),
        named(64, 6, 14, 14, 16, 5, "valid", padding_mode="valid"),
        named(64, 8, 28, 28, 8, 7),
        named(32, 12, 14, 14, 16, 5),
        named(32, 16, 32, 32, 16, 3),
        named(64, 16, 16, 16, 16, 3, "dilation 2", dilation=(2, 2)),
        # 32 channels and more
        named(64, 32, 32, 32, 32, 3),
        named(64, 32, 16, 16, 64, 3),
        named(64, 32, 16, 16, 64, 3, "stride 2", strides=(2, 2), padding_mode=1),
        named(16, 64, 56, 56, 64, 3),
        named(64, 64, 16, 16, 64, 1),
        named(1, 64, 14, 14, 64, 3),
        named(64, 64, 8, 8, 128, 3),
        named(64, 128, 4, 4, 128, 3),
        # each channel for itself
        named(32, 64, 16, 16, 64, 3, "depthwise", groups=64),
        named(16, 96, 14, 14, 96, 5, "depthwise", groups=96),
    ]
)

KERNELS = {
    "loops": (reference.conv_bc01, reference.bprop_conv_bc01),
    "numpy": (reference.conv_bc01_im2col, reference.bprop_conv_bc01_im2col),
    "nnet": (nnet.conv_bc01, nnet.bprop_conv_bc01),
}


def small(case):
    """As many groups as channels stay so; nothing else grows with the case."""
    n, c, h, w = case.imgs
    n_channels = min(c, 2)
    options = dict(case.options)
    if "groups" in options:
        options["groups"] = n_channels
    return Case((min(n, 2), n_channels, min(h, 8), min(w, 8)), 2, case.fil_shape, options)


def operations(library, case, dtype):
    """Forward, both gradients, and the gradient of the filters alone."""
    rng = np.random.default_rng(0)
    shapes = case.imgs, case.filters, case.convout
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    runs = torch_runs if library.startswith("torch") else kernel_runs
    flops = 2e-9 * np.prod(case.filters) * case.convout[0] * np.prod(case.convout[2:])
    return {
        name: Operation(
            seconds=partial(median_time, run),
            result=lambda run=run, arrays_of=arrays_of: arrays_of(run()),
            rates={"GFLOP/s": times * flops},
        )
        for name, run, arrays_of, times in runs(library, case, *arrays)
    }


def kernel_runs(library, case, imgs, filters, convout_grad):
    """(name, run, its result as arrays, multiple of the forward pass's work) for nnet."""
    conv, bprop = KERNELS[library]
    convout, imgs_grad = np.empty_like(convout_grad), np.empty_like(imgs)
    given = imgs, convout_grad, filters
    filters_grad = np.empty_like(filters)

    def filter_gradient():
        return bprop(*given, None, filters_grad, need_imgs_grad=False, **case.options)

    return [
        ("forward", lambda: conv(imgs, filters, convout, **case.options), lambda out: [out], 1),
        ("backward", lambda: bprop(*given, imgs_grad, filters_grad, **case.options), list, 2),
        ("filter gradient", filter_gradient, lambda grads: [grads[1]], 1),
    ]


def torch_runs(library, case, *arrays):
    """The same of PyTorch, whose filters have their first two axes exchanged and grads are sums."""
    import torch

    where = case.geometry
    assert (where.top, where.left) == (where.bottom, where.right)
    stride, dilation = [where.stride_y, where.stride_x], [where.dilation_y, where.dilation_x]
    padding, groups = [where.top, where.left], case.options.get("groups", 1)
    order = torch.channels_last if library.endswith("last") else torch.contiguous_format
    imgs, filters, convout_grad = map(torch.tensor, arrays)
    filters = filters.transpose(0, 1)
    imgs, filters, convout_grad = (
        tensor.clone(memory_format=order) for tensor in (imgs, filters, convout_grad)
    )
    torch.set_grad_enabled(False)

    def bprop(*mask):
        return torch.ops.aten.convolution_backward(
            convout_grad, imgs, filters, [0], stride, padding, dilation, False, [0, 0], groups, mask
        )

    def filters_grad(grads):
        return grads[1].transpose(0, 1).numpy() / len(imgs)

    def forward():
        return torch.nn.functional.conv2d(imgs, filters, None, stride, padding, dilation, groups)

    return [
        ("forward", forward, lambda out: [out.numpy()], 1),
        (
            "backward",
            partial(bprop, True, True, False),
            lambda grads: [grads[0].numpy(), filters_grad(grads)],
            2,
        ),
        (
            "filter gradient",
            partial(bprop, False, True, False),
            lambda grads: [filters_grad(grads)],
            1,
        ),
    ]


BENCHMARK = Benchmark(
    name="convolution",
    libraries=("loops", "numpy", "torch", "torch-channels-last"),
    cases=CASES,
    loops_case=named(1, 32, 16, 16, 32, 3),
    tiny_case=Case((2, 3, 6, 6), 4, (3, 3), {}),
    small=small,
    operations=operations,
)

if __name__ == "__main__":
    main(BENCHMARK)
