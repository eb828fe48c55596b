"""Containers of the user's own, and classes derived from nnet's: what a network lends and asks."""

import copy
import pickle

import numpy as np
import pytest
from networks import check, same, stripes, walked
from structures import as_network

from nnet import (
    Activation,
    Conv,
    DivergedError,
    Flatten,
    Layer,
    Linear,
    LogRegression,
    NeuralNetwork,
    Parallel,
    ParamMixin,
    Pool,
    Residual,
    Sequential,
)


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
    if own is OwnConv:  # which has an attribute for its argument
        network.save(tmp_path / "network")
        loaded = NeuralNetwork.load(tmp_path / "network", {"OwnConv": OwnConv})
        assert np.array_equal(loaded.predict_proba(X), probs)
    else:
        with pytest.raises(
            (ValueError, TypeError), match="cannot be saved: .*, or a method config"
        ):
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


# --- layers in attributes ---------------------------------------------------------------


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
