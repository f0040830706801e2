"""jflow: normalizing flows as pure functions, for JAX."""

from jflow import (
    bases,
    bijectors,
    calibration,
    diagnostics,
    latent,
    models,
    nets,
    parallel,
    scalars,
    train,
)
from jflow.base import Base, class_normal, diagonal_normal, logistic, normal
from jflow.bases import *  # noqa: F403
from jflow.bases import __all__ as _bases
from jflow.bijector import Bijector
from jflow.bijectors import *  # noqa: F403
from jflow.bijectors import __all__ as _bijectors
from jflow.combinators import chain, frozen, identity, invert, remat, repeat, split
from jflow.compilation import compiler_options
from jflow.conditions import embed_condition, standardise_condition
from jflow.diagnostics import bits_per_dim, check_bijector
from jflow.flow import Flow, flow
from jflow.train import fit, load, save
from jflow.version import __version__ as __version__

__all__ = [
    *_bases,
    *_bijectors,
    "Base",
    "Bijector",
    "Flow",
    "bases",
    "bijectors",
    "bits_per_dim",
    "calibration",
    "chain",
    "check_bijector",
    "class_normal",
    "compiler_options",
    "diagnostics",
    "diagonal_normal",
    "embed_condition",
    "fit",
    "flow",
    "frozen",
    "identity",
    "invert",
    "latent",
    "load",
    "logistic",
    "models",
    "nets",
    "normal",
    "parallel",
    "remat",
    "repeat",
    "save",
    "scalars",
    "split",
    "standardise_condition",
    "train",
]
