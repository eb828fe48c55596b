from collections.abc import Callable
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Real = TypeVar("Real", np.float32, np.float64)
Mode = Literal["max", "avg"]
Padding = (
    Literal["centered", "same", "valid", "full"]
    | int
    | tuple[int, int]
    | tuple[tuple[int, int], tuple[int, int]]
)

KERNELS: tuple[Callable[..., Any], ...]

def pool_bc01(
    imgs: NDArray[Real],
    poolout: NDArray[Real] | None,
    switches: NDArray[np.intp] | None,
    pool_h: int,
    pool_w: int,
    stride_y: int,
    stride_x: int,
    *,
    mode: Mode = "max",
    padding_mode: Padding = "centered",
    count_include_pad: bool = False,
    n_threads: int | None = None,
) -> tuple[NDArray[Real], NDArray[np.intp] | None]: ...
def bprop_pool_bc01(
    poolout_grad: NDArray[Real],
    switches: NDArray[np.intp] | None,
    imgs_grad: NDArray[Real] | None,
    pool_h: int | None = None,
    pool_w: int | None = None,
    stride_y: int | None = None,
    stride_x: int | None = None,
    *,
    mode: Mode = "max",
    padding_mode: Padding = "centered",
    count_include_pad: bool = False,
    n_threads: int | None = None,
) -> NDArray[Real]: ...
