"""Filters: `nnet.correlate` and `nnet.maximum_filter` of one image, beside SciPy's and OpenCV's."""

from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import nnet
from common import Benchmark, Operation, main, median_time
from nnet import reference


class Case(NamedTuple):
    imgs: tuple  # (1, 1, img_h, img_w)
    operation: str
    size: int  # of the kernel, or of the window

    @property
    def pads(self):
        return self.size // 2, (self.size - 1) // 2


def all_cases():
    sizes = {"correlate": (3, 7, 15, 31), "maximum": (3, 7, 15, 31)}
    return {
        f"512,512 {operation} {size}x{size}": Case((1, 1, 512, 512), operation, size)
        for operation in sizes
        for size in sizes[operation]
    }


def operations(library, case, dtype):
    """The border is the mirror image with the edge repeated, as SciPy and OpenCV have it."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal(case.imgs[2:]).astype(dtype)
    kernel = rng.standard_normal((case.size, case.size)).astype(dtype)
    run = RUNS[library](case, image, kernel)
    operation = Operation(
        seconds=partial(median_time, run),
        result=lambda: [np.asarray(run(), dtype)],
        rates={"Mpixel/s": 1e-6 * image.size},
    )
    return {case.operation: operation}


def loops_run(case, image, kernel):
    imgs = image[np.newaxis, np.newaxis]
    options = {"padding_mode": (case.pads, case.pads)}
    if case.operation == "maximum":
        window = case.size, case.size, 1, 1
        return lambda: reference.pool_bc01(imgs, None, None, *window, **options)[0][0, 0]
    filters = kernel[np.newaxis, np.newaxis]
    options["border_mode"] = "symmetric"
    return lambda: reference.conv_bc01(imgs, filters, **options)[0, 0]


def numpy_run(case, image, kernel):
    def run():
        padded = np.pad(image, case.pads, mode="symmetric")
        windows = sliding_window_view(padded, kernel.shape)
        if case.operation == "maximum":
            return windows.max((2, 3))
        return np.tensordot(windows.astype(float, copy=False), kernel.astype(float), 2)

    return run


def scipy_run(case, image, kernel):
    from scipy import ndimage

    if case.operation == "maximum":
        return partial(ndimage.maximum_filter, image, case.size)
    return partial(ndimage.correlate, image, kernel)


def opencv_run(case, image, kernel):
    import cv2

    cv2.setNumThreads(1)
    if case.operation == "maximum":
        return partial(cv2.dilate, image, np.ones(kernel.shape, np.uint8))
    return partial(cv2.filter2D, image, -1, kernel, borderType=cv2.BORDER_REFLECT)


def nnet_run(case, image, kernel):
    if case.operation == "maximum":
        return partial(nnet.maximum_filter, image, case.size)
    return partial(nnet.correlate, image, kernel)


RUNS = {
    "loops": loops_run,
    "numpy": numpy_run,
    "scipy": scipy_run,
    "opencv": opencv_run,
    "nnet": nnet_run,
}
BENCHMARK = Benchmark(
    name="filters",
    libraries=("loops", "numpy", "scipy", "opencv"),
    cases=all_cases(),
    loops_case=("32,32 correlate 3x3", Case((1, 1, 32, 32), "correlate", 3)),
    tiny_case=Case((1, 1, 9, 8), "maximum", 3),
    small=lambda case: case._replace(imgs=(1, 1, 20, 17)),
    operations=operations,
    threads=(1,),
)

if __name__ == "__main__":
    main(BENCHMARK)
