"""Points that obey a constraint up to rounding, and what becomes of the others."""

import jax.numpy as jnp

from jflow.bijector import Array


def tolerance(x: Array) -> float:
    """How far from exact a constraint such as "sums to 1" may be.

    The square root of the dtype's precision, 3e-4 in float32, but not below 1e-6, so
    that points computed in float32 are still points in float64.
    """
    return max(float(jnp.finfo(x.dtype).eps) ** 0.5, 1e-6)


def tiny(x: Array) -> float:
    """What stands for 0 where 0 is just outside: sums of reciprocals still hold."""
    info = jnp.finfo(x.dtype)
    return float(info.tiny) / float(info.eps)


def replace_outside(inside: Array, x: Array, instead: Array) -> Array:
    """`x` where it is inside, elsewhere a point that is; `inside` lacks x's last axes.

    What is computed of the result, and its gradient, is finite.
    """
    extra = tuple(range(inside.ndim, x.ndim))
    return jnp.where(jnp.expand_dims(inside, extra), x, instead)


def outside_is_impossible(inside: Array, log_det: Array) -> Array:
    """The sum over all axes but the batch, `(N,)`; -inf where anything is outside."""
    values = jnp.where(inside, log_det, -jnp.inf)
    return values.sum(axis=tuple(range(1, values.ndim)))
