"""SGD against its formulas and against PyTorch, and what fit makes of an optimizer."""

import numpy as np
import pytest
from networks import same, small_cnn, stripes

from nnet import SGD

OPTIONS = [(0.0, False), (0.9, False), (0.9, True)]


def trajectory(incs, momentum, nesterov, rate=0.1):
    """The parameter after each step, by the formulas as they stand in the literature."""
    param, velocity, path = 0.0, 0.0, []
    for inc in incs:
        velocity = momentum * velocity + inc
        param -= rate * (inc + momentum * velocity if nesterov else velocity)
        path.append(param)
    return path


@pytest.mark.parametrize("momentum, nesterov", OPTIONS)
def test_formula(momentum, nesterov, dtype):
    incs = [1.0, -2.0, 0.5, 3.0]
    param = np.zeros((2, 3), dtype)
    sgd = SGD(0.1, momentum, nesterov, params=[param])
    for inc, expected in zip(incs, trajectory(incs, momentum, nesterov)):
        sgd.step([np.full((2, 3), inc, dtype)])
        np.testing.assert_allclose(param, expected, rtol=1e-5)
    assert param.dtype == dtype


@pytest.mark.parametrize("momentum, nesterov", OPTIONS)
def test_torch(momentum, nesterov, rng):
    torch = pytest.importorskip("torch")
    params = [rng.normal(size=shape) for shape in [(3, 4), (4,)]]
    theirs = [torch.tensor(param, requires_grad=True) for param in params]
    optimizer = torch.optim.SGD(theirs, lr=0.05, momentum=momentum, nesterov=nesterov)
    sgd = SGD(0.05, momentum, nesterov, params=params)
    for _ in range(5):
        incs = [rng.normal(size=param.shape) for param in params]
        for tensor, inc in zip(theirs, incs):
            tensor.grad = torch.from_numpy(inc)
        optimizer.step()
        sgd.step(incs)
    for param, tensor in zip(params, theirs):
        np.testing.assert_allclose(param, tensor.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("momentum, nesterov", OPTIONS)
def test_increments_are_left_alone(momentum, nesterov):
    inc = np.ones(3)
    sgd = SGD(0.1, momentum, nesterov, params=[np.zeros(3)])
    for _ in range(3):
        sgd.step([inc])
    assert np.array_equal(inc, np.ones(3))


def test_increments_of_another_dtype_or_memory_order():
    param = np.zeros((2, 3), np.float32)
    SGD(1.0, 0.5, True, params=[param]).step([np.asfortranarray(np.ones((2, 3)))])
    assert np.array_equal(param, np.full((2, 3), -1.5))
    assert param.dtype == np.float32


def test_learning_rate_may_change():
    param = np.zeros(1)
    sgd = SGD(0.5, params=[param])
    sgd.step([np.ones(1)])
    sgd.learning_rate = 0.25
    sgd.step([np.ones(1)])
    assert param == -0.75


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"learning_rate": -0.1}, ValueError, "learning_rate is -0.1, expected a finite number"),
        ({"learning_rate": np.inf}, ValueError, "learning_rate is inf"),
        ({"learning_rate": "fast"}, TypeError, "learning_rate is 'fast'"),
        ({"momentum": 1.0}, ValueError, "momentum is 1.0, expected less than 1"),
        ({"momentum": -0.5}, ValueError, "momentum is -0.5"),
        ({"nesterov": True}, ValueError, "expected a momentum greater than 0"),
        ({"nesterov": "yes"}, TypeError, "nesterov is .yes., expected True or False"),
    ],
)
def test_errors(options, error, message):
    with pytest.raises(error, match=message):
        SGD(params=[np.zeros(2)], **options)


@pytest.mark.parametrize("incs", [[], [np.ones(3)], [np.ones(2), np.ones(2)]])
def test_wrong_increments(incs):
    param = np.zeros(2)
    with pytest.raises(ValueError, match="incs have shapes .*, expected the parameters'"):
        SGD(0.1, params=[param]).step(incs)
    assert not param.any()


# --- given to fit -------------------------------------------------------------------------

FIT = {"max_iter": 3, "batch_size": 20}


def trained(rng, *args, **options):
    X, y = stripes(50, rng)
    return small_cnn(weight_decay=0.1).fit(X, y, *args, **FIT, **options)


def fresh():
    return np.random.default_rng(1)


@pytest.mark.parametrize("momentum, nesterov", OPTIONS)
def test_an_optimizer_or_its_name_given_to_fit(momentum, nesterov):
    options = {"momentum": momentum, "nesterov": nesterov}
    expected = trained(fresh(), 0.05, **options).params()
    assert same(trained(fresh(), 0.05, optimizer="sgd", **options).params(), expected)
    for learning_rate in (None, 0.05, lambda epoch: 0.05):
        sgd = SGD(learning_rate=0.05 if learning_rate is None else None, **options)
        assert same(trained(fresh(), learning_rate, optimizer=sgd).params(), expected)


def test_the_default_learning_rate():
    expected = trained(fresh(), 0.1).params()
    for options in ({}, {"optimizer": "sgd"}, {"optimizer": SGD()}):
        assert same(trained(fresh(), **options).params(), expected)


def test_an_optimizer_starts_afresh_with_each_fit_and_stays_as_it_is():
    sgd = SGD(learning_rate=0.05, momentum=0.9)
    first = trained(fresh(), optimizer=sgd)
    expected = [param.copy() for param in first.params()]
    assert sgd.params == [] and sgd.state() == {}
    second = trained(fresh(), optimizer=sgd)
    assert same(second.params(), expected)
    assert same(first.params(), expected)  # no longer its own
    X, y = stripes(50, fresh())
    assert same(first.fit(X, y, optimizer=sgd, **FIT).params(), expected)


def test_the_name_of_an_optimizer_may_have_capitals():
    assert same(*[trained(fresh(), optimizer=name).params() for name in ("rmsprop", "RMSprop")])


def test_a_schedule_leaves_the_learning_rate_of_the_optimizer():
    sgd = SGD()
    trained(fresh(), lambda epoch: 0.2 / (epoch + 1), optimizer=sgd)
    assert sgd.learning_rate == 0.1


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"optimizer": "adagrad"}, ValueError, "optimizer is 'adagrad', expected one of .'sgd'"),
        ({"optimizer": SGD}, TypeError, r"optimizer is the class SGD, .* such as SGD\(\)"),
        ({"optimizer": 0.1}, TypeError, "optimizer has the type float, expected one of"),
        ({"optimizer": None}, TypeError, "optimizer has the type NoneType, expected one of"),
        ({"optimizer": SGD(), "momentum": 0.9}, ValueError, "expected them in the optimizer alone"),
        (
            {"optimizer": SGD(momentum=0.9), "nesterov": True},
            ValueError,
            "expected them in the optimizer alone",
        ),
        ({"optimizer": "adam", "momentum": 0.9}, ValueError, r"with 'sgd' alone: .*beta1"),
        ({"optimizer": "rmsprop", "momentum": 0.9}, ValueError, r"RMSprop\(momentum="),
        ({"optimizer": "adamw", "nesterov": True}, ValueError, "with 'sgd' alone"),
        (
            {"optimizer": SGD(learning_rate=0.1), "learning_rate": 0.1},
            ValueError,
            "learning_rate is 0.1 and that of the optimizer is 0.1, expected one of the two",
        ),
        ({"optimizer": "sgd", "momentum": 1.5}, ValueError, "momentum is 1.5"),
        ({"optimizer": SGD(), "learning_rate": "fast"}, TypeError, "learning_rate is 'fast'"),
    ],
)
def test_errors_of_fit(options, error, message):
    with pytest.raises(error, match=message):
        trained(fresh(), **options)


@pytest.mark.parametrize("momentum, nesterov", OPTIONS)
def test_a_step_has_the_bits_of_numpy(momentum, nesterov, dtype, rng):
    """Layer by layer, from what the layers say of their gradients."""
    X, y = stripes(30, rng, dtype)
    network = small_cnn(weight_decay=0.1)
    network.fit(X, y, 0.0, max_iter=1)
    params = [param.copy() for param in network.params()]
    velocities = [np.zeros_like(param) for param in params]
    rate, incs = dtype.type(0.05), []

    class Recording(SGD):
        def step(self, given):
            incs.append([inc.copy() for inc in given])
            super().step(given)

    network.fit(
        X,
        y,
        max_iter=4,
        batch_size=20,
        optimizer=Recording(learning_rate=0.05, momentum=momentum, nesterov=nesterov),
    )
    assert len(incs) == 8
    for step in incs:
        for param, velocity, inc in zip(params, velocities, step):
            assert inc.dtype == dtype
            velocity *= dtype.type(momentum)
            velocity += inc
            param -= rate * (inc + dtype.type(momentum) * velocity if nesterov else velocity)
    assert same(network.params(), params)


def test_state_and_load_state():
    sgd, other = SGD(momentum=0.9), SGD(momentum=0.9)
    params = [np.zeros(3), np.zeros((2, 2), np.float32)]
    twins = [param.copy() for param in params]
    sgd.bind(params)
    sgd.step([np.ones(3), np.ones((2, 2))])
    other.bind([param.copy() for param in params])
    other.load_state(sgd.state())
    twins = other.params
    for optimizer in (sgd, other):
        optimizer.step([np.ones(3), np.ones((2, 2))])
    assert same(params, twins)
    assert list(sgd.state()) == ["velocity.0", "velocity.1"]
    assert SGD().state() == {}
    with pytest.raises(ValueError, match="state has .*, expected"):
        sgd.load_state({})
    for changes, error in (
        ({"velocity.1": np.ones(3)}, ValueError),
        ({"velocity.0": 1}, TypeError),
    ):
        before = sgd.state()
        with pytest.raises(error, match=r"state\['velocity.* expected"):
            sgd.load_state({name: array + 1 for name, array in before.items()} | changes)
        assert same(list(sgd.state().values()), list(before.values()))


def test_parameters_in_place_of_a_rate():
    with pytest.raises(TypeError, match=r"learning_rate is a list, expected .*optimizer=SGD\(\)"):
        SGD([np.zeros(2)], 0.1)
