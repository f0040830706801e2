"""A normal whose mean and scale a network computes from the condition."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jflow.base import Base, check_latents, check_shape, normal_sample
from jflow.bases.powers import far_normal_log_prob
from jflow.bijector import Array, Condition


def conditional_normal(shape: tuple[int, ...], net: Callable[[int], Any]) -> Base:
    """`z = mean(c) + exp(log_scale(c)) * eps`, both by one network of the condition c.

    `params` is the network's. Its last layer starts at zero, so the base starts as the
    standard normal. Temperature scales the deviation from the mean.

    Args:
        shape: the event's shape.
        net: `out_features -> module` such as `jflow.nets.mlp(64)`; it sees the
            condition flattened, `(N, features)`.

    Raises:
        ValueError: at trace time, a condition that is not one array `(N, ...)`.

    Example:
        >>> import jax
        >>> import jflow
        >>> base = conditional_normal((2,), jflow.nets.mlp(8))
        >>> c = jnp.ones((4, 3))
        >>> params = base.init(jax.random.key(0), jnp.zeros((4, 2)), c)
        >>> base.sample(params, jax.random.key(1), 4, c).shape
        (4, 2)
    """
    shape = check_shape("conditional_normal", shape)
    size = math.prod(shape)
    module = net(2 * size)

    def moments(params, condition):
        mean, log_scale = jnp.split(module.apply(params, _rows(condition)), 2, axis=-1)
        return mean.reshape(-1, *shape), log_scale.reshape(-1, *shape)

    def init(key, z, condition=None):
        check_latents("conditional_normal", z, shape)
        return module.init(key, _rows(condition))

    def log_prob(params, z, condition=None, temperature=1.0):
        return far_normal_log_prob(z, *moments(params, condition), temperature)

    def sample(params, key, n, condition=None, temperature=1.0):
        return normal_sample(key, (n, *shape), *moments(params, condition), temperature)

    return Base(init, log_prob, sample, shape)


def _rows(condition: Condition) -> Array:
    if not hasattr(condition, "ndim") or condition.ndim < 1:
        raise ValueError(
            f"conditional_normal: condition must be one array (N, ...), got "
            f"{condition!r}; pass condition=, or embed a pytree by embed_condition."
        )
    rows = condition.reshape(condition.shape[0], -1)
    floating = jnp.issubdtype(rows.dtype, jnp.floating)
    return rows if floating else rows.astype(float)
