from collections.abc import Callable
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

_Real = TypeVar("_Real", np.float32, np.float64)

KERNELS: tuple[Callable[..., Any], ...]
ACTIVATIONS: tuple[str, ...]

def matmul(
    a: NDArray[_Real],
    b: NDArray[_Real],
    out: NDArray[_Real] | None = None,
    *,
    bias: NDArray[_Real] | None = None,
    divisor: float = 1,
    activation: Literal["relu"] | None = None,
    over_images: bool = False,
    column_sums: NDArray[_Real] | None = None,
    n_threads: int | None = None,
) -> NDArray[_Real]: ...
def activate(
    input: NDArray[_Real],
    output: NDArray[_Real] | None = None,
    *,
    type: str,
    n_threads: int | None = None,
) -> NDArray[_Real]: ...
def bprop_activate(
    kept: NDArray[_Real],
    output_grad: NDArray[_Real],
    input_grad: NDArray[_Real] | None = None,
    *,
    type: str,
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
def batch_norm(
    imgs: NDArray[_Real],
    gamma: NDArray[_Real],
    beta: NDArray[_Real],
    running_mean: NDArray[_Real],
    running_var: NDArray[_Real],
    out: NDArray[_Real] | None = None,
    mean: NDArray[np.float64] | None = None,
    inv_std: NDArray[np.float64] | None = None,
    *,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-05,
    weights: NDArray[np.float64] | None = None,
    activation: Literal["relu"] | None = None,
    n_threads: int | None = None,
) -> tuple[NDArray[_Real], NDArray[np.float64], NDArray[np.float64]]: ...
def bprop_batch_norm(
    imgs: NDArray[_Real],
    out_grad: NDArray[_Real],
    gamma: NDArray[_Real],
    beta: NDArray[_Real],
    mean: NDArray[np.float64],
    inv_std: NDArray[np.float64],
    imgs_grad: NDArray[_Real] | None = None,
    gamma_grad: NDArray[_Real] | None = None,
    beta_grad: NDArray[_Real] | None = None,
    *,
    training: bool = True,
    weights: NDArray[np.float64] | None = None,
    activation: Literal["relu"] | None = None,
    need_imgs_grad: bool = True,
    n_threads: int | None = None,
) -> tuple[NDArray[_Real] | None, NDArray[_Real], NDArray[_Real]]: ...
def group_norm(
    imgs: NDArray[_Real],
    gamma: NDArray[_Real],
    beta: NDArray[_Real],
    n_groups: int,
    out: NDArray[_Real] | None = None,
    mean: NDArray[np.float64] | None = None,
    inv_std: NDArray[np.float64] | None = None,
    *,
    eps: float = 1e-05,
    activation: Literal["relu"] | None = None,
    n_threads: int | None = None,
) -> tuple[NDArray[_Real], NDArray[np.float64], NDArray[np.float64]]: ...
def bprop_group_norm(
    imgs: NDArray[_Real],
    out_grad: NDArray[_Real],
    gamma: NDArray[_Real],
    beta: NDArray[_Real],
    mean: NDArray[np.float64],
    inv_std: NDArray[np.float64],
    imgs_grad: NDArray[_Real] | None = None,
    gamma_grad: NDArray[_Real] | None = None,
    beta_grad: NDArray[_Real] | None = None,
    *,
    activation: Literal["relu"] | None = None,
    need_imgs_grad: bool = True,
    n_threads: int | None = None,
) -> tuple[NDArray[_Real] | None, NDArray[_Real], NDArray[_Real]]: ...
def add_arrays(
    a: NDArray[_Real],
    b: NDArray[_Real],
    out: NDArray[_Real] | None = None,
    *,
    activation: Literal["relu"] | None = None,
    n_threads: int | None = None,
) -> NDArray[_Real]: ...
