"""SGD against its formulas and against PyTorch."""

import numpy as np
import pytest

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
    sgd = SGD([param], 0.1, momentum, nesterov)
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
    sgd = SGD(params, 0.05, momentum, nesterov)
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
    sgd = SGD([np.zeros(3)], 0.1, momentum, nesterov)
    for _ in range(3):
        sgd.step([inc])
    assert np.array_equal(inc, np.ones(3))


def test_increments_of_another_dtype_or_memory_order():
    param = np.zeros((2, 3), np.float32)
    SGD([param], 1.0, 0.5, True).step([np.asfortranarray(np.ones((2, 3)))])
    assert np.array_equal(param, np.full((2, 3), -1.5))
    assert param.dtype == np.float32


def test_learning_rate_may_change():
    param = np.zeros(1)
    sgd = SGD([param], 0.5)
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
        SGD([np.zeros(2)], **options)


@pytest.mark.parametrize("incs", [[], [np.ones(3)], [np.ones(2), np.ones(2)]])
def test_wrong_increments(incs):
    param = np.zeros(2)
    with pytest.raises(ValueError, match="incs have shapes .*, expected the parameters'"):
        SGD([param], 0.1).step(incs)
    assert not param.any()
