"""The logistic and the normal as mixtures need them: tail masses in logarithms.

Both are symmetric, so one tail is enough. A tail's mass, its hazard (density over mass)
and its quantile stay finite where the distribution function has long become 0 or 1.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jflow.bijector import Array

LOG_SQRT_2_PI = 0.5 * math.log(2.0 * math.pi)
FAR = 5.0


class Distribution(NamedTuple):
    """A symmetric distribution around 0.

    Attributes:
        log_survival: `u -> log P(U > u)`.
        log_hazard: `u -> log(density(u) / P(U > u))`.
        upper_quantile: `t -> u >= 0` with `log P(U > u) = t`, for `t <= -log 2`.
    """

    log_survival: Callable[[Array], Array]
    log_hazard: Callable[[Array], Array]
    upper_quantile: Callable[[Array], Array]


@jax.jit
def _log_mills(u):
    """`log(density / mass)` for u >= FAR, by Laplace's continued fraction."""
    u = jnp.maximum(u, FAR)
    fraction = u
    for i in range(20, 0, -1):  # 3e-15 at FAR, better beyond
        fraction = u + i / fraction
    return jnp.log(fraction)


@jax.custom_jvp
def _normal_log_survival(u):
    near, far = jnp.minimum(u, FAR), jnp.maximum(u, FAR)
    upper = near > 0
    tail = 0.5 * jax.lax.erfc(jnp.abs(near) / math.sqrt(2.0))
    log_tail = jnp.log(jnp.where(upper, tail, 1.0))
    near = jnp.where(upper, log_tail, jnp.log1p(-tail))
    return jnp.where(u > FAR, _log_normal_density(far) - _log_mills(far), near)


@jax.custom_jvp
def _normal_log_hazard(u):
    near = jnp.minimum(u, FAR)
    near = _log_normal_density(near) - _normal_log_survival(near)
    return jnp.where(u > FAR, _log_mills(u), near)


@jax.custom_jvp
def _normal_upper_quantile(t):
    def newton(_, u):
        excess = _normal_log_survival(u) - t
        return u + excess * jnp.exp(-_normal_log_hazard(u))

    # log P(U > u) <= -log 2 - u^2 / 2 and is concave: Newton descends from this start.
    start = jnp.sqrt(jnp.maximum(-2.0 * (t + math.log(2.0)), 0.0))
    return jax.lax.fori_loop(0, 6, newton, start)


@_normal_log_survival.defjvp
def _(primals, tangents):
    (u,), (du,) = primals, tangents
    return _normal_log_survival(u), -du * jnp.exp(_normal_log_hazard(u))


@_normal_log_hazard.defjvp
def _(primals, tangents):
    (u,), (du,) = primals, tangents
    log_hazard = _normal_log_hazard(u)
    return log_hazard, du * (jnp.exp(log_hazard) - u)


@_normal_upper_quantile.defjvp
def _(primals, tangents):
    (t,), (dt,) = primals, tangents
    u = _normal_upper_quantile(t)
    return u, -dt * jnp.exp(-_normal_log_hazard(u))


def _log_normal_density(u):
    return -0.5 * u * u - LOG_SQRT_2_PI


def _logistic_upper_quantile(t):
    return jnp.log1p(-jnp.exp(t)) - t


LOGISTIC = Distribution(
    lambda u: -jax.nn.softplus(u), jax.nn.log_sigmoid, _logistic_upper_quantile
)
# Traced once for each shape, however often a search evaluates them.
NORMAL = Distribution(
    jax.jit(_normal_log_survival),
    jax.jit(_normal_log_hazard),
    jax.jit(_normal_upper_quantile),
)
