"""Adam, AdamW and RMSprop: formulas, PyTorch, layouts, state, and what fit makes of them."""

import math
import tracemalloc

import numpy as np
import pytest
from networks import same, small_cnn, stripes

from nnet import (
    SGD,
    Adam,
    AdamW,
    Flatten,
    Layer,
    Linear,
    LogRegression,
    NeuralNetwork,
    Optimizer,
    ParamMixin,
    RMSprop,
    StepDecay,
)
from nnet.layers.tree import decaying

CASES = {  # class, options, those of PyTorch's class of the same name
    "adam": (Adam, {}, {}),
    "adam, betas": (Adam, {"beta1": 0.5, "beta2": 0.75}, {"betas": (0.5, 0.75)}),
    "adam, eps": (Adam, {"eps": 0.5}, {"eps": 0.5}),  # shows where it is added
    "adam, no averages": (Adam, {"beta1": 0, "beta2": 0}, {"betas": (0.0, 0.0)}),
    "adamw": (AdamW, {}, {}),
    "adamw, much": (AdamW, {"weight_decay": 0.75}, {"weight_decay": 0.75}),
    "rmsprop": (RMSprop, {}, {}),
    "rmsprop, eps": (RMSprop, {"alpha": 0.5, "eps": 0.5}, {"alpha": 0.5, "eps": 0.5}),
    "rmsprop, momentum": (RMSprop, {"momentum": 0.9}, {"momentum": 0.9}),
    "rmsprop, centered": (RMSprop, {"centered": True}, {"centered": True}),
    "rmsprop, both": (
        RMSprop,
        {"alpha": 0.9, "momentum": 0.5, "centered": True},
        {"alpha": 0.9, "momentum": 0.5, "centered": True},
    ),
}
SHAPES = (3, 7), (7,), (2, 3, 5, 5), ()


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def arrays_of(rng, dtype=np.float64, shapes=SHAPES):
    return [np.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def make(case, params=(), **options):
    return case[0](params=params, **(case[1] | options))


# --- what a step is -----------------------------------------------------------------------


def test_torch(case, rng):
    torch = pytest.importorskip("torch")
    params = arrays_of(rng)
    theirs = [torch.tensor(param, requires_grad=True) for param in params]
    groups = [
        {"params": [tensor]} | ({} if tensor.ndim >= 2 or case[0] is not AdamW else NO_DECAY)
        for tensor in theirs
    ]
    optimizer = getattr(torch.optim, case[0].__name__)(groups, **case[2])  # its default rate, too
    mine = make(case, params)
    for step in range(10):
        incs = [inc * 10.0 ** (step % 3) for inc in arrays_of(rng)]
        for tensor, inc in zip(theirs, incs):
            tensor.grad = torch.tensor(inc)
        optimizer.step()
        mine.step(incs)
    for param, tensor in zip(params, theirs):
        np.testing.assert_allclose(param, tensor.detach().numpy(), rtol=1e-10, atol=1e-12)


NO_DECAY = {"weight_decay": 0.0}


def test_adam_is_that_of_its_paper():
    rate, beta1, beta2, eps = 0.1, 0.8, 0.9, 1e-3
    param, mean, square, expected = np.zeros(3), 0.0, 0.0, 0.0
    adam = Adam(rate, beta1, beta2, eps, params=[param])
    for t, inc in enumerate((1.0, -2.0, 0.5, 3.0), start=1):
        mean = beta1 * mean + (1 - beta1) * inc
        square = beta2 * square + (1 - beta2) * inc**2
        mean_hat, square_hat = mean / (1 - beta1**t), square / (1 - beta2**t)
        expected -= rate * mean_hat / (math.sqrt(square_hat) + eps)
        adam.step([np.full(3, inc)])
        np.testing.assert_allclose(param, expected, rtol=1e-12)


def test_the_decay_of_adamw_is_apart_from_the_gradient():
    params = [np.ones((2, 2)), np.ones(2)]
    AdamW(0.5, weight_decay=0.25, params=params).step([np.zeros((2, 2)), np.zeros(2)])
    assert np.array_equal(params[0], np.full((2, 2), 1 - 0.5 * 0.25))
    assert np.array_equal(params[1], np.ones(2))
    flags = AdamW(learning_rate=0.5, weight_decay=0.25)
    params = [np.ones((2, 2)), np.ones(2)]
    flags.bind(params, [False, True])
    flags.step([np.zeros((2, 2)), np.zeros(2)])
    assert (params[0] == 1).all() and (params[1] == 1 - 0.5 * 0.25).all()


def test_float32(case, rng):
    params = arrays_of(rng, np.float32)
    exact = [param.astype(float) for param in params]
    mine, reference = make(case, params), make(case, exact)
    for _ in range(10):
        incs = arrays_of(rng, np.float32)
        mine.step(incs)
        reference.step([inc.astype(float) for inc in incs])
    for param, expected in zip(params, exact):
        assert param.dtype == np.float32
        np.testing.assert_allclose(param, expected, rtol=1e-4, atol=1e-5)
    for name, array in mine.state_arrays().items():
        assert array.dtype == (np.int64 if name == "step" else np.float32), name


LAYOUTS = {
    "strided": lambda array: np.repeat(array, 2, axis=0)[::2],
    "fortran": np.asfortranarray,
    "backwards": lambda array: np.ascontiguousarray(array[::-1])[::-1],
    "swapped bytes": lambda array: array.astype(array.dtype.newbyteorder()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout(layout, case, rng, dtype):
    shapes = (3, 7), (2, 3, 5, 5)
    plain = arrays_of(rng, dtype, shapes)
    others = [LAYOUTS[layout](param.copy()) for param in plain]
    expected, mine, of_incs = make(case, plain), make(case, others), make(case, twins(plain))
    for _ in range(4):
        incs = arrays_of(rng, dtype, shapes)
        expected.step(incs)
        mine.step(incs)
        of_incs.step([LAYOUTS[layout](inc) for inc in incs])
    tolerance = 1e-4 if dtype == np.float32 else 1e-12
    for optimizer in (mine, of_incs):
        for param, plain_one in zip(optimizer.params, plain):
            np.testing.assert_allclose(param, plain_one, rtol=tolerance, atol=tolerance)


def twins(arrays):
    return [array.copy() for array in arrays]


def test_increments_of_another_dtype_are_left_alone(case):
    params, inc = [np.ones((2, 3), np.float32)], np.full((2, 3), 0.5)
    optimizer = make(case, params)
    for _ in range(3):
        optimizer.step([inc])
    assert (inc == 0.5).all() and params[0].dtype == np.float32 and (params[0] < 1).all()


def test_a_steady_gradient_has_no_variance(dtype):
    """Rounding may make it negative."""
    params = [np.ones(1000, dtype)]
    rmsprop = RMSprop(alpha=0.5, centered=True, eps=1e-3, params=params)
    inc = np.random.default_rng(0).normal(size=1000).astype(dtype)
    for layout in (inc, np.repeat(inc, 2)[::2]):
        for _ in range(80):
            rmsprop.step([layout])
        assert np.isfinite(params[0]).all()


def test_a_step_allocates_nothing(case, rng):
    params = [np.ones((100, 1000), np.float32), np.ones(1000, np.float32)]
    optimizer = make(case, params)
    incs = [np.ones_like(param) for param in params]
    optimizer.step(incs)
    tracemalloc.start()
    try:
        optimizer.step(incs)
        assert tracemalloc.get_traced_memory()[1] < 4096
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("incs", [[], [np.ones(3)], [np.ones(2), np.ones(2)]])
def test_wrong_increments(incs, case):
    param = np.zeros(2)
    optimizer = make(case, [param])
    before = optimizer.state()
    with pytest.raises(ValueError, match="incs have shapes .*, expected the parameters'"):
        optimizer.step(incs)
    assert not param.any() and same(list(optimizer.state().values()), list(before.values()))


# --- state ----------------------------------------------------------------------------------


def test_state_and_load_state(case, rng, dtype):
    params, steps = arrays_of(rng, dtype), [arrays_of(rng, dtype) for _ in range(6)]
    optimizer = make(case, params)
    for incs in steps[:3]:
        optimizer.step(incs)
    state, other = optimizer.state(), make(case, twins(params))
    other.load_state(state)
    for incs in steps[3:]:
        optimizer.step(incs)
        other.step(incs)
    assert same(other.params, params)
    assert same(list(other.state().values()), list(optimizer.state().values()))
    assert not same(list(state.values()), list(optimizer.state().values()))  # copies


def test_names_of_the_state():
    adam = Adam(params=[np.zeros(2), np.zeros(3)])
    for _ in range(2):
        adam.step([np.ones(2), np.ones(3)])
    state = adam.state()
    assert list(state) == ["step", "exp_avg.0", "exp_avg.1", "exp_avg_sq.0", "exp_avg_sq.1"]
    assert type(state["step"]) is int and state["step"] == 2
    both = RMSprop(momentum=0.5, centered=True, params=[np.zeros(2)]).state()
    assert list(both) == ["square_avg.0", "grad_avg.0", "velocity.0"]
    assert list(RMSprop(params=[np.zeros(2)]).state()) == ["square_avg.0"]


@pytest.mark.parametrize(
    "changes, error",
    [
        ({"step": -1}, ValueError),
        ({"step": 1.5}, TypeError),
        ({"exp_avg.0": np.zeros(3)}, ValueError),
        ({"exp_avg.0": np.zeros(2, np.float32)}, TypeError),
        ({"exp_avg.0": [0.0, 0.0]}, TypeError),
        ({"exp_avg.1": np.zeros(2)}, ValueError),
    ],
)
def test_a_state_that_does_not_fit_is_refused_whole(changes, error):
    adam = Adam(params=[np.zeros(2)])
    with pytest.raises(error, match="expected"):
        adam.load_state({"step": 5, "exp_avg.0": np.ones(2), "exp_avg_sq.0": np.ones(2)} | changes)
    assert adam.state()["step"] == 0 and not adam.state()["exp_avg_sq.0"].any()


# --- arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: Adam(lr=0.1), TypeError, "Adam has no argument 'lr', expected learning_rate"),
        (lambda: Adam(betas=(0.9, 0.99)), TypeError, "expected beta1 and beta2"),
        (lambda: Adam(beta_1=0.9), TypeError, "expected beta1"),
        (lambda: AdamW(epsilon=0.9), TypeError, "AdamW has no argument 'epsilon', expected eps"),
        (lambda: Adam(weight_decay=0.9), TypeError, r"expected .*AdamW\(weight_decay=...\)"),
        (lambda: Adam(momentum=0.9), TypeError, "expected beta1"),
        (lambda: SGD(clipnorm=1), TypeError, r"SGD has no .*expected fit\(clip_norm=...\)"),
        (lambda: RMSprop(rho=0.9), TypeError, "expected alpha"),
        (lambda: RMSprop(clipvalue=1), TypeError, r"fit\(clip_value=...\)"),
        (lambda: Adam([np.zeros(2)]), TypeError, r"learning_rate is a list, .*Adam\(params=..."),
        (lambda: Adam(amsgrad=True), TypeError, "'amsgrad', expected one of"),
        (lambda: Adam(beta1=1), ValueError, "beta1 is 1, expected less than 1"),
        (lambda: Adam(beta2=-0.1), ValueError, "beta2 is -0.1"),
        (lambda: Adam(eps=-1), ValueError, "eps is -1"),
        (lambda: AdamW(weight_decay=-1), ValueError, "weight_decay is -1"),
        (lambda: RMSprop(alpha=1.0), ValueError, "alpha is 1.0, expected less than 1"),
        (lambda: RMSprop(centered="no"), TypeError, "centered is 'no'"),
        (lambda: Adam(learning_rate="fast"), TypeError, "learning_rate is 'fast'"),
        (lambda: Adam(learning_rate=StepDecay), TypeError, "expected an instance of it"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_only_fit_follows_schedules():
    param = np.ones(2)
    optimizer = Adam(StepDecay(0.1, 3), params=[param])
    with pytest.raises(TypeError, match="learning_rate is .*StepDecay.*, expected a number"):
        optimizer.step([np.ones(2)])
    assert (param == 1).all() and optimizer.state()["step"] == 0


# --- given to fit -------------------------------------------------------------------------------

NAMES = {"sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSprop}
RATES = {"sgd": 0.1, "adam": 0.001, "adamw": 0.001, "rmsprop": 0.01}


def trained(optimizer, *args, network=None, **options):
    X, y = stripes(50, np.random.default_rng(1))
    network = network or small_cnn()
    return network.fit(
        X, y, *args, **({"max_iter": 3, "batch_size": 20} | options), optimizer=optimizer
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_name_or_an_instance(name):
    expected = trained(name).params()
    rate, optimizer = RATES[name], NAMES[name]
    assert optimizer().learning_rate == rate
    assert same(trained(name, rate).params(), expected)
    assert same(trained(optimizer()).params(), expected)
    assert same(trained(optimizer(), rate).params(), expected)
    assert same(trained(optimizer(learning_rate=rate)).params(), expected)
    assert same(trained(optimizer(learning_rate=lambda epoch: rate)).params(), expected)
    assert not same(trained(name, rate / 2).params(), expected)
    with pytest.raises(ValueError, match="learning_rate is 0.5 and that of the optimizer is"):
        trained(optimizer(learning_rate=rate), 0.5)
    changed = optimizer()
    changed.learning_rate = rate  # counts as given
    with pytest.raises(ValueError, match="expected one of the two"):
        trained(changed, rate)


@pytest.mark.parametrize("name", NAMES)
def test_learns(name):
    X, y = stripes(60, np.random.default_rng(1))
    rate = 0.1 if name == "sgd" else 0.01
    network = small_cnn().fit(X, y, rate, max_iter=15, batch_size=10, optimizer=name)
    assert network.error(X, y) == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("in_optimizer", [False, True])
def test_a_rate_of_zero(name, in_optimizer):
    initial = small_cnn().build((1, 6, 6), 3).params()
    if in_optimizer:
        assert same(trained(NAMES[name](learning_rate=0.0)).params(), initial)
    else:
        assert same(trained(name, 0.0).params(), initial)


@pytest.mark.parametrize("name", NAMES)
def test_an_instance_stays_as_it_is(name):
    optimizer = NAMES[name]()
    first = twins(trained(optimizer).params())
    assert same(trained(optimizer).params(), first)
    assert optimizer.params == [] and optimizer.state().get("step", 0) == 0


def test_an_optimizer_of_ones_own():
    class Sign(Optimizer):
        def bind(self, params, decays=None):
            self.params, self.decays = list(params), decays

        def step(self, incs):
            for param, inc in zip(self.params, incs):
                param -= self.learning_rate * np.sign(inc)

        def state_arrays(self):
            return {}

    network = trained(Sign(), 0.25, max_iter=1, batch_size=50)
    moved = [a - b for a, b in zip(network.params(), small_cnn().build((1, 6, 6), 3).params())]
    for move in moved:
        np.testing.assert_allclose(np.abs(move)[move != 0], 0.25, rtol=1e-6)
    assert Sign().learning_rate == 0.1


# --- what decays ----------------------------------------------------------------------------------


class Scale(Layer, ParamMixin):
    """A custom layer with a matrix and a vector, whose gradients are zero."""

    def _setup(self, input_shape, rng):
        self.matrix, self.vector = np.ones((2, 2)), np.ones(3)

    def fprop(self, input):
        return input

    def bprop(self, output_grad):
        return output_grad

    def params(self):
        return [self.matrix, self.vector]

    def param_grads(self):
        return [np.zeros((2, 2)), np.zeros(3)]

    def output_shape(self, input_shape):
        return input_shape


class Vector(Scale):
    def decaying_names(self):
        return ["vector"]


@pytest.mark.parametrize("layer, decays", [(Scale, (True, False)), (Vector, (False, True))])
def test_which_arrays_of_a_layer_decay(layer, decays):
    X, y = stripes(20, np.random.default_rng(0))
    network = NeuralNetwork([layer(), Flatten(), Linear(3), LogRegression()], rng=0)
    network.fit(X, y, 0.5, max_iter=1, optimizer=AdamW(weight_decay=0.5))
    matrix, vector = network.params()[:2]
    assert ((matrix != 1).all(), (vector != 1).all()) == decays


def test_biases_do_not_decay():
    """And on images of zeros nothing but the decay changes the first layer's weights."""
    weighted = [layer for layer in small_cnn().build((1, 6, 6), 3).layers if hasattr(layer, "W")]
    assert decaying(weighted) == [True, False] * 3
    y = np.arange(20) % 2
    network = NeuralNetwork([Flatten(), Linear(2), LogRegression()], rng=0)
    network.build((1, 2, 2), 2)
    W = network.params()[0].copy()
    for decay in (0.0, 0.5):
        optimizer = AdamW(weight_decay=decay)
        network.fit(np.zeros((20, 1, 2, 2), np.float32), y, 0.1, max_iter=3, optimizer=optimizer)
        np.testing.assert_allclose(network.params()[0], W * (1 - 0.1 * decay) ** 3, rtol=1e-6)
        assert np.abs(network.params()[1]).max() < 1e-3  # the classes are balanced


def test_weights_decay_once():
    network = small_cnn(weight_decay=0.1)
    message = r"Conv\(.*weight_decay=0.1\) and AdamW with weight_decay=0.01 both shrink"
    with pytest.raises(ValueError, match=message):
        trained("adamw", network=network)
    trained(AdamW(weight_decay=0.0), network=network)
    for layer in network.layers:
        layer.trainable = not hasattr(layer, "weight_decay")
    network.layers[6].trainable, network.layers[6].weight_decay = True, 0.0
    trained("adamw", network=network)  # the others are frozen

    def callback(progress):
        progress.network.layers[6].weight_decay = 0.5

    with pytest.raises(ValueError, match=r"Linear\(.* both shrink the weights"):
        trained("adamw", network=network, callback=callback)
