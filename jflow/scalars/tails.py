"""Straight tails: what a map does outside the interval on which it is defined."""

import math
from collections.abc import Callable

import jax.numpy as jnp

from jflow.bijector import Array


def with_linear_tails(
    inside: Callable[[Array], tuple[Array, Array]], x: Array, lower, upper
) -> tuple[Array, Array]:
    """`f(e) + f'(e) (x - e)` where `e` is x clipped to `lower .. upper`.

    Continuous with its slope, increasing and onto the real line if `inside`, a function
    `x -> (f(x), log f'(x))`, is increasing between the ends. It is never evaluated
    outside of them.
    """
    edge = jnp.where(x < lower, lower, jnp.where(x > upper, upper, x))
    y, log_derivative = inside(edge)
    return y + jnp.exp(log_derivative) * (x - edge), log_derivative


def check_bound(owner: str, bound: float) -> None:
    """Raise ValueError where the half-width of the interval is no positive number."""
    if not 0.0 < bound < math.inf:
        raise ValueError(
            f"{owner}: bound must be positive and finite, got {bound!r}; "
            "5.0 suits standardised data."
        )
