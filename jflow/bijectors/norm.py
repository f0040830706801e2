"""Normalisation layers: actnorm, and batch normalisation as a bijector.

Glow, Kingma & Dhariwal 2018, section 3.1, https://arxiv.org/abs/1807.03039;
RealNVP, Dinh et al. 2017, section 3.7 and appendix E,
https://arxiv.org/abs/1605.08803.
"""

import jax
import jax.numpy as jnp

from jflow.bijector import Bijector, channel_moments, expand_log_det, positions


def actnorm(epsilon: float = 1e-6, *, gain: float = 1.0) -> Bijector:
    """`z = (x + bias) * exp(gain * log_scale)`, one bias and scale per channel.

    `init` sets both so that every channel of its batch has mean 0 and variance 1; a
    channel that is constant on that batch (a batch of one vector) keeps scale 1. The
    log-det is `positions * gain * sum(log_scale)`.

    Args:
        epsilon: standard deviations below it count as constant.
        gain: Glow's code has 3, which lets the scale learn three times as fast.

    Example:
        >>> x = 3.0 + jax.random.normal(jax.random.key(0), (64, 2))
        >>> b = actnorm()
        >>> z, log_det = b.forward(b.init(jax.random.key(1), x), x)
    """

    def init(key, x, condition=None):
        mean, deviation = channel_moments(x, epsilon)
        return {"bias": -mean, "log_scale": -jnp.log(deviation) / gain}

    def log_det(params, x):
        return expand_log_det(positions(x) * gain * params["log_scale"].sum(), x)

    def forward(params, x, condition=None, key=None):
        z = (x + params["bias"]) * jnp.exp(gain * params["log_scale"])
        return z.astype(x.dtype), log_det(params, x)

    def inverse(params, z, condition=None, key=None):
        x = z * jnp.exp(-gain * params["log_scale"]) - params["bias"]
        return x.astype(z.dtype), -log_det(params, z)

    return Bijector(init, forward, inverse)


def batch_norm(statistics: str = "running", *, epsilon: float = 1e-4) -> Bijector:
    """`z = (x - mean) / sqrt(variance + epsilon) * exp(log_scale) + bias` per channel.

    Mean and variance are leaves of `params`, under `"statistics"`, and stay a pure
    function's arguments: their "gradient" under `forward` is `stored - batch value`,
    that of half the squared distance to the batch's statistics, whatever the loss. A
    gradient step on them with step size r is the running average with momentum 1 - r,
    which is what `jflow.fit` does, with `mesh=` on the global batch; in a user's own
    `pmap`, averaging gradients averages each device's moments. `init` sets them from
    its batch, and a copy of `params` is a copy of the statistics: nothing else has to
    be saved.

    Args:
        statistics: `"running"`: both passes use the stored values, in training and in
            evaluation alike (RealNVP appendix E's lag), so `log_prob` never depends on
            what else is in the batch. `"batch"`: `forward` normalises by the batch it
            is given, gradients flow through its moments, and only `inverse` uses the
            stored values, so the passes agree only as far as these do: train with a
            model built so, evaluate the same params in one built with `"running"`.
        epsilon: added to the variance.

    Raises:
        ValueError: another value of `statistics`.
    """
    if statistics not in ("running", "batch"):
        raise ValueError(
            f"batch_norm: statistics must be 'running' or 'batch', got {statistics!r}."
        )

    def init(key, x, condition=None):
        mean, deviation = channel_moments(x, epsilon)
        zeros = jnp.zeros_like(mean)
        return {
            "bias": zeros,
            "log_scale": zeros,
            "statistics": {"mean": mean, "variance": deviation**2},
        }

    def log_scale(params, variance):
        return params["log_scale"] - 0.5 * jnp.log(variance + epsilon)

    def stored(params):
        held = jax.lax.stop_gradient(params["statistics"])
        return held["mean"], jnp.maximum(held["variance"], 0.0)

    def forward(params, x, condition=None, key=None):
        axes = tuple(range(x.ndim - 1))
        batch = x.mean(axes), x.var(axes)
        held = params["statistics"]
        tracked = _track((held["mean"], held["variance"]), jax.lax.stop_gradient(batch))
        mean, variance = stored(params) if statistics == "running" else batch
        log_s = log_scale(params, variance)
        z = (x - mean) * jnp.exp(log_s) + params["bias"]
        return z.astype(x.dtype), expand_log_det(
            positions(x) * log_s.sum() + tracked, x
        )

    def inverse(params, z, condition=None, key=None):
        mean, variance = stored(params)
        log_s = log_scale(params, variance)
        x = (z - params["bias"]) * jnp.exp(-log_s) + mean
        return x.astype(z.dtype), expand_log_det(-positions(z) * log_s.sum(), z)

    return Bijector(init, forward, inverse)


@jax.custom_vjp
def _track(stored, batch):
    """Zero, with the derivative `stored - batch` where the chain rule has begun."""
    return jnp.zeros(())


def _track_fwd(stored, batch):
    return jnp.zeros(()), (stored, batch)


def _track_bwd(residuals, cotangent):
    stored, batch = residuals
    step = jax.tree.map(jnp.subtract, stored, batch)
    return step, jax.tree.map(jnp.zeros_like, batch)


_track.defvjp(_track_fwd, _track_bwd)
