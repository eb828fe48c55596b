"""Every kind of optimizer, schedule, layer and option is resumed bit for bit, after exceptions."""

import copy

import numpy as np
import pytest
from checkpoints import X, call, stopping
from trouble import assert_nothing_lent, everything

from nnet import (
    SGD,
    Activation,
    Adam,
    AdamW,
    BatchNorm,
    Brightness,
    Checkpoint,
    Conv,
    CosineDecay,
    Crop,
    CutOut,
    Dropout,
    Flatten,
    Flip,
    GroupNorm,
    Layer,
    Linear,
    LogRegression,
    NeuralNetwork,
    OneCycle,
    ParamMixin,
    ReduceOnPlateau,
    Residual,
    RMSprop,
    Rotate,
    Shift,
    Standardize,
    StepDecay,
    Zoom,
)

pytest.importorskip("safetensors")


def drifting(images, rng):
    return images + rng.normal(size=(len(images), 1, 1, 1))


class Fortran(Layer, ParamMixin):
    """A linear layer whose arrays are in Fortran's order, and a state that is too."""

    def _setup(self, input_shape, rng):
        shape = input_shape[1], 5
        self.W = np.asfortranarray(rng.normal(scale=0.1, size=shape).astype(self.dtype))
        self.W_grad = np.zeros_like(self.W)
        self.seen = np.zeros((2, 3), self.dtype, order="F")

    def fprop(self, input):
        self.input = input
        if self.training:
            self.seen += np.arange(6).reshape(2, 3)
        return input @ self.W + self.seen[1, 0] / 100

    def bprop(self, output_grad):
        self.W_grad[...] = self.input.T @ output_grad / len(self.input)
        return output_grad @ self.W.T

    def params(self):
        return [self.W]

    def param_grads(self):
        return [self.W_grad]

    def state_names(self):
        return ["seen"]

    def output_shape(self, input_shape):
        return input_shape[0], 5


KINDS = {  # what fit is given, and the layers in the middle of the network
    "Adam": ({"optimizer": Adam(0.01)}, []),
    "AdamW": ({"optimizer": AdamW(0.01, weight_decay=0.1)}, []),
    "RMSprop": ({"optimizer": RMSprop(0.001, momentum=0.5, centered=True)}, []),
    "cosine": ({"optimizer": Adam(CosineDecay(0.01, warmup_epochs=1.5))}, []),
    "one cycle": ({"optimizer": SGD(OneCycle(0.1), momentum=0.9)}, []),
    "steps": ({"learning_rate": StepDecay(0.1, 4, 0.5, by="step"), "momentum": 0.5}, []),
    "plateau": (
        {
            "learning_rate": ReduceOnPlateau(
                0.1, 0.5, 0, "val_n_right", threshold=0.1, mode="max", cooldown=1
            )
        },
        [],
    ),
    "BatchNorm": ({}, [BatchNorm(), Activation("relu"), Residual([BatchNorm(momentum=0.3)])]),
    "GroupNorm": ({}, [GroupNorm(2), Activation("gelu")]),
    "Dropout": ({}, [Dropout(0.3), Residual([Dropout(0.5, channels=True)])]),
    "Standardize": ({}, [BatchNorm(), Dropout(0.1)]),
    "clip_norm": ({"clip_norm": 0.1}, []),
    "clip_value": ({"clip_value": 0.01}, []),
    "augmentation": (
        {"augment": [Shift(1), Crop(1), Flip(), Rotate(20), Zoom(0.2), CutOut(2), Brightness(0.1)]},
        [],
    ),
    "augmentation of one's own": ({"augment": drifting}, []),
    "Fortran's order": ({"optimizer": Adam(0.01)}, [Flatten(), Fortran()]),
    "all of it": (
        {
            "optimizer": AdamW(OneCycle(0.02)),
            "clip_norm": 1.0,
            "augment": [Shift(1), Rotate(10)],
        },
        [
            BatchNorm(),
            Dropout(0.2),
            Conv(4, 3),
            GroupNorm(2),
            Activation("silu"),
            Flatten(),
            Fortran(),
        ],
    ),
}


def make(name):
    middle = copy.deepcopy(KINDS[name][1])
    first = [Standardize()] if name == "Standardize" else []
    flat = [] if any(isinstance(layer, Flatten) for layer in middle) else [Flatten()]
    layers = [*first, Conv(4, 3), *middle, *flat, Linear(3), LogRegression()]
    return NeuralNetwork(layers, rng=0)


def options_of(name):
    options = call(**KINDS[name][0])
    if "optimizer" in options or isinstance(options["learning_rate"], ReduceOnPlateau):
        options["momentum"] = 0.0
    if "optimizer" in options:
        options["learning_rate"] = None
    return options


@pytest.mark.parametrize("name", KINDS)
def test_exceptions_in_the_middle_of_epochs(name, tmp_path):
    """One in each epoch but the first, of trainings that go on from one another's checkpoints."""
    path, options = tmp_path / "c", options_of(name)
    expected = make(name).fit(**options, callbacks=[stopping()])
    net, resumed = make(name), {}
    for epoch in (2, 3, 4):

        def stop(progress, epoch=epoch):
            if progress.epoch == epoch and progress.n_seen > 32:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            net.fit(**options, callbacks=[stopping(), Checkpoint(path), stop], **resumed)
        assert_nothing_lent(net)
        net, resumed = make(name), {"resume": path}
    net.fit(**options, callbacks=[stopping(), Checkpoint(path)], resume=path)
    assert everything(net, X) == everything(expected, X)


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_matters(name):
    """Else the test above would prove little: what it resumes makes other bits than without."""
    with_it = make(name).fit(**options_of(name))
    options = call()
    without = NeuralNetwork([Conv(4, 3), Flatten(), Linear(3), LogRegression()], rng=0)
    assert everything(without.fit(**options), X)[0] != everything(with_it, X)[0]
