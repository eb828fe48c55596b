from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

class Step:
    """What a layer does to images in memory."""

    out_bytes: int
    wants_all: bool

class Watched:
    """An attribute of layers that holds an array: they note when they are asked for it."""

    name: str
    def __get__(self, layer: Any, owner: type) -> Any: ...

class Program:
    """Steps in a row, run in one call."""

    steps: list[Step]
    def __init__(
        self,
        steps: list[Step],
        sources: list[tuple[int, int]],
        in_shape: tuple[int, ...],
        out_shape: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> None: ...
    def __call__(self, images: NDArray[Any], n_threads: int | None = None) -> NDArray[Any]: ...

def predict_at_once(
    model: Any,
    images: object,
    most: int,
    all_finite: Callable[[NDArray[Any]], bool],
    is_current: Callable[[Any], bool],
) -> NDArray[Any] | None: ...
