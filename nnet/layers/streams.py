"""Streams of random numbers: one for each layer, and for each thing else that draws some."""

from functools import partial
from operator import index

import numpy as np

from nnet._atomic import quietly

BELOW = 2**63  # seeds


class Streams:
    """Independent streams from one seed.

    A layer's stream is keyed by its class and by how many of that class come before it,
    depth first: containers shift nothing, nor do layers of another class.

    Parameters
    ----------
    seed : int
    as_random_state : bool
        Whether the streams are RandomState objects, which have the methods of older NumPy
        code, or Generator objects.
    """

    def __init__(self, seed, as_random_state=False):
        self.seed, self.as_random_state = seed, as_random_state

    def named(self, *words):
        """The stream of a name: of the strings and numbers in `words`."""
        key = tuple(b for word in words for b in (*str(word).encode(), 0))
        return quietly(partial(self._with_key, key))

    def _with_key(self, key):
        sequence = np.random.SeedSequence(self.seed, spawn_key=key)
        if self.as_random_state:
            return np.random.RandomState(np.random.MT19937(sequence))
        return np.random.default_rng(sequence)

    def of_layers(self, layers, *purpose):
        """A function for each of the layers, depth first: it makes the layer's stream.

        `purpose` are strings and numbers, for streams of their own.
        """
        counts: dict[str, int] = {}
        for layer in layers:
            name = type(layer).__name__
            number = counts[name] = counts.get(name, -1) + 1
            yield lambda name=name, number=number: self.named(*purpose, name, number)


def is_generator(rng):
    # Not at import: NumPy loads its random numbers when they are first asked for.
    return isinstance(rng, (np.random.Generator, np.random.RandomState))


def as_generator(rng):
    """The source of random numbers that an `rng` stands for."""
    if is_generator(rng):
        return rng
    try:
        seed = rng if rng is None else index(rng)
    except TypeError:
        raise TypeError(
            f"rng is {rng!r}, expected None, an int, a Generator or a RandomState"
        ) from None
    if seed is not None and seed < 0:
        raise ValueError(f"rng is {rng!r}, expected an int of at least 0")
    return quietly(partial(np.random.default_rng, seed))


def as_streams(rng):
    """The streams of a network's or a container's `rng`; a generator gives one number for them."""
    if isinstance(rng, Streams):
        return rng
    generator = as_generator(rng)
    if rng is not None and generator is not rng:
        return Streams(index(rng))
    if isinstance(generator, np.random.RandomState):
        return Streams(int(generator.randint(BELOW, dtype=np.int64)), as_random_state=True)
    return Streams(int(generator.integers(BELOW)))


def saved_state(rng):
    """A function that puts a generator back to where it is now; for a seed there is nothing to."""
    if isinstance(rng, np.random.RandomState):
        return partial(rng.set_state, rng.get_state())
    if isinstance(rng, np.random.Generator):
        return partial(setattr, rng.bit_generator, "state", rng.bit_generator.state)
    return dict  # called, it does nothing
