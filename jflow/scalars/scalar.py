"""What a scalar is: a monotone map of one real variable, with raw parameters.

Structures (`elementwise`, `coupling`) decide where the raw parameters come from. Zero
raw parameters give the identity wherever a family contains it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jflow.bijector import Array


class Scalar(NamedTuple):
    """A family of monotone maps of the real line.

    Attributes:
        size: how many raw parameters one variable takes.
        forward: `(raw, x) -> (y, log_derivative)`; `raw` is `(*x.shape, size)` or
            broadcasts to it, `y` and `log_derivative` have the shape of `x`.
        inverse: `(raw, y) -> (x, log_derivative)`, that of the inverse.
        learned: initial values of the last `len(learned)` raw parameters, which are
            learned directly, per channel, instead of being predicted by a network; each
            a number, or one for each place where the family differs between places.
        take: the restriction to some places (static indices) of the last axis of `x`,
            where the family differs from place to place; None where it does not.
    """

    size: int
    forward: Callable[[Array, Array], tuple[Array, Array]]
    inverse: Callable[[Array, Array], tuple[Array, Array]]
    learned: tuple[float | tuple[float, ...], ...] = ()
    take: Callable[[np.ndarray], "Scalar"] | None = None


def restricted(scalar: Scalar, places: np.ndarray | None) -> Scalar:
    """The scalar of some places of the last axis; None stands for all of them."""
    return scalar if scalar.take is None or places is None else scalar.take(places)


def unpack(raw: Array, x: Array) -> list[Array]:
    """The raw parameters one by one, in float32 or the data's better precision."""
    raw = raw.astype(jnp.promote_types(jnp.result_type(raw, x), jnp.float32))
    if raw.ndim == 1:
        return list(raw)
    # Split, not indexed: cotangents are then concatenated, in loops that vectorise. As
    # networks put them out, side by side: XLA concatenates again for another shape.
    rows = jnp.swapaxes(raw, -1, -2).reshape(*raw.shape[:-2], -1)
    return jnp.split(rows, raw.shape[-1], axis=-1)


def promote(raw: Array, x: Array) -> tuple[Array, Array]:
    """Raw parameters and variable in one dtype: float32, or the better of theirs."""
    dtype = jnp.promote_types(jnp.result_type(raw, x), jnp.float32)
    return raw.astype(dtype), x.astype(dtype)
