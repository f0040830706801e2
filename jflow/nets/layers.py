"""Parts that the conditioners share: how a condition enters, which dtypes hold."""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jflow.bijector import Array, draw_start

# The deviation of a unit normal cut off at two.
CUT_DEVIATION = 0.87962566103423978


def head_dtype(x: Array) -> jnp.dtype:
    """Heads, scales and log-dets are float32 or better, whatever the bodies are."""
    return jnp.promote_types(x.dtype, jnp.float32)


def normal_weights(deviation: float) -> Callable[..., Array]:
    """An initialiser: weights from N(0, deviation^2)."""

    def init(key, shape, dtype=jnp.float32):
        return deviation * draw_start(jax.random.normal, key, shape, dtype)

    return init


def he_weights(key: Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> Array:
    """Weights of variance 2 / inputs, from a normal cut off at two deviations.

    He et al. 2015, section 2.2, https://arxiv.org/abs/1502.01852; the numbers are
    those of `jax.nn.initializers.he_normal()`.
    """

    def within_two(key, shape, dtype):
        return jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)

    deviation = jnp.sqrt(jnp.array(2.0 / shape[0], dtype)) / CUT_DEVIATION
    return deviation.astype(dtype) * draw_start(within_two, key, shape, dtype)


def spread_biases(inputs: int) -> Callable[..., Array]:
    """An initialiser: biases uniform within `1 / sqrt(inputs)` of zero.

    PyTorch's for linear layers. With biases of zero all units of one input bend at the
    same place, zero: networks of few inputs would learn slowly.
    """

    def within_one(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -1.0, 1.0)

    def init(key, shape, dtype=jnp.float32):
        return draw_start(within_one, key, shape, dtype) / math.sqrt(inputs)

    return init


@jax.custom_jvp
def relu(x: Array) -> Array:
    """`max(x, 0)`, with derivative 0 at 0; the backward pass keeps the result alone.

    `jax.nn.relu` keeps where x was positive as well: under a scan one more array for
    each layer to write, and to fetch from beyond the cache. A maximum XLA computes
    again in the backward pass, for which it then keeps x, too, and with NaN's rules it
    takes twice as long as this choice, which is one instruction; NaN stays NaN.
    """
    return jnp.where(x < 0, 0, x)


@relu.defjvp
def _relu_jvp(primals, tangents):
    y = relu(*primals)
    return y, _where_positive(y, *tangents)


@functools.partial(jax.checkpoint, prevent_cse=False)
def _where_positive(y, tangent):
    return jnp.where(y > 0, tangent, 0)


class ConditionBias(nn.Module):
    """A linear map of the condition, added to the first hidden layer.

    Equal to concatenating the condition with that layer's input. `(N, c)` reaches every
    position of an image alike; `(N, h, w, c)` is averaged down to the image's size.
    """

    features: int
    dtype: Any = None
    zero: bool = False

    @nn.compact
    def __call__(self, h: Array, condition: Array) -> Array:
        condition = fit_condition(condition, h)
        kernel_init = nn.initializers.zeros if self.zero else he_weights
        bias = nn.Dense(
            self.features,
            use_bias=False,
            dtype=self.dtype,
            param_dtype=head_dtype(h),
            kernel_init=kernel_init,
        )(condition.astype(h.dtype))
        return h + bias


def fit_condition(condition: Any, h: Array) -> Array:
    """The condition with the axes of `h`, ready to broadcast against it.

    Raises:
        ValueError: it is no array that a network could use as it is.
    """
    shape = getattr(condition, "shape", None)
    if shape is not None and len(shape) == 2:
        return condition.reshape(shape[0], *(1,) * (h.ndim - 2), shape[1])
    if shape is not None and len(shape) == 4 and h.ndim == 4:
        factors = shape[1] // h.shape[1], shape[2] // h.shape[2]
        if (factors[0] * h.shape[1], factors[1] * h.shape[2]) == shape[1:3]:
            blocks = (h.shape[1], factors[0], h.shape[2], factors[1])
            return condition.reshape(shape[0], *blocks, shape[3]).mean(axis=(2, 4))
    raise ValueError(
        f"condition: a network over {h.shape} takes (N, c), or images (N, h, w, c) "
        f"whose sides its own divide; got {shape or type(condition).__name__}. Pass "
        "labels one-hot (classes= of the models does), and anything else through "
        "embed_condition."
    )
