"""WindowMixin: what layers that slide windows over images share."""

from abc import abstractmethod
from operator import index
from typing import Any

from nnet.geometry import as_padding
from nnet.layers.base import Layer


def as_padding_mode(value, name, words):
    """A padding mode as it was given, if it is one, in ints and tuples."""
    as_padding(value, words)
    return value if isinstance(value, str) else as_plain(value)


def as_plain(value):
    try:
        return index(value)
    except TypeError:
        return tuple(map(as_plain, value))


class WindowMixin(Layer):
    """Windows, strides and padding, and what they mean for signals.

    Images of height 1 that are signals have no height: a window, stride or padding that was
    given as one number is meant for their length.
    """

    _WINDOW: str  # the name of the option that is its shape
    _found_geometry: Any = None
    padding_mode: Any

    @abstractmethod
    def _find_geometry(self):
        """What the kernels are told of the windows."""

    def _geometry(self):
        """What `_find_geometry` has found for the options as they are."""
        if self._found_geometry is None:
            vars(self)["_found_geometry"] = self._find_geometry()
        return self._found_geometry

    def _option_changed(self):
        self._found_geometry = None
        super()._option_changed()

    def _window(self, name):
        """A pair (y, x): the option of that name."""
        if self.signals and name in vars(self)["_numbers"]:
            return 1, vars(self)["_numbers"][name]
        return getattr(self, name)

    def _pads(self):
        """The padding mode."""
        if self.signals and isinstance(self.padding_mode, int):
            return 0, self.padding_mode
        return self.padding_mode

    def least_height(self):
        """Of the window, if images are signals."""
        name = self._WINDOW
        return 1 if name in vars(self)["_numbers"] else getattr(self, name)[0]

    def width(self):
        """Of the window."""
        return getattr(self, self._WINDOW)[1]
