"""Bernstein polynomials with increasing coefficients.

Ramasinghe et al. 2021, https://arxiv.org/abs/2102.03509; Sick et al. 2020,
https://arxiv.org/abs/2004.00464.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jflow.bijector import check_positive
from jflow.scalars.scalar import Scalar, promote
from jflow.scalars.solve import numerical_inverse
from jflow.scalars.tails import check_bound, with_linear_tails

LEAST_INCREMENT = 1e-3


def bernstein(degree: int, bound: float = 5.0) -> Scalar:
    """`y = sum_i theta_i C(n, i) s^i (1 - s)^(n - i)`, `s = (x / bound + 1) / 2`.

    Ramasinghe et al. 2021, https://arxiv.org/abs/2102.03509. The coefficients increase,
    and so does y: `theta_0 = -bound + shift`, and each of the n increments is
    `2 bound / n` times a softplus that is 1 at raw zero and at least 1/1000. Outside of
    `-bound .. bound` the map is linear with its end's slope, so it is onto the real
    line with a continuous derivative. There are `degree + 1` raw parameters, shift and
    increments, and zeros give the identity. The inverse is numerical, with exact
    gradients.

    Args:
        degree: n, at most 60.
        bound: half-width of the interval on which the polynomial acts.

    Raises:
        ValueError: `degree` is no integer of 1 to 60, or `bound` is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> scalar = bernstein(10)
        >>> y, log_derivative = scalar.forward(jnp.zeros((3, 11)), jnp.ones(3))
    """
    check_positive("bernstein", degree=degree)
    check_bound("bernstein", bound)
    if degree > 60:  # binomials of 60 are 1e17: their float32 products still hold
        raise ValueError(
            f"bernstein: degree must be at most 60, got {degree}; use a spline."
        )
    softplus_one = math.log(math.expm1(1.0 - LEAST_INCREMENT))

    def forward(raw, x):
        wide_raw, wide_x = promote(raw, x)
        # In units of 2 bound / degree.
        increments = jax.nn.softplus(wide_raw[..., 1:] + softplus_one) + LEAST_INCREMENT
        # Equal increments are the identity: the rest is a polynomial of its own, small
        # near the start, so that x itself is not rounded.
        start = jnp.zeros_like(increments[..., :1])
        rest = jnp.concatenate([start, jnp.cumsum(increments - 1.0, -1)], -1)

        def inside(x):
            s = (x / bound + 1.0) / 2.0
            bend = (rest * _basis(degree, s)).sum(-1) * (2.0 * bound / degree)
            slope = (increments * _basis(degree - 1, s)).sum(-1)
            return x + wide_raw[..., 0] + bend, jnp.log(slope)

        y, log_derivative = with_linear_tails(inside, wide_x, -bound, bound)
        return y.astype(x.dtype), log_derivative

    return Scalar(degree + 1, forward, numerical_inverse(forward))


def _basis(n, s):
    """`C(n, i) s^i (1 - s)^(n - i)` for i = 0 .. n along a new last axis."""
    powers, others = [jnp.ones_like(s)], [jnp.ones_like(s)]
    for _ in range(n):
        powers.append(powers[-1] * s)
        others.append(others[-1] * (1.0 - s))
    binomials = np.array([math.comb(n, i) for i in range(n + 1)], float)
    products = jnp.stack(powers, -1) * jnp.stack(others[::-1], -1)
    return products * jnp.asarray(binomials, s.dtype)
