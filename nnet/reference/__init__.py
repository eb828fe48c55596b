"""The specification: what the compiled kernels compute, written to be read.

The four kernels `conv_bc01`, `bprop_conv_bc01`, `pool_bc01` and
`bprop_pool_bc01` as plain Python loops: same names, same arguments, same
results. Swap the import, run the same call compiled, and compare::

    from nnet.reference import conv_bc01   # loops, to read
    from nnet import conv_bc01             # compiled, to use

Only `n_threads` is missing, because loops in Python run on one thread. Sums
are taken in double precision for both dtypes. Arguments are checked lightly;
the compiled kernels check everything.

`conv_matrix` writes a convolution as one dense matrix, and im2col.py as one
matrix product per group: `conv_bc01_im2col`, `bprop_conv_bc01_im2col`.
resampling.py has layers that make images larger: `conv_transpose_bc01`,
`pad_bc01`, `upsample_bc01`; activations.py has `activation`.
The first steps, in one dimension and with a single channel, are in
one_d.py: `conv_1d`, `input_1d_grads`, `param_1d_grads` and so on. Batch and group
normalisation are in norm.py, losses in losses.py; affine.py has `warp`, what augmentations
that move pixels come to.
"""

from nnet.reference.activations import activation
from nnet.reference.affine import warp
from nnet.reference.im2col import bprop_conv_bc01_im2col, conv_bc01_im2col
from nnet.reference.loops import (
    border_index,
    bprop_conv_bc01,
    bprop_pool_bc01,
    conv_bc01,
    conv_matrix,
    pool_bc01,
)
from nnet.reference.losses import absolute_error, binary_cross_entropy, cross_entropy, huber
from nnet.reference.norm import batch_norm, bprop_batch_norm, bprop_group_norm, group_norm
from nnet.reference.one_d import (
    conv_1d,
    conv_1d_batch,
    conv_2d,
    conv_2d_batch,
    input_1d_grads,
    input_1d_grads_batch,
    input_2d_grads,
    input_2d_grads_batch,
    param_1d_grads,
    param_1d_grads_batch,
    param_2d_grads,
    param_2d_grads_batch,
)
from nnet.reference.resampling import (
    bprop_pad_bc01,
    bprop_upsample_bc01,
    conv_transpose_bc01,
    pad_bc01,
    upsample_bc01,
)

__all__ = [
    "absolute_error",
    "activation",
    "batch_norm",
    "binary_cross_entropy",
    "border_index",
    "bprop_batch_norm",
    "bprop_conv_bc01",
    "bprop_conv_bc01_im2col",
    "bprop_group_norm",
    "bprop_pad_bc01",
    "bprop_pool_bc01",
    "bprop_upsample_bc01",
    "conv_1d",
    "conv_1d_batch",
    "conv_2d",
    "conv_2d_batch",
    "conv_bc01",
    "conv_bc01_im2col",
    "conv_matrix",
    "conv_transpose_bc01",
    "cross_entropy",
    "group_norm",
    "huber",
    "input_1d_grads",
    "input_1d_grads_batch",
    "input_2d_grads",
    "input_2d_grads_batch",
    "pad_bc01",
    "param_1d_grads",
    "param_1d_grads_batch",
    "param_2d_grads",
    "param_2d_grads_batch",
    "pool_bc01",
    "upsample_bc01",
    "warp",
]
