"""Products of rank-one updates, applied and undone all at once.

`A = (I + w_1 u_1^T) ... (I + w_r u_r^T)` for rows `x A`. Step k adds `t_k u_k` to the
row, `t_k` its product with `w_k` by then, so with `C_jk = u_j . w_k`

    t (I - striu(C)) = x W^T,    x A = x + t U,

and from the result `z = x A` the same steps follow by `t (I + tril(C)) = z W^T`. These
are Woodbury's identity and, as `det A = prod(1 + C_kk)`, the determinant lemma. A
Householder reflection is the update with `u = -2 w / |w|^2`.

Vectors are `(1, r, D)`, the same for all rows, or `(N, r, D)`, one set for each.
"""

import jax
import jax.numpy as jnp

from jflow.bijector import Array

SLOPE = 1e-3


def above_minus_one(a: Array) -> Array:
    """Smoothly from the whole line to above -1 + SLOPE; `a` itself where positive."""
    room = 1.0 - SLOPE
    return jnp.where(a > 0, a, room * jnp.expm1(jnp.minimum(a, 0.0) / room))


def constrain(u: Array, w: Array) -> tuple[Array, Array]:
    """Move u along w until `u . w > -1`; also returns that product, `(...)`.

    Planar flows' appendix A.1, with a map that leaves u alone where the product is
    positive and moves it by no more than `|u|^2 |w|` where both are small.
    """
    product = (u * w).sum(-1)
    allowed = above_minus_one(product)
    square = (w * w).sum(-1)
    safe = jnp.where(square > jnp.finfo(square.dtype).tiny, square, 1.0)
    # twice: the first step leaves a rounding error of the size of u, not of the result
    for _ in range(2):
        u = u + ((allowed - (u * w).sum(-1)) / safe)[..., None] * w
    return u, allowed


def update(x: Array, u: Array, w: Array) -> Array:
    """Rows `x A`; `x` is `(N, D)`."""
    inner = rows(u, w)
    upper = jnp.eye(u.shape[-2], dtype=inner.dtype) - jnp.triu(inner, 1)
    return x + rows(_solve(upper, rows(x, w), lower=False), _t(u))


def undo(z: Array, u: Array, w: Array, products: Array) -> Array:
    """Rows `z A^-1`, given the products `u_k . w_k`, `(1 or N, r)`."""
    diagonal = (1.0 + products)[..., None, :] * jnp.eye(u.shape[-2], dtype=u.dtype)
    lower = jnp.tril(rows(u, w), -1) + diagonal
    return z - rows(_solve(lower, rows(z, w), lower=True), _t(u))


def reflect(x: Array, vectors: Array) -> Array:
    """Rows `x H_1 ... H_r`, the Householder reflections of the vectors in turn.

    Reversed vectors undo it. A vector of length zero reflects nothing.
    """
    square = (vectors * vectors).sum(-1, keepdims=True)
    some = square > jnp.finfo(square.dtype).tiny
    unit = vectors * jnp.where(some, jax.lax.rsqrt(jnp.where(some, square, 1.0)), 0.0)
    return update(x, -2.0 * unit, unit)


def rows(x: Array, w: Array) -> Array:
    """Products of rows with vectors: `x W^T`.

    `(N, D)` or `(B, k, D)` with `(B, r, D)` gives `(N, r)` or `(B, k, r)`; rows
    `(N, D)` meet a set for each of them, or one, B = 1, for all.
    """
    if x.ndim == w.ndim:
        return jnp.matmul(x, _t(w), precision="highest")
    if len(w) == 1:
        return jnp.matmul(x, w[0].T, precision="highest")
    return jnp.matmul(x[:, None], _t(w), precision="highest")[:, 0]


def _t(w):
    return jnp.swapaxes(w, -1, -2)


def _solve(a, b, lower):
    """Solve `t a = b` for rows t `(N, r)`, a `(1 or N, r, r)` triangular."""
    if len(a) == 1:
        return jax.lax.linalg.triangular_solve(a[0], b, left_side=False, lower=lower)
    t = jax.lax.linalg.triangular_solve(a, b[:, None], left_side=False, lower=lower)
    return t[:, 0]
