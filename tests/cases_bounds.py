"""Fixed maps, bounds and constraints under the contract."""

import jax
import jax.numpy as jnp
import numpy as np
from case import Case

import jflow
from jflow import nets, scalars


def _positive(key, shape):
    return jnp.exp(jax.random.normal(key, shape))


def _both_sides(key, shape):
    return jnp.tanh(jax.random.normal(key, shape))


def _inside(key, shape):
    """Between no bounds, above 2, below 1, within 0 .. 1."""
    x = jax.random.normal(key, shape)
    above, below = 2 + jnp.exp(x[:, 1]), 1 - jnp.exp(x[:, 2])
    return jnp.stack([x[:, 0], above, below, jax.nn.sigmoid(x[:, 3])], axis=1)


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


def _map(name, build, data=None, **kwargs):
    return Case(name, name.split("-")[0], build, (3,), data=data, **kwargs)


CASES = [
    _map("exp", jflow.exp),
    _map("log", jflow.log, _positive),
    _map("softplus", jflow.softplus),
    _map("sigmoid", jflow.sigmoid, f32=1e-4),
    _map("tanh", jflow.tanh, lambda *of: jax.random.normal(*of), f32=1e-4),
    _map("arctanh", jflow.arctanh, _both_sides),
    _map("sinh_arcsinh", lambda: jflow.sinh_arcsinh(0.3, 0.8)),
    _map("leaky_relu", lambda: jflow.leaky_relu(0.1)),
    _map("power", lambda: jflow.power(-1.5), _positive),
    Case(
        "coupling-sinh_arcsinh",
        "sinh_arcsinh",
        lambda: jflow.coupling(scalars.sinh_arcsinh(), nets.mlp(8)),
        condition=(3,),
        identity=True,
        reached=0.4,
    ),
    Case(
        "bounded",
        "bounded",
        lambda: jflow.bounded([-np.inf, 2.0, -np.inf, 0.0], [np.inf, np.inf, 1.0, 1.0]),
        (4,),
        data=_inside,
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
