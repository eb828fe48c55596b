"""States: what layers keep of the images that training has seen."""

import numpy as np

from nnet.layers.tree import check_array, describe, is_own, walk


class States:
    """The state arrays that a training moves, which stay arrays of one shape and dtype.

    Parameters
    ----------
    children : dict of str to Layer
    frozen : set of int
        The ids of the layers that are left out.

    Attributes
    ----------
    pairs : list of (Layer, str)
        Whose attributes hold them.
    """

    def __init__(self, children, frozen):
        self.pairs, self._users_own = [], []
        for prefix, layer in walk(children):
            if id(layer) in frozen:
                continue
            for name in layer.state_names():
                self.pairs.append((layer, name))
                if not is_own(layer):  # nnet's write to theirs
                    which, array = f"{describe(prefix, layer)}.{name}", getattr(layer, name)
                    if not isinstance(array, np.ndarray):
                        kind = type(array).__name__
                        raise TypeError(f"{which} is a {kind}, expected a NumPy array")
                    self._users_own.append((layer, name, which, array.shape, array.dtype))

    def __bool__(self):
        return bool(self.pairs)

    def arrays(self):
        return [getattr(layer, name) for layer, name in self.pairs]

    def check(self):
        """Refuse what a layer has made of its arrays: NumPy's sum of two without axes is none."""
        for layer, name, which, shape, dtype in self._users_own:
            try:
                check_array(getattr(layer, name), which, shape, dtype)
            except (TypeError, ValueError) as error:
                text = f"{error}, as before the step: self.{name}[...] = changes it"
                raise type(error)(text) from None
