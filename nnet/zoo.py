"""Well-known small networks: functions that return a list of layers, the loss included.

    network = NeuralNetwork(zoo.resnet8(n_classes=10), rng=0).fit(X, y)

Each is for images of about the size that it names, of any number of channels and with values
around 0: a `Standardize()` before the others sees to that.
"""

from nnet.layers import (
    Activation,
    BatchNorm,
    Conv,
    ConvTranspose,
    DepthwiseConv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    Linear,
    LogRegression,
    Parallel,
    Pool,
    Residual,
)
from nnet.layers.activation import FUNCTIONS
from nnet.layers.arguments import as_count, as_int, as_word
from nnet.layers.dropout import as_rate
from nnet.layers.hints import with_hints
from nnet.layers.linear import scores_layer


@with_hints()
def lenet5(n_classes=10, activation="tanh"):
    """LeNet-5, for images of 28x28: LeCun et al. 1998, "Gradient-based learning applied to
    document recognition", section II.B; every feature sees all channels, and the last layer is a
    softmax.

    Parameters
    ----------
    n_classes : int
    activation : str
        As for `Activation`.
    """
    n_classes = as_int(n_classes, "n_classes", 2)
    activation = as_word(activation, "activation", tuple(FUNCTIONS))
    return [
        Conv(6, 5, weight_scale="glorot"),
        Activation(activation),
        Pool(2, 2, mode="avg"),
        Conv(16, 5, padding_mode="valid", weight_scale="glorot"),
        Activation(activation),
        Pool(2, 2, mode="avg"),
        Flatten(),
        Linear(120, weight_scale="glorot"),
        Activation(activation),
        Linear(84, weight_scale="glorot"),
        Activation(activation),
        Linear(n_classes, weight_scale="glorot"),
        LogRegression(),
    ]


@with_hints()
def mnist_net(n_classes=10, weight_decay=0.02):
    """Two convolutions, for images of 28x28: 97 to 98 % right on MNIST after 4,000 images.

    Parameters
    ----------
    n_classes : int
    weight_decay : float
        Of the last layer, which has most of the weights.
    """
    return [
        Conv(12, 5),
        Activation("relu"),
        Pool(2, 2),
        Conv(16, 5),
        Activation("relu"),
        Flatten(),
        Linear(as_int(n_classes, "n_classes", 2), weight_decay=weight_decay),
        LogRegression(),
    ]


@with_hints()
def all_conv(n_classes=10, n_feats=96, dropout=0.5):
    """All-CNN-C, for images of 32x32: Springenberg et al. 2015, "Striving for simplicity: the all
    convolutional net", table 1. Strides take the place of pooling.

    Parameters
    ----------
    n_classes : int
    n_feats : int
        Of the first layers; twice as many after the first stride.
    dropout : float
        Behind each stride; of the image, 0.2 unless this is 0.
    """
    n_classes = as_int(n_classes, "n_classes", 2)
    dropout = as_rate(dropout, "dropout")
    widths = [(n_feats, 3, 1)] * 2 + [(n_feats, 3, 2)]
    widths += [(2 * n_feats, 3, 1)] * 2 + [(2 * n_feats, 3, 2)]
    widths += [(2 * n_feats, 3, 1), (2 * n_feats, 1, 1)]
    layers: list[Layer] = [Dropout(0.2 if dropout else 0.0)]
    for width, size, stride in widths:
        layers += [Conv(width, size, stride), Activation("relu")]
        if stride == 2:
            layers.append(Dropout(dropout))
    return [*layers, Conv(n_classes, 1), GlobalAveragePool(), LogRegression()]


@with_hints()
def mini_vgg(n_classes=10, n_feats=32, n_blocks=3, dropout=0.3):
    """Blocks of two 3x3 convolutions and a maximum, for images of 32x32: Simonyan and Zisserman
    2015, "Very deep convolutional networks", with batch normalisation.

    Parameters
    ----------
    n_classes : int
    n_feats : int
        Of the first block; each has twice as many as the one before.
    n_blocks : int
        Each halves the image.
    dropout : float
        After each block.
    """
    layers: list[Layer] = []
    dropout = as_rate(dropout, "dropout")
    for block in range(as_count(n_blocks, "n_blocks")):
        width = n_feats * 2**block
        layers += [*_conv(width), *_conv(width), Pool(2, 2), Dropout(dropout)]
    return [*layers, *_head(n_classes)]


@with_hints()
def resnet8(n_classes=10, n_feats=16):
    """A residual network of 8 layers with weights, for images of 32x32: He et al. 2016, "Deep
    residual learning for image recognition", section 4.2 with n = 1; where the size changes,
    shortcuts are convolutions of 1x1.

    Parameters
    ----------
    n_classes : int
    n_feats : int
        Of the first stage; the other two have twice and four times as many.
    """
    layers = _conv(n_feats)
    for width, stride in ((n_feats, 1), (2 * n_feats, 2), (4 * n_feats, 2)):
        f = [*_conv(width, 3, stride), Conv(width, 3, use_bias=False), BatchNorm()]
        shortcut = None if stride == 1 else [Conv(width, 1, stride, use_bias=False), BatchNorm()]
        layers += [Residual(f, shortcut), Activation("relu")]
    return [*layers, *_head(n_classes)]


@with_hints()
def mobile_small(n_classes=10, n_feats=16):
    """Depthwise separable convolutions, for images of 32x32: Howard et al. 2017, "MobileNets",
    section 3.1, of four blocks.

    Parameters
    ----------
    n_classes : int
    n_feats : int
        Of the first layer; blocks have twice, twice, four times and four times as many.
    """
    layers = _conv(n_feats)
    for factor, stride in ((2, 1), (2, 2), (4, 1), (4, 2)):
        layers += [DepthwiseConv(3, stride, use_bias=False), BatchNorm(), Activation("relu")]
        layers += _conv(factor * n_feats, 1)
    return [*layers, *_head(n_classes)]


@with_hints()
def small_unet(n_classes=2, n_feats=16, depth=2):
    """A label for each pixel: Ronneberger et al. 2015, "U-Net: convolutional networks for
    biomedical image segmentation", with padded convolutions and batch normalisation.

    Parameters
    ----------
    n_classes : int
    n_feats : int
        At full size; twice as many after each halving.
    depth : int
        How often images are halved: their sides are multiples of 2 ** depth.
    """

    def level(depth, width):
        """Layers that keep the size of images, with what happens at half the size inside."""
        layers = [*_conv(width), *_conv(width)]
        if depth > 0:
            below = [Pool(2, 2), *level(depth - 1, 2 * width), ConvTranspose(width, 2, 2)]
            layers += [Parallel([[], below], "concat"), *_conv(width), *_conv(width)]
        return layers

    scores = Conv(as_int(n_classes, "n_classes", 2), 1)
    return [*level(as_int(depth, "depth", 0), n_feats), scores, LogRegression()]


def _conv(n_feats, filter_shape=3, strides=1):
    """A convolution that is normalised: BatchNorm adds what a bias would."""
    conv = Conv(n_feats, filter_shape, strides, use_bias=False)
    return [conv, BatchNorm(), Activation("relu")]


def _head(n_classes):
    """From features of images to classes."""
    return [GlobalAveragePool(), scores_layer(as_int(n_classes, "n_classes", 2)), LogRegression()]
