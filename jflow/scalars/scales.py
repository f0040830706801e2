"""Scale maps: how a raw number becomes the logarithm of a positive scale.

| name | log-scale of raw u | who |
| --- | --- | --- |
| `soft_clip` | u / (1 + abs(u) / log 1000): scale between 1/1000 and 1000 | zuko |
| `exp` | u, held within -50 .. 50 so that nothing overflows | NICE's last layer |
| `tanh` | a tanh(u), the factor a learned, 1 at first | RealNVP |
| `sigmoid` | log sigmoid(u + 2): only contracts, 0.88 at u = 0 | Glow |
| `softplus` | log softplus(u + log(e - 1)): the scale is 1 at u = 0 | StarFlow |
| `atan` | 2 (2 / pi) atan(u): between e^-2 and e^2 | FrEIA |
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jflow.bijector import Array

EXP_LIMIT = 50.0
SOFT_CLIP_LIMIT = math.log(1000.0)
SOFTPLUS_SHIFT = math.log(math.e - 1.0)
ATAN_LIMIT = 2.0


class ScaleMap(NamedTuple):
    """`log_scale(u, *learned)`, and the learned factors' initial values."""

    log_scale: Callable
    learned: tuple[float, ...] = ()


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def soft_clip(raw: Array, limit: float) -> Array:
    """`raw / (1 + |raw| / limit)`, strictly between `-limit` and `limit`."""
    return raw / (1 + jnp.abs(raw / limit))


@soft_clip.defjvp
def _soft_clip_jvp(limit, primals, tangents):
    (raw,), (tangent,) = primals, tangents
    grown = 1 + jnp.abs(raw / limit)
    return raw / grown, tangent / grown**2


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def exp_soft_clip(raw: Array, limit: float) -> Array:
    """`exp(soft_clip(raw, limit))`; its derivative is the result times
    `1 / (1 + |raw| / limit)**2`, of which XLA computes no part twice.
    """
    return _exp_soft_clip(raw, limit)[0]


@exp_soft_clip.defjvp
def _exp_soft_clip_jvp(limit, primals, tangents):
    result, shrink = _exp_soft_clip(*primals, limit)
    return result, tangents[0] * (result * shrink**2)


def _exp_soft_clip(raw, limit):
    shrink = 1 / (1 + jnp.abs(raw / limit))
    return jnp.exp(raw * shrink), shrink


def _log_softplus(u):
    """`log(softplus(u))`; below -15 softplus(u) is exp(u) to float32's last digit."""
    safe = jnp.maximum(u, -15.0)
    return jnp.where(u > -15.0, jnp.log(jax.nn.softplus(safe)), u - 0.5 * jnp.exp(u))


SCALE_MAPS = {
    "soft_clip": ScaleMap(lambda u: soft_clip(u, SOFT_CLIP_LIMIT)),
    "exp": ScaleMap(lambda u: jnp.clip(u, -EXP_LIMIT, EXP_LIMIT)),
    "tanh": ScaleMap(lambda u, factor: factor * jnp.tanh(u), (1.0,)),
    "sigmoid": ScaleMap(lambda u: jnp.maximum(jax.nn.log_sigmoid(u + 2.0), -EXP_LIMIT)),
    "softplus": ScaleMap(
        lambda u: jnp.maximum(_log_softplus(u + SOFTPLUS_SHIFT), -EXP_LIMIT)
    ),
    "atan": ScaleMap(lambda u: ATAN_LIMIT * (2.0 / math.pi) * jnp.arctan(u)),
}


def scale_map(name: str) -> ScaleMap:
    """The scale map of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in SCALE_MAPS:
        raise ValueError(f"scale: expected one of {sorted(SCALE_MAPS)}, got {name!r}.")
    return SCALE_MAPS[name]
