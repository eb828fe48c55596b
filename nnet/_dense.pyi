from collections.abc import Callable
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

_Real = TypeVar("_Real", np.float32, np.float64)

KERNELS: tuple[Callable[..., Any], ...]

def matmul(
    a: NDArray[_Real],
    b: NDArray[_Real],
    out: NDArray[_Real] | None = None,
    *,
    bias: NDArray[_Real] | None = None,
    divisor: float = 1,
    activation: Literal["relu"] | None = None,
    n_threads: int | None = None,
) -> NDArray[_Real]: ...
def bprop_relu(
    output: NDArray[_Real],
    output_grad: NDArray[_Real],
    input_grad: NDArray[_Real],
    *,
    n_threads: int | None = None,
) -> NDArray[_Real]: ...
def softmax(
    scores: NDArray[_Real], probs: NDArray[_Real] | None = None, *, n_threads: int | None = None
) -> NDArray[_Real]: ...
def cross_entropy(
    scores: NDArray[_Real],
    target: NDArray[np.intp],
    probs: NDArray[_Real],
    losses: NDArray[np.float64],
    scores_grad: NDArray[_Real],
    errors: NDArray[np.float64] | None = None,
    *,
    smoothing: float = 0.0,
    n_threads: int | None = None,
) -> tuple[float, int | None]: ...
def sigmoid(
    scores: NDArray[_Real], probs: NDArray[_Real] | None = None, *, n_threads: int | None = None
) -> NDArray[_Real]: ...
def binary_cross_entropy(
    scores: NDArray[_Real],
    target: NDArray[_Real],
    probs: NDArray[_Real],
    losses: NDArray[np.float64],
    scores_grad: NDArray[_Real],
    errors: NDArray[np.float64],
    *,
    smoothing: float = 0.0,
    n_threads: int | None = None,
) -> None: ...
def all_finite(array: NDArray[Any]) -> bool: ...
