"""What a network lends and asks of layers: the user's own classes, containers, losses, memory."""

import copy
import pickle
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from networks import check, same, stripes
from structures import as_network

from nnet import (
    Activation,
    Compared,
    Conv,
    DivergedError,
    Flatten,
    Layer,
    Linear,
    LogRegression,
    LossMixin,
    MeanSquaredError,
    NeuralNetwork,
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
from nnet._atomic import Work
from nnet.layers import loss as loss_module
from nnet.layers.tree import numbered, walk

# --- the first notebook's classes ---------------------------------------------------------


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


def walked(network):
    return list(walk(numbered(network.layers)))


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


# --- containers of one's own ----------------------------------------------------------------


class Branches(Layer):
    """Names its children, sets them up, and calls them."""

    def __init__(self, n_feats):
        self.left = Sequential([Conv(n_feats, 3), Activation("tanh")])
        self.right = Conv(n_feats, 1)

    @property
    def children(self):
        return {"left": self.left, "right": self.right}

    def _setup(self, input_shape, rng):
        for child in self.children.values():
            child._setup(input_shape, rng)

    def fprop(self, input):
        return self.left.fprop(input) * self.right.fprop(input)

    def bprop(self, output_grad):
        left, right = (child.fprop(self.left.layers[0]._kept) for child in (self.left, self.right))
        return self.left.bprop(output_grad * right) + self.right.bprop(output_grad * left)

    def output_shape(self, input_shape):
        return self.right.output_shape(input_shape)


class Holder(Layer, ParamMixin):
    """Holds layers without a word about them, and passes their parameters on as its own."""

    def __init__(self, n_feats):
        self.conv = Conv(n_feats, 3)
        self.rest = [Activation("tanh"), Residual([Conv(n_feats, 1)])]

    def _setup(self, input_shape, rng):
        self.conv._setup(input_shape, rng)
        self.rest[1]._setup(self.conv.output_shape(input_shape), rng)

    def fprop(self, input):
        return self.rest[1].fprop(self.rest[0].fprop(self.conv.fprop(input)))

    def bprop(self, output_grad):
        return self.conv.bprop(self.rest[0].bprop(self.rest[1].bprop(output_grad)))

    def inner(self):
        return self.conv, self.rest[1].layers[0]

    def params(self):
        return tuple(param for layer in self.inner() for param in layer.params())

    def param_grads(self):
        return tuple(grad for layer in self.inner() for grad in layer.param_grads())

    def output_shape(self, input_shape):
        return self.conv.output_shape(input_shape)


class Block(Sequential):
    """Nothing but a constructor of its own."""

    def __init__(self, n_feats):
        super().__init__([Conv(n_feats, 3), Activation("relu")])


class ScaledBlock(Block):
    """Sets more up, and writes to the gradient that it is given."""

    def _setup(self, input_shape, rng):
        super()._setup(input_shape, rng)
        self.scale = np.full(1, 2, self.dtype)

    def fprop(self, input):
        return super().fprop(input) * self.scale

    def bprop(self, output_grad):
        output_grad *= self.scale
        return super().bprop(output_grad)


class Doubled(Residual):
    """Redefines only the passes."""

    def __init__(self, n_feats):
        super().__init__([Conv(n_feats, 3)], shortcut=[Conv(n_feats, 1)])

    def fprop(self, input):
        return 2 * super().fprop(input)

    def bprop(self, output_grad):
        output_grad += output_grad
        return super().bprop(output_grad)


class Stacked(Parallel):
    """Redefines only the shape: both halves of the channels one below the other."""

    def __init__(self, n_feats):
        super().__init__([[Conv(n_feats, 3)], [Conv(n_feats, 1)]], "concat")

    def fprop(self, input):
        output = super().fprop(input)
        return output.reshape(self.output_shape(input.shape))

    def bprop(self, output_grad):
        n_imgs, n_feats, height, width = output_grad.shape
        return super().bprop(output_grad.reshape(n_imgs, 2 * n_feats, height // 2, width))

    def output_shape(self, input_shape):
        n_imgs, n_feats, height, width = super().output_shape(input_shape)
        return n_imgs, n_feats // 2, 2 * height, width


class OwnConv(Conv):
    """A class derived from nnet's own that does nothing else."""

    def __init__(self, n_feats):
        super().__init__(n_feats, 3)


class OwnTanh(Activation):
    def __init__(self, n_feats):
        super().__init__("tanh")


OWN = [Branches, Holder, Block, ScaledBlock, Doubled, Stacked, OwnConv, OwnTanh]
own_classes = pytest.mark.parametrize("own", OWN)
AROUND = {
    "first": lambda own: [own(2)],
    "between": lambda own: [Conv(2, 3), own(2), Conv(2, 3)],
    "sequential": lambda own: [Sequential([Conv(2, 3), Sequential([own(2)])])],
    "residual": lambda own: [
        Conv(2, 3),
        Residual([Activation("tanh")], shortcut=[]),
        Residual([own(2)], shortcut=[own(2)]),
    ],
    "branches": lambda own: [Conv(2, 3), Parallel([own(2), [Activation("tanh"), own(2)]], "mul")],
}
around = pytest.mark.parametrize("place", AROUND.values(), ids=AROUND)


@around
@own_classes
def test_own_containers(own, place, rng, dtype, tmp_path):
    X, y = stripes(40, rng, dtype)
    network = as_network(place(own), rng=4)
    check(network.check_gradients(X[:4], y[:4], max_checks=5))
    network.fit(X, y, 0.05, max_iter=2, batch_size=16)
    assert network.loss_history_[1] < network.loss_history_[0]
    assert all(param.dtype == dtype for param in network.params())
    assert len(set(map(id, network.params()))) == len(network.params())
    check(network.check_gradients(X[:4], y[:4], max_checks=5))
    probs = network.predict_proba(X)
    assert same(network.params(), as_network(place(own), rng=4).fit(X, y, 0.05, 2, 16).params())
    twins = [copy.deepcopy(network), pickle.loads(pickle.dumps(network))]
    for twin in twins:
        assert np.array_equal(twin.predict_proba(X), probs)
        assert list(twin.state_dict()) == list(network.state_dict())
        twin.load_state_dict({name: 0 * a for name, a in network.state_dict().items()})
        assert not np.array_equal(twin.predict_proba(X), probs)
    assert np.array_equal(network.predict_proba(X), probs)
    with pytest.raises(ValueError, match="expected one of nnet's own"):
        network.save(tmp_path / "network")


def test_derived_classes_are_not_fused(rng):
    class Shifted(Conv):
        def fprop(self, input):
            return super().fprop(input) - 0.1

    class Mean(Pool):
        def bprop(self, output_grad):
            return super().bprop(output_grad / 2)

        def fprop(self, input):
            return super().fprop(input) / 2

    X, y = stripes(4, rng)
    f = [Shifted(2, 3), Activation("relu"), Mean(3, 1)]
    check(as_network([Conv(2, 3), Residual([Sequential(f)])]).check_gradients(X, y))


@own_classes
def test_own_containers_in_residuals_share_the_gradient(own, rng):
    """x + f(x) and its shortcut get one gradient: what writes to it has its own copy."""
    X, y = stripes(4, rng)
    if own is not Stacked:  # whose shape is another
        check(as_network([Conv(2, 3), Residual([own(2)])]).check_gradients(X, y))
    check(as_network([Conv(2, 3), Parallel([own(2), own(2)])]).check_gradients(X, y))


def test_names_in_own_containers(rng):
    network = as_network([Branches(2), Residual([Block(2), Holder(2)])]).build((1, 6, 6), 3)
    assert list(network.state_dict()) == [
        *("0.left.0.W", "0.left.0.b", "0.right.W", "0.right.b", "1.0.0.W", "1.0.0.b"),
        *("1.1.param0", "1.1.param1", "1.1.param2", "1.1.param3", "3.W", "3.b"),
    ]


def test_own_containers_lend_to_their_layers(rng):
    """Also to those that nobody named as children: none keeps anything of a prediction."""
    X, y = stripes(12, rng)
    seen = []

    class Witness(Activation):
        def fprop(self, input):
            seen.append((self.training, self._work is not None))
            return super().fprop(input)

    network = as_network([Branches(2), Holder(2)])
    branches, holder = network.layers[:2]
    branches.left.layers[1] = Witness("tanh")
    holder.rest[0] = Witness("tanh")
    network.fit(X, y, max_iter=1)
    assert set(seen) == {(True, True)}
    seen.clear()
    network.predict(X)
    assert set(seen) == {(False, True)}
    inner = [layer for _, layer in walked(network)]
    inner += [holder.conv, *holder.rest, holder.rest[1].layers[0]]
    for layer in inner:
        assert layer._kept is None and layer._work is None and layer.training


def test_options_inside_of_own_containers_are_taken_up(rng):
    X, y = stripes(12, rng)
    network = as_network([Branches(2), Residual([ScaledBlock(2)]), Block(2)])
    network.fit(X, y, max_iter=1)
    branches, residual, block = network.layers[:3]
    for relu in (branches.left.layers[1], residual.layers[0].layers[1], block.layers[1]):
        before = network.predict_proba(X)
        relu.type = "elu"
        assert not np.array_equal(network.predict_proba(X), before)
    before = network.predict_proba(X)
    block.layers.append(Activation("sigmoid"))
    assert not np.array_equal(network.predict_proba(X), before)


def test_a_container_may_move_into_one_of_the_users(rng):
    X, y = stripes(12, rng)
    block = Block(2)
    network = as_network([block]).fit(X, y, max_iter=1)
    network.layers[0] = outer = Branches(2)
    outer.left = block
    outer.bprop = lambda output_grad: None  # its gradients are no matter here
    network.fit(X, y, 0.0, max_iter=1)
    before = network.predict_proba(X)
    block.layers[1].type = "sigmoid"
    assert not np.array_equal(network.predict_proba(X), before)


def test_children_that_make_no_sense(rng):
    class Wrong(Branches):
        wrong: object = None

        @property
        def children(self):
            return self.wrong

    for children, error, message in [
        ([Conv(2, 3)], TypeError, r"layer 0 \(Wrong\).children is \[.*, expected a dict of layers"),
        ({"a": "b"}, TypeError, r"layer 0 \(Wrong\) has 'b' inside by the name 'a', expected"),
        ({0: Conv(2, 3)}, TypeError, r"inside by the name 0, expected an instance of Layer by"),
        ({"a": LogRegression()}, ValueError, r"layer 0.a \(LogRegression\) is inside of another"),
    ]:
        layer = Wrong(2)
        layer.wrong = children
        with pytest.raises(error, match=message):
            as_network([layer])
        with pytest.raises(error, match=message.replace(r"layer 0 \(Wrong\)", r"layer 0.*")):
            Sequential([layer])._setup((1, 1, 6, 6), 0)


def test_parameters_that_two_layers_call_their_own(rng):
    class Greedy(Branches, ParamMixin):
        def params(self):
            return self.right.params()

        def param_grads(self):
            return self.right.param_grads()

    X, y = stripes(12, rng)
    with pytest.raises(ValueError, match=r"layer 0.0 \(Greedy\).params\(\) has right.W of its chi"):
        as_network([Sequential([Greedy(2)])]).fit(X, y)


def test_own_containers_alone(rng):
    for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
        layer = Sequential([Residual([Branches(2), ScaledBlock(2)]), Holder(2)])
        layer.dtype = dtype
        x = rng.normal(size=(3, 2, 5, 5)).astype(dtype)
        layer._setup(x.shape, 1)
        output = layer.fprop(x)
        grad = layer.bprop(output.copy())
        assert output.dtype == grad.dtype == dtype
        assert grad.shape == x.shape


# --- what layers keep -----------------------------------------------------------------------


class Keeper(Layer):
    """Keeps all that it is given and gives, and how it was at that time."""

    def __init__(self):
        self.kept = []

    def keep(self, array):
        self.kept.append((array, array.copy()))
        return array

    def fprop(self, input):
        self.keep(input)
        return self.keep(np.tanh(input))

    def bprop(self, output_grad):
        self.keep(output_grad)
        output = self.kept[-2][0]
        return self.keep(output_grad * (1 - output * output))

    def output_shape(self, input_shape):
        return input_shape


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    "place",
    [
        lambda k: [k(), Conv(2, 3), Activation("relu")],
        lambda k: [Conv(2, 3), Activation("tanh"), k(), Conv(2, 3), k()],
        lambda k: [Conv(2, 3), Residual([k(), Conv(2, 3), k()]), k()],
        lambda k: [Conv(2, 3), Parallel([[], [k(), Conv(2, 1)], k()], "mul"), k(), Pool(2, 2)],
        lambda k: [Parallel([[Conv(2, 3), k()], [k()]], "concat"), k(), Conv(2, 3)],
    ],
)
def test_what_layers_keep_is_never_written_to_again(place, in_memory, rng):
    X, y = stripes(40, rng)
    if not in_memory:
        X = X[::-1].astype(np.float64)[::-1]
    network = as_network(place(Keeper))
    network.fit(X, y, max_iter=3, batch_size=16)
    network.predict(X[:7])
    network.predict(-X)
    keepers = [layer for _, layer in walked(network) if isinstance(layer, Keeper)]
    kept = [pair for keeper in keepers for pair in keeper.kept]
    assert len(kept) > 20
    assert all(np.array_equal(array, before) for array, before in kept)
    network = as_network(place(Keeper))
    check(network.check_gradients(X[:3], y[:3], max_checks=3))


class Writer(Keeper):
    """Writes to what it is given on the way back."""

    def fprop(self, input):
        self.output = np.tanh(input)
        return self.output

    def bprop(self, output_grad):
        output_grad *= 1 - self.output * self.output
        return output_grad


@pytest.mark.parametrize(
    "place",
    [
        lambda w: [Conv(2, 3), Residual([w()]), Residual([Conv(2, 3)], shortcut=[w()])],
        lambda w: [Conv(2, 3), Parallel([[], w(), [w()], [Conv(2, 3), w()]])],
        lambda w: [Conv(2, 3), Parallel([w(), [Conv(2, 1)], w(), []], "mul")],
        lambda w: [Conv(2, 3), Parallel([w(), [Conv(2, 1)], [Residual([w()])]], "concat")],
    ],
)
def test_layers_may_write_to_their_gradient(place, rng):
    X, y = stripes(4, rng)
    check(as_network(place(Writer)).check_gradients(X, y))
    theirs, ours = (as_network(place(make)) for make in (Writer, lambda: Activation("tanh")))
    X, y = stripes(40, rng, np.float64)
    for network in (theirs, ours):
        network.fit(X, y, max_iter=2, batch_size=16)
    for a, b in zip(theirs.params(), ours.params()):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_a_failed_fit_leaves_own_layers_to_their_network(rng):
    X, y = stripes(20, rng)
    conv, block = OwnConv(2), Block(2)
    network = as_network([conv, Residual([block])]).fit(X, y, max_iter=1)
    before = network.state_dict()
    with pytest.raises(DivergedError):
        network.fit(X, y, 1e30)
    assert same(list(network.state_dict().values()), list(before.values()))
    for change in (
        lambda: setattr(conv, "border_mode", "nearest"),
        lambda: setattr(block.layers[1], "type", "tanh"),
    ):
        probs = network.predict_proba(X)
        change()
        assert not np.array_equal(network.predict_proba(X), probs)
    with pytest.raises(ValueError, match="belongs to another network"):
        as_network([conv]).fit(X, y)


# --- losses -----------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch):
    """How often the two kernels of a softmax are called."""
    counts = {}

    def count(name):
        function = getattr(loss_module, name)

        def counting(*args):
            counts[name] = counts.get(name, 0) + 1
            return function(*args)

        monkeypatch.setattr(loss_module, name, counting)

    count("softmax")
    count("cross_entropy")
    return counts


def test_one_softmax_for_each_batch(rng, calls):
    X, y = stripes(40, rng)
    network = as_network([Residual([Conv(1, 3)])])
    network.fit(X, y, max_iter=3, batch_size=16)
    assert calls == {"cross_entropy": 9}
    calls.clear()
    network.fit(X, y, max_iter=2, batch_size=16, validation_data=(X, y))
    assert calls == {"cross_entropy": 6 + 2}
    for call, n_batches in [
        (lambda: network.error(X, y, batch_size=10), 4),
        (lambda: network.predict_proba(X, batch_size=20), 2),
        (lambda: network.predict(X), 1),
    ]:
        calls.clear()
        call()
        assert calls == {"softmax": n_batches}


def test_compare_gives_all_in_one_pass(rng, dtype):
    scores, y = rng.normal(size=(5, 3)).astype(dtype), np.array([0, 2, 1, 1, 0])
    values = rng.normal(size=(5, 3)).astype(dtype)
    for loss, target in [(LogRegression(), y), (MeanSquaredError(), values)]:
        predictions, losses, grad, *_ = loss.compare(scores, target)
        np.testing.assert_allclose(predictions, loss.fprop(scores), rtol=1e-6)
        assert losses.shape == (5,)
        assert losses.dtype == np.float64
        assert loss.loss(scores, target) == pytest.approx(losses.mean())
        assert np.array_equal(loss.input_grad(scores, target), grad)
        for i in range(5):
            alone = loss.compare(scores[i : i + 1], target[i : i + 1])
            np.testing.assert_allclose(alone.losses, losses[i : i + 1], rtol=1e-6)
            np.testing.assert_allclose(alone.grad, grad[i : i + 1], rtol=1e-6)


class Absolute(Layer, LossMixin):
    """The three methods that a loss of one's own needs."""

    is_classifier = False

    def fprop(self, input):
        return input

    def bprop(self, output_grad):
        return output_grad

    def loss(self, input, target):
        return np.mean(np.abs(input - target))

    def input_grad(self, input, target):
        return np.sign(input - target) / input[0].size

    def output_shape(self, input_shape):
        return input_shape


class AtOnce(Absolute):
    """The one that computes all."""

    calls = 0

    def compare(self, input, target):
        self.calls += 1
        difference = input - target
        losses = np.abs(difference).reshape(len(input), -1).mean(axis=1)
        return Compared(input, losses, np.sign(difference) / input[0].size)

    def loss(self, input, target):
        raise AssertionError("asked apart")

    input_grad = loss


class Halved(MeanSquaredError):
    """Redefines two of the parts, by those of its base."""

    def loss(self, input, target):
        return super().loss(input, target) / 2

    def input_grad(self, input, target):
        return super().input_grad(input, target) / 2


class HalvedAtOnce(MeanSquaredError):
    def compare(self, input, target):
        compared = super().compare(input, target)
        return compared._replace(losses=compared.losses / 2, grad=compared.grad / 2)


def test_losses_of_ones_own(rng):
    X, y = rng.normal(size=(24, 4)), rng.normal(size=(24, 2))

    def fitted(loss):
        layers = [Linear(5), Residual([Linear(5), Activation("tanh")]), Linear(2), loss]
        network = NeuralNetwork(layers, rng=0)
        check(network.check_gradients(X, y))
        return network.fit(X, y, 0.05, max_iter=3, batch_size=8, validation_data=(X, y))

    parts, at_once = fitted(Absolute()), fitted(AtOnce())
    halves, halves_at_once = fitted(Halved()), fitted(HalvedAtOnce())
    for a, b in [(parts, at_once), (halves, halves_at_once)]:
        for p, q in zip(a.params(), b.params()):
            np.testing.assert_allclose(p, q, rtol=1e-10)
        np.testing.assert_allclose(a.loss_history_, b.loss_history_, rtol=1e-10)
        np.testing.assert_allclose(a.val_loss_history_, b.val_loss_history_, rtol=1e-10)
    assert at_once.layers[-1].calls == 3 * (3 + 1)


def test_a_loss_that_counts_is_believed(rng):
    """Nobody looks for the largest of its predictions again, neither while it trains nor after."""

    class Counts(LogRegression):
        def compare(self, input, target):
            return super().compare(input, target)._replace(predictions=None)

    X, y = stripes(40, rng)
    plain, counts = (
        NeuralNetwork([Flatten(), Linear(3), loss], rng=0).fit(
            X, y, max_iter=2, batch_size=16, validation_data=(X[:9], y[:9])
        )
        for loss in (LogRegression(), Counts())
    )
    assert counts.val_error_history_ == plain.val_error_history_
    assert counts.val_error_history_[-1] == counts.error(X[:9], y[:9])


# --- the memory that is lent --------------------------------------------------------------------

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def address(array):
    return array.__array_interface__["data"][0]


def new_work(training=True, passing=None):
    return Work((3,), training, True, [] if passing is None else passing)


VIEWS = {
    "itself": lambda a: a,
    "slice": lambda a: a[:, 1:2],
    "element": lambda a: a[1, 2, ...],
    "transposed": lambda a: a.T,
    "reshaped": lambda a: a.reshape(-1),
    "view of a view": lambda a: a.reshape(-1)[::-1].view(np.int32)[3:5],
    "memoryview": memoryview,
    "subclass": lambda a: a.view(np.ma.MaskedArray),
    "broadcast": lambda a: np.broadcast_to(a, (2, *a.shape)),
    "asarray": lambda a: np.asarray(memoryview(a)),
    "strided": lambda a: np.lib.stride_tricks.sliding_window_view(a, 2, axis=0),
}


@pytest.mark.parametrize("kind", ["scratch", "array", "output", "output of a prediction"])
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_nothing_is_lent_twice_at_a_time(view, kind):
    work = new_work(training=kind != "output of a prediction")
    lend = {
        "scratch": lambda: work.scratch((4, 3), FLOAT32),
        "array": lambda: work.array("name", (4, 3), FLOAT32),
    }.get(kind, lambda: work.output((4, 3), FLOAT32))
    array = lend()
    place = address(array)
    assert array.shape == (4, 3)
    assert array.dtype == FLOAT32
    assert array.flags.c_contiguous and array.flags.writeable
    assert place % 64 == 0
    kept = view(array)
    del array
    others = [lend() for _ in range(3)]
    assert place not in map(address, others)
    assert len(set(map(address, others))) == 3
    del kept, others
    again = [lend() for _ in range(4)]
    assert place in map(address, again)  # in the end it does serve again


def test_lent_arrays_do_not_overlap():
    passing = []
    first, second = new_work(passing=passing), new_work(passing=passing)
    arrays = []
    for work in (first, second):
        for shape in [(5,), (1000,), (3, 7), (), (0, 4), (64,), (65,)]:
            for dtype in (FLOAT32, FLOAT64, np.dtype(np.uint8)):
                arrays += [
                    work.scratch(shape, dtype),
                    work.array("a", shape, dtype),
                    work.array("b", shape, dtype),
                    work.output(shape, dtype),
                ]
                assert arrays[-1].shape == shape
                assert arrays[-1].dtype == dtype
    for i, array in enumerate(arrays):
        array[...] = i % 251
    assert all((array == i % 251).all() for i, array in enumerate(arrays))
    spans = sorted((address(a), address(a) + a.nbytes) for a in arrays if a.size)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_memory_passes_from_layer_to_layer():
    passing = []
    first, second = new_work(passing=passing), new_work(passing=passing)
    place = address(first.scratch((100,), FLOAT32))
    assert address(second.scratch((25,), FLOAT64)) == place
    large = second.scratch((200,), FLOAT64)  # takes the place of what is too small
    assert len(passing) == 1
    assert large.size == 200
    own = first.array("name", (100,), FLOAT32)
    assert len(passing) == 1
    assert address(own) != address(second.array("name", (100,), FLOAT32))
    assert new_work(training=False, passing=passing).output((10,), FLOAT32).size == 10
    assert len(passing) == 2


def test_branches_may_keep_their_outputs_for_ever(rng):
    X, y = stripes(40, rng)
    outputs = []

    class Collector(Flatten):
        def fprop(self, input):
            outputs.append((input[1:, :1], input[1:, :1].copy()))
            return input

        def bprop(self, output_grad):
            outputs.append((output_grad[..., ::2], output_grad[..., ::2].copy()))
            return output_grad

        def output_shape(self, input_shape):
            return input_shape

    plain, collecting = (
        as_network(
            [
                Conv(2, 3),
                Parallel([[Conv(2, 3), *own()], [Residual([Conv(2, 1), *own()])], own()]),
                Residual([Conv(2, 3), *own()]),
            ]
        )
        for own in (list, lambda: [Collector()])
    )
    plain.fit(X, y, max_iter=2, batch_size=16)
    collecting.fit(X, y, max_iter=2, batch_size=16)
    assert same(plain.params(), collecting.params())
    assert np.array_equal(plain.predict_proba(X), collecting.predict_proba(X))
    assert len(outputs) > 48
    assert all(np.array_equal(array, before) for array, before in outputs)


class Shell(Layer, ParamMixin):
    """Holds a layer of nnet's in an attribute, and runs it."""

    def __init__(self, inner):
        self.inner = inner

    def _setup(self, input_shape, rng):
        self.inner._setup(input_shape, rng)

    def fprop(self, input):
        return self.inner.fprop(input)

    def bprop(self, output_grad):
        return self.inner.bprop(output_grad)

    def params(self):
        return self.inner.params()

    def param_grads(self):
        return self.inner.param_grads()

    def output_shape(self, input_shape):
        return self.inner.output_shape(input_shape)


def test_a_failed_fit_puts_a_held_layer_back(rng):
    X, y = stripes(24, rng)
    inner = Conv(2, (3, 3))
    network = NeuralNetwork([Shell(inner), Flatten(), Linear(3), LogRegression()], rng=0)
    network.fit(X, y, 0.01, max_iter=1)
    W, values, probs = inner.W, inner.W.copy(), network.predict_proba(X)
    with pytest.raises(ZeroDivisionError):
        network.fit(X, y, lambda epoch: 1 / 0)
    assert network.layers[0].inner is inner and inner.W is W
    assert np.array_equal(inner.W, values)
    assert np.array_equal(network.predict_proba(X), probs)


def test_windows_of_a_held_layer_decide_about_signals(rng):
    X, y = stripes(24, rng)
    network = NeuralNetwork([Shell(Conv(2, (3, 3))), Flatten(), Linear(3), LogRegression()])
    with pytest.raises(ValueError, match=r"the windows of Conv are 3 high.*to_bc01"):
        network.fit(X[:, 0, :, :5], y)
