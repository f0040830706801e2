"""Affine maps of whole vectors: triangular and learned, or whitening in closed form.

NICE's "approximate whitening" is a learned lower-triangular affine layer (Dinh et al.
2015, section 5.1); ZCA is Bell & Sejnowski 1997. Events of several axes are flattened.
"""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from jflow.bijector import Bijector, expand_log_det
from jflow.bijectors.matrices import triangular_inverse
from jflow.mixing import matmul

KINDS = ("cholesky", "zca", "pca")


def triangular_affine(*, fit: bool = True, epsilon: float = 1e-4) -> Bijector:
    """`z = A (x - b)`, A lower triangular with positive diagonal; all of it learned.

    Args:
        fit: start at the maximum-likelihood Gaussian of the init batch, b its mean and
            A the inverse Cholesky factor of its covariance plus `epsilon` on the
            diagonal; otherwise at the identity. Fitting wants more examples than
            dimensions.
        epsilon: added to the covariance's diagonal, relative to its mean.

    The log-det is the sum of the diagonal's logarithms.
    """

    def init(key, x, condition=None):
        x = _flat(x)
        n = x.shape[1]
        if not fit:
            zeros = jnp.zeros((n, n), x.dtype)
            return {"lower": zeros, "log_diagonal": zeros[0], "bias": zeros[0]}
        mean, covariance = _moments(x, epsilon)
        a = _inverse_cholesky(covariance)
        log_diagonal = jnp.log(jnp.diagonal(a))
        return {"lower": jnp.tril(a, -1), "log_diagonal": log_diagonal, "bias": mean}

    def factor(params):
        return jnp.tril(params["lower"], -1) + jnp.diag(jnp.exp(params["log_diagonal"]))

    def log_det(params, x):
        return expand_log_det(params["log_diagonal"].sum(), x)

    def forward(params, x, condition=None, key=None):
        z = matmul(_flat(x) - params["bias"], factor(params).T)
        return z.reshape(x.shape), log_det(params, x)

    def inverse(params, z, condition=None, key=None):
        x = solve_triangular(factor(params), _flat(z).T, lower=True).T + params["bias"]
        return x.reshape(z.shape), -log_det(params, z)

    return Bijector(init, forward, inverse)


def whitening(kind: str = "cholesky", *, epsilon: float = 1e-4) -> Bijector:
    """`z = W (x - mean)`, fitted to the init batch in closed form, and not learned.

    Afterwards the batch has mean 0 and covariance 1 (up to `epsilon`): the exact
    maximum-likelihood affine flow to a standard normal. The log-det, `log|det W|`, is
    counted, so densities are those of `x`.

    Args:
        kind: `"cholesky"`, W the inverse Cholesky factor; `"zca"`, W symmetric, the one
            closest to the identity; `"pca"`, W onto scaled principal axes, the largest
            first.
        epsilon: added to the covariance's diagonal, relative to its mean; raise it
            where examples are fewer than dimensions.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"whitening: kind must be one of {KINDS}, got {kind!r}.")

    def init(key, x, condition=None):
        mean, covariance = _moments(_flat(x), epsilon)
        if kind == "cholesky":
            w = _inverse_cholesky(covariance)
            back = jnp.linalg.cholesky(covariance)
            log_det = jnp.log(jnp.diagonal(w)).sum()
        else:
            values, axes = jnp.linalg.eigh(covariance)
            scale = jnp.sqrt(values)
            values, axes, scale = values[::-1], axes[:, ::-1], scale[::-1]
            turn = axes if kind == "zca" else jnp.eye(len(values), dtype=axes.dtype)
            w = matmul(turn / scale, axes.T)
            back = matmul(axes * scale, turn.T)
            log_det = -jnp.log(scale).sum()
        return {"fixed": {"mean": mean, "w": w, "back": back, "log_det": log_det}}

    def forward(params, x, condition=None, key=None):
        p = jax.lax.stop_gradient(params["fixed"])
        z = matmul(_flat(x) - p["mean"], p["w"].T).reshape(x.shape)
        return z, expand_log_det(p["log_det"], x)

    def inverse(params, z, condition=None, key=None):
        p = jax.lax.stop_gradient(params["fixed"])
        x = (matmul(_flat(z), p["back"].T) + p["mean"]).reshape(z.shape)
        return x, expand_log_det(-p["log_det"], z)

    return Bijector(init, forward, inverse)


def _flat(x):
    return x.reshape(x.shape[0], -1)


def _moments(x, epsilon):
    mean = x.mean(axis=0)
    covariance = matmul((x - mean).T, x - mean) / x.shape[0]
    level = jnp.trace(covariance) / x.shape[1]
    # a batch of one example has no spread at all: then whiten nothing
    ridge = jnp.where(level > 0, epsilon * level, 1.0)
    return mean, covariance + ridge * jnp.eye(x.shape[1], dtype=x.dtype)


def _inverse_cholesky(covariance):
    return jnp.tril(triangular_inverse(jnp.linalg.cholesky(covariance)))
