"""Repeated layers whose backward pass has what it needs in store.

What a scan keeps for its backward pass it copies into stacks and out of them again, and
so it does with gradients. On a CPU each stack is a loop to compile besides, and what is
kept often lies in memory that is slower than computing it again: `keep` says what is
worth it. Written out, a few layers train faster; a pass that nobody differentiates
gains nothing, and stays a scan, which compiles sooner. That can leave out putting an
event together between layers that take it apart (`halves`).
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jflow.bijector import Pass, recomputed, scan_keys, scan_params, zero_log_det


def check_storing(
    owner: str, unroll: bool, keep: Sequence[str] | None, halves: bool, reversible: bool
) -> None:
    """Raise TypeError or ValueError for choices of `repeat` that cannot be used."""
    for name, value in {"unroll": unroll, "halves": halves}.items():
        if not isinstance(value, bool):
            raise TypeError(f"{owner}: {name} must be True or False, got {value!r}.")
    names = () if keep is None else keep
    listed = isinstance(names, Sequence) and not isinstance(names, str)
    if not (listed and all(isinstance(name, str) for name in names)):
        raise TypeError(
            f"{owner}: keep must be names, ('conv',) for instance, or (), got {keep!r}."
        )
    if unroll + (keep is not None) + reversible > 1:
        raise ValueError(
            f"{owner}: unroll={unroll}, keep={keep} and reversible={reversible} are "
            "three ways to train; choose one."
        )
    if halves and reversible:
        raise ValueError(
            f"{owner}: a reversible stack has a loop of its own, with no halves; leave "
            "out reversible=True or halves=True."
        )


def storing_scan(
    apply: Pass,
    n: int,
    reverse: bool,
    unroll: bool,
    keep: Sequence[str] | None,
    halves: bool,
) -> Pass:
    """`n` scanned copies whose backward pass has what it needs in store.

    With `unroll` they are written out where the pass is differentiated; with `keep` a
    CPU stores what has these names and each copy's input, and computes the rest again.
    With `halves` a pass that is not differentiated takes two copies to a turn, and its
    event from one to the next in two halves.
    """

    def layer(params, x, condition, key):
        return apply(scan_params(params), x, condition, key)

    def by(scan, apart=lambda x: (x,)):
        def apply_all(params, x, condition, key):
            again = keep is not None and jax.default_backend() == "cpu"
            step = _keeping(layer, keep) if again else layer

            def body(carry, copy):
                parts, total = carry
                x, log_det = step(copy[0], _joined(parts), condition, copy[1])
                return (apart(x), total + log_det), None

            carry, layers = (apart(x), zero_log_det(x)), (params, scan_keys(key, n))
            (parts, log_det), _ = scan(body, carry, layers, n, reverse)
            return _joined(parts), log_det

        return apply_all

    trained = by(_written_out if unroll else lax.scan)
    if not (unroll or halves):
        return trained
    by_two = functools.partial(lax.scan, unroll=2)
    chosen = jax.custom_jvp(by(by_two, _halves) if halves else by(lax.scan))

    @chosen.defjvp
    def chosen_jvp(primals, tangents):
        return jax.jvp(trained, primals, tangents)

    return chosen


def _halves(x):
    return tuple(jnp.split(x, [x.shape[-1] // 2], axis=-1))


def _joined(parts):
    return jnp.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]


def _keeping(layer, names):
    """The layer; its backward pass keeps its input and what has these names."""
    policy = jax.checkpoint_policies.save_only_these_names(*names)
    # The scan around it keeps the two passes apart.
    return recomputed(layer, prevent_cse=False, policy=policy)


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
