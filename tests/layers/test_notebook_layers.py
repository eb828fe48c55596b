"""The first notebook's own classes, verbatim, train anywhere in a network."""

from functools import partial

import numpy as np
import pytest
from networks import check, same, stripes, walked
from structures import as_network

from nnet import (
    Activation,
    Conv,
    Layer,
    Parallel,
    ParamMixin,
    Pool,
    Residual,
    Sequential,
    bprop_conv_bc01,
    bprop_pool_bc01,
    conv_bc01,
    pool_bc01,
)


class NotebookConv(Layer, ParamMixin):
    def __init__(
        self,
        n_feats,
        filter_shape,
        strides,
        weight_scale,
        weight_decay=0.0,
        padding_mode="same",
        border_mode="nearest",
    ):
        self.n_feats = n_feats
        self.filter_shape = filter_shape
        self.strides = strides
        self.weight_scale = weight_scale
        self.weight_decay = weight_decay
        self.padding_mode = padding_mode
        self.border_mode = border_mode

    def _setup(self, input_shape, rng):
        n_channels = input_shape[1]
        W_shape = (n_channels, self.n_feats) + self.filter_shape
        self.W = rng.normal(size=W_shape, scale=self.weight_scale)
        self.b = np.zeros(self.n_feats)

    def fprop(self, input):
        self.last_input = input
        self.last_input_shape = input.shape
        convout = np.empty(self.output_shape(input.shape))
        conv_bc01(input, self.W, convout)
        return convout + self.b[np.newaxis, :, np.newaxis, np.newaxis]

    def bprop(self, output_grad):
        input_grad = np.empty(self.last_input_shape)
        self.dW = np.empty(self.W.shape)
        bprop_conv_bc01(self.last_input, output_grad, self.W, input_grad, self.dW)
        n_imgs = output_grad.shape[0]
        self.db = np.sum(output_grad, axis=(0, 2, 3)) / (n_imgs)
        self.dW -= self.weight_decay * self.W
        return input_grad

    def params(self):
        return self.W, self.b

    def param_incs(self):
        return self.dW, self.db

    def param_grads(self):
        gW = self.dW + self.weight_decay * self.W
        return gW, self.db

    def output_shape(self, input_shape):
        if self.padding_mode == "same":
            h, w = input_shape[2:]
        elif self.padding_mode == "full":
            h = input_shape[2] - self.filter_shape[0] + 1
            w = input_shape[3] - self.filter_shape[1] + 1
        else:
            h = input_shape[2] + self.filter_shape[0] - 1
            w = input_shape[3] + self.filter_shape[1] - 1
        return (input_shape[0], self.n_feats, h, w)


class NotebookPool(Layer):
    def __init__(self, pool_shape=(3, 3), strides=(1, 1), mode="max"):
        self.mode = mode
        self.pool_h, self.pool_w = pool_shape
        self.stride_y, self.stride_x = strides

    def fprop(self, input):
        self.last_input_shape = input.shape
        self.last_switches = np.empty(self.output_shape(input.shape) + (2,), dtype=np.int_)
        poolout = np.empty(self.output_shape(input.shape))
        pool_bc01(
            input,
            poolout,
            self.last_switches,
            self.pool_h,
            self.pool_w,
            self.stride_y,
            self.stride_x,
        )
        return poolout

    def bprop(self, output_grad):
        input_grad = np.empty(self.last_input_shape)
        bprop_pool_bc01(output_grad, self.last_switches, input_grad)
        return input_grad

    def output_shape(self, input_shape):
        return (
            input_shape[0],
            input_shape[1],
            input_shape[2] // self.stride_y,
            input_shape[3] // self.stride_x,
        )


def notebook_conv(n_feats, weight_decay=0.0):
    return NotebookConv(n_feats, (3, 3), (1, 1), 0.2, weight_decay)


# Where it stands, for a layer `a` of one channel to 3, a pool `p` and a layer `b` of 3 to 3.
PLACES = {
    "row": lambda a, p, b: [a, Activation("relu"), p, b],
    "pool first": lambda a, p, b: [p, a, b, Activation("tanh")],
    "sequentials": lambda a, p, b: [Sequential([a, Sequential([p])]), Sequential([b])],
    "residual": lambda a, p, b: [a, Residual([b, p], shortcut=[Pool((3, 3), (2, 2))]), Conv(2, 3)],
    "shortcut": lambda a, p, b: [Residual([Conv(3, 3), Pool(3, 2)], shortcut=[a, p]), b],
    "sum": lambda a, p, b: [p, Parallel([a, [Conv(3, 3), b], [Conv(3, 1)]])],
    "product": lambda a, p, b: [Parallel([[a, p], [Conv(3, 3, 2), b]], "mul"), Activation("tanh")],
    "concat": lambda a, p, b: [Conv(1, 3), Parallel([[], [a, b]], "concat"), p],
}
places = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)


def notebook(place, weight_decay=0.0):
    layers = notebook_conv(3, weight_decay), NotebookPool(strides=(2, 2)), notebook_conv(3)
    return as_network(place(*layers))


@places
def test_the_notebooks_classes_train(place, rng, dtype):
    X, y = stripes(60, rng, dtype)
    network = notebook(place, weight_decay=1e-4)
    network.fit(X, y, 0.05, max_iter=25, batch_size=10)
    assert network.error(X, y) == 0
    own = [layer for _, layer in walked(network) if isinstance(layer, NotebookConv)]
    assert all(layer.W.dtype == np.float64 for layer in own)
    assert network.predict_proba(X).dtype == dtype
    assert all(params.any() for layer in own for params in layer.params())


@places
def test_the_notebooks_gradients(place, rng):
    X, y = stripes(4, rng)
    check(notebook(place).check_gradients(X, y))


@places
def test_the_notebooks_classes_compute_what_nnets_do(place, rng):
    X, y = stripes(40, rng, np.float64)
    theirs = notebook(place).build((1, 6, 6), 3, "float64")
    ours = as_network(place(Conv(3, 3), Pool(3, 2), Conv(3, 3))).build((1, 6, 6), 3, "float64")
    ours.load_state_dict(theirs.state_dict())
    target = np.eye(3)[y]
    for network in (theirs, ours):
        step(network, X, y, target)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    for a, b in zip(theirs.params(), ours.params()):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def step(network, X, y, target):
    """One step of gradient descent by hand, with a network's layers outside of it."""
    *layers, loss = network.layers
    batch = X
    for layer in layers:
        batch = layer.fprop(batch)
    grad = loss.compare(batch, y).grad
    np.testing.assert_allclose(grad, loss.fprop(batch) - target, rtol=1e-9, atol=1e-12)
    for layer in reversed(layers):
        grad = layer.bprop(grad)
    for _, layer in walked(network):
        if isinstance(layer, ParamMixin):
            for param, inc in zip(layer.params(), layer.param_incs(), strict=True):
                param -= 0.1 * inc


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_a_sequential_around_own_layers_changes_no_bit(kind, rng):
    X, y = stripes(40, rng, np.dtype(kind))
    flat, nested = (
        as_network(place(notebook_conv(3), NotebookPool(strides=(2, 2)), notebook_conv(3)))
        for place in (
            lambda a, p, b: [a, p, b],
            lambda a, p, b: [Sequential([a]), Sequential([p, Sequential([b])])],
        )
    )
    for network in (flat, nested):
        network.fit(X, y, max_iter=2, batch_size=16)
    assert same(flat.params(), nested.params())
    assert flat.loss_history_ == nested.loss_history_


class Doubles(NotebookConv):
    """All in float64, also the input: what it cannot take is the gradient."""

    def fprop(self, input):
        return super().fprop(np.asarray(input, float))


class OwnAverage(NotebookConv):
    """Sums over the images; averages when it is asked."""

    def bprop(self, output_grad):
        self.n_imgs = len(output_grad)
        input_grad = super().bprop(output_grad)
        self.db = np.sum(output_grad, axis=(0, 2, 3))
        return input_grad

    def param_grads(self):
        return self.dW, self.db / self.n_imgs

    def param_incs(self):
        return self.param_grads()


@pytest.mark.parametrize("kind", [Doubles, OwnAverage])
def test_float64_and_own_averages(kind, rng, dtype):
    X, y = stripes(40, rng, dtype)
    layers = lambda make: [make(), Residual([make(), Activation("relu")])]  # noqa: E731
    plain, own = (
        as_network(layers(partial(cls, 1, (3, 3), (1, 1), 0.2))) for cls in (NotebookConv, kind)
    )
    own.build((1, 6, 6), 3)
    check(own.check_gradients(X[:4], y[:4]))
    for network in (plain, own):
        network.rng = 0
        network.fit(X, y, 0.1, max_iter=2)
    # The streams are named by the class: others, so that only the course can be compared.
    assert own.loss_history_[1] < own.loss_history_[0]
    assert plain.loss_history_[1] < plain.loss_history_[0]


def test_a_real_type_error_is_raised(rng):
    class Wrong(NotebookPool):
        def fprop(self, input):
            return input + "1"

    class WrongBack(NotebookPool):
        def bprop(self, output_grad):
            return output_grad + "1"

    X, y = stripes(12, rng)
    for layer in (Wrong(), WrongBack()):
        with pytest.raises(TypeError, match="ufunc|operand|add"):
            as_network([Conv(2, 3), Residual([layer])]).fit(X, y)


@pytest.mark.parametrize("method", ["fprop", "bprop"])
def test_a_wrong_shape_is_told_by_the_layers_path(method, rng):
    X, y = stripes(12, rng)
    layer = NotebookPool()
    right = getattr(layer, method)
    setattr(layer, method, lambda array: right(array)[:, :1])
    for place, path in [
        (lambda: Sequential([Sequential([layer])]), "1.0.0"),
        (lambda: Residual([], shortcut=[Conv(2, 3), layer]), "1.shortcut.1"),
        (lambda: Parallel([[], [Residual([Sequential([layer])])]]), "1.1.0.0.0"),
    ]:
        network = as_network([Conv(2, 3), place()])
        with pytest.raises(ValueError, match=rf"^layer {path} \(NotebookPool\).{method} returned"):
            network.fit(X, y)
        layer._owner = None
