"""Increasing vectors, by the logarithms of their steps.

Stan Reference Manual, "Ordered vector", https://mc-stan.org/docs/reference-manual/
"""

import math

import jax
import jax.numpy as jnp

from jflow.bijector import Bijector, sum_event
from jflow.bijectors.support import log_positive, outside_is_impossible, replace_outside


def ordered() -> Bijector:
    """From `x_1 < x_2 < ... < x_K` to the whole space: `(..., K)` to `(..., K)`.

    `z_1 = x_1` and `z_k = log(x_k - x_{k-1})`; log-det `-(z_2 + ... + z_K)`. Axes
    before the last hold further vectors. Where a vector is not ordered the log-det is
    `-inf`. Entries that are equal, as rounding may leave them, count as neighbours.

    Example:
        >>> x, log_det = ordered().inverse((), jnp.zeros((1, 3)))
        >>> x
        Array([[0., 1., 2.]], dtype=float32)
    """

    def init(key, x, condition=None):
        return ()

    def forward(params, x, condition=None, key=None):
        inside = (x[..., 1:] >= x[..., :-1]).all(axis=-1)
        steps = jnp.arange(x.shape[-1], dtype=x.dtype)
        x = replace_outside(inside, x, jnp.broadcast_to(steps, x.shape))
        before = x[..., :-1]
        # How far the next number is.
        here = jax.lax.stop_gradient(before)
        least = jnp.nextafter(here, jnp.full_like(here, jnp.inf)) - here
        least = jnp.maximum(least, jnp.finfo(x.dtype).tiny)
        log_step = log_positive(jnp.maximum(x[..., 1:] - before, least))
        z = jnp.concatenate([x[..., :1], log_step], axis=-1)
        return z, outside_is_impossible(inside, -log_step.sum(axis=-1))

    def inverse(params, z, condition=None, key=None):
        # Steps that floats hold, and their sum.
        largest = math.log(jnp.finfo(z.dtype).max) - math.log(2.0 * z.shape[-1])
        step = jnp.exp(jnp.minimum(z[..., 1:], largest))
        x = jnp.cumsum(jnp.concatenate([z[..., :1], step], axis=-1), axis=-1)
        return x, sum_event(z[..., 1:])

    return Bijector(init, forward, inverse)
