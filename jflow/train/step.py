"""One training step as a pure function, and the state that it maps."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jflow.arguments import cached, typed_key
from jflow.bijector import Array, Condition, Params, log_det_dtype
from jflow.compilation import Effort, jit_whole
from jflow.flow import Flow
from jflow.train.labels import (
    FIXED,
    LEARNED,
    STATISTICS,
    prepare_optimizer,
    select,
)
from jflow.train.losses import Loss, negative_log_likelihood

Step = Callable[..., tuple["TrainState", dict[str, Array]]]

# Independent streams of random numbers, so that a step's noise never meets an epoch's
# order. Everything random in training is a function of the state's key and a counter.
NOISE, ORDER, EVALUATION, HOLD_OUT = range(4)

# Leaves of so many numbers a CPU may copy: a MiB in single precision.
SMALL = 2**18


class Best(NamedTuple):
    """What early stopping remembers.

    Attributes:
        params: those with the lowest validation loss so far.
        loss: that loss; infinite before the first evaluation.
        misses: evaluations since.
    """

    params: Params
    loss: Array
    misses: Array


class TrainState(NamedTuple):
    """All of training's state: a pytree of arrays, complete for an exact resume.

    Attributes:
        step: how many steps were taken; with in-memory data, the data position too.
        params: the current parameters.
        opt_state: the optimiser's.
        key: the run's key; each step folds its number into it.
        average: the exponential moving average of the parameters, or None.
        best: what early stopping remembers, or None where nothing is validated.
    """

    step: Array
    params: Params
    opt_state: Any
    key: Array
    average: Params | None = None
    best: Best | None = None


def init_state(
    params: Params,
    optimizer: optax.GradientTransformation,
    key: Array,
    *,
    average: bool = False,
    best: bool = False,
) -> TrainState:
    """The state before the first step.

    Its arrays are copies: a loop may donate them and leave the caller's alone.

    Args:
        params: from `flow.init`.
        optimizer: any Optax transformation.
        key: of any kind that JAX knows.
        average: keep a moving average of the parameters.
        best: keep the best parameters by validation loss.

    Raises:
        TypeError: a parameter is not a floating-point array.

    Example:
        >>> params, key = {"bias": jnp.zeros(2)}, jax.random.key(0)
        >>> state = init_state(params, optax.adam(1e-3), key)
    """
    check_params(params)
    key, tx = typed_key(key), prepare_optimizer(optimizer)
    at_once, by_parts = _builders(tx, average, best)
    # In one program, what is divided among devices would not stay so.
    build = by_parts if len(committed_devices((params, key))) > 1 else at_once
    return build(params, key)


@cached
def make_train_step(
    flow: Flow | None,
    optimizer: optax.GradientTransformation,
    loss: Loss | None = None,
    average: float | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    on_nonfinite: str = "stop",
) -> Step:
    """Build `step(state, batch) -> (state, metrics)`, pure and not yet jitted.

    A batch is `x` or `(x, condition)`. The metrics are `loss`, `grad_norm` (the global
    norm of the learned parameters' gradient) and `finite`. A step whose loss,
    gradient or new parameters are not finite returns the state as it was, its counter
    included, with `finite` False; what is fixed may be infinite.

    Args:
        flow: what is trained; may be None where `loss` is given.
        optimizer: any Optax transformation; it reaches learned parameters alone, and
            may take the loss as its extra argument `value` (`reduce_on_plateau`).
        loss: `(params, x, condition, key) -> scalar`, a mean over the batch. The mean
            negative log-likelihood by default.
        average: the decay d of the parameters' moving average, for states built with
            `average=True`. Early steps use min(d, (1 + step) / (10 + step)), so that a
            short run's average does not remember its start.
        axis_name: for use inside `jax.pmap` or `jax.shard_map`: loss and gradients are
            averaged over this axis, and noise differs along it. Batches are the local
            parts, the state is the same everywhere.
        on_nonfinite: `"skip"` counts a step that is not finite, so that the next
            batch follows; nothing else of the state changes, and its loss is NaN.

    Returns:
        The step. The same arguments give the same function again.

    Raises:
        TypeError: `optimizer` is not an Optax transformation.
        ValueError: `average` is not between 0 and 1, neither flow nor loss is given,
            or `on_nonfinite` is neither `"stop"` nor `"skip"`.

    Example:
        >>> import jflow
        >>> flow = jflow.flow(jflow.actnorm(), jflow.normal((2,)))
        >>> x, optimizer = jnp.ones((8, 2)), optax.adam(1e-3)
        >>> key = jax.random.key(0)
        >>> state = init_state(flow.init(key, x), optimizer, key)
        >>> step = jax.jit(
        ...     make_train_step(flow, optimizer),
        ...     donate_argnums=0,
        ...     compiler_options=jflow.compiler_options(),
        ... )
        >>> state, metrics = step(state, x)
    """
    if average is not None and not 0 < average < 1:
        raise ValueError(
            f"average={average} must be a decay between 0 and 1, 0.999 for instance."
        )
    if on_nonfinite not in ("stop", "skip"):
        raise ValueError(
            f"on_nonfinite must be 'stop' or 'skip', got {on_nonfinite!r}."
        )
    skip = on_nonfinite == "skip"
    if loss is None:
        if flow is None:
            raise ValueError("flow and loss are both None; pass either.")
        loss = negative_log_likelihood(flow)
    tx = prepare_optimizer(optimizer)

    def step(state, batch):
        x, condition = as_batch(batch)
        key = jax.random.fold_in(stream(state.key, NOISE), state.step)
        params = state.params
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
            params = _varying(params, axis_name)
        value, grads = jax.value_and_grad(loss)(params, x, condition, key)
        if axis_name is not None:
            value, grads = jax.lax.pmean((value, grads), axis_name)
        grad_norm = _norm(select(grads, LEARNED))
        updates, opt_state = tx.update(
            _after(grad_norm, grads), state.opt_state, state.params, value=value
        )
        params = optax.apply_updates(state.params, updates)
        others = select(grads, FIXED, STATISTICS), select(params, LEARNED, STATISTICS)
        finite = _all_finite(value, grad_norm, _sum(others))
        new = state._replace(
            step=state.step + 1,
            params=params,
            opt_state=opt_state,
            average=_averaged(state, params, average),
        )
        if skip:
            value = jnp.where(finite, value, jnp.nan)
            state = state._replace(step=state.step + 1)
        metrics = {"loss": value, "grad_norm": grad_norm, "finite": finite}
        return where(finite, new, state), metrics

    return step


@cached
def _builders(tx, average, best):
    """`(params, key) -> TrainState`: in one program, and array by array.

    The one is for the CPU's sake, where each shape of zeros is a program of its own.
    """

    def build(params, key):
        zero = jnp.zeros((), jnp.int32)
        state = TrainState(
            step=zero,
            params=params,
            opt_state=tx.init(params),
            key=key,
            average=params if average else None,
            best=Best(params, jnp.full((), jnp.inf), zero) if best else None,
        )
        return jax.tree.map(_copy, state)

    return jit_whole(build, lambda *_: Effort.LEAST), build


def committed_devices(tree: Any) -> set[jax.Device]:
    """Where the tree's arrays have been put, those that JAX would not move."""
    arrays = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    known = [leaf for leaf in arrays if not isinstance(leaf, jax.core.Tracer)]
    return {device for leaf in known if leaf.committed for device in leaf.devices()}


def _copy(leaf):
    """A copy of a dtype that is its own: a weak one would be compiled for twice."""
    leaf = jnp.asarray(leaf)
    return jnp.array(leaf, dtype=leaf.dtype)


def as_batch(batch: Any) -> tuple[Array, Condition]:
    """`x`, `(x,)` or `(x, condition)` as `(x, condition)`.

    Raises:
        ValueError: the batch is none of these.
    """
    if isinstance(batch, tuple | list):
        if len(batch) in (1, 2):
            return batch[0], batch[1] if len(batch) == 2 else None
    elif hasattr(batch, "shape"):
        return batch, None
    raise ValueError(
        f"batch: expected x or (x, condition), got {jax.tree.map(np_shape, batch)!r}."
    )


def np_shape(leaf: Any) -> Any:
    """An array's shape, or whatever else it is, for messages."""
    return getattr(leaf, "shape", leaf)


def check_params(params: Params) -> None:
    """Raise TypeError where a parameter is not a floating-point array."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"params{jax.tree_util.keystr(path)} is {jnp.result_type(leaf)}, but "
                "parameters are floating-point arrays and nothing else; close over "
                "what is static."
            )


def stream(key: Array, name: int) -> Array:
    """The key of one of training's streams of random numbers."""
    return jax.random.fold_in(key, name)


def where(condition: Array, new: Any, old: Any) -> Any:
    """One of two trees, leaf by leaf; the small leaves by one conditional."""
    new, treedef = jax.tree.flatten(new)
    old = jax.tree.leaves(old)
    chosen = [
        None if _small(a) else jnp.where(condition, a, b)
        for a, b in zip(new, old, strict=True)
    ]
    small = [i for i, leaf in enumerate(chosen) if leaf is None]
    if small:
        pair = [new[i] for i in small], [old[i] for i in small]
        picked = jax.lax.cond(condition, lambda a, _: a, lambda _, b: b, *pair)
        for i, leaf in zip(small, picked, strict=True):
            chosen[i] = leaf
    return treedef.unflatten(chosen)


def current_params(state: TrainState) -> Params:
    """The averaged parameters, or the last ones where there is no average."""
    return state.params if state.average is None else state.average


def _varying(params, axis_name):
    """The parameters as values that may differ along the axis.

    `shard_map` sums the gradient of a value that is the same everywhere over the
    axis by itself; averaged once more, it would be too large by the axis' size.
    """

    # JAX before 0.9 has another name for it.
    if hasattr(jax.lax, "pcast"):
        vary = functools.partial(jax.lax.pcast, axis_name=axis_name, to="varying")
    else:
        vary = functools.partial(jax.lax.pvary, axis_name=axis_name)

    def leaf(a):
        try:
            return vary(a)
        except ValueError:  # It does already.
            return a

    return jax.tree.map(leaf, params)


def _averaged(state, params, decay):
    if (state.average is None) != (decay is None):
        raise ValueError(
            f"average={decay}, but the state has "
            f"{'no' if state.average is None else 'an'} average: build it by "
            f"init_state(..., average={decay is not None})."
        )
    if decay is None:
        return None
    count = state.step.astype(jnp.float32)
    rate = 1.0 - jnp.minimum(decay, (1.0 + count) / (10.0 + count))
    # In this form what does not change stays the same bit for bit.
    return jax.tree.map(
        lambda old, new: old + (rate * (new - old)).astype(old.dtype),
        state.average,
        params,
    )


def _after(number, tree):
    """The tree, zeros where the number is not finite; computed when the number is.

    So updates wait for all gradients. XLA would begin some of them sooner, and they
    take memory that the backward pass still needs.
    """
    finite = jnp.isfinite(number)
    return jax.tree.map(lambda leaf: jnp.where(finite, leaf, 0), tree)


def _norm(tree):
    """The root of all squares' sum."""
    return jnp.sqrt(
        sum((jnp.sum(jnp.square(a)) for a in _vectors(tree)), jnp.zeros(()))
    )


def _sum(tree):
    """The sum of all numbers: not finite where one of them is not."""
    return sum(map(jnp.sum, _vectors(tree)), jnp.zeros(()))


def _vectors(tree):
    """The leaves in float32 or better, the small ones put together."""
    leaves = [leaf.astype(log_det_dtype(leaf)) for leaf in jax.tree.leaves(tree)]
    small = [leaf.ravel() for leaf in leaves if _small(leaf)]
    large = [leaf for leaf in leaves if not _small(leaf)]
    return large + ([jnp.concatenate(small)] if small else [])


def _small(leaf):
    """Whether to copy it rather than to compile a loop for its shape, on a CPU."""
    return jax.default_backend() == "cpu" and leaf.size <= SMALL


def _all_finite(*numbers):
    return functools.reduce(jnp.logical_and, [jnp.isfinite(a) for a in numbers])
