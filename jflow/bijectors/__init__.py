"""Structures (who conditions whom) and fixed layers, one file per idea."""

from jflow.bijectors.autoregressive import autoregressive
from jflow.bijectors.block_autoregressive import block_autoregressive
from jflow.bijectors.bounds import bounded
from jflow.bijectors.cholesky import (
    correlation,
    correlation_cholesky,
    positive_definite,
    positive_definite_cholesky,
)
from jflow.bijectors.coupling import coupling
from jflow.bijectors.elementwise import diagonal_scale, elementwise
from jflow.bijectors.linear import invertible_linear, low_rank_linear
from jflow.bijectors.maps import (
    arctanh,
    exp,
    leaky_relu,
    log,
    power,
    sigmoid,
    sinh_arcsinh,
    softplus,
    tanh,
)
from jflow.bijectors.norm import actnorm, batch_norm
from jflow.bijectors.ordered import ordered
from jflow.bijectors.permutations import (
    permutation,
    random_permutation,
    reverse,
    roll,
)
from jflow.bijectors.pixels import dequantize, logit, rescale, training_noise
from jflow.bijectors.planar import planar
from jflow.bijectors.radial import radial
from jflow.bijectors.reshape import flatten, reshape, squeeze, unsqueeze
from jflow.bijectors.simplex import simplex
from jflow.bijectors.spectral import dct, haar, haar_squeeze
from jflow.bijectors.sylvester import sylvester
from jflow.bijectors.whiten import triangular_affine, whitening

__all__ = [
    "actnorm",
    "arctanh",
    "autoregressive",
    "batch_norm",
    "block_autoregressive",
    "bounded",
    "correlation",
    "correlation_cholesky",
    "coupling",
    "dct",
    "dequantize",
    "diagonal_scale",
    "elementwise",
    "exp",
    "flatten",
    "haar",
    "haar_squeeze",
    "invertible_linear",
    "leaky_relu",
    "log",
    "logit",
    "low_rank_linear",
    "ordered",
    "permutation",
    "planar",
    "positive_definite",
    "positive_definite_cholesky",
    "power",
    "radial",
    "random_permutation",
    "rescale",
    "reshape",
    "reverse",
    "roll",
    "sigmoid",
    "simplex",
    "sinh_arcsinh",
    "softplus",
    "squeeze",
    "sylvester",
    "tanh",
    "training_noise",
    "triangular_affine",
    "unsqueeze",
    "whitening",
]
