"""Fixed maps, bounds and constraints under the contract."""

import jax
import jax.numpy as jnp
import numpy as np
from case import Case

import jflow
from jflow import nets, scalars


def _positive(key, shape):
    return jnp.exp(jax.random.normal(key, shape))


def _point(key, shape):
    return jax.nn.softmax(jax.random.normal(key, shape))


def _increasing(key, shape):
    return jnp.cumsum(0.2 + jax.random.uniform(key, shape), axis=-1)


def _lower(key, shape):
    a = jax.random.normal(key, shape)
    diagonal = jnp.exp(0.3 * jnp.diagonal(a, axis1=-2, axis2=-1))
    return jnp.tril(a, -1) + diagonal[..., None] * jnp.eye(shape[-1])


def _unit_rows(key, shape):
    lower = _lower(key, shape)
    return lower / jnp.linalg.norm(lower, axis=-1, keepdims=True)


def _matrix(lower):
    return jnp.matmul(lower, jnp.swapaxes(lower, -1, -2), precision="highest")


def _triangle(offset, complete):
    """The chart of n x n matrices given by their triangle."""

    def to(x):
        return x[..., *np.tril_indices(x.shape[-1], offset)]

    def back(v):
        n = int((2 * v.shape[-1]) ** 0.5 + (offset < 0))
        zeros = jnp.zeros((*v.shape[:-1], n, n), v.dtype)
        return complete(zeros.at[..., *np.tril_indices(n, offset)].set(v))

    return to, back


def _mirrored(lower):
    return lower + jnp.swapaxes(jnp.tril(lower, -1), -1, -2)


def _with_unit_rows(lower):
    last = jnp.sqrt(1 - (lower**2).sum(axis=-1))
    return lower + last[..., None] * jnp.eye(lower.shape[-1])


def _with_unit_diagonal(lower):
    return _mirrored(lower) + jnp.eye(lower.shape[-1])


ALL_BUT_LAST = (
    lambda x: x[..., :-1],
    lambda v: jnp.append(v, 1 - v.sum(axis=-1, keepdims=True), axis=-1),
)


CASES = [
    Case(
        "maps-of-the-line",
        "sinh_arcsinh leaky_relu softplus log tanh arctanh sigmoid",
        lambda: jflow.chain(
            jflow.sinh_arcsinh(0.3, 0.8),
            jflow.leaky_relu(0.1),
            jflow.softplus(),
            jflow.log(),
            jflow.tanh(),
            jflow.arctanh(),
            jflow.sigmoid(),
        ),
        f32=1e-4,
    ),
    Case(
        "maps-of-positive-numbers",
        "log exp power",
        lambda: jflow.chain(jflow.power(-1.5), jflow.log(), jflow.exp()),
        data=_positive,
    ),
    Case(
        "coupling-sinh_arcsinh",
        "sinh_arcsinh",
        lambda: jflow.coupling(scalars.sinh_arcsinh(), nets.mlp(8)),
        condition=(3,),
        identity=True,
        reached=0.4,
    ),
    Case("simplex", "simplex", jflow.simplex, (4,), data=_point, chart=ALL_BUT_LAST),
    Case("ordered", "ordered", jflow.ordered, (4,), data=_increasing),
    Case(
        "positive_definite_cholesky",
        "positive_definite_cholesky",
        jflow.positive_definite_cholesky,
        (3, 3),
        data=_lower,
        chart=_triangle(0, jnp.asarray),
    ),
    Case(
        "positive_definite",
        "positive_definite",
        jflow.positive_definite,
        (3, 3),
        data=lambda *of: _matrix(_lower(*of)),
        chart=_triangle(0, _mirrored),
        f32=1e-4,
    ),
    Case(
        "correlation_cholesky",
        "correlation_cholesky",
        jflow.correlation_cholesky,
        (3, 3),
        data=_unit_rows,
        chart=_triangle(-1, _with_unit_rows),
    ),
    Case(
        "correlation",
        "correlation",
        jflow.correlation,
        (3, 3),
        data=lambda *of: _matrix(_unit_rows(*of)),
        chart=_triangle(-1, _with_unit_diagonal),
        f32=1e-4,
    ),
]
