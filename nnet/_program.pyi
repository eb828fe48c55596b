from typing import Any

from numpy.typing import NDArray

class Step:
    """What a layer does to images in memory."""

    out_bytes: int
    wants_all: bool

class Program:
    """Steps in a row, run in one call."""

    steps: list[Step]
    def __init__(
        self, steps: list[Step], sources: list[tuple[int, int]], in_bytes: int
    ) -> None: ...
    def __call__(
        self, images: NDArray[Any], out_shape: tuple[int, ...], n_threads: int | None = None
    ) -> NDArray[Any]: ...
