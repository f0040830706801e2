"""Convolutional conditioners: Glow's three-layer net and RealNVP's residual net."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jflow.arguments import check_dtype
from jflow.bijector import Array, channel_moments, check_positive
from jflow.nets.conv import conv2d
from jflow.nets.layers import ConditionBias, head_dtype, normal_weights, relu

# Between its convolutions a net is cheap: the backward pass computes that again, which
# takes less than to keep and fetch it.
recomputed = partial(
    nn.remat, policy=jax.checkpoint_policies.save_only_these_names("conv")
)
# Of the logarithms of scales in a net; products of a few such scales stay finite.
LOG_LIMIT = 20.0


class Conv(nn.Module):
    """A convolution without bias; with `mark_edges`, one more input channel is 1 in the
    padding and 0 inside, so that the net can tell where the image ends. With `keep` the
    backward pass keeps its output, which is then a `"conv"`."""

    features: int
    size: int
    kernel_init: Callable
    mark_edges: bool = False
    dtype: Any = None
    keep: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, head_dtype(x))
        dtype = self.dtype or x.dtype
        y = conv2d(x.astype(dtype), kernel.astype(dtype))
        y = checkpoint_name(y, "conv") if self.keep else y
        if self.mark_edges and self.size > 1:
            edge = self.param(
                "edge",
                nn.initializers.zeros,
                (self.size, self.size, 1, self.features),
                head_dtype(x),
            )
            inside = conv2d(jnp.ones((1, *x.shape[1:3], 1), edge.dtype), edge)
            y = y + (edge.sum((0, 1, 2)) - inside).astype(dtype)
        return y


class Whiten(nn.Module):
    """Actnorm inside a net, which gives the first batch's channels mean 0 and variance
    1, and a rectifier."""

    gain: float = 1.0

    @nn.compact
    def __call__(self, h: Array) -> Array:
        wide = h.astype(head_dtype(h))
        mean, deviation = channel_moments(wide, 1e-6)
        bias = self.param("bias", lambda key: -mean)
        log_scale = self.param("log_scale", lambda key: -jnp.log(deviation) / self.gain)
        # By rows, as products take them: XLA writes each shape that is asked for.
        rows = wide.reshape(-1, wide.shape[-1])
        rows = _scaled_relu(rows, bias, _scale(self.gain * log_scale))
        return rows.reshape(h.shape).astype(h.dtype)


@jax.custom_jvp
def _scaled_relu(h, bias, scale):
    """`max((h + bias) scale, 0)` for positive scales.

    The result y is all that the derivatives of bias and scale need: `y / scale` is
    `h + bias` where it matters, and the cotangent of h, summed, is that of the bias.
    """
    return relu((h + bias) * scale)


@_scaled_relu.defjvp
def _scaled_relu_jvp(primals, tangents):
    (h, bias, scale), (dh, dbias, dscale) = primals, tangents
    y = _scaled_relu(h, bias, scale)
    return y, jnp.where(y > 0, (dh + dbias) * scale, 0) + y * (dscale / scale)


class GlowNet(nn.Module):
    """See `glow_net`."""

    out_features: int
    width: int
    actnorm: bool
    mark_edges: bool
    dtype: Any = None

    @recomputed
    @nn.compact
    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        h, wide = x, head_dtype(x)
        small = normal_weights(0.05)
        for i, size in enumerate((3, 1)):
            # Of few channels it takes less time than to keep and fetch its output.
            keep = i > 0 or x.shape[-1] > self.width
            h = Conv(self.width, size, small, self.mark_edges, self.dtype, keep)(h)
            if i == 0 and condition is not None:
                h = ConditionBias(self.width, self.dtype)(h, condition)
            if self.actnorm:
                h = Whiten(gain=3.0)(h)
            else:
                bias = self.param(
                    f"bias_{i}", nn.initializers.zeros, (self.width,), wide
                )
                h = relu(h + bias.astype(h.dtype))
        h = h.astype(wide)
        return ZeroConv(self.out_features, 3, self.mark_edges)(h)


class ZeroConv(nn.Module):
    """A convolution that starts at zero, its output times `exp(3 log_scale)`."""

    features: int
    size: int = 3
    mark_edges: bool = False

    @nn.compact
    def __call__(self, h: Array, condition: Array | None = None) -> Array:
        zeros = nn.initializers.zeros
        h = Conv(self.features, self.size, zeros, self.mark_edges)(h)
        if condition is not None:
            h = ConditionBias(self.features, zero=True)(h, condition)
        bias = self.param("bias", zeros, (self.features,), h.dtype)
        log_scale = self.param("log_scale", zeros, (self.features,), h.dtype)
        return (h + bias) * _scale(3.0 * log_scale)


def _scale(log_scale):
    return jnp.exp(jnp.clip(log_scale, -LOG_LIMIT, LOG_LIMIT))


def glow_net(
    width: int = 512,
    *,
    actnorm: bool = True,
    mark_edges: bool = False,
    dtype: Any = None,
) -> Callable[[int], GlowNet]:
    """Glow's conditioner: 3x3, 1x1, then a 3x3 that starts at zero.

    Glow, section 3.3 and its code: weights from N(0, 0.05^2), actnorm and relu after
    the first two, the last one's output multiplied by `exp(3 log_scale)`.

    Args:
        width: hidden channels.
        actnorm: normalise the hidden layers, whitened on the init batch; else a bias.
        mark_edges: the padding carries an indicator channel, as in Glow's code.
        dtype: of the hidden layers; the last is float32, or better.

    Returns:
        A function `out_features -> module` over images `(N, H, W, C)`.

    Raises:
        ValueError: `width` is no positive integer.
    """
    check_positive("glow_net", width=width)
    check_dtype("glow_net", dtype)

    def build(out_features: int) -> GlowNet:
        return GlowNet(out_features, width, actnorm, mark_edges, dtype)

    return build


def zero_conv(size: int = 3, *, mark_edges: bool = False) -> Callable[[int], ZeroConv]:
    """One convolution that starts at zero: the net of Glow's conditional prior.

    Returns:
        A function `out_features -> module` over images `(N, H, W, C)`.
    """
    check_positive("zero_conv", size=size)

    def build(out_features: int) -> ZeroConv:
        return ZeroConv(out_features, size, mark_edges)

    return build


class NormConv(nn.Module):
    """A weight-normalised convolution, `g v / |v|` with a bias (Salimans & Kingma 2016,
    https://arxiv.org/abs/1602.07868, section 3: both fitted to the first batch)."""

    features: int
    size: int = 3
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        wide = head_dtype(x)
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", normal_weights(0.05), shape, wide)
        norm = jnp.sqrt((kernel**2).sum((0, 1, 2)) + 1e-12)
        direction = (kernel / norm).astype(self.dtype or x.dtype)
        y = checkpoint_name(conv2d(x.astype(direction.dtype), direction), "conv")
        y = y.astype(wide)
        mean, deviation = channel_moments(y, 1e-6)
        gain = self.param("gain", lambda key: 1.0 / deviation)
        bias = self.param("bias", lambda key: -mean / deviation)
        return (y * gain + bias).astype(direction.dtype)


class ResidualNet(nn.Module):
    """See `residual_net`."""

    out_features: int
    width: int
    blocks: int
    dtype: Any = None

    @recomputed
    @nn.compact
    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        wide = head_dtype(x)
        h = relu(jnp.concatenate([x, -x], axis=-1))
        h = NormConv(self.width, 3, self.dtype)(h)
        if condition is not None:
            h = ConditionBias(self.width, self.dtype)(h, condition)
        total = NormConv(self.width, 1, self.dtype)(h)
        for _ in range(self.blocks):
            inner = NormConv(self.width, 3, self.dtype)(relu(h))
            inner = NormConv(self.width, 3, self.dtype)(relu(inner))
            h = h + inner
            total = total + NormConv(self.width, 1, self.dtype)(h)
        return ZeroConv(self.out_features, 1)(relu(total).astype(wide))


def residual_net(
    width: int = 64, blocks: int = 4, *, dtype: Any = None
) -> Callable[[int], ResidualNet]:
    """RealNVP's conditioner: a residual net whose blocks all feed the output.

    RealNVP, section 4.1 and its code: weight normalisation on every convolution, the
    input with both signs, 1x1 skip connections from every block summed. Its batch
    normalisation is replaced by weight normalisation's own fit to the first batch, so
    that a pass depends on no other example. The last layer starts at zero.

    Args:
        width: hidden channels.
        blocks: residual blocks of two 3x3 convolutions each.
        dtype: of the hidden layers; the last is float32, or better.

    Returns:
        A function `out_features -> module` over images `(N, H, W, C)`.

    Raises:
        ValueError: `width` or `blocks` is no positive integer.
    """
    check_positive("residual_net", width=width, blocks=blocks)
    check_dtype("residual_net", dtype)

    def build(out_features: int) -> ResidualNet:
        return ResidualNet(out_features, width, blocks, dtype)

    return build
