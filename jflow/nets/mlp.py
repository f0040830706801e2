"""The multilayer perceptron as a conditioner."""

from collections.abc import Callable
from numbers import Real
from typing import Any

import flax.linen as nn
import numpy as np
from jax.nn.initializers import zeros

from jflow.arguments import check_dtype
from jflow.bijector import Array, check_positive
from jflow.nets.layers import (
    ConditionBias,
    he_weights,
    head_dtype,
    relu,
    spread_biases,
)
from jflow.nets.periodic import periodic_features


class MLP(nn.Module):
    """Dense layers over the last axis; see `mlp`."""

    hidden: tuple[int, ...]
    out_features: int
    activation: Callable = relu
    output_activation: Callable | None = None
    zero_last: bool = True
    dtype: Any = None
    periodic: tuple | None = None

    @nn.compact
    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        wide = head_dtype(x)
        features = periodic_features("mlp", x.shape[-1], self.periodic)
        h = features.apply(x, np.arange(x.shape[-1]))
        for i, width in enumerate((*self.hidden, self.out_features)):
            last = i == len(self.hidden)
            zero = last and self.zero_last
            dtype = wide if last else self.dtype
            layer = nn.Dense(
                width,
                dtype=dtype,
                param_dtype=wide,
                kernel_init=zeros if zero else he_weights,
                bias_init=zeros if last else spread_biases(h.shape[-1]),
            )
            h = layer(h)
            if i == 0 and condition is not None:
                h = ConditionBias(width, dtype, zero)(h, condition)
            if not last:
                h = self.activation(h)
        return self.output_activation(h) if self.output_activation else h


def mlp(
    *hidden: int,
    activation: Callable = relu,
    output_activation: Callable | None = None,
    zero_last: bool = True,
    dtype: Any = None,
    periodic: Any = None,
) -> Callable[[int], MLP]:
    """A multilayer perceptron with the given hidden widths, over the last axis.

    Hidden layers start with He's weights and with biases uniform within
    `1 / sqrt(inputs)`, so that units of few inputs bend at places of their own.

    Args:
        *hidden: the hidden layers' widths.
        activation: between layers.
        output_activation: after the last layer, NICE's article has relu there; it wants
            `zero_last=False`, since relu has no gradient at zero.
        zero_last: the last layer's weights start at zero, so a flow starts as the
            identity.
        dtype: of the hidden layers, `jnp.bfloat16` for instance; the last layer and all
            parameters are float32, or better where the data are.
        periodic: a (lower, upper) pair, or one for each input with None for those that
            do not wrap: the network sees sine and cosine of these.

    Returns:
        A function `out_features -> module`.

    Raises:
        ValueError: a width that is no positive integer; a dtype that is switched off.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> net = mlp(32, 32)(4)
        >>> params = net.init(jax.random.key(0), jnp.ones((8, 3)))
        >>> net.apply(params, jnp.ones((8, 3))).shape
        (8, 4)
    """
    for width in hidden:
        check_positive("mlp", hidden=width)

    # Flax wants attributes that can be hashed.
    if periodic is not None:
        periodic = tuple(
            p if p is None or isinstance(p, Real) else tuple(p) for p in periodic
        )
    check_dtype("mlp", dtype)

    def build(out_features: int) -> MLP:
        return MLP(
            hidden,
            out_features,
            activation,
            output_activation,
            zero_last,
            dtype,
            periodic,
        )

    return build
