"""Student's t with learned degrees of freedom per coordinate: learned tails.

Alexanderson & Henter 2020, section 3.2, https://arxiv.org/abs/2007.07115, and, per
coordinate (marginal tail-adaptive), Laszkiewicz et al. 2022, section 3,
https://arxiv.org/abs/2206.10311. A Lipschitz bijector cannot change how heavy a
marginal's tail is; the base has to have it.
"""

import jax
import jax.numpy as jnp

from jflow.base import Base, check_latents, check_shape
from jflow.bases.powers import log1p_square
from jflow.bijector import draw, sum_event


def student_t(shape: tuple[int, ...], degrees: float = 10.0) -> Base:
    """Independent Student t with `v = exp(log_degrees)` learned per coordinate.

    `log p(z) = sum(log Gamma((v + 1) / 2) - log Gamma(v / 2) - log(pi v) / 2
    - (v + 1) / 2 log(1 + z^2 / v))`, of scale 1 (the bijector scales). Samples at
    temperature T are T times those at 1; they have gradients with respect to the
    degrees (implicit ones, through the gamma draw).

    Args:
        shape: the event's shape.
        degrees: where each coordinate's degrees of freedom start.

    Raises:
        ValueError: `degrees` that are not positive.

    Example:
        >>> base = student_t((2,), degrees=1.0)
        >>> params = base.init(jax.random.key(0), jnp.zeros((4, 2)))
        >>> base.log_prob(params, jnp.zeros((1, 2))).round(3)
        Array([-2.289], dtype=float32)
    """
    shape = check_shape("student_t", shape)
    if not 0 < degrees < float("inf"):
        raise ValueError(
            f"student_t: degrees must be positive and finite, got {degrees}."
        )

    def init(key, z, condition=None):
        check_latents("student_t", z, shape)
        return {"log_degrees": jnp.full(shape, jnp.log(degrees), z.dtype)}

    def log_prob(params, z, condition=None, temperature=1.0):
        log_v = params["log_degrees"]
        v = jnp.exp(log_v)
        u = z / temperature * jnp.exp(-0.5 * log_v)
        normaliser = _log_gamma_half_step(v / 2.0) - 0.5 * (jnp.log(jnp.pi) + log_v)
        density = normaliser - (v + 1.0) / 2.0 * log1p_square(u)
        return sum_event(density - jnp.log(temperature))

    def sample(params, key, n, condition=None, temperature=1.0):
        log_v = params["log_degrees"]
        normal_key, gamma_key = jax.random.split(key)
        eps = draw(jax.random.normal, normal_key, (n, *shape), log_v.dtype)
        half = jnp.broadcast_to(jnp.exp(log_v) / 2.0, eps.shape)
        log_gamma = jax.random.loggamma(gamma_key, half, dtype=log_v.dtype)
        return temperature * eps * jnp.exp(0.5 * (jnp.log(half) - log_gamma))

    return Base(init, log_prob, sample, shape)


def _log_gamma_half_step(x):
    """`log Gamma(x + 1/2) - log Gamma(x)`: the difference of two large numbers, so
    from 16 on by its asymptotic series, to 1e-16.
    """
    near = jnp.minimum(x, 16.0)
    inverse = 1.0 / jnp.maximum(x, 16.0)
    square = inverse**2
    series = jnp.zeros_like(x)
    for coefficient in (-31 / 18432, 17 / 14336, -1 / 640, 1 / 192, -1 / 8):
        series = series * square + coefficient
    far = series * inverse - 0.5 * jnp.log(inverse)
    direct = jax.lax.lgamma(near + 0.5) - jax.lax.lgamma(near)
    return jnp.where(x < 16.0, direct, far)
