from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

class Shared:
    passing: list[NDArray[np.uint8]]
    weights: NDArray[np.float64] | None

class Work:
    output_shape: tuple[int, ...] | None
    training: bool
    need_input_grad: bool
    trainable: bool
    shared: Shared
    def __init__(
        self,
        output_shape: tuple[int, ...] | None,
        training: bool,
        need_input_grad: bool,
        shared: Shared,
        make_rng: Callable[[], Any] | None = None,
        trainable: bool = True,
    ) -> None: ...
    @property
    def rng(self) -> Any: ...
    def restart(self, make_rng: Callable[[], Any]) -> None: ...
    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]: ...
    def scratch(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]: ...
    def output(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]: ...

class AtWork:
    stepped: bool
    outer: AtWork | None
    thread: int
    def __init__(self, place: Any) -> None: ...
    def begin(self) -> None: ...
    def lend(self, loans: list[tuple[Any, Work]]) -> None: ...
    def guard(self, states: list[tuple[Any, str]]) -> None: ...
    def end(self) -> None: ...
    def take_back(self) -> None: ...

class Transaction:
    keep: bool
    is_forked: bool
    model: Any
    layers: list[Any] | None
    thread: int
    def __init__(self, network: Any) -> None: ...
    def begin(self) -> None: ...
    def publish(
        self,
        published: Any,
        states: list[tuple[Any, dict[str, Any]]],
        put_back_rng: Callable[[], object],
    ) -> None: ...
    def end(self) -> None: ...

def quietly(function: Callable[[], Any]) -> Any: ...
def all_writable(arrays: list[Any]) -> bool: ...
def set_untrained(network: Any, items: list[tuple[dict[str, Any], str, Any]]) -> None: ...
def write_all(targets: list[NDArray[Any]], sources: list[NDArray[Any]]) -> None: ...
def as_incs(params: list[NDArray[Any]], incs: Iterable[Any]) -> list[NDArray[Any]]: ...
def sgd_step(
    params: list[NDArray[Any]],
    incs: list[NDArray[Any]],
    velocities: list[NDArray[Any]],
    learning_rate: float,
    momentum: float,
    nesterov: bool,
) -> None: ...
def adam_step(
    params: list[NDArray[Any]],
    incs: list[NDArray[Any]],
    means: list[NDArray[Any]],
    squares: list[NDArray[Any]],
    n_steps: NDArray[np.int64],
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    shrinks: list[float],
) -> None: ...
def rmsprop_step(
    params: list[NDArray[Any]],
    incs: list[NDArray[Any]],
    squares: list[NDArray[Any]],
    means: list[NDArray[Any]],
    velocities: list[NDArray[Any]],
    learning_rate: float,
    alpha: float,
    eps: float,
    momentum: float,
) -> None: ...
def norm_of(arrays: list[NDArray[Any]]) -> float: ...
def scale_all(arrays: list[NDArray[Any]], factor: float) -> None: ...
def clamp_all(arrays: list[NDArray[Any]], limit: float) -> None: ...
