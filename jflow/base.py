"""Base distributions: what a flow maps its data to.

A base is a named tuple of pure functions over latents `(N, *event)`. `temperature`
scales the spread of samples: those of `normal` at temperature T have standard
deviation T. Log-densities are in nats and take the temperature too, so samples and
their densities agree at any T.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jflow.bijector import Array, Params, draw, log_det_dtype, sum_event


class Base(NamedTuple):
    """A distribution over latents, as three pure functions.

    Attributes:
        init: `(key, z, condition=None) -> params`, for a batch of latents `z`.
        log_prob: `(params, z, condition=None, temperature=1.0) -> (N,)`, in nats.
        sample: `(params, key, n, condition=None, temperature=1.0) -> (n, *event)`.
        shape: the event's shape.
    """

    init: Callable[..., Params]
    log_prob: Callable[..., Array]
    sample: Callable[..., Array]
    shape: tuple[int, ...]


def normal(shape: tuple[int, ...]) -> Base:
    """The standard normal: `log p(z) = -sum(z^2 + log(2 pi)) / 2`, no parameters.

    Example:
        >>> base = normal((2,))
        >>> base.sample((), jax.random.key(0), 3).shape
        (3, 2)
    """
    shape = check_shape("normal", shape)

    def init(key, z, condition=None):
        check_latents("normal", z, shape)
        return ()

    def log_prob(params, z, condition=None, temperature=1.0):
        return normal_log_prob(z, 0.0, 0.0, temperature)

    def sample(params, key, n, condition=None, temperature=1.0):
        return temperature * draw(jax.random.normal, key, (n, *shape))

    return Base(init, log_prob, sample, shape)


def logistic(shape: tuple[int, ...]) -> Base:
    """The standard logistic of NICE: `log p(z) = -sum(softplus(z) + softplus(-z))`.

    Dinh et al. 2015, section 3.4, https://arxiv.org/abs/1410.8516. No parameters.
    """
    shape = check_shape("logistic", shape)

    def init(key, z, condition=None):
        check_latents("logistic", z, shape)
        return ()

    def log_prob(params, z, condition=None, temperature=1.0):
        z = z / temperature
        density = -jax.nn.softplus(z) - jax.nn.softplus(-z)
        return sum_event(density - jnp.log(temperature))

    def sample(params, key, n, condition=None, temperature=1.0):
        return temperature * draw(jax.random.logistic, key, (n, *shape))

    return Base(init, log_prob, sample, shape)


def diagonal_normal(shape: tuple[int, ...]) -> Base:
    """A normal with learned mean and log-scale per coordinate.

    `z = mean + exp(log_scale) * eps`; `init` starts at the standard normal.
    """
    shape = check_shape("diagonal_normal", shape)

    def init(key, z, condition=None):
        check_latents("diagonal_normal", z, shape)
        zeros = jnp.zeros(shape, z.dtype)
        return {"mean": zeros, "log_scale": zeros}

    def log_prob(params, z, condition=None, temperature=1.0):
        return normal_log_prob(z, params["mean"], params["log_scale"], temperature)

    def sample(params, key, n, condition=None, temperature=1.0):
        moments = params["mean"], params["log_scale"]
        return normal_sample(key, (n, *shape), *moments, temperature)

    return Base(init, log_prob, sample, shape)


def class_normal(shape: tuple[int, ...], classes: int) -> Base:
    """One learned diagonal normal per class, chosen by the condition.

    The condition is an integer label `(N,)` or a one-hot (or soft) row `(N, classes)`.
    Means start at small random values, so that classes can part.

    Raises:
        ValueError: `classes` < 1, or, at trace time, no usable condition.
    """
    shape = check_shape("class_normal", shape)
    if classes < 1:
        raise ValueError(f"class_normal: classes must be at least 1, got {classes}.")

    def init(key, z, condition=None):
        check_latents("class_normal", z, shape)
        one_hot(condition, classes)
        mean = 0.01 * jax.random.normal(key, (classes, *shape), z.dtype)
        return {"mean": mean, "log_scale": jnp.zeros_like(mean)}

    def chosen(params, condition):
        weights = one_hot(condition, classes).astype(params["mean"].dtype)
        return [
            jnp.tensordot(weights, params[name], 1, precision="highest")
            for name in ("mean", "log_scale")
        ]

    def log_prob(params, z, condition=None, temperature=1.0):
        return normal_log_prob(z, *chosen(params, condition), temperature)

    def sample(params, key, n, condition=None, temperature=1.0):
        moments = chosen(params, condition)
        return normal_sample(key, (n, *shape), *moments, temperature)

    return Base(init, log_prob, sample, shape)


def one_hot(condition: Any, classes: int) -> Array:
    """Labels `(N,)` as rows `(N, classes)`; rows of that width pass as they are.

    Raises:
        ValueError: the condition is neither.
    """
    if condition is not None:
        condition = jnp.asarray(condition)
        if condition.ndim == 1 and jnp.issubdtype(condition.dtype, jnp.integer):
            return jax.nn.one_hot(condition, classes)
        if condition.ndim == 2 and condition.shape[1] == classes:
            return condition
    found = None if condition is None else f"{condition.dtype}{condition.shape}"
    raise ValueError(
        f"condition: expected integer labels (N,) or rows (N, {classes}), got {found}; "
        "pass condition=labels."
    )


def check_shape(owner: str, shape: Any) -> tuple[int, ...]:
    """The event shape as a tuple of positive integers, or a ValueError."""
    try:
        shape = tuple(int(size) for size in shape)
    except TypeError:
        shape = ()
    if not shape or min(shape) < 1:
        raise ValueError(
            f"{owner}: shape must be a tuple of positive sizes without the batch axis, "
            f"(2,) or (28, 28, 1) for instance; got {shape!r}."
        )
    return shape


def check_latents(owner: str, z: Array, shape: tuple[int, ...]) -> None:
    """Raise ValueError where latents do not have the base's event shape."""
    if z.shape[1:] != shape:
        raise ValueError(
            f"{owner}: the base is over events {shape}, but the bijector's latents are "
            f"{z.shape[1:]} (a batch {z.shape}); build the base with that shape."
        )


def normal_log_prob(z: Array, mean: Any, log_scale: Any, temperature: Any) -> Array:
    """Diagonal normal log-density `(N,)`, its scale multiplied by the temperature."""
    log_scale = log_scale + jnp.log(temperature)
    standard = (z - mean) * jnp.exp(-log_scale)
    log_volume = log_scale + 0.5 * math.log(2 * math.pi)
    # Of one example where it is the same for all.
    rows = log_scale.shape[:1] if log_scale.ndim == z.ndim else (1,)
    log_volume = jnp.broadcast_to(log_volume, (*rows, *z.shape[1:]))
    log_volume = log_volume.astype(log_det_dtype(standard))
    return -0.5 * sum_event(standard**2) - sum_event(log_volume)


def normal_sample(
    key: Array, shape: tuple[int, ...], mean: Array, log_scale: Array, temperature: Any
) -> Array:
    """`mean + temperature exp(log_scale) eps`, a diagonal normal's, of that shape."""
    eps = draw(jax.random.normal, key, shape, mean.dtype)
    return mean + temperature * jnp.exp(log_scale) * eps
