from collections.abc import Callable
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Real = TypeVar("Real", np.float32, np.float64)
Pair = int | tuple[int, int]
Padding = Literal["same", "valid", "full"] | Pair | tuple[tuple[int, int], tuple[int, int]]
Border = Literal["zeros", "nearest", "reflect", "wrap"]

KERNELS: tuple[Callable[..., Any], ...]

def conv_bc01(
    imgs: NDArray[Real],
    filters: NDArray[Real],
    convout: NDArray[Real] | None = None,
    *,
    strides: Pair = (1, 1),
    padding_mode: Padding = "same",
    border_mode: Border = "zeros",
    dilation: Pair = (1, 1),
    groups: int = 1,
    bias: NDArray[Real] | None = None,
    activation: Literal["relu"] | None = None,
    n_threads: int | None = None,
) -> NDArray[Real]: ...
def bprop_conv_bc01(
    imgs: NDArray[Real],
    convout_grad: NDArray[Real],
    filters: NDArray[Real],
    imgs_grad: NDArray[Real] | None = None,
    filters_grad: NDArray[Real] | None = None,
    *,
    strides: Pair = (1, 1),
    padding_mode: Padding = "same",
    border_mode: Border = "zeros",
    dilation: Pair = (1, 1),
    groups: int = 1,
    need_imgs_grad: bool = True,
    bias_grad: NDArray[Real] | None = None,
    n_threads: int | None = None,
) -> tuple[NDArray[Real] | None, NDArray[Real]]: ...
