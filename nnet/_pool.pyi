from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

_Real = TypeVar("_Real", np.float32, np.float64)
_Switches: TypeAlias = NDArray[np.intp] | NDArray[np.uint8]
_Mode: TypeAlias = Literal["max", "avg"]
_Forward: TypeAlias = Literal["strips", "windows", "doubling"]
_Backward: TypeAlias = Literal["gather", "scatter", "whole", "doubling"]
_Padding: TypeAlias = (
    Literal["centered", "same", "valid", "full"]
    | int
    | tuple[int, int]
    | tuple[tuple[int, int], tuple[int, int]]
)

KERNELS: tuple[Callable[..., Any], ...]

def pool_bc01(
    imgs: NDArray[_Real],
    poolout: NDArray[_Real] | None,
    switches: _Switches | None,
    pool_h: int,
    pool_w: int,
    stride_y: int,
    stride_x: int,
    *,
    mode: _Mode = "max",
    padding_mode: _Padding = "centered",
    count_include_pad: bool = False,
    ceil_mode: bool = False,
    need_switches: bool = True,
    algorithm: _Forward | None = None,
    n_threads: int | None = None,
) -> tuple[NDArray[_Real], _Switches | None]: ...
def bprop_pool_bc01(
    poolout_grad: NDArray[_Real],
    switches: _Switches | None,
    imgs_grad: NDArray[_Real],
    pool_h: int | None = None,
    pool_w: int | None = None,
    stride_y: int | None = None,
    stride_x: int | None = None,
    *,
    mode: _Mode = "max",
    padding_mode: _Padding = "centered",
    count_include_pad: bool = False,
    ceil_mode: bool = False,
    algorithm: _Backward | None = None,
    n_threads: int | None = None,
) -> NDArray[_Real]: ...
def explain_pool(
    img_shape: Sequence[int],
    sizes: Sequence[int],
    dtype: DTypeLike,
    *,
    direction: str = "forward",
    mode: _Mode = "max",
    padding_mode: _Padding = "centered",
    count_include_pad: bool = False,
    ceil_mode: bool = False,
    need_switches: bool = True,
    switches: Literal["offsets", "pairs"] | None = None,
) -> list[tuple[str, float | None, bool]]: ...
