"""Prediction: probabilities of classes, against PyTorch, onnxruntime and OpenVINO."""

from functools import partial

import numpy as np

import nnet
from bench_train import NETS, Case, TorchNet, fit, kernels_of, small
from common import Benchmark, Operation, main, median_time
from nnet.layers import (
    Activation,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    LogRegression,
    Pool,
)


def operations(library, case, dtype):
    """predict_proba of a whole batch."""
    network = fit("nnet", case, *training_data(case, dtype), learning_rate=0.0, max_iter=1)
    X = case.data(dtype)[0]
    runs = {
        "torch": torch_run,
        "torch-channels-last": torch_run,
        "onnxruntime": onnx_run,
        "openvino": openvino_run,
    }
    run = runs.get(library, nnet_run)(library, case, network, X)
    return {
        "predict_proba": Operation(
            seconds=partial(median_time, run),
            result=lambda: [run()],
            rates={"images/s": len(X)},
        )
    }


def training_data(case, dtype):
    """One image of each class: enough to draw parameters for."""
    return case._replace(imgs=(case.n_classes, *case.imgs[1:])).data(dtype)


def nnet_run(library, case, network, X):
    def run():
        with kernels_of(library):
            return network.predict_proba(X)

    return partial(network.predict_proba, X) if library == "nnet" else run


def torch_run(library, case, network, X):
    """PyTorch in its mode for inference; the batch in the memory format that the net has."""
    import torch

    model = TorchNet(library, case, X.dtype)
    model.set_params(network.params())
    net = torch.nn.Sequential(model.net, torch.nn.Softmax(1)).eval()
    batch = torch.tensor(X)
    if model.last:
        batch = batch.contiguous(memory_format=torch.channels_last)

    def run():
        with torch.inference_mode():
            return net(batch).numpy()

    return run


# --- onnxruntime and OpenVINO -------------------------------------------------


def onnx_run(library, case, network, X):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = nnet.get_num_threads()
    session = onnxruntime.InferenceSession(
        onnx_model(network, X.shape[1:]), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"X": X})[0]


def openvino_run(library, case, network, X):
    """In float32, as the others, and compiled for a batch of this length."""
    import openvino

    core = openvino.Core()
    model = core.read_model(onnx_model(network, X.shape[1:]))
    model.reshape(list(X.shape))
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": nnet.get_num_threads(),
    }
    request = core.compile_model(model, "CPU", options).create_infer_request()
    return lambda: request.infer([X], share_inputs=True)[0].copy()


def onnx_model(network, shape):
    """The same layers as an ONNX file: a chain of nodes, filters with features first."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights, last = [], [], "X"
    for i, layer in enumerate(network.layers):
        inputs, options = [last], {}
        if isinstance(layer, (Conv, Linear)):
            arrays = [np.ascontiguousarray(layer.W.swapaxes(0, 1)), layer.b]
            inputs += [f"W{i}", f"b{i}"]
            weights += map(numpy_helper.from_array, arrays, inputs[1:])
        if isinstance(layer, Conv):
            options = {"strides": layer.strides, "pads": layer.padding_mode * 2}
        elif isinstance(layer, Linear):
            options = {"transB": 1}
        elif isinstance(layer, Pool):
            options = {"kernel_shape": layer.pool_shape, "strides": layer.strides}
        last = f"Y{i}"
        nodes.append(helper.make_node(ONNX_NAMES[type(layer)], inputs, [last], **options))
        if isinstance(layer, GlobalAveragePool):  # leaves two axes of length 1
            nodes.append(helper.make_node("Flatten", [last], [f"{last}_flat"]))
            last = f"{last}_flat"
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        weights,
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


ONNX_NAMES = {
    Conv: "Conv",
    Linear: "Gemm",
    Pool: "MaxPool",
    Activation: "Relu",
    Flatten: "Flatten",
    GlobalAveragePool: "GlobalAveragePool",
    LogRegression: "Softmax",
}

BENCHMARK = Benchmark(
    name="prediction",
    libraries=("loops", "numpy", "torch", "torch-channels-last", "onnxruntime", "openvino"),
    cases={
        f"{name} net, {n} image{'s' * (n > 1)}": Case((n, *imgs[1:]), layers, 64)
        for name, (imgs, layers) in NETS.items()
        for n in (1, 256)
    },
    loops_case=(
        "MNIST net, 1 image of 2 classes",
        Case((1, 1, 28, 28), NETS["MNIST"][1], 64, 2),
    ),
    tiny_case=Case((2, 1, 8, 8), "conv2-3,relu,pool2", 4, 2),
    small=small,
    operations=operations,
    dtypes=("float32",),  # onnxruntime's convolutions have no other
)

if __name__ == "__main__":
    main(BENCHMARK)
