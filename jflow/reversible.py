"""Backward passes that rebuild activations by the inverse instead of storing them.

The reversible residual network, Gomez et al. 2017, https://arxiv.org/abs/1707.04585,
section 3. A layer's input is the inverse of its output, so training memory does not
grow with depth; an anchor is an output kept all the same, from which rebuilding starts
afresh. Rebuilt inputs differ from the stored ones by the round trip's rounding, the
drift, which `jflow.diagnostics.reconstruction_error` measures.
"""

import jax
import jax.numpy as jnp

from jflow.bijector import (
    check_positive,
    scan_keys,
    scan_params,
    split_key,
    zero_log_det,
)


def check_anchor(owner: str, reversible: bool, anchor: int | None) -> None:
    """Raise ValueError for an `anchor` that cannot be used."""
    if anchor is None:
        return
    if not reversible:
        raise ValueError(f"{owner}: anchor={anchor} needs reversible=True.")
    check_positive(owner, anchor=anchor)


def _check_floating(x):
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"reversible=True needs floating-point events, got {x.dtype}: put layers "
            "that take integers (dequantize) before the reversible part."
        )


def _floating_leaves(tree):
    """The tree's floating-point leaves, and a function that puts others in."""
    leaves, treedef = jax.tree.flatten(tree)
    places = [i for i, a in enumerate(leaves) if jnp.issubdtype(a.dtype, jnp.floating)]

    def rebuild(new, default=leaves):
        whole = list(default)
        for i, leaf in zip(places, new, strict=True):
            whole[i] = leaf
        return jax.tree.unflatten(treedef, whole)

    def cotangent(new):
        return rebuild(new, default=[None] * len(leaves))

    return [leaves[i] for i in places], rebuild, cotangent


def _add(a, b):
    return jax.tree.map(jnp.add, a, b)


def _undo_and_pull(apply, undo, params, z, leaves, rebuild, key, cotangents):
    """Rebuild a layer's input from its output, and pull cotangents back through it."""
    x, _ = undo(params, z, rebuild(leaves), key)

    def again(params, x, leaves):
        return apply(params, x, rebuild(leaves), key)

    _, pullback = jax.vjp(again, params, x, leaves)
    return x, *pullback(cotangents)


def recomputing_loop(applies, undos, order, anchor):
    """A sequence of layers whose backward pass rebuilds inputs by `undos`."""
    order = list(order)
    ends = {order[j] for j in range(len(order)) if anchor and (j + 1) % anchor == 0}

    def traverse(params, x, condition, key):
        _check_floating(x)
        keys, total, kept = split_key(key, len(order)), zero_log_det(x), {}
        for i in order:
            x, log_det = applies[i](params[i], x, condition, keys[i])
            total = total + log_det
            if i in ends:
                kept[str(i)] = x
        return (x, total), kept

    @jax.custom_vjp
    def loop(params, x, condition, key):
        return traverse(params, x, condition, key)[0]

    def loop_fwd(params, x, condition, key):
        out, kept = traverse(params, x, condition, key)
        return out, (params, out[0], kept, condition, key)

    def loop_bwd(residuals, cotangents):
        params, z, kept, condition, key = residuals
        dz, dlog_det = cotangents
        keys = split_key(key, len(order))
        leaves, rebuild, cotangent = _floating_leaves(condition)
        dleaves = jax.tree.map(jnp.zeros_like, leaves)
        dparams = [None] * len(order)
        for i in reversed(order):
            z = kept.get(str(i), z)
            z, dparams[i], dz, dc = _undo_and_pull(
                applies[i],
                undos[i],
                params[i],
                z,
                leaves,
                rebuild,
                keys[i],
                (dz, dlog_det),
            )
            dleaves = _add(dleaves, dc)
        return tuple(dparams), dz, cotangent(dleaves), None

    loop.defvjp(loop_fwd, loop_bwd)
    return loop


def recomputing_scan(apply, undo, n, reverse, anchor):
    """`n` scanned copies whose backward pass rebuilds inputs by `undo`.

    Anchors live in a buffer: slot `j // anchor` holds the latest output of the j-th
    applied copy, so that after the scan it holds the last output of each group.
    """
    index = jnp.arange(n)[::-1] if reverse else jnp.arange(n)
    groups = -(-n // anchor) if anchor else 0

    def traverse(params, x, condition, key):
        _check_floating(x)

        def body(carry, layer):
            x, total, kept = carry
            params, key, j = layer
            x, log_det = apply(scan_params(params), x, condition, key)
            if anchor:
                kept = jax.lax.dynamic_update_index_in_dim(kept, x, j // anchor, 0)
            return (x, total + log_det, kept), None

        kept = jnp.zeros_like(x, shape=(groups, *x.shape))
        layers = params, scan_keys(key, n), index
        carry = x, zero_log_det(x), kept
        return jax.lax.scan(body, carry, layers, n, reverse)[0]

    @jax.custom_vjp
    def scanned(params, x, condition, key):
        return traverse(params, x, condition, key)[:2]

    def scanned_fwd(params, x, condition, key):
        z, total, kept = traverse(params, x, condition, key)
        return (z, total), (params, z, kept, condition, key)

    def scanned_bwd(residuals, cotangents):
        params, z, kept, condition, key = residuals
        dz, dlog_det = cotangents
        leaves, rebuild, cotangent = _floating_leaves(condition)

        def body(carry, layer):
            z, dz, dleaves = carry
            params, key, j = layer
            if anchor:
                stored = jax.lax.dynamic_index_in_dim(kept, j // anchor, 0, False)
                z = jnp.where((j + 1) % anchor == 0, stored, z)
            params, cotangents = scan_params(params), (dz, dlog_det)
            z, dparams, dz, dc = _undo_and_pull(
                apply, undo, params, z, leaves, rebuild, key, cotangents
            )
            return (z, dz, _add(dleaves, dc)), dparams

        carry = z, dz, jax.tree.map(jnp.zeros_like, leaves)
        layers = params, scan_keys(key, n), index
        (_, dz, dleaves), dparams = jax.lax.scan(body, carry, layers, n, not reverse)
        return dparams, dz, cotangent(dleaves), None

    scanned.defvjp(scanned_fwd, scanned_bwd)
    return scanned
