"""`nnet explain`: which implementations of the kernels a network runs on."""

import re

import nnet
from nnet.cli.errors import CliError, refusals
from nnet.cli.options import add_command, path
from nnet.cli.output import write_text
from nnet.cli.predict import load_model
from nnet.explaining import explain
from nnet.layers.spec import SYNTAX, complete, parse_layers

N_CLASSES = 10  # of layers that no data comes with

EXPLAIN_HELP = f"""\
examples:
  nnet explain model.safetensors
  nnet explain --layers "conv16-3x3,relu,pool2" --input-shape 1x28x28

For each layer and operation: the implementation that is taken with its cycles
for an image, as they are estimated, then the others that could be. The backward
passes are the gradients of the images (imgs_grad) and of the filters. For what
processor: see nnet info; NNET_TARGET=avx2 asks for another.

layers, separated by commas, and behind them a linear layer of {N_CLASSES} outputs:
{SYNTAX}
"""


def add_explain(commands):
    command = add_command(
        commands,
        "explain",
        run_explain,
        help="say which implementations a network runs on",
        description="Show which implementations of the kernels a network runs on.",
        epilog=EXPLAIN_HELP,
    )
    add = command.add_argument
    add("model", nargs="?", type=path, help="what nnet train wrote")
    add("--layers", metavar="SPEC", help="instead of a model: see below")
    add(
        "--input-shape",
        metavar="SHAPE",
        help="of the images: CHANNELSxHEIGHTxWIDTH; needed for --layers",
    )
    add("--dtype", choices=("float32", "float64"), default="float32", help="of --layers")


def run_explain(args):
    if (args.model is None) == (args.layers is None):
        raise CliError("expected a model, or --layers with --input-shape")
    if args.layers is not None:
        network = network_of(args.layers, args.input_shape, args.dtype)
    elif args.input_shape is not None:
        raise CliError("--input-shape is for --layers: a model knows the shape of its images")
    else:
        network = load_model(args.model)
    with refusals():
        text = f"{explain(network)}\n"
    write_text(None, text)
    return 0


def network_of(spec, shape, dtype):
    """The network that nnet train would make of these layers."""
    if shape is None:
        raise CliError("--layers needs --input-shape, such as 1x28x28")
    if not re.fullmatch("([0-9]{1,9}x){2}[0-9]{1,9}", shape):
        raise CliError(f"--input-shape is {shape!r}, expected CHANNELSxHEIGHTxWIDTH as in 1x28x28")
    with refusals("--layers: "):
        sizes = tuple(map(int, shape.split("x")))
        layers, _ = complete(parse_layers(spec), sizes, N_CLASSES)
        return nnet.NeuralNetwork(layers).build(sizes, N_CLASSES, dtype)
