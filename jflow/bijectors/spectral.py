"""Fixed orthonormal transforms: cosines and Haar wavelets; log-det 0."""

import jax
import jax.numpy as jnp
import numpy as np

from jflow.bijector import Bijector, zero_log_det
from jflow.bijectors.reshape import squeeze
from jflow.mixing import matmul


def dct() -> Bijector:
    """The orthonormal discrete cosine transform (DCT-II) of the last axis.

    `z_k = c_k sum_j x_j cos(pi k (2 j + 1) / (2 n))`, `c_0 = sqrt(1 / n)`, else
    `sqrt(2 / n)`: `scipy.fft.dct(x, norm="ortho")`. Smooth signals become a few large
    numbers. Ahmed, Natarajan & Rao 1974.

    Example:
        >>> z, _ = dct().forward((), jnp.ones((1, 4)))
        >>> z.round(3) + 0.0
        Array([[2., 0., 0., 0.]], dtype=float32)
    """

    def init(key, x, condition=None):
        return ()

    def forward(params, x, condition=None, key=None):
        return jax.scipy.fft.dct(x, norm="ortho"), zero_log_det(x)

    def inverse(params, z, condition=None, key=None):
        return jax.scipy.fft.idct(z, norm="ortho"), zero_log_det(z)

    return Bijector(init, forward, inverse)


def haar() -> Bijector:
    """One level of the Haar wavelet transform of the last axis.

    Pairs `(a, b)` become `(a + b) / sqrt(2)`, the averages, in the first half and
    `(a - b) / sqrt(2)`, the details, in the second; `split(...)` after it goes on with
    the averages alone. Mallat 1989.

    Raises:
        ValueError: at trace time, an odd number of places.

    Example:
        >>> z, _ = haar().forward((), jnp.array([[1.0, 1.0, 2.0, 4.0]]))
        >>> z.round(3) + 0.0
        Array([[ 1.414,  4.243,  0.   , -1.414]], dtype=float32)
    """

    def check(x):
        if x.shape[-1] % 2:
            raise ValueError(
                f"haar: the last axis must be even, got {x.shape[1:]}; pad the data."
            )

    def init(key, x, condition=None):
        check(x)
        return ()

    def forward(params, x, condition=None, key=None):
        check(x)
        a, b = x[..., 0::2] * 0.5**0.5, x[..., 1::2] * 0.5**0.5
        return jnp.concatenate([a + b, a - b], axis=-1), zero_log_det(x)

    def inverse(params, z, condition=None, key=None):
        check(z)
        mean, detail = jnp.split(z * 0.5**0.5, 2, axis=-1)
        pairs = jnp.stack([mean + detail, mean - detail], axis=-1)
        return pairs.reshape(z.shape), zero_log_det(z)

    return Bijector(init, forward, inverse)


def haar_squeeze() -> Bijector:
    """Space to depth by the two-dimensional Haar transform.

    `(H, W, C)` becomes `(H / 2, W / 2, 4 C)`: of each 2 x 2 block half the sum, then
    half the differences of columns, of rows and across, C channels each. So
    `split(..., keep=C)` goes on with an image of half the size. Ardizzone et al. 2019,
    https://arxiv.org/abs/1907.02392. `invert` undoes it.

    Raises:
        ValueError: at trace time, events that are no images with even sides.

    Example:
        >>> x = jnp.arange(4.0).reshape(1, 2, 2, 1)
        >>> haar_squeeze().forward((), x)[0].ravel()
        Array([ 3., -1., -2.,  0.], dtype=float32)
    """
    blocks = squeeze(2, order="block_major")
    # symmetric and orthogonal, so its own inverse; exact in every precision
    pair = np.array([[1.0, 1.0], [1.0, -1.0]])
    mix = 0.5 * np.kron(pair, pair)

    def mixed(z):
        bands = z.reshape(*z.shape[:-1], 4, -1)
        bands = matmul(jnp.swapaxes(bands, -1, -2), mix.astype(z.dtype))
        return jnp.swapaxes(bands, -1, -2).reshape(z.shape)

    def forward(params, x, condition=None, key=None):
        z, log_det = blocks.forward(params, x)
        return mixed(z), log_det

    def inverse(params, z, condition=None, key=None):
        if z.ndim != 4 or z.shape[-1] % 4:
            raise ValueError(
                "haar_squeeze: latents must be (H, W, C) with C divisible by 4, got "
                f"{z.shape[1:]}."
            )
        return blocks.inverse(params, mixed(z))

    return Bijector(blocks.init, forward, inverse)
