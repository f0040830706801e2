"""A learned mixture of diagonal normals, started by k-means on the latents."""

import math

import jax
import jax.numpy as jnp

from jflow.base import Base, check_latents, check_shape, normal_sample
from jflow.bases.k_means import k_means
from jflow.bases.powers import far_normal_log_prob


def mixture_normal(shape: tuple[int, ...], components: int) -> Base:
    """`p(z) = sum_k w_k N(z; mean_k, exp(log_scale_k)^2)`, `w = softmax(logits)`.

    `init` clusters its latents by k-means; each component starts at one cluster's
    share, mean and deviation, the latter mixed with that of the whole batch as if by
    one more point. A component without points (more components than latents) starts at
    a random place, so that no two are the same.

    Temperature scales every component's spread, not the means or the weights. Samples
    have gradients with respect to means and scales, none with respect to the weights.

    Args:
        shape: the event's shape.
        components: how many.

    Raises:
        ValueError: `components` < 1.

    Example:
        >>> z = jnp.array([[-3.0], [-2.0], [4.0], [5.0]])
        >>> params = mixture_normal((1,), 2).init(jax.random.key(0), z)
        >>> jnp.sort(params["mean"].ravel())
        Array([-2.5,  4.5], dtype=float32)
    """
    shape = check_shape("mixture_normal", shape)
    if components < 1:
        raise ValueError(
            f"mixture_normal: components must be at least 1, got {components}."
        )

    def init(key, z, condition=None):
        check_latents("mixture_normal", z, shape)
        start = _clustered(key, z.reshape(z.shape[0], math.prod(shape)), components)
        return {
            "logits": start["logits"],
            "mean": start["mean"].reshape(components, *shape),
            "log_scale": start["log_scale"].reshape(components, *shape),
        }

    def log_prob(params, z, condition=None, temperature=1.0):
        def component(mean, log_scale):
            return far_normal_log_prob(z, mean, log_scale, temperature)

        each = jax.vmap(component)(params["mean"], params["log_scale"])
        log_weights = jax.nn.log_softmax(params["logits"])
        return jax.nn.logsumexp(each + log_weights[:, None], axis=0)

    def sample(params, key, n, condition=None, temperature=1.0):
        choice_key, key = jax.random.split(key)
        choice = jax.random.categorical(choice_key, params["logits"], shape=(n,))
        moments = [
            jnp.take(params[name], choice, axis=0) for name in ("mean", "log_scale")
        ]
        return normal_sample(key, (n, *shape), *moments, temperature)

    return Base(init, log_prob, sample, shape)


def _clustered(key, points, components):
    """Logits, means and log-scales of the clusters of `points`, `(N, D)`."""
    cluster_key, key = jax.random.split(key)
    mean, cluster = k_means(cluster_key, points, components)
    members = jax.nn.one_hot(cluster, components, dtype=points.dtype)
    count = members.sum(0)[:, None]
    whole = points.var(0)
    whole = jnp.where(whole > 0, whole, 1.0)
    square = (points - mean[cluster]) ** 2
    within = jnp.matmul(members.T, square, precision="highest")
    elsewhere = mean + jnp.sqrt(whole) * jax.random.normal(key, mean.shape, mean.dtype)
    return {
        "logits": jnp.log((count[:, 0] + 1.0) / (len(points) + components)),
        "mean": jnp.where(count > 0, mean, elsewhere),
        "log_scale": 0.5 * jnp.log((within + whole) / (count + 1.0)),
    }
