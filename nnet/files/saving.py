"""Networks as safetensors files: parameters as tensors, architecture as JSON, no code.

The file's metadata has one entry, "nnet": a JSON object with the keys

format    1
sha256    of the architecture and of all tensors
network   dtype, input_shape, target_shape, classes, signals (see `Layer`), and layers, each with
          its name as "class" and its constructor's arguments; layers inside of
          a layer are such objects too. Arguments that are left out have their defaults.
          A frozen layer has "trainable": false, and one that makes layers by itself, such as
          the row of a shortcut, a list "frozen" of their names.
          Where image files were trained on: preparation, an object with size, mode, crop, filter

The tensor "2.W" is the parameter W of layer 2, "5.0.W" that of the first layer inside of
layer 5. Everything in a file is checked before it is used; nothing is allocated by a number
that the file names.
"""

import inspect
import json
from collections.abc import Mapping
from functools import partial
from operator import index

import numpy as np

import nnet.layers
from nnet.files import tensors
from nnet.files.image_files import Preparation
from nnet.files.replacing import check_place
from nnet.layers.arguments import as_bool, as_int, as_path
from nnet.layers.base import Layer
from nnet.layers.tree import (
    MAX_DEPTH,
    check_values,
    describe,
    is_own,
    layers_within,
    named_arrays,
    numbered,
    walk,
)
from nnet.training.model import Model
from nnet.training.setup import check_layers

MAX_NESTING = 2 * MAX_DEPTH + 5  # of JSON: each layer is an object in a list; and its options
MAX_LABELS = 2**26  # characters of all labels, each as long as the longest: so NumPy keeps them
NUMBERS = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()
CONFIG = "a method config() that returns such arguments by name, as a dict"
LAYERS = {
    name: value
    for name, value in vars(nnet.layers).items()
    if isinstance(value, type) and issubclass(value, Layer) and value is not Layer
}


def save(model, path, preparation=None):
    """Write a `Model`, and how images are prepared for it, if `load` can read it."""
    path = as_path(path, "path")
    tensors.import_safetensors()
    check_place(path)
    model.check()
    children = numbered(model.layers)
    layers = [_layer_to_json(name, layer) for name, layer in children.items()]
    classes = _classes_to_json(model.classes)
    description = {
        "dtype": model.dtype.name,
        "input_shape": model.input_shape,
        "target_shape": model.target_shape,
        "classes": classes,
        "signals": model.signals,
        "layers": layers,
    }
    if preparation is not None:
        if not isinstance(preparation, Preparation):
            raise TypeError(f"preparation is {preparation!r}, expected None or a Preparation")
        _check_preparation(preparation, model.input_shape)
        description["preparation"] = preparation.config()
    _classes_from_json(json.loads(tensors.dumps(classes)))
    arrays = named_arrays(children)
    check_values(children, arrays)
    tensors.write(path, "nnet", "network", description, arrays)


def load(path, custom_objects=None):
    """The `Model` of a file."""
    path, known = as_path(path, "path"), LAYERS | as_classes(custom_objects)
    read = partial(_read, known=known)
    return tensors.read(path, "nnet", "a safetensors file, but nnet did not save it", read)


def as_classes(custom_objects):
    """Layers of the user's own by the names of their classes."""
    classes = {} if custom_objects is None else custom_objects
    if not isinstance(classes, Mapping):
        raise TypeError(
            f"custom_objects is {classes!r}, expected a dict of classes by their names, such as "
            "{'MyLayer': MyLayer}"
        )
    for name, value in classes.items():
        if not isinstance(value, type) or not issubclass(value, Layer):
            raise TypeError(f"custom_objects has {value!r}, expected classes derived from Layer")
        if name in LAYERS:
            raise ValueError(f"custom_objects has {name!r}, expected no name of nnet's own layers")
    return dict(classes)


def _read(content, file, known):
    """The Model; errors of a whole file with layers of the user's own name their classes."""
    try:
        return _model(content, file, known)
    except tensors.MISFITS as error:
        is_missing = isinstance(error, tensors.OwnLayerError)
        if known.keys() == LAYERS.keys() and not is_missing:
            raise
        arrays = {name: file.get_tensor(name) for name in list(file.keys())}
        tensors.check(content["network"], arrays, content)
        if is_missing:
            raise
        text = tensors.brief(error)
        raise tensors.OwnLayerError(f"does not go with these custom_objects: {text}") from error


def _model(content, file, known):
    """The Model; any of the errors that `load` knows for a file that makes no sense."""
    _check_nesting(content)
    description = content["network"]
    if description["dtype"] not in ("float32", "float64"):
        raise ValueError(f"its dtype is {description['dtype']!r}, expected float32 or float64")
    dtype = np.dtype(description["dtype"])
    input_shape = _shape_from_json(description["input_shape"])
    target_shape = _shape_from_json(description["target_shape"])
    classes = _classes_from_json(description["classes"])
    signals = as_bool(description.get("signals", False), "signals")  # 0.1.0 gave them a height
    if signals and len(input_shape) != 2:
        raise ValueError(
            f"its images have the shape {input_shape}, expected signals to have 2 axes"
        )
    described = _as_list(description["layers"])
    _check_own(described, known)
    layers = check_layers([_layer_from_json(layer, known) for layer in described])
    expected, customs = {}, {}

    def collect(name, layer, shape):
        if is_own(layer):
            shapes = layer.array_shapes(shape)
            expected.update({f"{name}.{key}": (shapes[key], dtype) for key in shapes})
        else:  # its class says what arrays it has by making them
            layer._setup(shape, np.random.default_rng(0))
            customs[name] = layer

    model = Model(layers, input_shape, dtype, classes, target_shape, signals, visit=collect)
    if "preparation" in description:
        model.preparation = Preparation.from_config(description["preparation"])
        _check_preparation(model.preparation, input_shape)
    made = named_arrays(customs)
    expected |= {name: (array.shape, array.dtype) for name, array in made.items()}
    arrays = _read_tensors(file, expected)
    tensors.check(description, arrays, content)
    check_values(numbered(layers), arrays)
    for name, layer in walk(numbered(layers)):
        keys = [*layer.param_names(), *layer.state_names()] if is_own(layer) else []
        if keys and f"{name}.{keys[0]}" not in made:
            layer._set_arrays({key: arrays[f"{name}.{key}"] for key in keys})
    for name, array in made.items():
        array[...] = arrays[name]
    return model


def _check_own(described, known):
    """Refuse layers of the user's own without their classes: all are named at once."""
    classes = [each.get("class") for each in _nested(described) if isinstance(each, dict)]
    own = sorted({name for name in classes if isinstance(name, str)} - LAYERS.keys())
    missing = [repr(name) for name in own if name not in known]
    if missing and all(map(str.isidentifier, own)):
        what = "layers" if len(missing) > 1 else "a layer"
        given = ", ".join(f"{name!r}: {name}" for name in own)
        raise tensors.OwnLayerError(
            f"has {what} of your own, {' and '.join(missing)}: "
            f"NeuralNetwork.load(path, custom_objects={{{given}}})"
        )


def _check_preparation(preparation, input_shape):
    if preparation.shape != input_shape:
        raise ValueError(
            f"preparation makes images of shape {preparation.shape}, expected {input_shape} as in "
            "training"
        )


def _check_nesting(value):
    """Refuse what is nested deeper than layers may be: those who read it next call themselves."""
    level = [value]
    for _ in range(MAX_NESTING):
        level = [
            item
            for value in level
            if isinstance(value, (dict, list))
            for item in (value.values() if isinstance(value, dict) else value)
        ]
    if level:
        raise ValueError(f"it is nested too deep, expected layers of at most {MAX_DEPTH} levels")


def _read_tensors(file, expected):
    """The tensors of a file, if their names, shapes and dtypes are the expected ones."""
    if set(file.keys()) != set(expected):
        raise ValueError(f"its tensors are {sorted(file.keys())}, expected {sorted(expected)}")
    for name, (shape, dtype) in expected.items():
        tensor = file.get_slice(name)
        found = tensor.get_dtype(), tuple(tensor.get_shape())
        if found != (f"F{8 * dtype.itemsize}", shape):
            raise ValueError(f"its tensor {name} is {found}, expected {dtype} of shape {shape}")
    return {name: np.array(file.get_tensor(name)) for name in expected}


def _layer_to_json(name, layer):
    """Its class and its options; layers among these likewise."""
    cls = type(layer).__name__
    if LAYERS.get(cls, type(layer)) is not type(layer):
        raise ValueError(f"layer {name} is a {cls} of yours, expected a name that nnet has not")

    def convert(value):
        if isinstance(value, Layer):
            return _layer_to_json(name, value)
        if isinstance(value, (list, tuple)):
            return [convert(item) for item in value]
        if isinstance(value, dict):
            return {key: convert(item) for key, item in value.items()}
        return value

    config = _options(name, layer)
    given = set(map(id, layers_within(config)))
    made = {key: each for key, each in layer.children.items() if id(each) not in given}
    frozen = [key for key, each in made.items() if not each.trainable]
    return {
        "class": cls,
        **{key: convert(value) for key, value in config.items()},
        **({} if layer.trainable else {"trainable": False}),
        **({"frozen": frozen} if frozen else {}),
    }


def _options(name, layer):
    """The constructor's arguments, which `load` will call the class with."""
    refusal = f"{describe(name, layer)} cannot be saved:"
    if type(layer).config.__module__.split(".")[0] == "nnet":  # none of the user's own
        for parameter in inspect.signature(type(layer)).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise TypeError(f"{refusal} its constructor has {parameter}, expected {CONFIG}")
    try:
        config = layer.config()
    except AttributeError as error:
        raise ValueError(
            f"{refusal} {error}, expected one for each argument of its constructor, or {CONFIG}"
        ) from error
    if not isinstance(config, Mapping):
        raise TypeError(f"{refusal} config() is {config!r}, expected a dict")
    for key, value in config.items():
        try:
            tensors.dumps(value, default=_without_layers)
        except (TypeError, ValueError) as error:
            found = repr(value) if isinstance(value, float) else f"a {type(value).__name__}"
            raise type(error)(
                f"{refusal} {key} is {found}, expected what JSON can hold, or {CONFIG}"
            ) from error
        keys = [k for each in _nested(value) if isinstance(each, dict) for k in each]
        if not all(isinstance(k, str) and k != "class" for k in keys):
            raise TypeError(
                f"{refusal} {key} has the keys {keys}, expected strings other than 'class', "
                f"or {CONFIG}"
            )
    return config


def _without_layers(value):
    """What stands for a value that JSON cannot hold, if it is a layer or an integer."""
    return None if isinstance(value, Layer) else index(value)


def _nested(value):
    """The value, and all that is in lists, tuples and dicts of it."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        yield value
        if isinstance(value, (list, tuple)):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()


def _layer_from_json(config, known):
    if not isinstance(config, dict):
        raise ValueError(f"it has a layer {config!r}, expected an object with its class")
    config = dict(config)
    name = config.pop("class")
    if name not in tuple(known):
        raise ValueError(f"it has a layer {name!r}, expected one of {tuple(known)}")
    trainable, frozen = config.pop("trainable", True), config.pop("frozen", [])
    of_own = name not in LAYERS
    options = {key: _option_from_json(value, known, of_own) for key, value in config.items()}
    layer = known[name](**options)
    children = layer.children
    if not isinstance(trainable, bool):
        raise ValueError(f"it has trainable {trainable!r}, expected true or false")
    if not isinstance(frozen, list) or not all(key in tuple(children) for key in frozen):
        raise ValueError(f"it has frozen {frozen!r}, expected some of {tuple(children)}")
    for each in ([] if trainable else [layer]) + [children[key] for key in frozen]:
        each.trainable = False
    return layer


def _option_from_json(value, known, of_own):
    """Lists are tuples, but for those of layers, which are objects with a class.

    Other objects are dicts, for layers of the user's own.
    """
    if isinstance(value, dict):
        if of_own and "class" not in value:
            return {key: _option_from_json(item, known, of_own) for key, item in value.items()}
        return _layer_from_json(value, known)
    if not isinstance(value, list):
        return value
    items = [_option_from_json(item, known, of_own) for item in value]
    holds_layers = all(isinstance(item, (Layer, list)) for item in items)
    return items if holds_layers else tuple(items)


def _as_list(layers):
    if not isinstance(layers, list):
        raise ValueError(f"its layers are {layers!r}, expected a list")
    return layers


def _shape_from_json(shape):
    if not isinstance(shape, list) or len(shape) > 3:
        raise ValueError(f"it has a shape {shape!r}, expected a list of at most 3 numbers")
    return tuple(as_int(length, "a length", 1) for length in shape)


def _classes_to_json(classes):
    if classes is None:
        return None
    if classes.dtype.kind == "S":
        return {"dtype": "bytes", "values": [label.decode("latin-1") for label in classes.tolist()]}
    return {
        "dtype": "str" if classes.dtype.kind == "U" else classes.dtype.name,
        "values": classes.tolist(),
    }


def _classes_from_json(classes):
    if classes is None:
        return None
    dtype, values = classes["dtype"], classes["values"]
    kind = {"bool": bool, "float": float, "str": str, "bytes": str}.get(
        dtype.rstrip("0123456789"), int
    )
    if dtype not in ("str", "bytes", *NUMBERS) or {type(value) for value in values} != {kind}:
        raise ValueError(f"its classes are not a list of {dtype!r}")
    if kind is str and max(map(len, values)) * len(values) > MAX_LABELS:
        raise ValueError(f"its classes take more than {MAX_LABELS} characters")
    if dtype == "bytes":
        values = [value.encode("latin-1") for value in values]
    array = np.array(values, dtype if dtype in NUMBERS else None)
    if len(array) < 2 or not (array[:-1] < array[1:]).all():
        raise ValueError("its classes are not sorted, or fewer than 2")
    return array
