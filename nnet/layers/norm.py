"""BatchNorm and GroupNorm: each channel to about zero mean and unit variance, then as learned."""

import numpy as np

from nnet._dense import batch_norm, bprop_batch_norm, bprop_group_norm, group_norm
from nnet.layers.arguments import (
    ArrayOption,
    Option,
    as_count,
    as_finite,
    as_share,
    check_axes,
    check_is_array,
)
from nnet.layers.base import Layer, ParamMixin, sees_all
from nnet.layers.hints import CHANNELS_ARE_FOUND, with_hints

FLOAT64 = np.dtype(np.float64)


class Norm(Layer, ParamMixin):
    """The common half: a factor gamma and a term beta for each channel."""

    gamma_grad: np.ndarray
    beta_grad: np.ndarray

    gamma = ArrayOption()
    beta = ArrayOption()
    eps = Option(as_finite, 0.0, "expected a finite number greater than 0")

    def __init__(self, eps):
        self.eps = eps
        self.gamma = self.beta = None

    def _setup(self, input_shape, rng):
        shapes = self.array_shapes(input_shape)
        ones = ("gamma", "running_var")
        self._set_arrays(
            {name: np.full(shape, name in ones, self.dtype) for name, shape in shapes.items()}
        )

    def array_shapes(self, input_shape):
        self.output_shape(input_shape)
        return dict.fromkeys(self.param_names() + self.state_names(), (input_shape[1],))

    def param_names(self):
        return ["gamma", "beta"]

    def params(self):
        if self.gamma is None:
            raise ValueError(f"{self!r} has no parameters yet, expected a call of fit or build")
        return [self.gamma, self.beta]

    def param_grads(self):
        return [self.gamma_grad, self.beta_grad]

    def _gradients(self, input):
        """The arrays for those of the images, of gamma and of beta."""
        imgs_grad = self._scratch(input.shape, input.dtype) if self.need_input_grad else None
        return imgs_grad, self.gamma_grad, self.beta_grad

    def output_shape(self, input_shape):
        if len(input_shape) == 2:
            check_axes(input_shape, "n_imgs, n_features")
        else:
            check_axes(input_shape, "n_imgs, n_channels, img_h, img_w", ", or 2 (n_imgs, n_feats)")
        return tuple(input_shape)


class BatchNorm(Norm):
    """Normalise each channel over the images of a batch, and over their pixels.

    Ioffe and Szegedy 2015, "Batch normalization", with the conventions of PyTorch. A network
    predicts by running statistics, which training gathers; so does a frozen layer (`trainable =
    False`) train. A batch with a single value for each channel, such as a last batch of one
    image without pixels, gives beta and leaves the running statistics alone.

    Parameters
    ----------
    momentum : float
        From 0 to 1: the share of each batch in the running statistics.
    eps : float
        Greater than 0: added to the variance.

    Attributes
    ----------
    gamma, beta : array (n_channels,)
        The output is (input - mean) / sqrt(var + eps) * gamma + beta. Weight decay spares both.
    running_mean, running_var : array (n_channels,)
        The variance is that of a sample, divided by one less than the number of values. An image
        of weight 2 counts as two; weights that are small for their number count by their ratios:
        max(sum(w), sum(w)^2 / sum(w^2)) images.
    """

    _COMPUTES_RELU = True
    momentum = Option(as_share)
    running_mean = ArrayOption()
    running_var = ArrayOption()

    @with_hints(CHANNELS_ARE_FOUND)
    def __init__(self, *, momentum=0.1, eps=1e-5):
        super().__init__(eps)
        self.momentum = momentum
        self.running_mean = self.running_var = None

    def state_names(self):
        return ["running_mean", "running_var"]

    def nonnegative_names(self):
        return ["running_var"]

    def fprop(self, input, activation=None):
        check_is_array(input, "input")
        work, per_channel = self._work, (input.shape[1],)
        learns = self.training and (self.trainable if work is None else work.trainable)
        weights = None if work is None or not learns else work.shared.weights
        try:
            output, mean, inv_std = batch_norm(
                input,
                self.gamma,
                self.beta,
                self.running_mean,
                self.running_var,
                self._output(input),
                self._array("mean", per_channel, FLOAT64),
                self._array("inv_std", per_channel, FLOAT64),
                training=learns,
                momentum=self.momentum,
                eps=self.eps,
                weights=weights,
                activation=activation,
            )
        except TypeError:
            self.params()  # says so if there are none yet
            raise
        if self.training:
            self._kept = input, mean, inv_std, learns, weights
        return output

    def bprop(self, output_grad, activation=None):
        input, mean, inv_std, learns, weights = self._kept
        return bprop_batch_norm(
            input,
            output_grad,
            self.gamma,
            self.beta,
            mean,
            inv_std,
            *self._gradients(input),
            training=learns,
            weights=weights,
            activation=activation,
            need_imgs_grad=self.need_input_grad,
        )[0]


class GroupNorm(Norm):
    """Normalise groups of channels in each image, over their pixels.

    Wu and He 2018, "Group normalization". With one group this is layer normalisation, with as
    many as channels instance normalisation; a group of a single value gives beta.

    Parameters
    ----------
    n_groups : int
        Divides the number of channels.
    eps : float
        Greater than 0: added to the variance.

    Attributes
    ----------
    gamma, beta : array (n_channels,)
        The output is (input - mean) / sqrt(var + eps) * gamma + beta. Weight decay spares both.
    """

    _COMPUTES_RELU = True
    n_groups = Option(as_count)

    reach = sees_all

    @with_hints(CHANNELS_ARE_FOUND)
    def __init__(self, n_groups, *, eps=1e-5):
        super().__init__(eps)
        self.n_groups = n_groups

    def fprop(self, input, activation=None):
        per_group = len(input), self.n_groups
        try:
            output, mean, inv_std = group_norm(
                input,
                self.gamma,
                self.beta,
                self.n_groups,
                self._output(input),
                self._array("mean", per_group, FLOAT64),
                self._array("inv_std", per_group, FLOAT64),
                eps=self.eps,
                activation=activation,
            )
        except TypeError:
            self.params()  # says so if there are none yet
            raise
        if self.training:
            self._kept = input, mean, inv_std
        return output

    def bprop(self, output_grad, activation=None):
        input, mean, inv_std = self._kept
        return bprop_group_norm(
            input,
            output_grad,
            self.gamma,
            self.beta,
            mean,
            inv_std,
            *self._gradients(input),
            activation=activation,
            need_imgs_grad=self.need_input_grad,
        )[0]

    def output_shape(self, input_shape):
        shape = super().output_shape(input_shape)
        if shape[1] % self.n_groups:
            raise ValueError(
                f"expected a channel count that n_groups = {self.n_groups} divides, got {shape[1]}"
            )
        return shape
