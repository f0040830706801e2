"""Shift, scale and both: the scalars of NICE, RealNVP and Glow."""

import jax.numpy as jnp

from jflow.scalars.scalar import Scalar, unpack
from jflow.scalars.scales import scale_map


def shift(*, subtract: bool = False) -> Scalar:
    """`y = x + t`, log-derivative 0: NICE's additive law, one raw parameter.

    NICE, Dinh et al. 2015, section 3.2, https://arxiv.org/abs/1410.8516.

    Args:
        subtract: `y = x - t` instead, so that generating adds the network's output.
    """
    sign = -1.0 if subtract else 1.0

    def forward(raw, x):
        (t,) = unpack(raw, x)
        return (x + sign * t).astype(x.dtype), jnp.zeros(x.shape, t.dtype)

    def inverse(raw, y):
        (t,) = unpack(raw, y)
        return (y - sign * t).astype(y.dtype), jnp.zeros(y.shape, t.dtype)

    return Scalar(1, forward, inverse)


def multiplicative(scale: str = "soft_clip") -> Scalar:
    """`y = x * s(u)`, log-derivative `log s(u)`: scale without shift.

    Args:
        scale: the scale map's name, see `jflow.scalars.scales`.

    Raises:
        ValueError: no such scale map.
    """
    log_scale, learned = scale_map(scale)

    def forward(raw, x):
        log_s = jnp.broadcast_to(log_scale(*unpack(raw, x)), x.shape)
        return (x * jnp.exp(log_s)).astype(x.dtype), log_s

    def inverse(raw, y):
        log_s = jnp.broadcast_to(log_scale(*unpack(raw, y)), y.shape)
        return (y * jnp.exp(-log_s)).astype(y.dtype), -log_s

    return Scalar(1 + len(learned), forward, inverse, learned)


def affine(scale: str = "soft_clip", *, shift_first: bool = False) -> Scalar:
    """`y = x * s(u) + t`, log-derivative `log s(u)`; two raw parameters, `t` and `u`.

    RealNVP, Dinh et al. 2017, section 3.1, https://arxiv.org/abs/1605.08803.

    Args:
        scale: the scale map's name, see `jflow.scalars.scales`. `"soft_clip"` keeps
            the scale between 1/1000 and 1000; RealNVP has `"tanh"`, Glow `"sigmoid"`.
        shift_first: `y = (x + t) * s(u)`, as RealNVP's and Glow's code have it.

    Raises:
        ValueError: no such scale map.

    Example:
        >>> import jax.numpy as jnp
        >>> y, log_derivative = affine().forward(jnp.zeros((3, 2)), jnp.ones(3))
    """
    log_scale, learned = scale_map(scale)

    def parts(raw, x):
        t, *u = unpack(raw, x)
        return t, jnp.broadcast_to(log_scale(*u), x.shape)

    def forward(raw, x):
        t, log_s = parts(raw, x)
        s = jnp.exp(log_s)
        y = (x + t) * s if shift_first else x * s + t
        return y.astype(x.dtype), log_s

    def inverse(raw, y):
        t, log_s = parts(raw, y)
        s = jnp.exp(-log_s)
        x = y * s - t if shift_first else (y - t) * s
        return x.astype(y.dtype), -log_s

    return Scalar(2 + len(learned), forward, inverse, learned)
