"""Square matrices that cannot become singular, by parameters free of constraints.

Each is a start, the matrix, its inverse and its log-determinant as functions of
parameters: the kinds of `jflow.invertible_linear`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import expm, lu

from jflow.bijector import Array, Params, draw_start
from jflow.bijectors.rank_one import reflect
from jflow.mixing import matmul

# Products take 60 us for two of 48 x 48, and 600 for two of 128 x 128.
MOST_BY_PRODUCTS = 64


class Matrix(NamedTuple):
    """A parametrised matrix.

    Attributes:
        start: `(key, n, dtype) -> params`.
        matrix: `params -> W`.
        inverse: `params -> W^-1`.
        log_abs_det: `params -> log |det W|`; None where that is 0.
    """

    start: Callable[..., Params]
    matrix: Callable[[Params], Array]
    inverse: Callable[[Params], Array]
    log_abs_det: Callable[[Params], Array] | None = None


def random_rotation(key: Array, n: int, dtype) -> Array:
    """A random orthogonal matrix, uniform over the orthogonal group."""
    q, r = jnp.linalg.qr(_normal(key, n, dtype))
    return q * jnp.sign(jnp.diagonal(r))


@jax.custom_jvp
def triangular_inverse(a: Array) -> Array:
    """`a^-1` of lower triangular matrices `(..., n, n)`; above the diagonal are zeros.

    Small ones by products alone: the inverses of the blocks along the diagonal, twice
    as large from turn to turn. The libraries that solve such systems on a CPU leave
    threads behind that wait for more and keep the next products from their cores.
    """
    n = a.shape[-1]
    eye = np.eye(n, dtype=bool)
    if n > MOST_BY_PRODUCTS:
        eye = jnp.broadcast_to(eye, a.shape).astype(a.dtype)
        return jax.lax.linalg.triangular_solve(a, eye, left_side=True, lower=True)
    differ = np.bitwise_xor.outer(np.arange(n), np.arange(n))
    inverse = jnp.where(eye, 1 / jnp.where(eye, a, 1), 0)
    for turn in range((n - 1).bit_length()):
        # Between two neighbouring blocks row and column differ in that bit, and in none
        # above it.
        between = jnp.where(differ >> turn == 1, a, 0)
        inverse = inverse - matmul(matmul(inverse, between), inverse)
    return inverse


@triangular_inverse.defjvp
def _triangular_inverse_jvp(primals, tangents):
    inverse = triangular_inverse(*primals)
    return inverse, -matmul(matmul(inverse, tangents[0]), inverse)


# --- general matrices -----------------------------------------------------------------


def _start_lu(key, n, dtype):
    w = random_rotation(key, n, dtype)
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
    # Where which triangle lies is a constant: XLA compiles no loop to find it.
    n = params["log_s"].shape[0]
    below, eye = np.tri(n, k=-1, dtype=bool), np.eye(n, dtype=bool)
    sign = jnp.sign(jax.lax.stop_gradient(params["fixed"]["sign"]))
    diagonal = jnp.where(eye, sign * jnp.exp(params["log_s"]), 0)
    lower = jnp.where(below, params["lower"], eye.astype(sign.dtype))
    return lower, jnp.where(below.T, params["upper"], diagonal)


def _rows(params):
    """`W[i] = (L U)[rows[i]]`: how many scores are lower, or equal and before it."""
    scores = jax.lax.stop_gradient(params["fixed"]["rows"])
    mine, before = scores[:, None], np.tri(len(scores), k=-1, dtype=bool)
    return ((scores < mine) | ((scores == mine) & before)).sum(axis=1)


def _lu_matrix(params):
    lower, upper = _lu_factors(params)
    return matmul(lower, upper)[_rows(params)]


def _lu_inverse(params):
    lower, upper = _lu_factors(params)
    lower, upper = triangular_inverse(jnp.stack([lower, upper.T]))
    return matmul(upper.T, lower)[:, _rows(params)]


def _sum_log_s(params):
    return params["log_s"].sum()


def _start_dense(key, n, dtype):
    return {"w": random_rotation(key, n, dtype)}


def _start_qr(key, n, dtype):
    zeros = jnp.zeros((n, n), dtype)
    return {"log_s": zeros[0], "q": _normal(key, n, dtype), "upper": zeros}


def _upper(params):
    return jnp.triu(params["upper"], 1) + jnp.diag(jnp.exp(params["log_s"]))


def _qr_matrix(params):
    return matmul(_reflections(params["q"]), _upper(params))


def _qr_inverse(params):
    inverse = triangular_inverse(_upper(params).T).T
    return matmul(inverse, _reflections(params["q"]).T)


def _start_svd(key, n, dtype):
    left, right = (_normal(k, n, dtype) for k in jax.random.split(key))
    return {"left": left, "log_s": jnp.zeros((n,), dtype), "right": right}


def _svd_matrix(params):
    left = _reflections(params["left"]) * jnp.exp(params["log_s"])
    return matmul(left, _reflections(params["right"]).T)


def _svd_inverse(params):
    right = _reflections(params["right"]) * jnp.exp(-params["log_s"])
    return matmul(right, _reflections(params["left"]).T)


def _start_expm(key, n, dtype):
    return {"a": _skew(_normal(key, n, dtype) / n**0.5)}


def _expm(a):
    # JAX's Pade approximation takes its products at the precision in force.
    with jax.default_matmul_precision("highest"):
        return expm(a)


# --- orthogonal matrices --------------------------------------------------------------


def _normal(key, n, dtype):
    return draw_start(jax.random.normal, key, (n, n), dtype)


def _start_skew(key, n, dtype):
    return {"a": _normal(key, n, dtype) / n**0.5}


def _skew(a):
    """The strict lower triangle, and minus its transpose above it."""
    lower = jnp.tril(a, -1)
    return lower - lower.T


def _cayley(params):
    a = _skew(params["a"])
    eye = jnp.eye(len(a), dtype=a.dtype)
    # I + A has no eigenvalue within the unit circle: the system is always regular
    return jnp.linalg.solve(eye + a, eye - a)


def _reflections(vectors):
    return reflect(jnp.eye(len(vectors), dtype=vectors.dtype), vectors[None])


def _rotation(params):
    """The stored rotation, its rows brought back to length one if they were scaled."""
    w = jax.lax.stop_gradient(params["fixed"])
    return w / jnp.linalg.norm(w, axis=1, keepdims=True)


def _orthogonal(start, matrix):
    return Matrix(start, matrix, lambda params: matrix(params).T)


KINDS = {
    "lu": Matrix(_start_lu, _lu_matrix, _lu_inverse, _sum_log_s),
    "dense": Matrix(
        _start_dense,
        lambda params: params["w"],
        lambda params: jnp.linalg.inv(params["w"]),
        lambda params: jnp.linalg.slogdet(params["w"])[1],
    ),
    "qr": Matrix(_start_qr, _qr_matrix, _qr_inverse, _sum_log_s),
    "svd": Matrix(_start_svd, _svd_matrix, _svd_inverse, _sum_log_s),
    "expm": Matrix(
        _start_expm,
        lambda params: _expm(params["a"]),
        lambda params: _expm(-params["a"]),
        lambda params: jnp.trace(params["a"]),
    ),
    "rotation": _orthogonal(
        lambda *of: {"fixed": random_rotation(*of)},
        _rotation,
    ),
    "cayley": _orthogonal(_start_skew, _cayley),
    "skew_expm": _orthogonal(_start_skew, lambda params: _expm(_skew(params["a"]))),
    "householder": _orthogonal(
        lambda *of: {"q": _normal(*of)},
        lambda params: _reflections(params["q"]),
    ),
}
