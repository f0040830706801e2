"""A convolution whose gradients are fast under `lax.scan` on a CPU.

XLA's CPU back end runs the filter gradient of a convolution about 60 times slower
inside a scan's body than outside of one. As matrix products it is as fast as it can be
in either place; other devices keep XLA's own.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jflow.bijector import Array


def _pads(kernel):
    return [((k - 1) // 2, k // 2) for k in kernel.shape[:2]]


def _plain(x, kernel, pads=None):
    dims = ("NHWC", "HWIO", "NHWC")
    pads = pads or _pads(kernel)
    return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=dims)


def _input_gradient(kernel, dy):
    """The cotangent convolved with the kernel turned round: autodiff's own form of it
    is ten times slower in a scan."""
    turned = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    return _plain(dy, turned, [pad[::-1] for pad in _pads(kernel)])


def _shifts(x, kernel):
    """`x`, padded, shifted to each of the kernel's places, in row-major order."""
    (height, width), (rows, columns) = kernel.shape[:2], x.shape[1:3]
    padded = jnp.pad(x, [(0, 0), *_pads(kernel), (0, 0)])
    places = [(i, j) for i in range(height) for j in range(width)]
    return [padded[:, i : i + rows, j : j + columns] for i, j in places]


def _filter_gradient_by_products(x, kernel, dy):
    """`dkernel[i, j] = shifted(x)[i, j]^T dy`, gathered so that the products are few.

    The narrower side's shifts become one matrix; where both sides are wide, copying
    them costs more than it saves, and each place has a product of its own.
    """
    height, width, channels, features = kernel.shape
    flat_x, flat_dy = x.reshape(-1, channels), dy.reshape(-1, features)
    if 4 * channels <= features:
        patches = jnp.concatenate(_shifts(x, kernel), axis=-1)
        product = patches.reshape(-1, height * width * channels).T @ flat_dy
        return product.reshape(kernel.shape)
    if 4 * features <= channels and height % 2 == width % 2 == 1:
        # shifting x one way is shifting dy the other
        patches = jnp.concatenate(_shifts(dy, kernel)[::-1], axis=-1)
        product = flat_x.T @ patches.reshape(-1, height * width * features)
        product = product.reshape(channels, height, width, features)
        return product.transpose(1, 2, 0, 3)
    products = [s.reshape(-1, channels).T @ flat_dy for s in _shifts(x, kernel)]
    return jnp.stack(products).reshape(kernel.shape)


def _filter_gradient(x, kernel, dy):
    return jax.vjp(lambda k: _plain(x, k), kernel)[1](dy)[0]


@jax.custom_vjp
def _convolve(x, kernel):
    return _plain(x, kernel)


def _convolve_fwd(x, kernel):
    return _plain(x, kernel), (x, kernel)


def _convolve_bwd(residuals, dy):
    x, kernel = residuals
    dkernel = lax.platform_dependent(
        x, kernel, dy, cpu=_filter_gradient_by_products, default=_filter_gradient
    )
    return _input_gradient(kernel, dy), dkernel


_convolve.defvjp(_convolve_fwd, _convolve_bwd)


def conv2d(x: Array, kernel: Array) -> Array:
    """`(N, H, W, C)` with `(h, w, C, F)` to `(N, H, W, F)`, zeros around the image.

    1x1 kernels are a plain matrix product. Reverse-mode derivatives of any order;
    forward mode only for 1x1.
    """
    if kernel.shape[:2] == (1, 1):
        return x @ kernel[0, 0]
    return _convolve(x, kernel)
