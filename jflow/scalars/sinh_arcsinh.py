"""Learned skew and tail weight: the sinh-arcsinh transformation.

Jones & Pewsey 2009, Biometrika 96(4), section 2, https://doi.org/10.1093/biomet/asp053
"""

import math

import jax.numpy as jnp

from jflow.bijector import Array
from jflow.scalars.scalar import Scalar, unpack
from jflow.scalars.scales import scale_map
from jflow.scalars.tails import with_linear_tails

SKEW_LIMIT = 8.0
# In asinh(x) and asinh(y): from here on the map is straight. Slopes, at most
# e^16 times the tail weight, then carry 1e30 to a float32.
REACH = 16.0


def sinh_arcsinh() -> Scalar:
    """`y = sinh(t arcsinh(x) - s)`, skew s and tail weight t; two raw parameters.

    Jones & Pewsey 2009, equation 2, https://doi.org/10.1093/biomet/asp053. Where y is
    standard normal, x leans to the right for s > 0, and its tails are heavier than the
    normal's for t < 1, lighter for t > 1. The log-derivative is
    `log t + log cosh(t arcsinh(x) - s) - log(1 + x^2) / 2`.

    `s = u / (1 + |u| / 8)` and `t = exp((4 / pi) atan(v))`, within e^-2 .. e^2, of raw
    u, v: zeros give the identity. Where `|x|` or `|y|` exceed sinh(16), 4.4e6, the
    map goes on along its tangent. The inverse is closed, of the same form.

    Example:
        >>> import jax.numpy as jnp
        >>> scalar = sinh_arcsinh()
        >>> y, log_derivative = scalar.forward(jnp.zeros((3, 2)), jnp.ones(3))
        >>> y
        Array([1., 1., 1.], dtype=float32)
    """
    log_tail, _ = scale_map("atan")

    def parts(raw, x):
        u, v = unpack(raw, x)
        return u / (1.0 + jnp.abs(u) / SKEW_LIMIT), log_tail(v)

    def forward(raw, x):
        y, log_derivative = skew_and_tail(x, *parts(raw, x))
        return y.astype(x.dtype), log_derivative

    def inverse(raw, y):
        x, log_derivative = undo_skew_and_tail(y, *parts(raw, y))
        return x.astype(y.dtype), log_derivative

    return Scalar(2, forward, inverse)


def skew_and_tail(x: Array, skew: Array, log_tail: Array) -> tuple[Array, Array]:
    """The map and its log-derivative, for the skew s and the logarithm of t."""
    tail = jnp.exp(log_tail)

    def inside(x):
        v = jnp.arcsinh(x)
        u = tail * v - skew
        return jnp.sinh(u), log_tail + log_cosh(u) - log_cosh(v)

    lower = jnp.maximum((skew - REACH) / tail, -REACH)
    upper = jnp.minimum((skew + REACH) / tail, REACH)
    return with_linear_tails(inside, x, jnp.sinh(lower), jnp.sinh(upper))


def undo_skew_and_tail(y: Array, skew: Array, log_tail: Array) -> tuple[Array, Array]:
    """The inverse: the same map with skew `-s / t` and tail weight `1 / t`."""
    return skew_and_tail(y, -skew * jnp.exp(-log_tail), -log_tail)


def log_cosh(u: Array) -> Array:
    """`log(cosh(u))`, also where cosh(u) overflows."""
    return jnp.logaddexp(u, -u) - math.log(2.0)
