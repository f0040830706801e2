"""Turning a circle.

Rezende et al. 2020, section 2.1, https://arxiv.org/abs/2002.02428
"""

import math

import jax.numpy as jnp

from jflow.bijector import Array
from jflow.scalars.scalar import Scalar, promote


def circular_shift(bound: float | tuple[float, float] = math.pi) -> Scalar:
    """`y = x + raw`, wrapped into the box; its ends are one point. Log-derivative 0.

    Args:
        bound: the box is `-bound .. bound`, or `(lower, upper)`.

    Raises:
        ValueError: `bound` is no interval of positive length.

    Example:
        >>> law = circular_shift((0.0, 1.0))
        >>> y, log_derivative = law.forward(jnp.full((1, 1), 0.5), jnp.full(1, 0.75))
        >>> float(y[0])
        0.25
    """
    lower, upper = interval("circular_shift", bound)

    def turn(raw, x, sign):
        raw, value = promote(raw, x)
        y = wrap(value + sign * raw[..., 0], lower, upper)
        return y.astype(x.dtype), jnp.zeros_like(value)

    return Scalar(1, lambda raw, x: turn(raw, x, 1), lambda raw, y: turn(raw, y, -1))


def wrap(x: Array, lower: float, upper: float) -> Array:
    """The point of the circle `lower .. upper`, whole turns aside."""
    wrapped = lower + jnp.mod(x - lower, upper - lower)
    return jnp.clip(wrapped, lower, upper)


def interval(owner: str, bound: float | tuple[float, float]) -> tuple[float, float]:
    """The box `-bound .. bound`, or the ends given; ValueError without a length."""
    lower, upper = (-bound, bound) if isinstance(bound, int | float) else bound
    if not -math.inf < lower < upper < math.inf:
        raise ValueError(
            f"{owner}: bound={bound!r} is no interval of positive length; give a "
            "positive number or (lower, upper)."
        )
    return lower, upper
