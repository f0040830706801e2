"""Structures (who conditions whom) and fixed layers, one file per idea."""

from jflow.bijectors.autoregressive import autoregressive
from jflow.bijectors.block_autoregressive import block_autoregressive
from jflow.bijectors.bounds import bounded
from jflow.bijectors.coupling import coupling
from jflow.bijectors.elementwise import diagonal_scale, elementwise
from jflow.bijectors.linear import invertible_linear, low_rank_linear
from jflow.bijectors.norm import actnorm, batch_norm
from jflow.bijectors.permutations import permutation, random_permutation, reverse
from jflow.bijectors.pixels import dequantize, logit, rescale, training_noise
from jflow.bijectors.planar import planar
from jflow.bijectors.radial import radial
from jflow.bijectors.reshape import flatten, reshape, squeeze, unsqueeze
from jflow.bijectors.spectral import dct, haar, haar_squeeze
from jflow.bijectors.sylvester import sylvester
from jflow.bijectors.whiten import triangular_affine, whitening

__all__ = [
    "actnorm",
    "autoregressive",
    "batch_norm",
    "block_autoregressive",
    "bounded",
    "coupling",
    "dct",
    "dequantize",
    "diagonal_scale",
    "elementwise",
    "flatten",
    "haar",
    "haar_squeeze",
    "invertible_linear",
    "logit",
    "low_rank_linear",
    "permutation",
    "planar",
    "radial",
    "random_permutation",
    "rescale",
    "reshape",
    "reverse",
    "squeeze",
    "sylvester",
    "training_noise",
    "triangular_affine",
    "unsqueeze",
    "whitening",
]
