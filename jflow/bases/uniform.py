"""The uniform distribution over a box."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jflow.base import Base, check_latents, check_shape
from jflow.bijector import draw, sum_event


def uniform(lower: Any, upper: Any, shape: tuple[int, ...] | None = None) -> Base:
    """The uniform box: `log p(z) = -sum(log(upper - lower))` within, `-inf` outside.

    No parameters. Gradients are zero everywhere, outside included, so the bijector
    before it must keep to the box: a spline with a bounded box, or a sigmoid. The
    temperature has no effect: samples must stay in the box, and a uniform density
    raised to any power is the same uniform density.

    Args:
        lower: the lower corner, of any shape that broadcasts to the event's.
        upper: the upper corner, above `lower` in every coordinate.
        shape: the event's shape; without it, that of the corners.

    Raises:
        ValueError: corners that are not finite, not ordered or not of that shape.

    Example:
        >>> base = uniform(0.0, 2.0, (2,))
        >>> base.log_prob((), jnp.array([[1.0, 1.0], [1.0, 3.0]]))
        Array([-1.3862944,       -inf], dtype=float32)
    """
    lower, upper = np.asarray(lower, float), np.asarray(upper, float)
    if shape is None:
        shape = np.broadcast_shapes(lower.shape, upper.shape)
    shape = check_shape("uniform", shape)
    if not (np.isfinite(lower) & np.isfinite(upper) & (lower < upper)).all():
        raise ValueError(
            f"uniform: lower must be below upper and both finite, got {lower} and "
            f"{upper}."
        )
    lower, upper = (np.broadcast_to(corner, shape) for corner in (lower, upper))
    log_width = np.log(upper - lower)

    def init(key, z, condition=None):
        check_latents("uniform", z, shape)
        return ()

    def log_prob(params, z, condition=None, temperature=1.0):
        low, high = jnp.asarray(lower, z.dtype), jnp.asarray(upper, z.dtype)
        inside = (z >= low) & (z <= high)
        return sum_event(jnp.where(inside, -jnp.asarray(log_width, z.dtype), -jnp.inf))

    def sample(params, key, n, condition=None, temperature=1.0):
        # Rounding may lift a draw next to the upper side beyond it.
        unit = draw(jax.random.uniform, key, (n, *shape))
        return jnp.clip(lower + (upper - lower) * unit, lower, upper)

    return Base(init, log_prob, sample, shape)
