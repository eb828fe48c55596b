from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Real = TypeVar("_Real", np.float32, np.float64)

def warp(
    images: NDArray[_Real],
    maps: NDArray[np.float64],
    out: NDArray[_Real] | None = None,
    *,
    fill: float | None = None,
    interpolate: bool = True,
    n_threads: int | None = None,
) -> NDArray[_Real]: ...
