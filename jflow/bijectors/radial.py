"""Radial flows: the space drawn in or spread out around one point.

Rezende & Mohamed 2015, section 4.1 and appendix A.2, https://arxiv.org/abs/1505.05770.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jflow.bijector import Bijector, log_det_dtype
from jflow.bijectors.amortised import amortised
from jflow.bijectors.rank_one import above_minus_one
from jflow.scalars.scales import scale_map


def radial(*, net: Any = None) -> Bijector:
    """`z = x + beta (x - x_0) / (alpha + r)`, r the distance to a centre `x_0`.

    Here alpha > 0 and beta > -alpha. With `q = alpha / (alpha + r)` and
    `m = beta / alpha > -1` the map is `z - x_0 = (1 + m q) (x - x_0)`, and log-det is
    `(D - 1) log(1 + m q) + log(1 + m q^2)`. The inverse is the root of a quadratic
    equation. The identity at m = 0, near which it starts, around an example of the init
    batch and with alpha = 1. Events of several axes are flattened.

    Args:
        net: the raw parameters `(x_0, log alpha, m)` also move with the condition,
            see `planar`; out_features is D + 2.

    Raises:
        TypeError: `net` is no function.
        ValueError: a condition in one of init and a pass only.

    Example:
        >>> b = radial()
        >>> x = jax.random.normal(jax.random.key(0), (8, 3))
        >>> z, log_det = b.forward(b.init(jax.random.key(1), x), x)
    """
    source = amortised("radial", net)
    log_scale, _ = scale_map("soft_clip")

    def init(key, x, condition=None):
        row_key, m_key, net_key = jax.random.split(key, 3)
        centre = x.reshape(len(x), -1)[jax.random.randint(row_key, (), 0, len(x))]
        m = 0.01 * jax.random.normal(m_key, (1,), x.dtype)
        start = jnp.concatenate([centre, jnp.zeros((1,), x.dtype), m])
        return source.init(net_key, start, condition)

    def parts(params, x, condition):
        dtype = log_det_dtype(x)
        raw = source.values(params, condition, len(x)).astype(dtype)
        flat = x.reshape(len(x), -1).astype(dtype)
        centre, log_alpha, m = raw[:, :-2], raw[:, -2], raw[:, -1]
        offset = flat - centre
        return centre, offset, jnp.exp(log_scale(log_alpha)), above_minus_one(m)

    def log_det(q, m, size):
        return (size - 1) * jnp.log1p(m * q) + jnp.log1p(m * q * q)

    def forward(params, x, condition=None, key=None):
        centre, offset, alpha, m = parts(params, x, condition)
        q = alpha / (alpha + _norm(offset))
        z = centre + offset * (1.0 + m * q)[:, None]
        return z.reshape(x.shape).astype(x.dtype), log_det(q, m, x[0].size)

    def inverse(params, z, condition=None, key=None):
        centre, offset, alpha, m = parts(params, z, condition)
        q = alpha / (alpha + _radius(_norm(offset), alpha, m))
        x = centre + offset / (1.0 + m * q)[:, None]
        return x.reshape(z.shape).astype(z.dtype), -log_det(q, m, z[0].size)

    return Bijector(init, forward, inverse)


def _norm(offset):
    """Lengths of rows: no overflow far out, gradient zero at zero."""
    largest = jax.lax.stop_gradient(jnp.abs(offset).max(-1, keepdims=True))
    some = largest > jnp.finfo(offset.dtype).tiny
    unit = jnp.where(some, offset, 1.0) / jnp.where(some, largest, 1.0)
    return jnp.where(some[:, 0], largest[:, 0] * jnp.sqrt((unit**2).sum(-1)), 0.0)


def _radius(pushed, alpha, m):
    """The r >= 0 with `r (1 + m alpha / (alpha + r)) = pushed`.

    `r^2 - p r - alpha pushed = 0` with `p = pushed - alpha (1 + m)`, in units of
    `alpha + pushed`; the two roots' product gives the small one without cancellation.
    """
    unit = alpha + pushed
    product = (alpha / unit) * (pushed / unit)
    p = (pushed - alpha * (1.0 + m)) / unit
    large = (jnp.abs(p) + jnp.sqrt(p * p + 4.0 * product)) / 2.0
    return unit * jnp.where(p > 0, large, product / large)
