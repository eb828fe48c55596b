from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

_Real = TypeVar("_Real", np.float32, np.float64)
_Pair: TypeAlias = int | tuple[int, int]
_Padding: TypeAlias = (
    Literal["same", "valid", "full"] | _Pair | tuple[tuple[int, int], tuple[int, int]]
)
_Border: TypeAlias = Literal["zeros", "nearest", "reflect", "wrap", "symmetric"]
_Algorithm: TypeAlias = Literal[
    "direct_pixels", "direct_features", "winograd", "depthwise", "direct"
]

ALGORITHMS: tuple[str, ...]

KERNELS: tuple[Callable[..., Any], ...]

def conv_bc01(
    imgs: NDArray[_Real],
    filters: NDArray[_Real],
    convout: NDArray[_Real] | None = None,
    *,
    strides: _Pair = (1, 1),
    padding_mode: _Padding = "same",
    border_mode: _Border = "zeros",
    dilation: _Pair = (1, 1),
    groups: int = 1,
    bias: NDArray[_Real] | None = None,
    activation: Literal["relu"] | None = None,
    algorithm: _Algorithm | None = None,
    n_threads: int | None = None,
) -> NDArray[_Real]: ...
def bprop_conv_bc01(
    imgs: NDArray[_Real] | None,
    convout_grad: NDArray[_Real],
    filters: NDArray[_Real],
    imgs_grad: NDArray[_Real] | None = None,
    filters_grad: NDArray[_Real] | None = None,
    *,
    strides: _Pair = (1, 1),
    padding_mode: _Padding = "same",
    border_mode: _Border = "zeros",
    dilation: _Pair = (1, 1),
    groups: int = 1,
    need_imgs_grad: bool = True,
    need_filters_grad: bool = True,
    bias_grad: NDArray[_Real] | None = None,
    algorithm: _Algorithm | None = None,
    n_threads: int | None = None,
) -> tuple[NDArray[_Real] | None, NDArray[_Real] | None]: ...
def explain_conv(
    imgs_shape: tuple[int, int, int, int],
    filters_shape: tuple[int, int, int, int],
    dtype: str = "float32",
    *,
    backward: bool = False,
    strides: _Pair = (1, 1),
    padding_mode: _Padding = "same",
    border_mode: _Border = "zeros",
    dilation: _Pair = (1, 1),
    groups: int = 1,
    algorithm: _Algorithm | None = None,
) -> list[tuple[str, float | None, bool]]: ...
def explain_filters_gradient(
    imgs_shape: tuple[int, int, int, int],
    filters_shape: tuple[int, int, int, int],
    dtype: str = "float32",
    *,
    strides: _Pair = (1, 1),
    padding_mode: _Padding = "same",
    border_mode: _Border = "zeros",
    dilation: _Pair = (1, 1),
    groups: int = 1,
    algorithm: _Algorithm | None = None,
) -> list[tuple[str, float | None, bool]]: ...
