"""The protocol: a bijector is a named tuple of three pure functions.

`forward` maps data to latent, as in NICE, RealNVP and Glow. Axis 0 of every array is
the batch, the rest is the event. `log_det` is that of the map just applied, in nats,
one number per example, so the two passes' log-dets sum to zero. `params` is a pytree
of floating-point arrays; leaves under a key named `"fixed"` are not learned, leaves
under `"statistics"` are tracked rather than optimised (see `jflow.train.label_params`).
"""

import functools
import math
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
Params = Any
Condition = Any
Pass = Callable[..., tuple[Array, Array]]


class Bijector(NamedTuple):
    """An invertible map with its log-determinant, as three pure functions.

    Attributes:
        init: `(key, x, condition=None) -> params`, fitted to the batch `x`.
        forward: `(params, x, condition=None, key=None) -> (z, log_det)`, from data to
            latent.
        inverse: `(params, z, condition=None, key=None) -> (x, log_det)`, from latent to
            data.

    Shapes: `x` and `z` are `(N, *event)`, `log_det` is `(N,)` in nats.
    """

    init: Callable[..., Params]
    forward: Pass
    inverse: Pass


# --- what every layer needs -----------------------------------------------------------


def log_det_dtype(*arrays: Array) -> jnp.dtype:
    """The dtype in which log-dets are summed: float32, or better if the data are."""
    return jnp.promote_types(jnp.result_type(*arrays), jnp.float32)


def zero_log_det(x: Array) -> Array:
    """A log-det of zero for each example of the batch `x`."""
    # Like x, so that inside shard_map it is typed as differing between devices, too.
    return jnp.zeros_like(x, shape=x.shape[:1], dtype=log_det_dtype(x))


def sum_event(values: Array) -> Array:
    """Sum over all axes but the batch: `(N, ...) -> (N,)`, in float32 or better."""
    return values.astype(log_det_dtype(values)).sum(axis=tuple(range(1, values.ndim)))


def expand_log_det(log_det: Array, x: Array) -> Array:
    """The same scalar log-det for each example of the batch `x`."""
    return jnp.broadcast_to(log_det, x.shape[:1]).astype(log_det_dtype(x))


def positions(x: Array) -> int:
    """How many positions an event has: its size without the channels."""
    return math.prod(x.shape[1:-1])


def channel_moments(x: Array, epsilon: float) -> tuple[Array, Array]:
    """Mean and standard deviation per channel; 1 for channels that are constant."""
    axes = tuple(range(x.ndim - 1))
    mean, deviation = x.mean(axes), x.std(axes)
    return mean, jnp.where(deviation > epsilon, deviation, 1.0)


def split_key(key: Array | None, n: int) -> Any:
    """`n` independent keys, or `n` times None where there is no key."""
    return [None] * n if key is None else list(jax.random.split(key, n))


def scan_keys(key: Array | None, n: int) -> Array | None:
    """`n` keys stacked for `lax.scan`, or None where there is no key."""
    return None if key is None else jax.random.split(key, n)


def scan_params(params: Params) -> Params:
    """A layer's parameters as `lax.scan` sliced them, for use in its body.

    On the CPU vectors become arrays of their own: a sum that XLA does not move into the
    loops that read them. A slice it does move there, and where a loop reads one slice
    twice (a bias: shifts, then log-scales), no exponential in it is vectorised.
    """
    if jax.default_backend() != "cpu":
        return params

    def leaf(a):
        return jnp.stack([a, jnp.zeros_like(a)]).sum(axis=0) if a.ndim == 1 else a

    return jax.tree.map(leaf, params)


def draw(
    sampler: Callable[..., Array], key: Array, shape: tuple[int, ...], *args: Any
) -> Array:
    """`sampler(key, shape, *args)` of `jax.random`, the same numbers.

    They are drawn in rows: XLA compiles a generator's loops over the four axes of
    images four times as long on the CPU, and those along one axis run up to 1.4 times
    as long.
    """
    rows = (shape[0], math.prod(shape[1:])) if len(shape) > 1 else shape
    return sampler(key, rows, *args).reshape(shape)


def draw_start(
    sampler: Callable[..., Array], key: Array, shape: tuple[int, ...], *args: Any
) -> Array:
    """`draw` for an `init`: the same numbers, up to 16,384 of them by one generator.

    They are the first of that many, which with JAX's default generator are the same,
    so that XLA compiles it once and not again for each leaf's shape, a third of a
    second on the CPU.
    """
    count = math.prod(shape)
    return draw(sampler, key, (max(count, 2**14),), *args)[:count].reshape(shape)


def initialiser(run_init: Callable[..., tuple[Params, Array]]) -> Callable[..., Params]:
    """An `init` that can also give the layer's output, so that combinators within
    combinators pass the init batch through every layer once.

    `run_init` is `(key, x, condition) -> (params, z)`.
    """

    def init(key, x, condition=None):
        return run_init(key, x, condition)[0]

    init.with_output = run_init
    return init


def init_with_output(
    bijector: Bijector, key: Array, x: Array, condition: Condition = None
) -> tuple[Params, Array]:
    """Initialise a bijector on a batch, and pass the batch on."""
    if hasattr(bijector.init, "with_output"):
        return bijector.init.with_output(key, x, condition)
    params_key, noise_key = jax.random.split(key)
    params = bijector.init(params_key, x, condition)
    return params, bijector.forward(params, x, condition, noise_key)[0]


def name_of(bijector: Bijector) -> str:
    """The name of the function that built `bijector`, for messages and profiles."""
    return getattr(bijector.forward, "__qualname__", "bijector").split(".")[0]


def check_bijector_type(owner: str, *bijectors: Bijector) -> None:
    """Raise TypeError where something handed to a combinator is no Bijector."""
    for i, b in enumerate(bijectors):
        if not isinstance(b, Bijector):
            raise TypeError(
                f"{owner}: argument {i} is {b!r}, not a Bijector. Call the factory "
                "first (`actnorm()`, not `actnorm`), or build a Bijector(init, forward,"
                " inverse)."
            )


def check_positive(owner: str, **values: Any) -> None:
    """Raise ValueError for a value that is no positive integer."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(
                f"{owner}: {name} must be a positive integer, got {value!r}."
            )


# --- watching layers ------------------------------------------------------------------

# `jflow.diagnostics` sets a watcher to see what every layer returns, by its path.
watcher: ContextVar[Callable | None] = ContextVar("watcher", default=None)
_path: ContextVar[tuple[str, ...]] = ContextVar("path", default=())


def recomputed(apply: Pass, **options: Any) -> Pass:
    """`jax.checkpoint(apply, **options)` that a watcher sees into."""
    again = jax.checkpoint(apply, **options)

    @functools.wraps(apply)
    def chosen(*args, **kwargs):
        return (again if watcher.get() is None else apply)(*args, **kwargs)

    return chosen


def run(name: str, apply: Pass, params, x, condition, key) -> tuple[Array, Array]:
    """Apply one pass under a named scope, and show the result to the watcher."""
    path = (*_path.get(), name)
    token = _path.set(path)
    try:
        with jax.named_scope(name):
            y, log_det = apply(params, x, condition, key)
    finally:
        _path.reset(token)
    if (watch := watcher.get()) is not None:
        watch(path, y, log_det)
    return y, log_det
