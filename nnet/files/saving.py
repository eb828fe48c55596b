"""Networks as safetensors files: parameters as tensors, architecture as JSON, no code.

The file's metadata has one entry, "nnet": a JSON object with the keys

format    1
sha256    of the architecture and of all tensors
network   dtype, input_shape, target_shape, classes, and the layers, each with
          its name as "class" and its constructor's arguments

The tensor "2.W" is the parameter W of layer 2. Everything in a file is
checked before it is used; nothing is allocated by a number that the file names.
"""

import hashlib
import json
import os
from operator import index

import numpy as np

import nnet.layers
from nnet.training.data import bc01_shape
from nnet.layers.base import Layer, WeightedLayer, as_int

FORMAT = 1
NUMBERS = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()
LAYERS = {
    name: value
    for name, value in vars(nnet.layers).items()
    if isinstance(value, type) and issubclass(value, Layer) and value is not Layer
}


def save(network, path):
    """Write a fitted network."""
    safetensors = _import_safetensors()
    tensors, layers = {}, []
    for i, layer in enumerate(network.layers):
        name = type(layer).__name__
        if LAYERS.get(name) is not type(layer):
            raise ValueError(f"layer {i} is a {name}, expected one of nnet's own: {tuple(LAYERS)}")
        layers.append({"class": name, **layer.config()})
        if isinstance(layer, WeightedLayer):
            for param_name, param in zip(layer.param_names(), layer.params()):
                tensors[f"{i}.{param_name}"] = np.ascontiguousarray(param)
    description = {
        "dtype": network.dtype_.name,
        "input_shape": network.input_shape_,
        "target_shape": network.target_shape_,
        "classes": _classes_to_json(network.classes_),
        "layers": layers,
    }
    content = {"format": FORMAT, "sha256": _digest(description, tensors), "network": description}
    _replace(os.path.realpath(path), safetensors.numpy.save(tensors, {"nnet": _dumps(content)}))


def load(path):
    """The layers of a file, and the attributes that a fitted network has."""
    safetensors = _import_safetensors()
    with open(path, "rb"):
        pass  # a missing or unreadable file is an OSError, as always
    try:
        file = safetensors.safe_open(path, framework="numpy")
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    with file:
        content = (file.metadata() or {}).get("nnet")
        if content is None:
            raise ValueError(f"{path} is a safetensors file, but nnet did not save it")
        try:
            return _read(json.loads(content, parse_constant=_refuse_constant), file)
        except KeyError as error:
            raise ValueError(f"{path} is damaged or was changed: no {error}") from error
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"{path} is damaged or was changed: {error}") from error


def _read(content, file):
    """Layers and attributes; any of the errors that `load` knows for a file that makes no sense."""
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']!r}, this version reads {FORMAT}")
    description = content["network"]
    if description["dtype"] not in ("float32", "float64"):
        raise ValueError(f"its dtype is {description['dtype']!r}, expected float32 or float64")
    dtype = np.dtype(description["dtype"])
    input_shape = _shape_from_json(description["input_shape"])
    target_shape = _shape_from_json(description["target_shape"])
    classes = _classes_from_json(description["classes"])

    layers, shapes, expected = [], [bc01_shape(input_shape)], {}
    for i, config in enumerate(description["layers"]):
        layer = _layer_from_json(config)
        if isinstance(layer, WeightedLayer):
            param_shapes = layer.param_shapes((1, *shapes[-1]))
            expected |= {f"{i}.{name}": param_shapes[name] for name in layer.param_names()}
        shapes.append(layer.output_shape((1, *shapes[-1]))[1:])
        layers.append(layer)
    output_shape = (target_shape or (1,)) if classes is None else (len(classes),)
    if shapes[-1] != output_shape:
        raise ValueError(f"its layers put out {shapes[-1]}, expected {output_shape}")
    if layers[-1].is_classifier != (classes is not None) or (classes is not None and target_shape):
        raise ValueError(f"its last layer {type(layers[-1]).__name__} does not fit its targets")

    tensors = _read_tensors(file, expected, dtype)
    if _digest(description, tensors) != content["sha256"]:
        raise ValueError("its checksum is wrong")
    for i, layer in enumerate(layers):
        layer.dtype = dtype
        if isinstance(layer, WeightedLayer):
            layer._set_params({name: tensors[f"{i}.{name}"] for name in layer.param_names()})
    return layers, {
        "dtype_": dtype,
        "input_shape_": input_shape,
        "target_shape_": target_shape,
        "classes_": classes,
        "_shapes": shapes,
        "loss_history_": [],
        "val_loss_history_": [],
        "val_error_history_": [],
    }


def _read_tensors(file, expected, dtype):
    """The tensors of a file, if their names, shapes and dtypes are the expected ones."""
    if set(file.keys()) != set(expected):
        raise ValueError(f"its tensors are {sorted(file.keys())}, expected {sorted(expected)}")
    for name, shape in expected.items():
        tensor = file.get_slice(name)
        found = tensor.get_dtype(), tuple(tensor.get_shape())
        if found != (f"F{8 * dtype.itemsize}", shape):
            raise ValueError(f"its tensor {name} is {found}, expected {dtype} of shape {shape}")
    return {name: np.array(file.get_tensor(name)) for name in expected}


def _layer_from_json(config):
    config = dict(config)
    name = config.pop("class")
    if name not in tuple(LAYERS):
        raise ValueError(f"it has a layer {name!r}, expected one of {tuple(LAYERS)}")
    layer = LAYERS[name](**_to_tuples(config))
    if set(layer.config()) != set(config):
        raise ValueError(f"its {name} has {sorted(config)}, expected {sorted(layer.config())}")
    return layer


def _to_tuples(value):
    if isinstance(value, dict):
        return {name: _to_tuples(item) for name, item in value.items()}
    return tuple(map(_to_tuples, value)) if isinstance(value, list) else value


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
    if dtype == "bytes":
        values = [value.encode("latin-1") for value in values]
    array = np.array(values, dtype if dtype in NUMBERS else None)
    if len(array) < 2 or not (array[:-1] < array[1:]).all():
        raise ValueError("its classes are not sorted, or fewer than 2")
    return array


def _digest(description, tensors):
    """A checksum of all that a file holds: it finds accidents, not forgeries."""
    digest = hashlib.sha256(_dumps(description).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape} ".encode())
        digest.update(tensors[name])
    return digest.hexdigest()


def _dumps(value):
    return json.dumps(value, sort_keys=True, allow_nan=False, default=index)


def _refuse_constant(name):
    raise ValueError(f"it has the number {name}")


def _replace(path, data):
    """Write a file whole or not at all."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path} is not a regular file, expected one to replace, or a new name")
    partial = f"{path}.{os.urandom(4).hex()}.partial"
    try:
        with open(partial, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        if os.path.exists(partial):
            os.remove(partial)
        raise


def _import_safetensors():
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "saving and loading networks needs the package safetensors: pip install 'nnet[train]'"
        ) from error
    return safetensors
