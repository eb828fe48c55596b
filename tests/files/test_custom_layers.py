"""Files of networks with layers of the user's own."""

import numpy as np
import pytest
from saved_files import refused

from nnet import (
    Conv,
    Flatten,
    Layer,
    Linear,
    LogRegression,
    MeanSquaredError,
    NeuralNetwork,
    ParamMixin,
    Residual,
)

pytest.importorskip("safetensors")
X = np.random.default_rng(0).normal(size=(40, 2, 6, 6)).astype("f4")
Y = np.arange(40) % 3


class Scale(Layer, ParamMixin):
    """In the notebook's style: float64 arrays, whatever the network has."""

    def __init__(self, start=1.0, shape=(1, 1)):
        self.start, self.shape = start, shape

    def _setup(self, input_shape, rng):
        self.factors = self.start + rng.normal(size=(input_shape[1], *self.shape))
        self.n_seen = np.zeros(())

    def state_names(self):
        return ["n_seen"]

    def params(self):
        return [self.factors]

    def param_grads(self):
        return [self.factors_grad]

    def fprop(self, input):
        self.input = input
        if self.training:
            self.n_seen += len(input)
        return input * self.factors.reshape(-1, *[1] * (input.ndim - 2))

    def bprop(self, output_grad):
        axes = (0, *range(2, output_grad.ndim))
        products = (output_grad * self.input).sum(axis=axes)
        self.factors_grad = (products / len(output_grad)).reshape(self.factors.shape)
        return output_grad * self.factors.reshape(-1, *[1] * (output_grad.ndim - 2))

    def output_shape(self, input_shape):
        return input_shape


class Shifted(Conv):
    def fprop(self, input):
        return super().fprop(input) - 0.1


class Pair(Layer):
    """Layers in a row, made by itself."""

    def __init__(self, n_out):
        self.n_out = n_out
        self.first, self.second = Linear(5), Linear(n_out)

    @property
    def children(self):
        return {"first": self.first, "second": self.second}

    def _setup(self, input_shape, rng):
        self.first._setup(input_shape, rng)
        self.second._setup(self.first.output_shape(input_shape), rng)

    def fprop(self, input):
        return self.second.fprop(self.first.fprop(input))

    def bprop(self, output_grad):
        return self.first.bprop(self.second.bprop(output_grad))

    def output_shape(self, input_shape):
        return input_shape[0], self.n_out


class Squares(MeanSquaredError):
    pass


class Half(Scale):
    def state_names(self):
        return []


OWN = {cls.__name__: cls for cls in (Scale, Shifted, Pair, Squares)}
CASES = {
    "arrays of its own": [Scale(), Flatten(), Linear(3), LogRegression()],
    "options": [Scale(2.0, (1, 1)), Flatten(), Linear(3), LogRegression()],
    "inside of one of nnet's": [Residual([Scale(), Conv(2, 3)]), Flatten(), Linear(3)],
    "derived": [Shifted(4, 3, border_mode="reflect"), Flatten(), Linear(3), LogRegression()],
    "layers inside": [Flatten(), Pair(3), LogRegression()],
    "a loss": [Flatten(), Linear(1), Squares()],
}
CASES["inside of one of nnet's"].append(LogRegression())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_own_layers_come_back(case, dtype, tmp_path):
    y = Y.astype(float) if case == "a loss" else Y
    network = NeuralNetwork(CASES[case], rng=0).fit(X.astype(dtype), y, 0.01, max_iter=2)
    network.save(tmp_path / "file")
    loaded = NeuralNetwork.load(tmp_path / "file", custom_objects=OWN)
    assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in network.layers]
    before, after = network.state_dict(), loaded.state_dict()
    assert list(before) == list(after)
    for name in before:
        assert before[name].dtype == after[name].dtype
        np.testing.assert_array_equal(before[name], after[name])
    np.testing.assert_array_equal(network.predict(X), loaded.predict(X))
    loaded.fit(X.astype(dtype), y, 0.01, max_iter=1, warm_start=True)


def test_without_its_class_a_layer_is_named(tmp_path):
    NeuralNetwork(CASES["options"], rng=0).build((2, 6, 6)).save(tmp_path / "file")
    refused(
        tmp_path / "file",
        r"file has a layer of your own, 'Scale': .*load\(path, custom_objects={'Scale': Scale}\)$",
    )


def test_all_that_a_file_needs_are_named_at_once(tmp_path):
    layers = [Residual([Scale(), Half()]), Noted("x"), Flatten(), Linear(3), LogRegression()]
    NeuralNetwork(layers, rng=0).build((2, 6, 6)).save(tmp_path / "file")
    call = r"load\(path, custom_objects={'Half': Half, 'Noted': Noted, 'Scale': Scale}\)$"
    refused(tmp_path / "file", rf"layers of your own, 'Half' and 'Noted' and 'Scale': .*{call}")
    for given in ({"Scale": Scale, "Half": Half}, {"Scale": Scale, "Half": Half, "Notes": Noted}):
        with pytest.raises(ValueError, match=rf"a layer of your own, 'Noted': .*{call}"):
            NeuralNetwork.load(tmp_path / "file", given)


@pytest.mark.parametrize(
    "note",
    [
        {"a": 1, "b": [1, {"c": None}], "": "x"},
        {},
        [{"a": 1}, 2],
        [1, Conv(2, 3)],
        {"first": Conv(2, 3), "then": [Conv(2, 3, strides=2)]},
    ],
)
def test_options_of_many_kinds_come_back(note, tmp_path):
    layers = [Noted(note), Flatten(), Linear(3), LogRegression()]
    NeuralNetwork(layers, rng=0).build((2, 6, 6)).save(tmp_path / "file")
    loaded = NeuralNetwork.load(tmp_path / "file", {"Noted": Noted}).layers[0].note

    def plain(value):  # a list is a tuple afterwards
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [*map(plain, value)] if isinstance(value, (list, tuple)) else repr(value)

    assert plain(loaded) == plain(note)


def test_a_name_that_changed_is_damage(tmp_path):
    NeuralNetwork(CASES["options"], rng=0).build((2, 6, 6)).save(tmp_path / "file")
    whole = (tmp_path / "file").read_bytes()
    for old, new in [(b"Flatten", b"Fladden"), (b"Scale", b"Scala")]:
        (tmp_path / "file").write_bytes(whole.replace(old, new))
        refused(tmp_path / "file", "file is damaged or was changed: its checksum is wrong")


@pytest.mark.parametrize(
    "custom_objects, error, message",
    [
        ([Scale], TypeError, "custom_objects is .*, expected a dict of classes"),
        ({"Scale": Scale()}, TypeError, "expected classes derived from Layer"),
        ({"Scale": dict}, TypeError, "expected classes derived from Layer"),
        ({"Conv": Scale}, ValueError, "'Conv', expected no name of nnet's own layers"),
        ({"Scale": Pair}, ValueError, "file does not go with these custom_objects: .*Pair"),
        ({"Scale": Half}, ValueError, "file does not go with these custom_objects: its tensors"),
    ],
)
def test_wrong_custom_objects(custom_objects, error, message, tmp_path):
    NeuralNetwork(CASES["options"], rng=0).build((2, 6, 6)).save(tmp_path / "file")
    with pytest.raises(error, match=message):
        NeuralNetwork.load(tmp_path / "file", custom_objects)


class Forgetful(Scale):
    def __init__(self, begin=1.0):
        super().__init__(begin)


class Arrays(Scale):
    def __init__(self, start=np.ones(2)):  # noqa: B008
        super().__init__(start)


class Noted(Scale):
    def __init__(self, note):
        super().__init__()
        self.note = note


class Spread(Scale):
    def __init__(self, *args):
        super().__init__(*args)
        self.args = args


class Named(Scale):
    def __init__(self, **options):
        super().__init__(**options)
        self.options = options


class Listing(Scale):
    def config(self):
        return [self.start]


class Told(Forgetful):
    def config(self):
        return {"begin": self.start}


@pytest.mark.parametrize(
    "layer, message",
    [
        (Forgetful(2), r"layer 0 \(Forgetful\) cannot be saved: .* no attribute 'begin', expected"),
        (Arrays(), r"layer 0 \(Arrays\) cannot be saved: start is a ndarray, expected what JSON"),
        (Noted(np.tanh), "note is a ufunc, expected what JSON"),
        (Noted(test_own_layers_come_back), "note is a function, expected what JSON"),
        (Noted((1, np.ones(2))), "note is a tuple, expected what JSON"),
        (Noted(float("inf")), "note is inf, expected what JSON"),
        (Noted([Conv(2, 3), np.ones(2)]), "note is a list, expected what JSON"),
        (Noted({1: 2}), r"note has the keys \[1\], expected strings other than 'class'"),
        (Noted([{"class": "Conv"}]), r"note has the keys \['class'\], expected strings other"),
        (Spread(2.0), r"its constructor has \*args, expected a method config\(\)"),
        (Named(start=2.0), r"its constructor has \*\*options, expected a method config\(\)"),
        (Listing(), r"config\(\) is \[1.0\], expected a dict"),
        (Told(2), None),
    ],
)
def test_options_of_own_layers(layer, message, tmp_path):
    network = NeuralNetwork([layer, Flatten(), Linear(3), LogRegression()], rng=0).build((2, 6, 6))
    if message is None:
        network.save(tmp_path / "file")
        NeuralNetwork.load(tmp_path / "file", {type(layer).__name__: type(layer)})
    else:
        with pytest.raises((TypeError, ValueError), match=message):
            network.save(tmp_path / "file")
        assert not (tmp_path / "file").exists()
