"""Repeated layers whose derivatives are written out, one layer after the other.

What a scan keeps for its backward pass it copies into stacks and out of them again, and
so it does with gradients. Written out, a few layers train faster; a pass that nobody
differentiates gains nothing, and stays a scan, which compiles sooner.
"""

import jax
from jax import lax

from jflow.bijector import Pass, scan_params, split_key, zero_log_det


def check_unroll(owner: str, unroll: bool, reversible: bool) -> None:
    """Raise TypeError or ValueError for an `unroll` that cannot be used."""
    if not isinstance(unroll, bool):
        raise TypeError(f"{owner}: unroll must be True or False, got {unroll!r}.")
    if unroll and reversible:
        raise ValueError(f"{owner}: unroll and reversible are both True; choose one.")


def unrolled(scanned: Pass, apply: Pass, n: int, reverse: bool) -> Pass:
    """The scan of `n` layers by `apply`, with its derivatives written out."""

    def written_out(params, x, condition, key):
        steps = list(zip(_layers(params, n), split_key(key, n), strict=True))
        total = zero_log_det(x)
        for layer, layer_key in reversed(steps) if reverse else steps:
            x, log_det = apply(scan_params(layer), x, condition, layer_key)
            # Else XLA computes a layer's cotangents again in the loops of all others.
            x, total = lax.optimization_barrier((x, total + log_det))
        return x, total

    chosen = jax.custom_jvp(scanned)

    @chosen.defjvp
    def chosen_jvp(primals, tangents):
        return jax.jvp(written_out, primals, tangents)

    return chosen


def _layers(params, n):
    """Each layer's parameters.

    A split, whose cotangents are concatenated, not padded and summed; behind a barrier,
    so that these are the products as they come, which XLA copies without a loop.
    """

    def parts(leaf):
        shape = leaf.shape[1:]
        rows, *rest = shape or (1,)
        stack = lax.optimization_barrier(leaf.reshape(n * rows, *rest))
        return [part.reshape(shape) for part in lax.split(stack, [rows] * n)]

    leaves, treedef = jax.tree.flatten(params)
    columns = [parts(leaf) for leaf in leaves]
    return [treedef.unflatten([column[i] for column in columns]) for i in range(n)]
