"""The generalised normal distribution: tails from Laplace's to a box's.

Nadarajah 2005, section 2, https://doi.org/10.1080/02664760500079464
"""

import math

import jax
import jax.numpy as jnp

from jflow.base import Base, check_latents, check_shape
from jflow.bases.powers import exp_far
from jflow.bijector import sum_event


def generalised_normal(shape: tuple[int, ...], power: float | None = None) -> Base:
    """`p(z) = beta / (2 alpha Gamma(1 / beta)) exp(-|z / alpha|^beta)` per coordinate.

    The power beta is 1 for Laplace's distribution and 2 for the normal, and towards a
    box as it grows; `alpha = exp(log_scale)` is learned. Starts at variance 1.
    Samples at temperature T are T times those at 1; they have gradients with respect
    to both parameters.

    Args:
        shape: the event's shape.
        power: beta, fixed; without it, `exp(log_power)` is learned per coordinate and
            starts at 2.

    Raises:
        ValueError: a `power` that is not positive.

    Example:
        >>> laplace = generalised_normal((1,), power=1.0)
        >>> params = laplace.init(jax.random.key(0), jnp.zeros((4, 1)))
        >>> laplace.log_prob(params, jnp.zeros((1, 1)))
        Array([-0.34657362], dtype=float32)
    """
    shape = check_shape("generalised_normal", shape)
    if power is not None and not 0 < power < float("inf"):
        raise ValueError(
            f"generalised_normal: power must be positive and finite, got {power}; "
            "leave it out to learn it."
        )
    start = 2.0 if power is None else float(power)
    log_scale_start = 0.5 * (math.lgamma(1 / start) - math.lgamma(3 / start))

    def init(key, z, condition=None):
        check_latents("generalised_normal", z, shape)
        params = {"log_scale": jnp.full(shape, log_scale_start, z.dtype)}
        if power is None:
            params["log_power"] = jnp.full(shape, math.log(start), z.dtype)
        return params

    def powers(params):
        log_scale = params["log_scale"]
        fixed = jnp.full_like(log_scale, math.log(start))
        return log_scale, jnp.exp(params.get("log_power", fixed))

    def log_prob(params, z, condition=None, temperature=1.0):
        log_scale, beta = powers(params)
        log_scale = log_scale + jnp.log(temperature)
        # The smallest number stands for 0, where the logarithm has no gradient.
        size = jnp.maximum(jnp.abs(z), jnp.finfo(z.dtype).tiny)
        exponent = exp_far(beta * (jnp.log(size) - log_scale))
        # beta / (2 Gamma(1 / beta)) = 1 / (2 Gamma(1 + 1 / beta))
        normaliser = log_scale + jnp.log(2.0) + jax.lax.lgamma(1.0 + 1.0 / beta)
        return sum_event(-exponent - normaliser)

    def sample(params, key, n, condition=None, temperature=1.0):
        log_scale, beta = powers(params)
        sign_key, gamma_key = jax.random.split(key)
        sign = jax.random.rademacher(sign_key, (n, *shape), log_scale.dtype)
        inverse = jnp.broadcast_to(1.0 / beta, sign.shape)
        log_gamma = jax.random.loggamma(gamma_key, inverse, dtype=log_scale.dtype)
        return temperature * sign * jnp.exp(log_scale + inverse * log_gamma)

    return Base(init, log_prob, sample, shape)
