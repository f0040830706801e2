"""Structures (who conditions whom) and fixed layers, one file per idea."""

from jflow.bijectors.autoregressive import autoregressive
from jflow.bijectors.coupling import coupling
from jflow.bijectors.elementwise import diagonal_scale, elementwise
from jflow.bijectors.linear import invertible_linear
from jflow.bijectors.norm import actnorm, batch_norm
from jflow.bijectors.permutations import permutation, random_permutation, reverse
from jflow.bijectors.pixels import dequantize, logit, rescale, training_noise
from jflow.bijectors.reshape import flatten, reshape, squeeze, unsqueeze
from jflow.bijectors.whiten import triangular_affine, whitening

__all__ = [
    "actnorm",
    "autoregressive",
    "batch_norm",
    "coupling",
    "dequantize",
    "diagonal_scale",
    "elementwise",
    "flatten",
    "invertible_linear",
    "logit",
    "permutation",
    "random_permutation",
    "rescale",
    "reshape",
    "reverse",
    "squeeze",
    "training_noise",
    "triangular_affine",
    "unsqueeze",
    "whitening",
]
