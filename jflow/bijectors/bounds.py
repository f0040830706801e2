"""Data between bounds, mapped to the whole line."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jflow.bijector import Bijector, sum_event
from jflow.bijectors.support import log_positive


def bounded(lower: Any = None, upper: Any = None) -> Bijector:
    """From the interval of each dimension to the real line.

    Between two bounds `z = log((x - lower) / (upper - x))`; above a lower one
    `z = log(expm1(x - lower))`, below an upper one `z = -log(expm1(upper - x))`; with
    neither the identity. The inverses never leave the interval. Outside of it the
    log-det is `-inf`, so such points have no density; a point on a bound, where samples
    may be rounded to, counts as the nearest inside.

    Args:
        lower, upper: numbers, or one for each place of the event (arrays that broadcast
            to it); None or infinite where there is no bound.

    Raises:
        ValueError: a lower bound that is not below its upper bound; at trace time,
            bounds that do not broadcast to the event.

    Example:
        >>> b = bounded(0.0, [1.0, np.inf])
        >>> x, log_det = b.inverse((), jnp.array([[1e30, -1e30]]))
        >>> x.tolist()
        [[1.0, 0.0]]
    """
    low = np.asarray(-math.inf if lower is None else lower, np.float64)
    high = np.asarray(math.inf if upper is None else upper, np.float64)
    low, high = np.broadcast_arrays(low, high)
    if not (low < high).all():
        raise ValueError(
            f"bounded: each lower bound must be below its upper bound, got {lower!r} "
            f"and {upper!r}."
        )
    has_low, has_high = np.isfinite(low), np.isfinite(high)
    # What the formulas of other places never divide by or overflow at.
    low = np.where(has_low, low, np.where(has_high, high - 1, 0))
    high = np.where(has_high, high, low + 1)

    def cases(x, both, above, below, neither):
        pick = jnp.where(has_high, below, neither)
        return jnp.where(has_low, jnp.where(has_high, both, above), pick).astype(
            x.dtype
        )

    def numbers(x):
        try:
            np.broadcast_to(low, x.shape[1:])
        except ValueError:
            raise ValueError(
                f"bounded: bounds of shape {low.shape} do not broadcast to events "
                f"{x.shape[1:]}; give one number, or one for each place."
            ) from None
        return [jnp.asarray(v, x.dtype) for v in (low, high, high - low)]

    def forward(params, x, condition=None, key=None):
        a, b, span = numbers(x)
        # How far the nearest points inside are from the bounds.
        tiny = jnp.finfo(x.dtype).tiny
        first = jnp.maximum(jnp.nextafter(a, b) - a, tiny)
        last = jnp.maximum(b - jnp.nextafter(b, a), tiny)
        inside = ((x >= a) | ~has_low) & ((x <= b) | ~has_high)
        # Distances to the bounds, safe where a point has none or lies outside.
        from_low = jnp.maximum(jnp.where(has_low & inside, x - a, span / 2), first)
        to_high = jnp.maximum(jnp.where(has_high & inside, b - x, span / 2), last)
        z = cases(
            x,
            log_positive(from_low) - log_positive(to_high),
            _log_expm1(from_low),
            -_log_expm1(to_high),
            x,
        )
        log_derivative = cases(
            x,
            jnp.log(span) - log_positive(from_low) - log_positive(to_high),
            from_low - _log_expm1(from_low),
            to_high - _log_expm1(to_high),
            jnp.zeros_like(x),
        )
        log_derivative = jnp.where(inside, log_derivative, -jnp.inf)
        return z, sum_event(log_derivative)

    def inverse(params, z, condition=None, key=None):
        a, b, span = numbers(z)
        share, rest = jax.nn.sigmoid(z), jax.nn.sigmoid(-z)
        between = jnp.where(z < 0, a + span * share, b - span * rest)
        x = cases(
            z,
            jnp.clip(between, a, b),
            a + jax.nn.softplus(z),
            b - jax.nn.softplus(-z),
            z,
        )
        log_derivative = cases(
            z,
            jnp.log(span) + jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z),
            jax.nn.log_sigmoid(z),
            jax.nn.log_sigmoid(-z),
            jnp.zeros_like(z),
        )
        return x, sum_event(log_derivative)

    def init(key, x, condition=None):
        numbers(x)
        return ()

    return Bijector(init, forward, inverse)


def _log_expm1(x):
    """`log(exp(x) - 1)` for x > 0, the inverse of softplus."""
    return x + log_positive(-jnp.expm1(-x))
