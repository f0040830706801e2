"""Powers that do not overflow: far out they go on as logarithms.

A density of 0 needs no exact exponent, but a mixture's responsibilities and every
gradient need one that is finite.
"""

import jax.numpy as jnp

from jflow.bijector import Array, sum_event


def exp_far(t: Array) -> Array:
    """`exp(t)`, continued by its tangent from nine tenths of the largest exponent."""
    limit = 0.9 * jnp.log(jnp.finfo(t.dtype).max)
    return jnp.exp(jnp.minimum(t, limit)) * (1.0 + jnp.maximum(t - limit, 0.0))


def square_far(x: Array) -> Array:
    """`x^2`, continued as `limit^2 (1 + 2 log(|x| / limit))`."""
    limit = jnp.finfo(x.dtype).max ** 0.4
    beyond = jnp.log(jnp.maximum(jnp.abs(x) / limit, 1.0))
    return jnp.clip(x, -limit, limit) ** 2 + 2.0 * limit**2 * beyond


def log1p_square(x: Array) -> Array:
    """`log(1 + x^2)`, from `x = 1e8` on as `2 log|x|`, which is the same number."""
    limit = 1e8
    beyond = jnp.log(jnp.maximum(jnp.abs(x) / limit, 1.0))
    return jnp.log1p(jnp.clip(x, -limit, limit) ** 2) + 2.0 * beyond


def far_normal_log_prob(
    z: Array, mean: Array, log_scale: Array, temperature: float | Array
) -> Array:
    """Diagonal normal log-density `(N,)` that is finite for all finite latents."""
    log_scale = log_scale + jnp.log(temperature)
    square = square_far((z - mean) * jnp.exp(-log_scale))
    return sum_event(-0.5 * (square + jnp.log(2.0 * jnp.pi)) - log_scale)
