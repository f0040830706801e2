"""What a network sees of dimensions that wrap: sine and cosine."""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jflow.bijector import Array


class Features(NamedTuple):
    """How many features a dimension has, and the map from dimensions to features.

    `apply(x, places)` takes the dimensions of the numbers `places`, `(..., k)`, to
    `(..., k * count)`; a number past the last dimension stands for nothing.
    """

    count: int
    apply: Callable[[Array, Any], Array]


def periodic_features(owner: str, dimensions: int, periodic: Any) -> Features:
    """The dimensions as they are, or cosine and sine of those that wrap.

    Args:
        owner: the network's name, for messages.
        dimensions: how many there are.
        periodic: a (lower, upper) pair, or one for each dimension with None for those
            that do not wrap; None where none does.

    Raises:
        ValueError: another number of pairs than dimensions.
    """
    if periodic is None:
        return Features(1, lambda x, places: x)
    if len(periodic) == 2 and all(isinstance(end, Real) for end in periodic):
        periodic = [periodic] * dimensions
    if len(periodic) != dimensions:
        raise ValueError(
            f"{owner}: periodic names {len(periodic)} dimensions, the event has "
            f"{dimensions}; give one (lower, upper) or None for each."
        )
    wraps = np.array([pair is not None for pair in periodic] + [False])
    pairs = np.array([pair or (0.0, 1.0) for pair in periodic] + [(0.0, 1.0)])

    def apply(x, places):
        lower, upper = (jnp.asarray(p, x.dtype)[places] for p in pairs.T)
        angle = 2 * math.pi * (x - lower) / (upper - lower)
        wrapped = jnp.asarray(wraps)[places]
        # A sine has no use for an argument of 1e30.
        angle = jnp.where(wrapped, jnp.clip(angle, -1e6, 1e6), 0)
        first = jnp.where(wrapped, jnp.cos(angle), x)
        both = jnp.stack([first, jnp.sin(angle)], axis=-1)
        return both.reshape(*x.shape[:-1], -1)

    return Features(2, apply)
