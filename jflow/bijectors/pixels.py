"""From integer pixels to the real line: dequantization, ranges, logit."""

import math

import jax
import jax.numpy as jnp

from jflow.bijector import Bijector, draw, expand_log_det, sum_event, zero_log_det


def dequantize(bits: int = 8) -> Bijector:
    """`z = (x + u) / 2^bits`, u uniform on [0, 1): integers 0 .. 2^bits - 1 to [0, 1).

    The log-det is `-D bits log 2`, so a density on top of it is, in expectation over u,
    a lower bound of the integers' log-probability in nats (Theis et al. 2016, section
    3.1, https://arxiv.org/abs/1511.01844) and `bits_per_dim` needs no other constant.
    Each pass with a new `key` draws new noise. `inverse` gives whole numbers, as
    floats.

    Raises:
        ValueError: `bits` outside 1 .. 16, or, in `forward`, no key.
    """
    if not isinstance(bits, int) or not 1 <= bits <= 16:
        raise ValueError(f"dequantize: bits must be within 1 .. 16, got {bits!r}.")
    levels = 2**bits

    def log_det(x):
        return expand_log_det(jnp.asarray(-math.log(levels) * x[0].size), x)

    def init(key, x, condition=None):
        return ()

    def forward(params, x, condition=None, key=None):
        if key is None:
            raise ValueError("dequantize: forward draws noise; pass key=.")
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        noise = draw(jax.random.uniform, key, x.shape, dtype)
        # rounding may bring x + noise up to the next integer: stay below it
        next_integer = jax.lax.stop_gradient(x).astype(dtype) + 1
        below = jnp.nextafter(next_integer, jnp.zeros((), dtype))
        z = jnp.minimum(x.astype(dtype) + noise, below) / levels
        return z, log_det(x)

    def inverse(params, z, condition=None, key=None):
        return jnp.clip(jnp.floor(z * levels), 0, levels - 1), -log_det(z)

    return Bijector(init, forward, inverse)


def rescale(low: float, high: float) -> Bijector:
    """`z = low + (high - low) x`: [0, 1] to [low, high]; log-det `D log(high - low)`.

    Glow has `rescale(-0.5, 0.5)`; `rescale(-1, 1)` is the other custom.

    Raises:
        ValueError: not low < high.
    """
    if not low < high:
        raise ValueError(f"rescale: needs low < high, got {low} and {high}.")
    width = high - low

    def log_det(x):
        return expand_log_det(jnp.asarray(math.log(width) * x[0].size), x)

    def init(key, x, condition=None):
        return ()

    def forward(params, x, condition=None, key=None):
        return low + width * x, log_det(x)

    def inverse(params, z, condition=None, key=None):
        return (z - low) / width, -log_det(z)

    return Bijector(init, forward, inverse)


def logit(alpha: float = 0.05) -> Bijector:
    """`z = log(s / (1 - s))`, `s = alpha + (1 - 2 alpha) x`: [0, 1] to the real line.

    RealNVP, section 4.1, in the form of its code and of the MAF paper (alpha 0.05 for
    colour images, 1e-6 for MNIST). The log-det is
    `sum(log(1 - 2 alpha) - log s - log(1 - s))`; where s is not within (0, 1) it is
    -inf, with gradient zero.

    Raises:
        ValueError: `alpha` outside [0, 0.5).
    """
    if not 0 <= alpha < 0.5:
        raise ValueError(f"logit: alpha must be within [0, 0.5), got {alpha}.")
    width = 1 - 2 * alpha

    def init(key, x, condition=None):
        return ()

    def forward(params, x, condition=None, key=None):
        tiny = jnp.finfo(x.dtype).tiny
        s, rest = alpha + width * x, (1 - alpha) - width * x
        inside = (s > 0) & (rest > 0)
        log_s = jnp.log(jnp.where(inside, jnp.maximum(s, tiny), 0.5))
        log_rest = jnp.log(jnp.where(inside, jnp.maximum(rest, tiny), 0.5))
        log_slope = math.log(width) - log_s - log_rest
        log_slope = jnp.where(inside, log_slope, -jnp.inf)
        return log_s - log_rest, sum_event(log_slope)

    def inverse(params, z, condition=None, key=None):
        x = (jax.nn.sigmoid(z) - alpha) / width
        log_slope = math.log(width) + jax.nn.softplus(z) + jax.nn.softplus(-z)
        return x, -sum_event(log_slope)

    return Bijector(init, forward, inverse)


def training_noise(low: float = -0.01, high: float = 0.0) -> Bijector:
    """`z = x + u`, u uniform on [low, high), where a key is given; else `z = x`.

    The negative noise of the NICE article: training passes a key, evaluation none. It
    smooths the fit and is no dequantization: with a key, the density is not a bound.

    Raises:
        ValueError: not low < high.
    """
    if not low < high:
        raise ValueError(f"training_noise: needs low < high, got {low} and {high}.")

    def init(key, x, condition=None):
        return ()

    def forward(params, x, condition=None, key=None):
        if key is not None:
            x = x + draw(jax.random.uniform, key, x.shape, x.dtype, low, high)
        return x, zero_log_det(x)

    def inverse(params, z, condition=None, key=None):
        return z, zero_log_det(z)

    return Bijector(init, forward, inverse)
