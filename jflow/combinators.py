"""Combinators: ordinary Python over the protocol's three functions."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jflow.bijector import (
    Bijector,
    check_bijector_type,
    check_positive,
    init_with_output,
    initialiser,
    name_of,
    recomputed,
    run,
    split_key,
    zero_log_det,
)
from jflow.mixing import compose, mixing, mixing_of
from jflow.reversible import check_anchor, recomputing_loop, recomputing_scan
from jflow.storing import check_storing, storing_scan

__all__ = [
    "chain",
    "frozen",
    "identity",
    "invert",
    "remat",
    "repeat",
    "split",
]


def identity() -> Bijector:
    """The map `z = x`, with log-det zero and no parameters."""

    def init(key, x, condition=None):
        return ()

    def forward(params, x, condition=None, key=None):
        return x, zero_log_det(x)

    return Bijector(init, forward, forward)


def chain(
    *bijectors: Bijector, reversible: bool = False, anchor: int | None = None
) -> Bijector:
    """Composition: `chain(a, b)` maps `x` by `a`, then by `b`; log-dets add.

    `params` is the tuple of theirs. `init` initialises each on the batch that reaches
    it. Neighbouring permutations and `invertible_linear`s without offset are applied as
    one gather or one product, unless `reversible`.

    Args:
        *bijectors: applied from left to right by `forward`.
        reversible: the backward pass rebuilds each layer's input from its output by the
            inverse instead of storing it (Gomez et al. 2017, section 3,
            https://arxiv.org/abs/1707.04585), so memory does not grow with depth.
            Gradients are those at the rebuilt inputs: they differ from the stored
            ones by the drift that `jflow.diagnostics.reconstruction_error` measures.
            Events must be floating point; reverse-mode derivatives only.
        anchor: with `reversible`, keep every `anchor`-th layer's output, from which
            rebuilding starts afresh, so that drift never passes `anchor` layers.

    Raises:
        TypeError: an argument is not a Bijector.
        ValueError: `anchor` is not a positive integer or comes without `reversible`.

    Example:
        >>> b = chain(identity(), invert(identity()))
        >>> z, log_det = b.forward(b.init(jax.random.key(0), jnp.ones((4, 2))),
        ...                        jnp.ones((4, 2)))
    """
    check_bijector_type("chain", *bijectors)
    check_anchor("chain", reversible, anchor)
    names = [f"{i}:{name_of(b)}" for i, b in enumerate(bijectors)]

    def run_init(key, x, condition=None):
        params = []
        for b, k in zip(bijectors, split_key(key, len(bijectors)), strict=True):
            layer, x = init_with_output(b, k, x, condition)
            params.append(layer)
        return tuple(params), x

    forwards = [_labelled(n, b.forward) for n, b in zip(names, bijectors, strict=True)]
    inverses = [_labelled(n, b.inverse) for n, b in zip(names, bijectors, strict=True)]

    def sequence(applies, undos, order):
        def plain(params, x, condition, key):
            keys = split_key(key, len(bijectors))
            steps = [(applies[i], params[i], keys[i]) for i in order]
            return compose(steps, x, condition)

        return recomputing_loop(applies, undos, order, anchor) if reversible else plain

    order = range(len(bijectors))
    ahead = sequence(forwards, inverses, order)
    back = sequence(inverses, forwards, order[::-1])

    def forward(params, x, condition=None, key=None):
        return ahead(params, x, condition, key)

    def inverse(params, z, condition=None, key=None):
        return back(params, z, condition, key)

    # A reversible chain's backward pass is its own, which takes no places or rows.
    kind = None if reversible else mixing_of(*forwards)
    return Bijector(initialiser(run_init), mixing(kind, forward), mixing(kind, inverse))


def repeat(
    bijector: Bijector,
    n: int,
    *,
    reversible: bool = False,
    anchor: int | None = None,
    unroll: bool = False,
    keep: Sequence[str] | None = None,
    halves: bool = False,
) -> Bijector:
    """`n` independently initialised copies in sequence, under one `lax.scan`.

    Trace and compile time do not grow with `n`, the leading axis of `params`' leaves.

    Args:
        bijector: a bijector that keeps its event's shape.
        n: how many copies.
        reversible, anchor: as in `chain`; training memory is then flat in `n`.
        unroll: write the copies out where a pass is differentiated. A training step of
            few layers then takes less time, and compiling it more, the more of them.
        keep: what the backward pass on a CPU keeps besides each copy's input, by the
            names that `jax.ad_checkpoint.checkpoint_name` gave it (`jflow.nets`'
            convolutions are `"conv"`), or `()`. The rest it computes again, where that
            takes less than to store and fetch it. All that it needs by default.
        halves: where a pass is not differentiated, the event goes from copy to copy in
            two halves of its last axis, and two copies make a turn of the loop. For
            affine couplings whose halves `roll` exchanges: nothing is put together
            there to be taken apart again, and passes take 0.92 to 0.98 of the time.

    Raises:
        TypeError: `unroll` or `halves` is neither True nor False, or `keep` holds no
            names.
        ValueError: `n` is not a positive integer, or two of `reversible`, `unroll` and
            `keep` are asked for, or `reversible` and `halves`; at `init`, if the
            bijector changes the event's shape or dtype.

    Example:
        >>> deep = repeat(identity(), 32, reversible=True)
    """
    check_bijector_type("repeat", bijector)
    check_anchor("repeat", reversible, anchor)
    check_positive("repeat", n=n)
    check_storing("repeat", unroll, keep, halves, reversible)
    name = name_of(bijector)

    def run_init(key, x, condition=None):
        def body(x, key):
            params, z = init_with_output(bijector, key, x, condition)
            if z.shape != x.shape or z.dtype != x.dtype:
                raise ValueError(
                    f"repeat: {name} maps {x.dtype}{x.shape} to {z.dtype}{z.shape}, "
                    "but copies can only follow each other where shape and dtype stay. "
                    "Put the layer that changes them outside of repeat."
                )
            return z, params

        z, params = jax.lax.scan(body, x, jax.random.split(key, n))
        return params, z

    ahead = _labelled(name, bijector.forward)
    back = _labelled(name, bijector.inverse)

    def sequence(apply, undo, reverse):
        if reversible:
            return recomputing_scan(apply, undo, n, reverse, anchor)
        return storing_scan(apply, n, reverse, unroll, keep, halves)

    scan_ahead = sequence(ahead, back, False)
    scan_back = sequence(back, ahead, True)

    def forward(params, x, condition=None, key=None):
        return scan_ahead(params, x, condition, key)

    def inverse(params, z, condition=None, key=None):
        return scan_back(params, z, condition, key)

    return Bijector(initialiser(run_init), forward, inverse)


def invert(bijector: Bijector) -> Bijector:
    """The two passes swapped: a fast-to-evaluate flow becomes a fast-to-sample one.

    `invert(b).init` hands its batch to `b.init` as it is: data-dependent layers under
    `invert` are fitted as though their outputs were that batch's whitened form, so
    `invert(actnorm())` starts as the map that *undoes* whitening. Put layers that
    should whiten outside of `invert`.
    """
    check_bijector_type("invert", bijector)
    name = f"invert({name_of(bijector)})"

    def init(key, x, condition=None):
        return bijector.init(key, x, condition)

    def forward(params, x, condition=None, key=None):
        return run(name, bijector.inverse, params, x, condition, key)

    def inverse(params, z, condition=None, key=None):
        return run(name, bijector.forward, params, z, condition, key)

    kind = mixing_of(bijector.forward, bijector.inverse)
    return Bijector(init, mixing(kind, forward), mixing(kind, inverse))


def remat(bijector: Bijector) -> Bijector:
    """Recompute the layer in the backward pass instead of storing what is inside it.

    For layers whose inverse is dear; where the inverse is cheap, `reversible=True` of
    `chain` and `repeat` saves more.
    """
    check_bijector_type("remat", bijector)
    return bijector._replace(
        forward=_named(remat, recomputed(bijector.forward)),
        inverse=_named(remat, recomputed(bijector.inverse)),
    )


def frozen(bijector: Bijector) -> Bijector:
    """The same map with parameters that stay: gradients stop at them.

    `params` is `{"fixed": theirs}`; `jflow.fit` leaves such leaves out of every
    update, weight decay included.
    """
    check_bijector_type("frozen", bijector)

    def run_init(key, x, condition=None):
        params, z = init_with_output(bijector, key, x, condition)
        return {"fixed": params}, z

    def forward(params, x, condition=None, key=None):
        held = jax.lax.stop_gradient(params["fixed"])
        return bijector.forward(held, x, condition, key)

    def inverse(params, z, condition=None, key=None):
        held = jax.lax.stop_gradient(params["fixed"])
        return bijector.inverse(held, z, condition, key)

    return Bijector(initialiser(run_init), forward, inverse)


def split(bijector: Bijector, keep: int | None = None) -> Bijector:
    """Apply `bijector` to the first `keep` channels; the others are latent already.

    The factor-out of multi-scale models (Dinh et al. 2017, section 3.6): with
    `squeeze` before and `unsqueeze` after it, the event keeps its shape.

    Args:
        bijector: maps events `(..., keep)`.
        keep: how many channels (last axis) go on; half of them, rounded up, by default.

    Raises:
        ValueError: at trace time, if the event has fewer than `keep` + 1 channels.
    """
    check_bijector_type("split", bijector)

    def parts(x):
        channels = x.shape[-1]
        size = (channels + 1) // 2 if keep is None else keep
        if not 0 < size < channels:
            raise ValueError(
                f"split: keep={size} of {channels} channels leaves nothing to factor "
                "out; choose 0 < keep < channels, or squeeze first."
            )
        return jnp.split(x, [size], axis=-1)

    def run_init(key, x, condition=None):
        kept, done = parts(x)
        params, kept = init_with_output(bijector, key, kept, condition)
        return params, jnp.concatenate([kept, done], axis=-1)

    def apply(inner, params, x, condition, key):
        kept, done = parts(x)
        kept, log_det = run(name_of(bijector), inner, params, kept, condition, key)
        return jnp.concatenate([kept, done], axis=-1), log_det

    def forward(params, x, condition=None, key=None):
        return apply(bijector.forward, params, x, condition, key)

    def inverse(params, z, condition=None, key=None):
        return apply(bijector.inverse, params, z, condition, key)

    return Bijector(initialiser(run_init), forward, inverse)


def _named(factory, apply):
    apply.__qualname__ = factory.__qualname__
    return apply


def _labelled(name, apply):
    """The pass with positional arguments only, run under its name."""

    def step(params, x, condition, key):
        return run(name, apply, params, x, condition, key)

    return mixing(mixing_of(apply), step)
