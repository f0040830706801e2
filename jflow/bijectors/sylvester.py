"""Sylvester flows: planar flows with many directions, and a determinant as cheap.

van den Berg, Hasenclever, Tomczak & Welling 2018, section 3,
https://arxiv.org/abs/1803.05649.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jflow.bijector import Bijector, check_positive, log_det_dtype, sum_event
from jflow.bijectors.amortised import amortised
from jflow.bijectors.planar import ACTIVATIONS, monotone_inverse
from jflow.bijectors.rank_one import above_minus_one, reflect, rows

KINDS = ("orthogonal", "householder", "triangular")


def sylvester(
    kind: str = "orthogonal", size: int | None = None, *, net: Any = None
) -> Bijector:
    """`z = x + Q R tanh(a)`, `a = S Q^T x + b`; R and S upper triangular, Q orthogonal.

    By Sylvester's identity log-det = `sum_i log(1 + tanh'(a_i) S_ii R_ii)`. R's
    diagonal is moved until `S_ii R_ii > -1`, so the map can be undone:
    `S Q^T z + b = a + S R tanh(a)` is triangular with a monotone diagonal, and the
    inverse solves it from the last dimension to the first. Gradients of the inverse are
    those of the implicit function theorem. With all raw parameters zero it is the
    identity; it starts near there. Events of several axes are flattened.

    Args:
        kind: how Q is made. `"orthogonal"`: M = `size` orthonormal columns, by as many
            reflections instead of the paper's iterated orthogonalisation, so exactly.
            `"householder"`: square, a product of `size` reflections. `"triangular"`:
            the identity; put `jflow.reverse()` between such layers, which is the
            paper's alternation with a permutation.
        size: by default the number of dimensions.
        net: all raw parameters also move with the condition, see `planar`;
            out_features is `reflections * D + M^2 + 2 M`.

    Raises:
        TypeError: `net` is no function.
        ValueError: an unknown kind; a size that is no positive integer, that
            `"triangular"` has no use for, or, at trace time, above the number of
            dimensions; a condition in one of init and a pass only.

    Example:
        >>> b = sylvester("orthogonal", 2)
        >>> x = jax.random.normal(jax.random.key(0), (8, 5))
        >>> z, log_det = b.forward(b.init(jax.random.key(1), x), x)
    """
    _check(kind, size)
    source = amortised("sylvester", net)
    h = ACTIVATIONS["tanh"]
    solve = monotone_inverse(h)

    def counts(x):
        """Dimensions, reflections and columns of Q."""
        n = x[0].size
        if size is not None and size > n:
            raise ValueError(
                f"sylvester: size={size} exceeds the {n} dimensions of events "
                f"{x.shape[1:]}; leave it out, or give at most {n}."
            )
        reflections = 0 if kind == "triangular" else size or n
        return n, reflections, (size or n) if kind == "orthogonal" else n

    def init(key, x, condition=None):
        n, reflections, m = counts(x)
        keys = jax.random.split(key, 4)
        half = m * (m + 1) // 2
        start = [
            jax.random.normal(keys[0], (reflections * n,), x.dtype),
            0.01 * jax.random.normal(keys[1], (half,), x.dtype),
            jax.random.normal(keys[2], (half,), x.dtype) / m**0.5,
            jnp.zeros((m,), x.dtype),
        ]
        return source.init(keys[3], jnp.concatenate(start), condition)

    def parts(params, x, condition):
        n, reflections, m = counts(x)
        dtype = log_det_dtype(x)
        raw = source.values(params, condition, len(x)).astype(dtype)
        half = m * (m + 1) // 2
        ends = np.cumsum([reflections * n, half, half])
        q, r, s, b = jnp.split(raw, ends, axis=1)
        r, s, product = _triangles(_upper(r, m), _upper(s, m))
        q = q.reshape(len(q), reflections, n)
        flat = x.reshape(len(x), n).astype(dtype)
        inside = rows(_turn(flat, q)[:, :m], s) + b
        return flat, q, r, s, product, inside

    def push(q, r, t):
        """`Q R t` for rows t."""
        pushed = rows(t, r)
        missing = q.shape[-1] - pushed.shape[-1]
        return _turn(jnp.pad(pushed, ((0, 0), (0, missing))), q[:, ::-1])

    def forward(params, x, condition=None, key=None):
        flat, q, r, _, product, a = parts(params, x, condition)
        z = flat + push(q, r, jnp.tanh(a))
        log_det = sum_event(jnp.log1p(product * h.slope(a)))
        return z.reshape(x.shape).astype(x.dtype), log_det

    def inverse(params, z, condition=None, key=None):
        flat, q, r, s, product, pushed = parts(params, z, condition)
        t = jnp.matmul(s, r, precision="highest")
        a = _back_substitute(solve, t, product, pushed)
        x = flat - push(q, r, jnp.tanh(a))
        log_det = -sum_event(jnp.log1p(product * h.slope(a)))
        return x.reshape(z.shape).astype(z.dtype), log_det

    return Bijector(init, forward, inverse)


def _check(kind, size):
    if kind not in KINDS:
        raise ValueError(f"sylvester: kind must be one of {KINDS}, got {kind!r}.")
    if size is None:
        return
    check_positive("sylvester", size=size)
    if kind == "triangular":
        raise ValueError(
            f"sylvester: 'triangular' has no size, got {size}; leave it out."
        )


def _upper(values, m):
    """Upper triangular matrices `(B, m, m)` of their entries `(B, m (m + 1) / 2)`."""
    where = np.zeros((m, m), int)
    where[np.triu_indices(m)] = np.arange(m * (m + 1) // 2)
    return jnp.triu(values[:, where])


def _triangles(r, s):
    """R with its diagonal moved until `S_ii R_ii > -1`, S, and these products."""
    diagonal = jnp.diagonal(r, axis1=1, axis2=2)
    wanted = diagonal * jnp.diagonal(s, axis1=1, axis2=2)
    allowed = above_minus_one(wanted)
    # allowed / wanted where that is negative, and its limit 1 at zero
    negative = jnp.where(wanted < 0, wanted, -1.0)
    ratio = jnp.where(wanted < 0, above_minus_one(negative) / negative, 1.0)
    moved = (diagonal * ratio)[:, None] * np.eye(r.shape[-1], dtype=r.dtype)
    return jnp.triu(r, 1) + moved, s, allowed


def _turn(x, vectors):
    """Rows `x Q`, Q the product of the vectors' reflections; reversed: `x Q^T`."""
    return reflect(x, vectors) if vectors.shape[1] else x


def _back_substitute(solve, t, diagonal, y):
    """Rows a with `a + T tanh(a) = y`, T upper triangular `(1 or N, m, m)`."""
    places = np.arange(y.shape[1])[::-1]
    each = (
        jnp.moveaxis(t, 1, 0)[places],
        diagonal.T[places],
        y.T[places],
        np.eye(y.shape[1], dtype=y.dtype)[places],
    )

    def step(a, row):
        t_row, c, y_i, place = row
        # a is still zero at this place and before it
        a_i = solve(c, y_i - (t_row * jnp.tanh(a)).sum(-1))
        return a + a_i[:, None] * place, None

    return jax.lax.scan(step, jnp.zeros_like(y), each)[0]
