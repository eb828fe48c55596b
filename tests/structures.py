"""Networks of nested layers, for images of one channel, and their twins in PyTorch."""

import numpy as np

from nnet import (
    Activation,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    LogRegression,
    NeuralNetwork,
    Parallel,
    Pool,
    Residual,
    Sequential,
)


def block(n_feats):
    return [Conv(n_feats, 3), Activation("tanh")]


def gates(n_feats):
    """What squeeze-and-excitation multiplies channels by: Hu et al. 2018, section 3."""
    return [
        GlobalAveragePool(),
        Linear(2),
        Activation("relu"),
        Linear(n_feats),
        Activation("sigmoid"),
    ]


def projection():
    """A residual block that halves its images."""
    f = [Conv(4, 3, 2, padding_mode=1), Activation("relu"), Conv(4, 3)]
    return Residual(f, shortcut=[Conv(4, 1, 2, padding_mode="valid")])


STRUCTURES = {
    "sequentials": lambda: [Sequential([Sequential(block(3)), Sequential(), Sequential(block(2))])],
    "residual": lambda: [Conv(3, 3), Residual([*block(3), Conv(3, 3)])],
    "residual first": lambda: [Residual(block(1))],
    "residuals in a row": lambda: [Conv(3, 3), *(Residual(block(3)) for _ in range(3))],
    "residuals inside": lambda: [
        Conv(3, 3),
        Residual([*block(3), Residual([Residual(block(3)), Activation("relu"), *block(3)])]),
    ],
    "projections": lambda: [projection(), Activation("relu"), projection(), Activation("relu")],
    "projection alone": lambda: [Residual([Activation("tanh")], shortcut=[Conv(1, 3)])],
    "sum": lambda: [Parallel([block(3), [Conv(3, 1)], [Conv(3, 5)]])],
    "sum with itself": lambda: [Conv(2, 3), Parallel([[], block(2), []])],
    "sum of one": lambda: [Conv(2, 3), Parallel([block(2)])],
    "sum of unequal": lambda: [Conv(3, 3), Parallel([gates(3), block(1), block(3)])],
    "concat": lambda: [Parallel([block(3), [Conv(1, 1)], [*block(2), *block(4)]], "concat")],
    "concat with itself": lambda: [
        Conv(2, 3),
        Parallel([[], block(3), Activation("sigmoid")], "concat"),
        Pool(2, 2, padding_mode="valid"),
    ],
    "concat of rows": lambda: [
        Conv(3, 3),
        Parallel([[GlobalAveragePool()], [Flatten(), Linear(2)]], "concat"),
    ],
    "gates": lambda: [*block(3), Parallel([[], gates(3)], "mul"), *block(2)],
    "gates in residuals": lambda: [
        Conv(4, 3),
        *(Residual([*block(4), Parallel([gates(4), []], "mul")]) for _ in range(2)),
    ],
    "product of three": lambda: [
        Conv(2, 3),
        Parallel([block(2), Sequential([Conv(1, 3)]), [Residual(block(2))]], "mul"),
    ],
    "everything": lambda: [
        Sequential([Conv(4, 3), Activation("relu")]),
        Parallel(
            [
                [Residual([Parallel([block(2), []], "concat"), Conv(4, 1)])],
                [Pool(2, 2, padding_mode="valid"), *gates(4)],
                Residual(block(4), shortcut=[Sequential([Conv(4, 1)]), Activation("tanh")]),
            ],
            "mul",
        ),
        Pool(2, 2, padding_mode="valid"),
    ],
}


def network_of(name, rng=0):
    return as_network(STRUCTURES[name](), rng)


def as_network(layers, rng=0):
    return NeuralNetwork([*layers, Flatten(), Linear(3), LogRegression()], rng)


# --- PyTorch --------------------------------------------------------------------------


def torch_twin(layers, torch, twins):
    """The same modules; each Conv and Linear is put into `twins` with its own, in order."""
    nn = torch.nn

    class Joined(nn.Module):
        def __init__(self, branches, mode):
            super().__init__()
            self.branches, self.mode = nn.ModuleList(branches), mode

        def forward(self, x):
            outputs = [branch(x) for branch in self.branches]
            if self.mode == "concat":
                return torch.cat(outputs, 1)
            if any(output.ndim == 4 for output in outputs):
                outputs = [o if o.ndim == 4 else o[:, :, None, None] for o in outputs]
            total = outputs[0]
            for output in outputs[1:]:
                total = total + output if self.mode == "sum" else total * output
            return total

    def weighted(layer, module, weight):
        module.weight.data = torch.tensor(np.ascontiguousarray(weight))
        module.bias.data = torch.tensor(layer.b)
        twins.append((layer, module))
        return module

    def convert(layer):
        if isinstance(layer, Sequential):
            return torch_twin(layer.layers, torch, twins)
        if isinstance(layer, Residual):
            shortcut = torch_twin(layer.shortcut or [], torch, twins)
            return Joined([torch_twin(layer.layers, torch, twins), shortcut], "sum")
        if isinstance(layer, Parallel):
            branches = [
                branch if isinstance(branch, list) else [branch] for branch in layer.branches
            ]
            return Joined([torch_twin(branch, torch, twins) for branch in branches], layer.mode)
        if isinstance(layer, Conv):
            pads = {"same": layer.filter_shape[0] // 2, "valid": 0}.get(
                layer.padding_mode, layer.padding_mode
            )
            shape = layer.W.shape[0], layer.n_feats, layer.filter_shape, layer.strides, pads
            return weighted(layer, nn.Conv2d(*shape), layer.W.swapaxes(0, 1))
        if isinstance(layer, Linear):
            return weighted(layer, nn.Linear(*layer.W.shape), layer.W.T)
        if isinstance(layer, Activation):
            return {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}[layer.type]()
        if isinstance(layer, GlobalAveragePool):
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.MaxPool2d(2) if isinstance(layer, Pool) else nn.Flatten()

    return nn.Sequential(*map(convert, layers))
