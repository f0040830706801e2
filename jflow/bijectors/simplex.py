"""Points of a simplex (shares, probabilities) by stick-breaking.

Stan Reference Manual, "Unit simplex", https://mc-stan.org/docs/reference-manual/
"""

import jax
import jax.numpy as jnp
import numpy as np

from jflow.bijector import Bijector, sum_event
from jflow.bijectors.support import (
    log_positive,
    outside_is_impossible,
    replace_outside,
    tolerance,
)


def simplex() -> Bijector:
    """From K positive numbers that sum to 1 to K - 1 free ones: `(..., K)` to
    `(..., K - 1)`.

    `z_k = log x_k - log(x_{k+1} + ... + x_K) + log(K - k)`, the logit of the share that
    x_k takes of what the entries before it left. The offset centres it: `z = 0` is the
    uniform point. Axes before the last hold further points.

    **The sizes differ.** The log-det is that of the map between the K - 1 free
    coordinates `x_1 .. x_{K-1}` and z, as in Stan: `-sum_{k=1}^K log x_k`. Densities
    behind it are with respect to these coordinates, like SciPy's Dirichlet's.

    Where an entry is negative, or the sum differs from 1 by more than the square root
    of the dtype's precision, the log-det is `-inf`; an entry of 0, which rounding may
    leave, counts as the least positive number.

    Raises:
        ValueError: at trace time, fewer than two entries.

    Example:
        >>> x, log_det = simplex().inverse((), jnp.zeros((1, 3)))
        >>> x
        Array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """

    def init(key, x, condition=None):
        _check(x.shape[-1], x)
        return ()

    def forward(params, x, condition=None, key=None):
        size = x.shape[-1]
        _check(size, x)
        total = x.sum(axis=-1)
        inside = (x >= 0).all(axis=-1) & (jnp.abs(total - 1) <= tolerance(x))
        x = replace_outside(inside, x, jnp.full_like(x, 1.0 / size))
        # Sums of positive numbers from the end: 1 - x_1 - ... would cancel.
        rest = jnp.cumsum(x[..., ::-1], axis=-1)[..., -2::-1]
        log_x = log_positive(x)
        z = log_x[..., :-1] - log_positive(rest) + _offset(size, x)
        return z, outside_is_impossible(inside, -log_x.sum(axis=-1))

    def inverse(params, z, condition=None, key=None):
        _check(z.shape[-1] + 1, z)
        logit = z - _offset(z.shape[-1] + 1, z)
        log_rest = jnp.cumsum(jax.nn.log_sigmoid(-logit), axis=-1)
        log_left = jnp.concatenate(
            [jnp.zeros_like(z[..., :1]), log_rest[..., :-1]], axis=-1
        )
        log_x = jnp.concatenate(
            [log_left + jax.nn.log_sigmoid(logit), log_rest[..., -1:]], axis=-1
        )
        return jnp.exp(log_x), sum_event(log_x)

    return Bijector(init, forward, inverse)


def _offset(size, like):
    """`log(K - k)` for k = 1 .. K - 1."""
    return jnp.asarray(np.log(np.arange(size - 1, 0, -1)), like.dtype)


def _check(size, x):
    if x.ndim < 2 or size < 2:
        raise ValueError(
            f"simplex: needs events (..., K) of K >= 2 entries, K - 1 of them free; "
            f"got a batch of shape {x.shape}."
        )
