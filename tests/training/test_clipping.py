"""Gradient clipping: against PyTorch, in the steps of fit, and with layers of the user's own."""

import numpy as np
import pytest
from networks import same, small_cnn, stripes

from nnet import SGD, Flatten, Layer, Linear, LogRegression, NeuralNetwork, ParamMixin
from nnet._atomic import clamp_all, norm_of, scale_all
from nnet.layers.tree import collect
from nnet.training.clipping import Clipping

SHAPES = [(3, 7), (7,), (2, 3, 5, 5), (), (0,), (64,), (1,), (8,), (9,)]


def arrays_of(rng, dtype=np.float64):
    return [np.asarray(rng.normal(size=shape), dtype) for shape in SHAPES]


def twins(arrays):
    return [array.copy() for array in arrays]


# --- of arrays --------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1e-3, 1.0, 5.0, 1e3])
def test_norms_of_torch(limit, rng):
    torch = pytest.importorskip("torch")
    mine = arrays_of(rng)
    theirs = [torch.nn.Parameter(torch.tensor(array)) for array in mine]
    for tensor, array in zip(theirs, mine):
        tensor.grad = torch.tensor(array)
    before = twins(mine)
    norm = torch.nn.utils.clip_grad_norm_(theirs, limit)
    np.testing.assert_allclose(norm_of(mine), norm.item(), rtol=1e-14)
    Clipping(limit, None).clip(mine)
    for array, tensor in zip(mine, theirs):
        np.testing.assert_allclose(array, tensor.grad.numpy(), rtol=1e-12)
    if limit > norm:
        assert same(mine, before)
    else:
        np.testing.assert_allclose(norm_of(mine), limit, rtol=1e-5)


@pytest.mark.parametrize("limit", [0.1, 1.0])
def test_values_of_torch(limit, rng):
    torch = pytest.importorskip("torch")
    mine = arrays_of(rng)
    mine[0][0] = np.nan, np.inf, -np.inf, 0.0, -0.0, limit, -limit
    theirs = [torch.nn.Parameter(torch.tensor(array)) for array in mine]
    for tensor, array in zip(theirs, mine):
        tensor.grad = torch.tensor(array)
    torch.nn.utils.clip_grad_value_(theirs, limit)
    Clipping(None, limit).clip(mine)
    for array, tensor in zip(mine, theirs):
        np.testing.assert_array_equal(array, tensor.grad.numpy())


def test_the_norm_is_summed_in_double(rng):
    ones = [np.full(2**20, 0.1, np.float32), np.full(3, 1e4, np.float32)]
    expected = np.sqrt(sum(np.sum(one.astype(float) ** 2) for one in ones))
    np.testing.assert_allclose(norm_of(ones), expected, rtol=1e-14)
    huge = [np.full(10, 1e30, np.float32)]  # whose squares no float32 can hold
    np.testing.assert_allclose(norm_of(huge), 1e30 * np.sqrt(10), rtol=1e-6)
    assert norm_of([]) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_shows(value):
    arrays = [np.array([1.0, value]), np.ones(2)]
    Clipping(1.0, None).clip(arrays)
    assert np.isnan(arrays[0][1])


LAYOUTS = {
    "strided": lambda array: np.repeat(array, 2, axis=0)[::2],
    "fortran": np.asfortranarray,
    "swapped bytes": lambda array: array.astype(array.dtype.newbyteorder()),
    "half": lambda array: array.astype(np.float16),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout(layout, rng, dtype):
    plain = [rng.normal(size=shape).astype(dtype) for shape in [(6, 5), (2, 3, 4, 5)]]
    others = [LAYOUTS[layout](array.copy()) for array in plain]
    tolerance = 1e-2 if layout == "half" else 1e-5 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(norm_of(others), norm_of(plain), rtol=tolerance)
    for function, limit in ((clamp_all, 0.5), (scale_all, 0.25)):
        function(plain, limit)
        function(others, limit)
        for other, array in zip(others, plain):
            np.testing.assert_allclose(other, array, rtol=tolerance)
    assert max(np.abs(array).max() for array in plain) == 0.125


def test_an_array_that_is_there_twice():
    array = np.full(2, 3.0)
    Clipping(1.0, None).clip([array, array])
    np.testing.assert_allclose(array, 0.5, rtol=1e-6)  # four values of 3 have the norm 6


# --- in fit -------------------------------------------------------------------------------------

GRADS: list = []


class Scale(Layer, ParamMixin):
    """Multiplies by a number for each channel, and by one for each pixel.

    A custom layer whose gradients are arrays of its own, and that adds nothing to them.
    """

    def __init__(self, wrap=lambda grad: grad):
        self.wrap = wrap

    def _setup(self, input_shape, rng):
        self.gamma = np.linspace(1, 2, input_shape[1]).astype(self.dtype)
        self.delta = np.ones(input_shape[2:], self.dtype)

    def fprop(self, input):
        self.input = input
        return input * self.gamma[:, None, None] * self.delta

    def bprop(self, output_grad):
        grad = output_grad * self.input
        by_pixel = np.mean(np.sum(grad * self.gamma[:, None, None], axis=1), axis=0)
        by_channel = np.mean(np.sum(grad * self.delta, axis=(2, 3)), axis=0)
        self.grads = [self.wrap(by_channel), self.wrap(by_pixel)]
        return output_grad * self.gamma[:, None, None] * self.delta

    def params(self):
        return [self.gamma, self.delta]

    def param_grads(self):
        return self.grads

    def output_shape(self, input_shape):
        return input_shape


class Decaying(Scale):
    """Adds decay to gradients that it finds again."""

    def param_incs(self):
        return [grad + 0.5 * param for grad, param in zip(self.param_grads(), self.params())]


class Fresh(Decaying):
    """Makes new arrays of gradients whenever it is asked."""

    def param_grads(self):
        return [grad * 1 for grad in self.grads]


def read_only(grad):
    grad = np.array(grad)
    grad.flags.writeable = False
    return grad


class Recording(SGD):
    """Steps by nothing, and keeps what it is given."""

    def step(self, incs):
        GRADS.append([np.array(inc, float) for inc in incs])


KINDS = {
    "adds nothing": (Scale, {}),
    "read-only": (Scale, {"wrap": read_only}),
    "decays": (Decaying, {}),
    "decays, read-only": (Decaying, {"wrap": read_only}),
    "decays, fresh": (Fresh, {}),
    "decays, double": (Decaying, {"wrap": lambda grad: grad.astype(float)}),
    "decays, strided": (Decaying, {"wrap": lambda grad: np.repeat(grad, 2, axis=0)[::2]}),
    "decays, no arrays": (Decaying, {"wrap": lambda grad: ListLike(grad)}),
}


def incs_of(layer, **clips):
    """What one step of a fit is given, and the parameters."""
    X, y = stripes(30, np.random.default_rng(3), np.float64)
    network = small_cnn(weight_decay=0.25)
    network.layers.insert(1, layer)
    GRADS.clear()
    network.fit(X, y, max_iter=1, batch_size=30, optimizer=Recording(), **clips)
    return GRADS[0], twins(network.params())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clips", [{"clip_norm": 0.1}, {"clip_norm": 1e6}, {"clip_value": 0.01}])
def test_only_gradients_are_clipped(kind, clips):
    """Decay comes on top: that of nnet's layers, and that of the user's own."""
    make, options = KINDS[kind]
    incs, params = incs_of(make(**options))
    decays = [0.25, 0, *[0.5 if issubclass(make, Decaying) else 0] * 2, 0.25, 0, 0.25, 0]
    added = [decay * param for decay, param in zip(decays, params, strict=True)]
    grads = [inc - more for inc, more in zip(incs, added)]
    norm = np.sqrt(sum(np.sum(grad**2) for grad in grads))
    assert norm > 0.2 and max(np.abs(grad).max() for grad in grads) > 0.02
    if "clip_norm" in clips:
        clipped = [grad * min(1, clips["clip_norm"] / (norm + 1e-6)) for grad in grads]
    else:
        clipped = [np.clip(grad, -0.01, 0.01) for grad in grads]
    found, _ = incs_of(make(**options), **clips)
    for inc, grad, more in zip(found, clipped, added, strict=True):
        np.testing.assert_allclose(inc, grad + more, rtol=1e-10, atol=1e-14)


class ListLike(list):
    """A gradient that is no array, but adds like one."""

    def __init__(self, grad):
        super().__init__(grad.tolist())
        self.grad = grad

    def __add__(self, other):
        return self.grad + other


def test_frozen_layers_do_not_count():
    incs, _ = incs_of(Scale())
    frozen = Scale()
    frozen.trainable = False
    fewer, params = incs_of(frozen, clip_norm=0.1)
    assert len(fewer) == len(incs) - 2
    decays = [0.25, 0] * 3
    grads = [
        inc - decay * param for inc, decay, param in zip(fewer, decays, params[:2] + params[4:])
    ]
    np.testing.assert_allclose(np.sqrt(sum(np.sum(grad**2) for grad in grads)), 0.1, rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_a_large_limit_changes_no_bit(optimizer):
    X, y = stripes(50, np.random.default_rng(1))
    expected = small_cnn().fit(X, y, max_iter=2, optimizer=optimizer).params()
    for clips in ({"clip_norm": 1e9}, {"clip_value": 1e9}):
        found = small_cnn().fit(X, y, max_iter=2, optimizer=optimizer, **clips)
        assert same(found.params(), expected)
    clipped = small_cnn().fit(X, y, max_iter=2, optimizer=optimizer, clip_value=1e-5)
    assert not same(clipped.params(), expected)


def test_nothing_of_a_layer_is_written_to_that_adds_nothing():
    """Its gradients may be arrays that it needs again."""
    kept = []

    def keep(grad):
        kept.append((grad, grad.copy()))
        return grad

    incs_of(Scale(wrap=keep), clip_norm=1e-3)
    assert len(kept) == 2 and all(np.array_equal(grad, before) for grad, before in kept)


def test_clipping_tames_a_rate_that_diverges():
    X, y = stripes(60, np.random.default_rng(1))
    X = X * 1e4
    network = NeuralNetwork([Flatten(), Linear(8), Linear(3), LogRegression()], rng=0)
    with pytest.raises(FloatingPointError):
        network.fit(X, y, 0.1, max_iter=30)
    network.fit(X, y, 0.1, max_iter=30, clip_norm=1.0)
    assert np.isfinite(network.loss_history_).all()


@pytest.mark.parametrize(
    "clips, error, message",
    [
        ({"clip_norm": 0}, ValueError, "clip_norm is 0, expected more than 0"),
        ({"clip_norm": -1.0}, ValueError, "clip_norm is -1.0, expected a finite number"),
        ({"clip_value": np.inf}, ValueError, "clip_value is inf, expected a finite number"),
        ({"clip_value": "1"}, TypeError, "clip_value is '1'"),
        (
            {"clip_norm": 1.0, "clip_value": 1.0},
            ValueError,
            "clip_norm is 1.0 and clip_value is 1.0, expected one of them",
        ),
    ],
)
def test_errors(clips, error, message):
    X, y = stripes(20, np.random.default_rng(1))
    with pytest.raises(error, match=message):
        small_cnn().fit(X, y, **clips)


def test_the_gradients_of_own_layers_are_clipped_in_place():
    network, seen = small_cnn(), []
    X, y = stripes(20, np.random.default_rng(1))

    def callback(progress):
        layers = [layer for layer in network.layers if isinstance(layer, ParamMixin)]
        seen.append(norm_of(collect(layers, "param_grads")))

    network.fit(X, y, max_iter=1, clip_norm=0.01, callback=callback)
    np.testing.assert_allclose(seen, [0.01], rtol=1e-4)
