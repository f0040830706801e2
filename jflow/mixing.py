"""Linear maps of the last axis: gathers and products, and consecutive ones as one."""

from collections.abc import Sequence
from itertools import groupby

import jax.numpy as jnp

from jflow.bijector import (
    Array,
    Condition,
    Params,
    Pass,
    expand_log_det,
    log_det_dtype,
    positions,
    watcher,
    zero_log_det,
)

Step = tuple[Pass, Params, Array | None]


def matmul(x: Array, w: Array) -> Array:
    """`x @ w` at the highest precision: what must be undone must not be rounded."""

    def product(x):
        return jnp.matmul(x, w, precision="highest").astype(x.dtype)

    if w.ndim > 2:
        return product(x)
    # By rows, images too: XLA writes a cotangent again for each shape that is read.
    return product(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], w.shape[-1])


def reorder(x: Array, order: Array) -> Array:
    """`x[..., order]` of a permutation."""
    return x.at[..., order].get(unique_indices=True, mode="promise_in_bounds")


def mixing(kind: str | None, apply: Pass) -> Pass:
    """The pass, marked as linear in the last axis and nothing else.

    It maps every position by itself and alike, without key, condition or offset.

    Args:
        kind: `"order"` where values change places only, `"matrix"` otherwise, None if
            it is not such a pass.
        apply: a bijector's pass.
    """
    apply.mixing = kind
    return apply


def mixing_of(*passes: Pass) -> str | None:
    """The mark of the passes' composition: None if one of them has none."""
    kinds = {getattr(apply, "mixing", None) for apply in passes}
    if None in kinds:
        return None
    return "matrix" if "matrix" in kinds else "order"


def compose(
    steps: Sequence[Step], x: Array, condition: Condition
) -> tuple[Array, Array]:
    """One pass after another, neighbours that are marked as one; log-dets add.

    Args:
        steps: `(pass, its params, its key)` in the order of their application.
        x: what the first is applied to.
        condition: of all of them.
    """
    folded = []
    for marked, group in groupby(steps, key=lambda step: bool(mixing_of(step[0]))):
        run = list(group)
        together = marked and len(run) > 1 and watcher.get() is None
        folded += [(_fold, run, None)] if together else run
    return _in_turn(folded, x, condition)


def _in_turn(steps, x, condition):
    total = zero_log_det(x)
    for apply, params, key in steps:
        x, log_det = apply(params, x, condition, key)
        total = total + log_det
    return x, total


def _fold(steps, x, condition, key):
    """Linear maps of the last axis by one gather, or one product: a pass over steps.

    Applied to a row of places they give the order of all, to the rows of an identity
    matrix the matrix. If `x` has no more rows than that, nothing would be saved.
    """
    channels = x.shape[-1]
    if mixing_of(*(apply for apply, _, _ in steps)) == "order":
        order, _ = _in_turn(steps, jnp.arange(channels)[None], condition)
        return reorder(x, order[0]), zero_log_det(x)
    if x.size <= channels**2:
        return _in_turn(steps, x, condition)
    rows = jnp.eye(channels, dtype=log_det_dtype(x))
    w, log_dets = _in_turn(steps, rows, condition)
    return matmul(x, w), expand_log_det(positions(x) * log_dets[0], x)
