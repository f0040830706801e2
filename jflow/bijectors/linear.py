"""Invertible linear maps of the last axis: 1x1 convolutions on images.

Glow, Kingma & Dhariwal 2018, section 3.2, https://arxiv.org/abs/1807.03039.
"""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import lu, solve_triangular

from jflow.bijector import Array, Bijector, expand_log_det, positions

KINDS = ("lu", "dense", "rotation")


def invertible_linear(kind: str = "lu") -> Bijector:
    """`z = x W` over the last axis; log-det = positions * log|det W|.

    Starts at a random rotation. Products run at `precision="highest"`, and the inverse
    matrix is computed once per call.

    Args:
        kind: `"lu"`: `W = P L (U + diag(sign * exp(log_s)))`, with the permutation and
            the signs fixed, so the log-det is `positions * sum(log_s)` and W can never
            become singular (section 3.2, equation 11). `"dense"`: W itself, log-det by
            `slogdet`. `"rotation"`: a fixed random rotation, log-det 0.

    Raises:
        ValueError: an unknown kind.

    Example:
        >>> b = invertible_linear()
        >>> x = jax.random.normal(jax.random.key(0), (2, 4, 4, 6))
        >>> z, log_det = b.forward(b.init(jax.random.key(1), x), x)
    """
    if kind not in KINDS:
        raise ValueError(
            f"invertible_linear: kind must be one of {KINDS}, got {kind!r}."
        )
    start, matrix, inverse_matrix, log_abs_det = {
        "lu": (_start_lu, _lu_matrix, _lu_inverse, lambda p: p["log_s"].sum()),
        "dense": (_start_dense, _dense_matrix, _dense_inverse, _dense_log_abs_det),
        "rotation": (_start_rotation, _rotation, lambda p: _rotation(p).T, None),
    }[kind]

    def init(key, x, condition=None):
        return start(random_rotation(key, x.shape[-1], x.dtype))

    def log_det(params, x):
        if log_abs_det is None:
            return expand_log_det(jnp.zeros(()), x)
        return expand_log_det(positions(x) * log_abs_det(params), x)

    def forward(params, x, condition=None, key=None):
        return matmul(x, matrix(params)), log_det(params, x)

    def inverse(params, z, condition=None, key=None):
        return matmul(z, inverse_matrix(params)), -log_det(params, z)

    return Bijector(init, forward, inverse)


def matmul(x: Array, w: Array) -> Array:
    """`x @ w` at the highest precision: what must be undone must not be rounded."""
    return jnp.matmul(x, w, precision="highest").astype(x.dtype)


def random_rotation(key: Array, n: int, dtype) -> Array:
    """A random orthogonal matrix, uniform over the orthogonal group."""
    q, r = jnp.linalg.qr(jax.random.normal(key, (n, n), dtype))
    return q * jnp.sign(jnp.diagonal(r))


def _start_lu(w):
    p, lower, upper = lu(w)
    diagonal = jnp.diagonal(upper)
    return {
        "lower": jnp.tril(lower, -1),
        "upper": jnp.triu(upper, 1),
        "log_s": jnp.log(jnp.abs(diagonal)),
        # the row order as scores, and the signs: both survive being scaled
        "fixed": {
            "rows": (jnp.argmax(p, axis=1).astype(w.dtype) + 1) / len(w),
            "sign": jnp.sign(diagonal),
        },
    }


def _lu_factors(params):
    n = params["log_s"].shape[0]
    sign = jnp.sign(jax.lax.stop_gradient(params["fixed"]["sign"]))
    lower = jnp.tril(params["lower"], -1) + jnp.eye(n, dtype=sign.dtype)
    upper = jnp.triu(params["upper"], 1) + jnp.diag(sign * jnp.exp(params["log_s"]))
    return lower, upper


def _rows(params):
    """`W[i] = (L U)[rows[i]]`."""
    scores = jax.lax.stop_gradient(params["fixed"]["rows"])
    return jnp.argsort(jnp.argsort(scores))


def _lu_matrix(params):
    lower, upper = _lu_factors(params)
    return matmul(lower, upper)[_rows(params)]


def _lu_inverse(params):
    lower, upper = _lu_factors(params)
    eye = jnp.eye(lower.shape[0], dtype=lower.dtype)
    half = solve_triangular(lower, eye, lower=True, unit_diagonal=True)
    return solve_triangular(upper, half)[:, _rows(params)]


def _start_dense(w):
    return {"w": w}


def _dense_matrix(params):
    return params["w"]


def _dense_inverse(params):
    return jnp.linalg.inv(params["w"])


def _dense_log_abs_det(params):
    return jnp.linalg.slogdet(params["w"])[1]


def _start_rotation(w):
    return {"fixed": w}


def _rotation(params):
    """The stored rotation, its rows brought back to length one if they were scaled."""
    w = jax.lax.stop_gradient(params["fixed"])
    return w / jnp.linalg.norm(w, axis=1, keepdims=True)
