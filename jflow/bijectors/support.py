"""Points on and outside of the edge of a support, kept finite with their gradients."""

import jax
import jax.numpy as jnp

from jflow.bijector import Array


def tolerance(x: Array) -> float:
    """How far from exact a constraint such as "sums to 1" may be.

    The square root of the dtype's precision, 3e-4 in float32, but not below 1e-6, so
    that points computed in float32 are still points in float64.
    """
    return max(float(jnp.finfo(x.dtype).eps) ** 0.5, 1e-6)


def log_positive(x: Array) -> Array:
    """`log(x)` for x >= 0, where 0 counts as the least positive number.

    Below 1e-31 (in float32) the gradient is 0: times what follows it would overflow.
    """
    info = jnp.finfo(x.dtype)
    exact = jnp.log(jnp.maximum(x, info.tiny))
    steep = jnp.log(jnp.maximum(x, float(info.tiny) / float(info.eps)))
    return steep + jax.lax.stop_gradient(exact - steep)


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
