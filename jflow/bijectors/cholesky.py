"""Covariance and correlation matrices, and their Cholesky factors, as free vectors.

Matrices are `(..., n, n)`, vectors list the lower triangle row by row. The sizes
differ, so log-dets are those of the maps between the vector and the free coordinates of
the matrix, as in Stan (Reference Manual, "Covariance matrices" and "Correlation
matrices", https://mc-stan.org/docs/reference-manual/): the lower triangle of a
covariance or its factor, diagonal included, and that below the diagonal for
correlations.

Matrices that are not what they should be, up to the square root of the dtype's
precision relative to their entries, get the log-det `-inf` and finite gradients. Axes
before the last two hold further matrices.

In float32 a matrix whose condition number passes 1e7 cannot be told from a singular one
and counts as outside; its factor has no such limit.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jflow.bijector import Array, Bijector, sum_event
from jflow.bijectors.support import (
    log_positive,
    outside_is_impossible,
    replace_outside,
    tolerance,
)
from jflow.mixing import matmul
from jflow.scalars.sinh_arcsinh import log_cosh


def positive_definite_cholesky() -> Bijector:
    """From factors L, lower triangular with positive diagonal, to `n (n + 1) / 2`
    numbers.

    `z = (log L_11, L_21, log L_22, L_31, ...)`; log-det `-sum_i log L_ii`.

    Raises:
        ValueError: at trace time, matrices that are not square, or vectors that no
            triangle has the size of.

    Example:
        >>> L, log_det = positive_definite_cholesky().inverse((), jnp.zeros((1, 3)))
        >>> L
        Array([[[1., 0.],
                [0., 1.]]], dtype=float32)
    """
    owner = "positive_definite_cholesky"

    def init(key, x, condition=None):
        _check_square(owner, x)
        return ()

    def forward(params, x, condition=None, key=None):
        n = _check_square(owner, x)
        inside = _is_factor(x)
        x = replace_outside(inside, x, jnp.eye(n, dtype=x.dtype))
        entries, diagonal = _entries(x), _on_diagonal(n)
        log_entries = log_positive(jnp.where(diagonal, entries, 1.0))
        z = jnp.where(diagonal, log_entries, entries)
        return z, outside_is_impossible(inside, -log_entries.sum(axis=-1))

    def inverse(params, z, condition=None, key=None):
        n = _side(owner, z, 0)
        diagonal = _on_diagonal(n)
        largest = math.log(jnp.finfo(z.dtype).max) - 1e-4
        log_entries = jnp.where(diagonal, z, 0.0)
        entries = jnp.where(diagonal, jnp.exp(jnp.minimum(log_entries, largest)), z)
        return _triangle(entries, n, 0), sum_event(log_entries)

    return Bijector(init, forward, inverse)


def positive_definite() -> Bijector:
    """From positive definite matrices A to `n (n + 1) / 2` numbers.

    Those that `positive_definite_cholesky` makes of the factor L, `A = L L^T`. The
    log-det is `-n log 2 - sum_i (n - i + 2) log L_ii`.

    Raises:
        ValueError: as `positive_definite_cholesky`.

    Example:
        >>> A, log_det = positive_definite().inverse((), jnp.array([[0.0, 3.0, 0.0]]))
        >>> A
        Array([[[ 1.,  3.],
                [ 3., 10.]]], dtype=float32)
    """

    def log_volume(n, log_diagonal):
        powers = jnp.arange(n, 0, -1, dtype=log_diagonal.dtype)
        return n * math.log(2.0) + (powers * log_diagonal).sum(axis=-1)

    def inside(x):
        return jnp.ones(x.shape[:-2], bool)

    return _of_matrix(
        "positive_definite", positive_definite_cholesky(), inside, log_volume
    )


def correlation_cholesky() -> Bijector:
    """From factors of correlation matrices to `n (n - 1) / 2` numbers.

    Rows of L have norm 1 and a positive last entry. `tanh(z_ij)` is the partial
    correlation `L_ij / sqrt(1 - sum_{k<j} L_ik^2)` of i and j given those before j
    (Lewandowski, Kurowicka & Joe 2009, section 2, https://doi.org/10.1016/
    j.jmva.2009.04.008), so `z_ij = arcsinh(L_ij / sqrt(sum_{k>j} L_ik^2))`. With
    `T_ij = sum_{k>=j} L_ik^2`, what row i has left at j, the log-det is
    `sum_{i>j} (log T_ij / 2 - log T_{i,j+1})`.

    Raises:
        ValueError: at trace time, matrices that are not square or have n < 2, or
            vectors that no such triangle has the size of.

    Example:
        >>> L, log_det = correlation_cholesky().inverse((), jnp.zeros((1, 1)))
        >>> L
        Array([[[1., 0.],
                [0., 1.]]], dtype=float32)
    """
    owner = "correlation_cholesky"

    def init(key, x, condition=None):
        _check_square(owner, x, 2)
        return ()

    def forward(params, x, condition=None, key=None):
        n = _check_square(owner, x, 2)
        norm = (jnp.tril(x) ** 2).sum(axis=-1)
        inside = _is_factor(x) & (jnp.abs(norm - 1) <= tolerance(x)).all(axis=-1)
        x = replace_outside(inside, x, jnp.eye(n, dtype=x.dtype))
        # Sums from the row's end: one minus those from its start would cancel.
        left = jnp.cumsum(jnp.tril(x)[..., ::-1] ** 2, axis=-1)[..., ::-1]
        left = jnp.maximum(left, float(jnp.finfo(x.dtype).tiny) ** 0.5)
        rows, columns = np.tril_indices(n, -1)
        before, after = left[..., rows, columns], left[..., rows, columns + 1]
        z = jnp.arcsinh(x[..., rows, columns] / jnp.sqrt(after))
        log_det = (0.5 * jnp.log(before) - jnp.log(after)).sum(axis=-1)
        return z, outside_is_impossible(inside, log_det)

    def inverse(params, z, condition=None, key=None):
        n = _side(owner, z, -1)
        z = _triangle(z, n, -1)
        cost = log_cosh(z)  # -log sqrt(T_{i,j+1} / T_ij)
        spent = jnp.cumsum(cost, axis=-1)[..., :-1]
        spent = jnp.concatenate([jnp.zeros_like(z[..., :1]), spent], axis=-1)
        x = (jnp.tanh(z) + jnp.eye(n, dtype=z.dtype)) * jnp.exp(-spent)
        log_det = jnp.where(np.tri(n, k=-1, dtype=bool), -spent - 2.0 * cost, 0.0)
        return x, sum_event(log_det)

    return Bijector(init, forward, inverse)


def correlation() -> Bijector:
    """From correlation matrices R to `n (n - 1) / 2` numbers.

    Those that `correlation_cholesky` makes of the factor L, `R = L L^T`. The log-det is
    the factor's minus `sum_i (n - i) log L_ii`.

    Raises:
        ValueError: as `correlation_cholesky`.

    Example:
        >>> R, log_det = correlation().inverse((), jnp.arctanh(jnp.array([[0.5]])))
        >>> R.round(3)
        Array([[[1. , 0.5],
                [0.5, 1. ]]], dtype=float32)
    """

    def log_volume(n, log_diagonal):
        powers = jnp.arange(n - 1, -1, -1, dtype=log_diagonal.dtype)
        return (powers * log_diagonal).sum(axis=-1)

    def inside(x):
        diagonal = jnp.diagonal(x, axis1=-2, axis2=-1)
        return (jnp.abs(diagonal - 1) <= tolerance(x)).all(axis=-1)

    return _of_matrix("correlation", correlation_cholesky(), inside, log_volume)


def _of_matrix(
    owner: str, factor: Bijector, belongs: Callable, log_volume: Callable
) -> Bijector:
    """The bijector of factors, for the matrices `L L^T`.

    `belongs` tells what matrices are inside, positive definite or not, and
    `log_volume`, of n and `log L_ii`, is the log-determinant of `L -> L L^T`.
    """

    def volume(x):
        log_diagonal = log_positive(jnp.diagonal(x, axis1=-2, axis2=-1))
        return log_volume(x.shape[-1], log_diagonal)

    def init(key, x, condition=None):
        return factor.init(key, x)

    def forward(params, x, condition=None, key=None):
        n = _check_square(owner, x)
        eye = jnp.eye(n, dtype=x.dtype)
        flip = jnp.swapaxes(x, -1, -2)
        slack = tolerance(x) * jnp.abs(x).max(axis=(-2, -1), keepdims=True)
        inside = (jnp.abs(x - flip) <= slack).all(axis=(-2, -1)) & belongs(x)
        # Tried without derivatives first: those of a factor that failed are NaN.
        tried = jnp.linalg.cholesky(
            replace_outside(inside, jax.lax.stop_gradient(x), eye)
        )
        inside &= jnp.isfinite(tried).all(axis=(-2, -1))
        lower = jnp.linalg.cholesky(replace_outside(inside, x, eye))
        z, log_det = factor.forward(params, lower)
        return z, log_det + outside_is_impossible(inside, -volume(lower))

    def inverse(params, z, condition=None, key=None):
        lower, log_det = factor.inverse(params, z)
        # Entries whose squares floats hold.
        end = (float(jnp.finfo(z.dtype).max) / (2.0 * lower.shape[-1])) ** 0.5
        lower = jnp.clip(lower, -end, end)
        x = matmul(lower, jnp.swapaxes(lower, -1, -2))
        return x, log_det + sum_event(volume(lower))

    forward.__qualname__ = inverse.__qualname__ = owner
    return Bijector(init, forward, inverse)


def _is_factor(x):
    """Lower triangular, nothing negative on the diagonal."""
    above = jnp.abs(jnp.triu(x, 1)).max(axis=(-2, -1))
    scale = jnp.abs(x).max(axis=(-2, -1))
    positive = (jnp.diagonal(x, axis1=-2, axis2=-1) >= 0).all(axis=-1)
    return positive & (above <= tolerance(x) * scale)


def _entries(x: Array) -> Array:
    """The lower triangle row by row."""
    rows, columns = np.tril_indices(x.shape[-1])
    return x[..., rows, columns]


def _on_diagonal(n: int) -> np.ndarray:
    rows, columns = np.tril_indices(n)
    return rows == columns


def _triangle(entries: Array, n: int, offset: int) -> Array:
    """The matrix of a lower triangle's entries, with zeros elsewhere."""
    rows, columns = np.tril_indices(n, offset)
    index = np.full((n, n), entries.shape[-1])
    index[rows, columns] = np.arange(entries.shape[-1])
    padded = jnp.concatenate([entries, jnp.zeros_like(entries[..., :1])], axis=-1)
    return padded[..., index]


def _side(owner: str, z: Array, offset: int) -> int:
    """The n of a matrix whose triangle, from that diagonal down, is the vector z."""
    size = z.shape[-1] if z.ndim > 1 else 0
    n = (math.isqrt(8 * size + 1) - 1) // 2
    if size < 1 or n * (n + 1) != 2 * size:
        raise ValueError(
            f"{owner}: a triangle has 1, 3, 6, 10, ... entries; got a batch of vectors "
            f"of shape {z.shape}."
        )
    return n - offset


def _check_square(owner: str, x: Array, least: int = 1) -> int:
    """The n of matrices `(N, ..., n, n)`."""
    if x.ndim < 3 or x.shape[-1] != x.shape[-2] or x.shape[-1] < least:
        raise ValueError(
            f"{owner}: needs events (..., n, n) of square matrices, n >= {least}; got "
            f"a batch of shape {x.shape}."
        )
    return x.shape[-1]
