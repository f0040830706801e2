"""Permutations of the last axis: volume-preserving mixing, log-det 0."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jflow.bijector import Bijector, zero_log_det


def reverse() -> Bijector:
    """The last axis in reverse order, as NICE's and Glow's simplest mixing.

    Example:
        >>> z, log_det = reverse().forward((), jnp.arange(6.0).reshape(2, 3))
    """

    def init(key, x, condition=None):
        return ()

    def apply(params, x, condition=None, key=None):
        return x[..., ::-1], zero_log_det(x)

    return Bijector(init, apply, apply)


def permutation(order: Sequence[int]) -> Bijector:
    """A fixed permutation of the last axis: `z[..., i] = x[..., order[i]]`.

    Raises:
        ValueError: `order` is not a permutation of `0 .. len(order) - 1`, or, at trace
            time, has another length than the last axis.
    """
    order = np.asarray(order)
    if order.ndim != 1 or not np.array_equal(np.sort(order), np.arange(order.size)):
        raise ValueError(
            f"permutation: order must hold each of 0 .. n-1 once, got {order.tolist()}."
        )
    back = np.argsort(order)

    def init(key, x, condition=None):
        _check_channels(x)
        return ()

    def _check_channels(x):
        if x.shape[-1] != order.size:
            raise ValueError(
                f"permutation: order has {order.size} entries, the last axis of "
                f"{x.shape} has {x.shape[-1]}."
            )

    def forward(params, x, condition=None, key=None):
        _check_channels(x)
        return _take(x, order), zero_log_det(x)

    def inverse(params, z, condition=None, key=None):
        _check_channels(z)
        return _take(z, back), zero_log_det(z)

    return Bijector(init, forward, inverse)


def random_permutation() -> Bijector:
    """A permutation of the last axis drawn at `init`: Glow's shuffle.

    `params["fixed"]` are scores whose order is the permutation, so copies under
    `repeat` differ, and scaling the leaf (weight decay) leaves the map as it is.
    """

    def init(key, x, condition=None):
        channels = x.shape[-1]
        scores = jax.random.permutation(key, channels).astype(x.dtype)
        return {"fixed": (scores + 1) / channels}

    def order(params):
        return jnp.argsort(jax.lax.stop_gradient(params["fixed"]))

    def forward(params, x, condition=None, key=None):
        return _take(x, order(params)), zero_log_det(x)

    def inverse(params, z, condition=None, key=None):
        return _take(z, jnp.argsort(order(params))), zero_log_det(z)

    return Bijector(init, forward, inverse)


def _take(x, order):
    return x.at[..., order].get(unique_indices=True, mode="promise_in_bounds")
