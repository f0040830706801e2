"""Distributions over angles in radians, where z and z + 2 pi are one point.

Mardia & Jupp 2000, Directional Statistics, sections 3.5.3 and 3.5.4; flows on circles:
Rezende et al. 2020, section 2.1, https://arxiv.org/abs/2002.02428
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jflow.base import Base, check_latents, check_shape
from jflow.bijector import Array, sum_event

# Each round keeps at least 0.657 of the draws: all are kept but for 1 in 1e46.
ROUNDS = 100


def circular_uniform(shape: tuple[int, ...]) -> Base:
    """The uniform distribution of angles: `log p(z) = -D log(2 pi)` for every z.

    It integrates to 1 over one turn per coordinate; samples lie in -pi .. pi. No
    parameters, and the temperature has no effect: there is no spread to scale.

    Example:
        >>> circular_uniform((1,)).log_prob((), jnp.array([[0.0], [9.0]]))
        Array([-1.837877, -1.837877], dtype=float32)
    """
    shape = check_shape("circular_uniform", shape)

    def init(key, z, condition=None):
        check_latents("circular_uniform", z, shape)
        return ()

    def log_prob(params, z, condition=None, temperature=1.0):
        return sum_event(jnp.full_like(z, -math.log(2.0 * math.pi)))

    def sample(params, key, n, condition=None, temperature=1.0):
        return jax.random.uniform(key, (n, *shape), minval=-jnp.pi, maxval=jnp.pi)

    return Base(init, log_prob, sample, shape)


def von_mises(shape: tuple[int, ...]) -> Base:
    """`log p(z) = sum(k cos(z - mean) - log(2 pi I0(k)))`.

    `k = exp(log_concentration)`. The density has period 2 pi and integrates to 1 over one turn per coordinate; samples lie in
    -pi .. pi. Mean and concentration are learned per coordinate and start at 0 and 1.
    At temperature T the concentration is `k / T^2`, the density to the power
    `1 / T^2`: for large k the deviation `1 / sqrt(k)` is scaled by T.

    Samples are exact, by rejection, and have gradients with respect to both parameters
    (implicit ones for the concentration; not of second order).

    Example:
        >>> base = von_mises((1,))
        >>> params = base.init(jax.random.key(0), jnp.zeros((4, 1)))
        >>> base.log_prob(params, jnp.zeros((1, 1)))
        Array([-1.0737915], dtype=float32)
    """
    shape = check_shape("von_mises", shape)

    def init(key, z, condition=None):
        check_latents("von_mises", z, shape)
        zeros = jnp.zeros(shape, z.dtype)
        return {"mean": zeros, "log_concentration": zeros}

    def concentration(params, temperature):
        return jnp.exp(params["log_concentration"]) / jnp.square(temperature)

    def log_prob(params, z, condition=None, temperature=1.0):
        k = concentration(params, temperature)
        # k (cos - 1) without the cancellation, so that large k loses no digits.
        density = -2.0 * k * jnp.sin((z - params["mean"]) / 2.0) ** 2
        return sum_event(density - math.log(2.0 * math.pi) - _log_i0e(k))

    def sample(params, key, n, condition=None, temperature=1.0):
        mean = params["mean"]
        k = jnp.broadcast_to(concentration(params, temperature), (n, *shape))
        angle = mean + _draw(key, k.astype(mean.dtype))
        return jnp.mod(angle + jnp.pi, 2.0 * jnp.pi) - jnp.pi

    return Base(init, log_prob, sample, shape)


def _log_i0e(k: Array) -> Array:
    """`log(I0(k) exp(-k))`; from 1000 on by its asymptotic series, whose derivative
    does not cancel as that of the Bessel functions does.
    """
    far = 1.0 / jnp.maximum(k, 1000.0)
    series = jnp.zeros_like(k)
    for coefficient in (11025 / 98304, 225 / 3072, 9 / 128, 1 / 8):
        series = (series + coefficient) * far
    large = jnp.log1p(series) + 0.5 * (jnp.log(far) - math.log(2.0 * math.pi))
    small = jnp.log(jax.scipy.special.i0e(jnp.minimum(k, 1000.0)))
    return jnp.where(k < 1000.0, small, large)


@jax.custom_jvp
def _draw(key: Array, k: Array) -> Array:
    """Angles around 0 of concentrations `k`, by rejection from a wrapped Cauchy.

    Best & Fisher 1979, https://doi.org/10.2307/2346732, written in
    `w = sin(angle / 2)^2`: the target is `exp(-2 k w)`, the proposal
    `1 / (1 + c w)` with their best c, and no term cancels for large k.
    """
    root = jnp.sqrt(1.0 + 4.0 * k**2)
    c = 2.0 * k * (1.0 + 2.0 * k / (1.0 + root))
    top = 1.0 / (1.0 + root + 2.0 * k)  # where the ratio of the two is largest

    def attempt(i):
        propose, accept = jax.random.split(jax.random.fold_in(key, i))
        tangent = jax.random.cauchy(propose, k.shape, k.dtype) / jnp.sqrt(1.0 + c)
        new = 2.0 * jnp.arctan(tangent)
        w = jnp.sin(new / 2.0) ** 2
        log_ratio = -2.0 * k * (w - top) + jnp.log1p(c * w) - jnp.log1p(c * top)
        kept = -jax.random.exponential(accept, k.shape, k.dtype) <= log_ratio
        return new, kept

    def step(state):
        i, angle, done = state
        new, kept = attempt(i)
        return i + 1, jnp.where(done, angle, new), done | kept

    return jax.lax.while_loop(
        lambda state: (state[0] < ROUNDS) & ~state[2].all(), step, (1, *attempt(0))
    )[1]


@_draw.defjvp
def _draw_jvp(primals, tangents):
    """`d angle / d k = -(dF / dk) / p` at the angle, F the distribution function.

    At `-|angle|`, where it is the integral of `(cos t - I1 / I0) exp(k cos t) / exp(k
    cos angle)` from -pi (or from where nothing is left), by Gauss-Legendre.
    """
    key, k = primals
    angle = _draw(key, k)
    end = -jnp.abs(angle)
    width = jnp.minimum(jnp.pi + end, 9.0 / jnp.sqrt(k))
    # cos t - I1 / I0 = (1 - I1 / I0) - (1 - cos t)
    spread = -jax.grad(lambda k: _log_i0e(k).sum())(k)
    nodes, weights = np.polynomial.legendre.leggauss(48)

    def add(total, node_and_weight):
        node, weight = node_and_weight
        back = width * (1.0 - node) / 2.0
        # cos(end - back) - cos(end), again without cancellation
        fall = 2.0 * jnp.sin(end - back / 2.0) * jnp.sin(back / 2.0)
        term = spread - 2.0 * jnp.sin((end - back) / 2.0) ** 2
        return total + weight * term * jnp.exp(k * fall), None

    rule = jnp.asarray(nodes, k.dtype), jnp.asarray(weights, k.dtype)
    total, _ = jax.lax.scan(add, jnp.zeros_like(k), rule)
    slope = jnp.sign(angle) * total * width / 2.0
    return angle, slope * tangents[1]
