"""Convolutions and products that are fast on a CPU, under `lax.scan` as well.

XLA's CPU back end runs the filter gradient of a convolution about 60 times slower
inside a scan's body than outside of one, and convolutions to few channels at half the
speed of others. What is written here in place of them is as fast as any product; other
devices keep XLA's own.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jflow.bijector import Array


def _pads(kernel):
    return [((k - 1) // 2, k // 2) for k in kernel.shape[:2]]


def _plain(x, kernel, pads):
    dims = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=dims)


def _correlate(x, kernel, pads):
    """The convolution; few features are computed at all of the kernel's places by one
    product, and then summed.
    """
    channels, features = kernel.shape[2:]

    def by_product(x, kernel):
        matrix = kernel.transpose(2, 0, 1, 3).reshape(channels, -1)
        padded = _padded(x @ matrix, pads)
        shape = (*x.shape[:3], features)

        def add(total, place):
            number, *corner = place
            start = 0, *corner, number * features
            return total + lax.dynamic_slice(padded, start, shape), None

        # What comes out of a loop is computed once, however many then read it.
        places = jnp.arange(kernel.shape[0] * kernel.shape[1]), *_corners(kernel)
        return lax.scan(add, jnp.zeros_like(padded, shape=shape), places)[0]

    def plain(x, kernel):
        return _plain(x, kernel, pads)

    if kernel.shape[:2] == (1, 1):
        return x @ kernel[0, 0]
    if 8 * features > channels:
        return plain(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=by_product, default=plain)


def _input_gradient(kernel, dy):
    """The cotangent convolved with the kernel turned round: autodiff's own form of it
    is ten times slower in a scan."""
    turned = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    return _correlate(dy, turned, [pad[::-1] for pad in _pads(kernel)])


def _padded(x, pads):
    return jnp.pad(x, [(0, 0), *pads, (0, 0)])


def _corners(kernel):
    """Row and column of each of the kernel's places."""
    return tuple(jnp.indices(kernel.shape[:2]).reshape(2, -1))


def _each_shift(x, kernel, pads, function):
    """`function` of `x`, padded and shifted to each of the kernel's places, stacked.

    It gets channels first, and they come first before anything is shifted: shifts are
    then copies of rows. A loop, so that one of them is compiled and not all.
    """
    padded = lax.optimization_barrier(jnp.moveaxis(_padded(x, pads), -1, 0))
    shape = x.shape[-1], *x.shape[:-1]

    def at(corner):
        return function(lax.dynamic_slice(padded, (0, 0, *corner), shape))

    return lax.map(at, _corners(kernel))


def _patches(x, kernel, pads):
    """A row for each place and channel, a column for each position."""
    shifted = _each_shift(x, kernel, pads, lambda part: part)
    return shifted.reshape(-1, x.size // x.shape[-1])


def _rows(x):
    return x.reshape(-1, x.shape[-1])


def _filter_gradient_by_products(x, kernel, dy):
    """`dkernel[i, j] = shifted(x)[i, j]^T dy`, gathered so that the products are few.

    The narrower side's shifts become one matrix; where both sides are wide, copying
    them costs more than it saves, and each place has a product of its own.
    """
    (height, width, channels, features), pads = kernel.shape, _pads(kernel)
    if height == width == 1:
        return (_rows(x).T @ _rows(dy))[None, None]
    if 2 * channels <= features:
        return (_patches(x, kernel, pads) @ _rows(dy)).reshape(kernel.shape)
    if 2 * features <= channels and height % 2 == width % 2 == 1:
        # shifting x one way is shifting dy the other
        product = _patches(dy, kernel, pads) @ _rows(x)
        product = product.reshape(height, width, features, channels)
        return jnp.swapaxes(product[::-1, ::-1], 2, 3)
    rows = _rows(dy)
    products = _each_shift(
        x, kernel, pads, lambda part: part.reshape(channels, -1) @ rows
    )
    return products.reshape(kernel.shape)


def _filter_gradient(x, kernel, dy):
    return jax.vjp(lambda k: _correlate(x, k, _pads(k)), kernel)[1](dy)[0]


@jax.custom_vjp
def _convolve(x, kernel):
    return _correlate(x, kernel, _pads(kernel))


def _convolve_fwd(x, kernel):
    return _convolve(x, kernel), (x, kernel)


def _convolve_bwd(residuals, dy):
    x, kernel = residuals
    dkernel = lax.platform_dependent(
        x, kernel, dy, cpu=_filter_gradient_by_products, default=_filter_gradient
    )
    return _input_gradient(kernel, dy), dkernel


_convolve.defvjp(_convolve_fwd, _convolve_bwd)


def conv2d(x: Array, kernel: Array) -> Array:
    """`(N, H, W, C)` with `(h, w, C, F)` to `(N, H, W, F)`, zeros around the image.

    Reverse-mode derivatives of any order; no forward mode.
    """
    # Inside shard_map both vary over the same axes, and autodiff sums a gradient over
    # those that its own did not.
    like_x = jnp.zeros_like(x, shape=(), dtype=kernel.dtype)
    like_kernel = jnp.zeros_like(kernel, shape=(), dtype=x.dtype)
    return _convolve(x + like_kernel, kernel + like_x)
