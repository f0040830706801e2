"""Checks on a trained flow, and the search for what went wrong in one that is not.

Whether a conditional flow is a calibrated posterior is asked in `jflow.calibration`.
"""

import contextlib
import functools
import math
import warnings
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jflow.bijector import Array, Bijector, Condition, Params, watcher
from jflow.bijectors.autoregressive import sweep_listener
from jflow.check import BijectorReport, check_bijector
from jflow.flow import Flow
from jflow.parallel import gather

__all__ = [
    "BijectorReport",
    "ReconstructionError",
    "bits_per_dim",
    "check_bijector",
    "effective_sample_size",
    "first_nonfinite",
    "jacobi_sweeps",
    "nonfinite_argument",
    "nonfinite_leaf",
    "reconstruction_error",
    "watch",
    "watch_drift",
]


def bits_per_dim(log_prob: Array, shape: tuple[int, ...]) -> Array:
    """`-log_prob / (D ln 2)`, D the size of the event.

    `log_prob` is in nats and of the data's own units, so no constant is added: for
    integer pixels modelled through `dequantize`, the `-D n ln 2` of scaling n-bit
    pixels to [0, 1] is in the log-density already. That value is then an upper bound
    on the model's bits per dimension (Theis et al. 2016, section 3.1,
    https://arxiv.org/abs/1511.01844).

    Args:
        log_prob: in nats, of any shape.
        shape: the event's, (28, 28, 1) for instance.

    Raises:
        ValueError: `shape` is not a tuple of positive sizes.

    Example:
        >>> float(bits_per_dim(-8 * 3 * jnp.log(2.0), (3,)))
        8.0
    """
    if not isinstance(shape, tuple | list) or not shape or min(shape) < 1:
        raise ValueError(
            f"bits_per_dim: shape must be the event's shape such as (28, 28, 1), "
            f"got {shape!r}."
        )
    return -jnp.asarray(log_prob) / (math.prod(shape) * math.log(2))


class ReconstructionError(NamedTuple):
    """How far a bijector's passes are from undoing each other on one batch.

    Attributes:
        absolute: `max |inverse(forward(x)) - x|`, in the data's units.
        relative: that, divided by `max |x|`.
        log_det: `max |log_det forward + log_det inverse|`, in nats.
    """

    absolute: Array
    relative: Array
    log_det: Array


def reconstruction_error(
    bijector: Bijector,
    params: Params,
    x: Array,
    condition: Condition = None,
    key: Array | None = None,
) -> ReconstructionError:
    """Map `x` to latents and back: the drift that `reversible=True` trains with.

    Values that are not finite count as an error of infinity.

    Args:
        bijector: `flow.bijector`, for instance.
        params: the bijector's own, `params["bijector"]` of a flow's.
        x: `(N, *event)`.
        condition: as the bijector takes it.
        key: for stochastic layers.

    Raises:
        ValueError: the inverse does not give back `x`'s shape.

    Example:
        >>> import jflow
        >>> b, x = jflow.actnorm(), jax.random.normal(jax.random.key(0), (8, 2))
        >>> error = reconstruction_error(b, b.init(jax.random.key(1), x), x)
        >>> bool(error.absolute < 1e-5)
        True
    """

    x = jnp.asarray(x)
    again, mismatch = _there_and_back(bijector)(params, x, condition, key)
    if again.shape != x.shape:
        raise ValueError(
            f"reconstruction_error: the inverse maps the latents of {x.shape} to "
            f"{again.shape}; its layers do not keep the event."
        )
    values = x.astype(jnp.promote_types(again.dtype, jnp.float32))
    absolute = _worst(again - values)
    largest = jnp.max(jnp.abs(values))
    relative = absolute / jnp.where(largest > 0, largest, 1.0)
    return ReconstructionError(absolute, relative, _worst(mismatch))


@functools.lru_cache(maxsize=64)
def _there_and_back(bijector):
    def both(params, x, condition, key):
        z, ahead = bijector.forward(params, x, condition, key)
        again, back = bijector.inverse(params, z, condition, key)
        return again, ahead + back

    return jax.jit(both)


def watch_drift(
    flow: Flow,
    x: Array,
    condition: Condition = None,
    *,
    bound: float = 1e-3,
    every: int = 1_000,
    key: Array | None = None,
) -> Callable[[Any, dict[str, Any]], None]:
    """A callback for `fit` that warns where `reversible=True` drifts too far.

    Every so many steps it maps `x` to latents and back by the current parameters. What
    the backward pass rebuilds is off by as much, and so, in proportion, are gradients:
    float32 keeps 1e-6 to 1e-4 in flows that train well.

    Args:
        flow: the one that is trained.
        x: a few examples, `(N, *event)`; they should be typical of the data.
        condition: of these.
        bound: warn where the largest error, relative to the largest entry of `x`, or
            the log-dets' mismatch, in nats per dimension, is above it.
        every: steps between two looks, at most one per dispatch.
        key: for stochastic layers.

    Returns:
        `(state, metrics) -> None`, which issues a RuntimeWarning.

    Raises:
        ValueError: `bound` or `every` is not positive.

    Example:
        >>> import jflow
        >>> flow = jflow.flow(jflow.actnorm(), jflow.normal((2,)))
        >>> callback = watch_drift(flow, jnp.ones((8, 2)), bound=1e-4)
    """
    if not bound > 0 or every < 1:
        raise ValueError(
            f"watch_drift: bound={bound} and every={every} must be positive."
        )
    due = 0

    def callback(state, metrics):
        nonlocal due
        step = metrics["step"]
        if step < due:
            return
        due = (step // every + 1) * every
        params = gather(state.params)["bijector"]
        error = reconstruction_error(flow.bijector, params, x, condition, key)
        per_dim = error.log_det / math.prod(x.shape[1:])
        if max(error.relative, per_dim) > bound:
            warnings.warn(
                f"step {step}: inverse(forward(x)) is off by {error.relative:.1e} of "
                f"the largest entry and log-dets by {per_dim:.1e} nats per dimension, "
                f"more than bound={bound:g}. Gradients through reversible=True are off "
                "as much: give chain or repeat an anchor, bound the scales (affine's "
                "'tanh'), lower the learning rate, or train in float64.",
                RuntimeWarning,
                stacklevel=2,
            )

    return callback


def jacobi_sweeps(
    bijector: Bijector, params: Params, z: Array, condition: Condition = None
) -> list[int]:
    """How many sweeps each `autoregressive(..., inverse="jacobi")` inside took to undo.

    Args:
        bijector: a layer, or a composition with such layers in it.
        params: its parameters.
        z: a batch of latents; of a flow, its `bijector` and its base's samples.
        condition: of the batch.

    Returns:
        A list in the order in which `inverse` comes upon the layers; the
        most is the longest path of dependence, D for the natural order; a layer that
        is the identity takes 2, one to find it out and one to see it.
    """
    counts = []
    token = sweep_listener.set(lambda sweeps: counts.append(int(sweeps)))
    try:
        # A function of its own, so that it is traced while somebody listens.
        jax.block_until_ready(
            jax.jit(lambda p: bijector.inverse(p, z, condition))(params)
        )
        jax.effects_barrier()
    finally:
        sweep_listener.reset(token)
    return counts


def effective_sample_size(log_weights: Array) -> tuple[Array, int]:
    """Kish's effective sample size, `(sum w)^2 / sum w^2`, with the number of samples.

    For importance weights `w = p(x) / q(x)` of samples `x ~ q`. A flow that misses a
    mode has samples of nearly equal weight all the same, and more samples find more of
    the tails: never state the size, or its share of the samples, without their number.

    Args:
        log_weights: `log p - log q`, `(N,)`, in nats and up to a constant; `-inf` is a
            weight of zero.

    Returns:
        The effective sample size, between 1 and N, and N. NaN where all weights are
        zero or one is not a number or infinite.

    Raises:
        ValueError: `log_weights` is not `(N,)` with N >= 1.

    Example:
        >>> ess, n = effective_sample_size(jnp.zeros(100))
        >>> float(ess), n
        (100.0, 100)
    """
    log_weights = jnp.asarray(log_weights)
    if log_weights.ndim != 1 or not log_weights.size:
        raise ValueError(
            f"effective_sample_size: log_weights must be (N,) with N >= 1, got shape "
            f"{log_weights.shape}; flatten them, or vmap over other axes."
        )
    weights = jnp.exp(log_weights - log_weights.max())
    return weights.sum() ** 2 / (weights**2).sum(), log_weights.size


# --- where numbers stop being finite --------------------------------------------------


def first_nonfinite(
    bijector: Bijector,
    params: Params,
    x: Array,
    condition: Condition = None,
    key: Array | None = None,
) -> str | None:
    """The first layer whose output or log-det is not finite, as a readable path.

    Runs `forward` operation by operation, so that the copies of `repeat` are seen one
    by one, counted from 0 in the order in which they run: `"2:repeat > chain copy 5 >
    1:coupling"`. Slow; meant for one batch that went wrong.

    Args:
        bijector: `flow.bijector`, for instance.
        params: the bijector's own, `params["bijector"]` of a flow's.
        x: `(N, *event)`.
        condition: as the bijector takes it.
        key: the same as in the pass that went wrong.

    Returns:
        The path of names; `"x"`, `"condition"` or `"params[...]"` where what the pass
        is given is not finite; `"the bijector itself"` for one without named layers;
        None where all is finite.

    Example:
        >>> import jflow
        >>> b = jflow.chain(jflow.actnorm(), jflow.actnorm())
        >>> params = b.init(jax.random.key(0), jnp.ones((8, 2)))
        >>> params[1]["bias"] = jnp.array([0.0, jnp.inf])
        >>> first_nonfinite(b, params, jnp.ones((8, 2)))
        "params[1]['bias']"
    """
    given = nonfinite_argument(params, x, condition)
    if given is not None:
        return given
    layer, out = watch(lambda: bijector.forward(params, x, condition, key))
    if layer is None and not _finite(out):
        return "the bijector itself"
    return layer


def nonfinite_argument(params: Params, x: Any, condition: Condition) -> str | None:
    """Which argument of a pass is not finite already, if any."""
    named = (
        ("x", x),
        ("condition", condition),
        ("params", params),
    )
    for name, tree in named:
        leaf = nonfinite_leaf(tree)
        if leaf is not None:
            return name + leaf
    return None


def nonfinite_leaf(tree: Any) -> str | None:
    """The path of the first leaf that is not finite, or None."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not _finite(leaf):
            return jax.tree_util.keystr(path)
    return None


def watch(call: Callable[[], Any]) -> tuple[str | None, Any]:
    """Run `call` without jit and look at every layer on the way.

    Returns:
        The first layer whose result is not finite, or None; and what `call` returned.
    """
    # How often each path was finished within the current run of what encloses it, and
    # the most that was ever: more than one run means copies.
    runs, most = defaultdict(int), defaultdict(int)
    found = []

    def see(path, y, log_det):
        if isinstance(y, jax.core.Tracer) or isinstance(log_det, jax.core.Tracer):
            return
        if not found and not (_finite(y) and _finite(log_det)):
            found.extend((path[: i + 1], runs[path[: i + 1]]) for i in range(len(path)))
        runs[path] += 1
        most[path] = max(most[path], runs[path])
        for inner in [p for p in runs if len(p) > len(path) and p[: len(path)] == path]:
            runs[inner] = 0

    with _watching(see), jax.disable_jit():
        result = call()
    names = [
        f"{path[-1]} copy {copy}" if most[path] > 1 else path[-1]
        for path, copy in found
    ]
    return " > ".join(names) or None, result


@contextlib.contextmanager
def _watching(see):
    token = watcher.set(see)
    try:
        yield
    finally:
        watcher.reset(token)


def _finite(tree):
    leaves = [
        leaf
        for leaf in map(jnp.asarray, jax.tree.leaves(tree))
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    return all(bool(jnp.isfinite(leaf).all()) for leaf in leaves)


def _worst(differences):
    sizes = jnp.where(jnp.isfinite(differences), jnp.abs(differences), jnp.inf)
    return jnp.max(sizes)
