"""Layers that change the event's shape and keep its size; log-det 0."""

import math

import jax.numpy as jnp
import numpy as np

from jflow.bijector import Bijector, zero_log_det

ORDERS = ("channel_major", "block_major", "diagonal")


def reshape(before: tuple[int, ...], after: tuple[int, ...]) -> Bijector:
    """Events `before` become events `after`, in row-major order.

    Raises:
        ValueError: the sizes differ, or, at trace time, the event is not `before`.
    """
    before, after = tuple(before), tuple(after)
    if math.prod(before) != math.prod(after):
        raise ValueError(
            f"reshape: {before} has {math.prod(before)} entries, {after} has "
            f"{math.prod(after)}; a bijector keeps the size."
        )

    def moved(x, here, there):
        if x.shape[1:] != here:
            raise ValueError(f"reshape: expected events {here}, got {x.shape[1:]}.")
        return x.reshape(x.shape[0], *there), zero_log_det(x)

    def init(key, x, condition=None):
        moved(x, before, after)
        return ()

    def forward(params, x, condition=None, key=None):
        return moved(x, before, after)

    def inverse(params, z, condition=None, key=None):
        return moved(z, after, before)

    return Bijector(init, forward, inverse)


def flatten(shape: tuple[int, ...]) -> Bijector:
    """Events of `shape` become vectors."""
    return reshape(shape, (math.prod(shape),))


def squeeze(factor: int = 2, *, order: str = "channel_major") -> Bijector:
    """Space to depth: `(H, W, C)` becomes `(H / f, W / f, C f^2)`.

    RealNVP, Dinh et al. 2017, section 3.6, https://arxiv.org/abs/1605.08803.

    Args:
        factor: the block's side f.
        order: where pixel (i, j) of a block and channel c go. `"channel_major"`:
            `c f^2 + i f + j` (Glow, nflows, torch's pixel_unshuffle). `"block_major"`:
            `(i f + j) C + c` (TensorFlow's space_to_depth). `"diagonal"`: block-major
            with the pixels in the order top left, bottom right, top right, bottom left
            (RealNVP), so that each half of the channels is one diagonal; f = 2 only.

    Raises:
        ValueError: a factor below 2, an unknown order, or, at trace time, an event that
            is no image or whose sides f does not divide.

    Example:
        >>> x = jnp.arange(16.0).reshape(1, 4, 4, 1)
        >>> z, _ = squeeze().forward((), x)
        >>> z[0, 0, 0]
        Array([0., 1., 4., 5.], dtype=float32)
    """
    if not isinstance(factor, int) or factor < 2:
        raise ValueError(f"squeeze: factor must be an integer >= 2, got {factor!r}.")
    if order not in ORDERS:
        raise ValueError(f"squeeze: order must be one of {ORDERS}, got {order!r}.")
    if order == "diagonal" and factor != 2:
        raise ValueError(f"squeeze: order 'diagonal' needs factor 2, got {factor}.")
    area = factor * factor
    pixels = np.array([0, 3, 1, 2]) if order == "diagonal" else np.arange(area)

    def init(key, x, condition=None):
        forward((), x)
        return ()

    def forward(params, x, condition=None, key=None):
        if x.ndim != 4 or x.shape[1] % factor or x.shape[2] % factor:
            raise ValueError(
                f"squeeze: events must be (H, W, C) with sides divisible by {factor}, "
                f"got {x.shape[1:]}; pad or crop the images, or use fewer levels."
            )
        n, h, w, c = x.shape
        blocks = x.reshape(n, h // factor, factor, w // factor, factor, c)
        blocks = blocks.transpose(0, 1, 3, 2, 4, 5)
        blocks = blocks.reshape(n, h // factor, w // factor, area, c)
        if order == "channel_major":
            blocks = jnp.swapaxes(blocks, -1, -2)
        elif order == "diagonal":
            blocks = blocks[..., pixels, :]
        return blocks.reshape(*blocks.shape[:3], area * c), zero_log_det(x)

    def inverse(params, z, condition=None, key=None):
        if z.ndim != 4 or z.shape[3] % area:
            raise ValueError(
                f"unsqueeze: events must be (H, W, C) with C divisible by {area}, got "
                f"{z.shape[1:]}."
            )
        n, h, w, c = z.shape[0], z.shape[1], z.shape[2], z.shape[3] // area
        if order == "channel_major":
            blocks = jnp.swapaxes(z.reshape(n, h, w, c, area), -1, -2)
        else:
            blocks = z.reshape(n, h, w, area, c)[..., np.argsort(pixels), :]
        blocks = blocks.reshape(n, h, w, factor, factor, c).transpose(0, 1, 3, 2, 4, 5)
        return blocks.reshape(n, h * factor, w * factor, c), zero_log_det(z)

    return Bijector(init, forward, inverse)


def unsqueeze(factor: int = 2, *, order: str = "channel_major") -> Bijector:
    """Depth to space, the inverse of `squeeze` with the same arguments."""
    inner = squeeze(factor, order=order)

    def init(key, x, condition=None):
        forward((), x)
        return ()

    def forward(params, x, condition=None, key=None):
        return inner.inverse(params, x)

    def inverse(params, z, condition=None, key=None):
        return inner.forward(params, z)

    return Bijector(init, forward, inverse)
