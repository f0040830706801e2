"""Repeated layers whose derivatives are written out, one layer after the other.

What a scan keeps for its backward pass it copies into stacks and out of them again, and
so it does with gradients. Written out, a few layers train faster; a pass that nobody
differentiates gains nothing, and stays a scan, which compiles sooner.
"""

import jax
from jax import lax

from jflow.bijector import Pass, scan_keys, scan_params, zero_log_det


def check_unroll(owner: str, unroll: bool, reversible: bool) -> None:
    """Raise TypeError or ValueError for an `unroll` that cannot be used."""
    if not isinstance(unroll, bool):
        raise TypeError(f"{owner}: unroll must be True or False, got {unroll!r}.")
    if unroll and reversible:
        raise ValueError(f"{owner}: unroll and reversible are both True; choose one.")


def storing_scan(apply: Pass, n: int, reverse: bool, unroll: bool) -> Pass:
    """`n` scanned copies whose backward pass has what it needs in store.

    With `unroll` they are written out where the pass is differentiated.
    """

    def by(scan):
        def apply_all(params, x, condition, key):
            def body(carry, layer):
                x, total = carry
                x, log_det = apply(scan_params(layer[0]), x, condition, layer[1])
                return (x, total + log_det), None

            carry, layers = (x, zero_log_det(x)), (params, scan_keys(key, n))
            return scan(body, carry, layers, n, reverse)[0]

        return apply_all

    if not unroll:
        return by(lax.scan)
    chosen, written_out = jax.custom_jvp(by(lax.scan)), by(_written_out)

    @chosen.defjvp
    def chosen_jvp(primals, tangents):
        return jax.jvp(written_out, primals, tangents)

    return chosen


def _written_out(body, carry, layers, n, reverse):
    """`lax.scan` of a body that puts nothing out, without a loop."""
    layers = _slices(layers, n)
    for layer in reversed(layers) if reverse else layers:
        # Else XLA computes a layer's cotangents again in the loops of all others.
        carry = lax.optimization_barrier(body(carry, layer)[0])
    return carry, None


def _slices(stack, n):
    """Each layer's slices.

    A split, whose cotangents are concatenated, not padded and summed; behind a barrier,
    so that these are the products as they come, which XLA copies without a loop.
    """

    def parts(leaf):
        shape = leaf.shape[1:]
        rows, *rest = shape or (1,)
        flat = lax.optimization_barrier(leaf.reshape(n * rows, *rest))
        return [part.reshape(shape) for part in lax.split(flat, [rows] * n)]

    leaves, treedef = jax.tree.flatten(stack)
    columns = [parts(leaf) for leaf in leaves]
    return [treedef.unflatten([column[i] for column in columns]) for i in range(n)]
