"""Planar flows: the space pushed and pulled along one direction, plane by plane.

Rezende & Mohamed 2015, section 4.1 and appendix A.1, https://arxiv.org/abs/1505.05770.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jflow.bijector import Array, Bijector, log_det_dtype
from jflow.bijectors.amortised import amortised
from jflow.bijectors.rank_one import constrain
from jflow.scalars.solve import numerical_inverse


def planar(activation: str = "tanh", *, net: Any = None) -> Bijector:
    """`z = x + u h(a)`, `a = w . x + b`; log-det = `log(1 + h'(a) u . w)`.

    u is moved along w until `u . w > -1`, so the map can be undone: along w it is
    `a + (u . w) h(a)`, monotone, which the inverse solves. Gradients of the inverse are
    those of the implicit function theorem, in both modes and to any order. With all
    raw parameters zero it is the identity; it starts near there. Events of several axes
    are flattened.

    As a layer of a posterior that is sampled (the paper's use) it wants `invert`.

    Args:
        activation: h, `"tanh"` or `"leaky_relu"` of slope 1/100.
        net: the raw parameters `(u, w, b)` also move with the condition, which is
            `(N, c)`: `out_features -> module` with `init(key, condition)` and
            `apply(params, condition)`, `jflow.nets.mlp(64)` for instance; out_features
            is 2 D + 1. Without a condition they are only learned.

    Raises:
        TypeError: `net` is no function.
        ValueError: an unknown activation; a condition in one of init and a pass only.

    Example:
        >>> b = planar()
        >>> x = jax.random.normal(jax.random.key(0), (8, 3))
        >>> z, log_det = b.forward(b.init(jax.random.key(1), x), x)
    """
    h = check_activation("planar", activation)
    source = amortised("planar", net)
    solve = monotone_inverse(h)

    def init(key, x, condition=None):
        size = x[0].size
        raw_key, net_key = jax.random.split(key)
        # w of unit length and small u: at both zero, no gradient moves either
        scale = np.repeat([0.01, size**-0.5, 0.0], [size, size, 1])
        start = scale * jax.random.normal(raw_key, scale.shape)
        return source.init(net_key, start.astype(x.dtype), condition)

    def parts(params, x, condition):
        dtype = log_det_dtype(x)
        raw = source.values(params, condition, len(x)).astype(dtype)
        flat = x.reshape(len(x), -1).astype(dtype)
        size = flat.shape[1]
        u, w, b = raw[:, :size], raw[:, size:-1], raw[:, -1]
        u, product = constrain(u, w)
        return flat, u, product, (flat * w).sum(-1) + b

    def forward(params, x, condition=None, key=None):
        flat, u, product, a = parts(params, x, condition)
        z = flat + u * h.value(a)[:, None]
        return z.reshape(x.shape).astype(x.dtype), jnp.log1p(product * h.slope(a))

    def inverse(params, z, condition=None, key=None):
        flat, u, product, pushed = parts(params, z, condition)
        a = solve(product, pushed)
        x = flat - u * h.value(a)[:, None]
        return x.reshape(z.shape).astype(z.dtype), -jnp.log1p(product * h.slope(a))

    return Bijector(init, forward, inverse)


class Activation(NamedTuple):
    """A function with slopes within [0, 1] that is zero at zero, and its derivative."""

    value: Any
    slope: Any


ACTIVATIONS = {
    "tanh": Activation(jnp.tanh, lambda a: 1.0 - jnp.tanh(a) ** 2),
    "leaky_relu": Activation(
        lambda a: jnp.where(a >= 0, a, 0.01 * a),
        lambda a: jnp.where(a >= 0, jnp.ones_like(a), 0.01),
    ),
}


def check_activation(owner: str, activation: str) -> Activation:
    """The activation of that name, or a ValueError."""
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"{owner}: activation must be one of {tuple(ACTIVATIONS)}, got "
            f"{activation!r}."
        )
    return ACTIVATIONS[activation]


def monotone_inverse(h: Activation):
    """`(c, y) -> a` with `a + c h(a) = y`, for c > -1 that broadcasts against y."""

    def pushed(c, a):
        return a + c * h.value(a), jnp.log1p(c * h.slope(a))

    inverse = numerical_inverse(pushed)

    def solve(c: Array, y: Array) -> Array:
        return inverse(jnp.broadcast_to(c, y.shape), y)[0]

    return solve
