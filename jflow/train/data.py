"""Where batches come from: arrays on the device, or an iterable of batches.

Either kind becomes a `Source`, whose `advance` takes some steps and says how far it
came. It never loses a state to an error: what went wrong comes back beside it.
"""

import collections
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jflow.bijector import Array, Condition
from jflow.parallel import agree, check_divides, replicate, shard
from jflow.train.dispatch import (
    MOST_STEPS,
    Target,
    batch_at,
    draw_order,
    many_steps,
    one_step,
    take,
    unknown_order,
)
from jflow.train.step import (
    HOLD_OUT,
    Step,
    TrainState,
    as_batch,
    committed_devices,
)

# Batches from outside that may wait for the device: enough to keep it busy, few enough
# to fit.
IN_FLIGHT = 4


class Advance(NamedTuple):
    """How far a source came.

    Attributes:
        state: after the last good step.
        losses: one per good step.
        norms: gradient norms, the same.
        finite: False where the next step was not finite.
        ended: why there are no more batches, if so.
        error: what the data's own code raised, if it did.
    """

    state: TrainState
    losses: np.ndarray
    norms: np.ndarray
    finite: bool = True
    ended: str | None = None
    error: Exception | None = None


class Source(NamedTuple):
    """Batches and the steps over them.

    Attributes:
        advance: `(state, count) -> Advance`.
        batch: `state -> (x, condition)` of the step that was not finite.
        epoch: steps per epoch, where that is known.
        lower: `state -> jax.stages.Lowered`, the steps' program, where it is known
            before there are batches.
    """

    advance: Callable[[TrainState, int], Advance]
    batch: Callable[[TrainState], tuple[Array, Condition]]
    epoch: int | None = None
    lower: Callable[[TrainState], jax.stages.Lowered] | None = None


def is_array(x: Any) -> bool:
    """Whether `x` is data rather than a source of batches."""
    return hasattr(x, "shape") or hasattr(x, "to_numpy")


def check_examples(owner: str, x: Any, condition: Any) -> tuple[Any, Any]:
    """Arrays over the same examples; they stay on the host if they are there.

    Raises:
        ValueError: `x` has no event axis or no examples, or an array of the condition
            has another number of them.
    """
    if not isinstance(x, jax.Array):
        x = np.asarray(x)
    if x.ndim < 2 or x.shape[0] == 0:
        raise ValueError(
            f"{owner}: expected examples (N, *event) with N >= 1, got shape {x.shape}; "
            "scalar data need an event axis, x[:, None]."
        )

    def leaf(c):
        c = c if isinstance(c, jax.Array) else np.asarray(c)
        if c.ndim == 0 or c.shape[0] not in (1, x.shape[0]):
            raise ValueError(
                f"{owner}: axis 0 of every array of the condition must be the "
                f"{x.shape[0]} examples (or 1, which is broadcast), got {c.shape}."
            )
        return c

    return x, jax.tree.map(leaf, condition)


def hold_out(key: Array, x: Any, condition: Any, fraction: float) -> tuple[Any, Any]:
    """Split off a random fraction: `(rest, held out)`, both as (x, condition).

    Raises:
        ValueError: either part would be empty.
    """
    n = x.shape[0]
    count = round(n * fraction)
    if not 0 < count < n:
        raise ValueError(
            f"validation={fraction} of {n} examples leaves {n - count} to train on and "
            f"{count} to validate on; choose a fraction that leaves some of both."
        )
    # Drawn on the host, where nothing is compiled for it.
    words = np.asarray(jax.random.key_data(key)).ravel()
    order = np.random.default_rng([*words, HOLD_OUT]).permutation(n)

    def part(indices):
        def pick(leaf):
            return (
                _rows(leaf, indices) if isinstance(leaf, jax.Array) else leaf[indices]
            )

        return take((x, condition), n, pick)

    return part(order[count:]), part(order[:count])


@jax.jit
def _rows(a, indices):
    """One program, where indexing alone is six."""
    return a[indices]


def in_memory(
    step: Step,
    x: Array,
    condition: Condition,
    batch_size: int,
    target: Target,
    place: Callable,
) -> Source:
    """Data that live on the device, shuffled there anew in each epoch.

    Step s is batch s mod m of epoch s // m, for m batches per epoch: the data position
    is a function of the step alone. What is left of an epoch after m whole batches is
    dropped; it differs from epoch to epoch.
    """
    n = x.shape[0]
    run = many_steps(step, target)
    order = place(unknown_order(n))

    def arguments(state, count):
        return state, order, x, condition, min(count, MOST_STEPS)

    def lower(state):
        return run.lower(*arguments(state, 1), batch_size=batch_size)

    def advance(state, count):
        nonlocal order
        before = int(state.step)
        state, order, losses, norms, finite = run(
            *arguments(state, count), batch_size=batch_size
        )
        done = int(state.step) - before
        losses, norms = np.asarray(losses)[:done], np.asarray(norms)[:done]
        return Advance(state, losses, norms, bool(finite))

    def batch(state):
        epoch = state.step // (n // batch_size)
        drawn = draw_order(state.key, epoch, n)
        return batch_at(drawn, state.step, x, condition, batch_size)

    return Source(advance, batch, n // batch_size, lower)


def from_batches(step: Step, batches: Any, target: Target) -> Source:
    """Batches from an iterable, or from a function `step -> iterator`.

    Something that can be read again is, from its start, whenever it ends; an iterator's
    end ends the training, in all processes of the mesh at the same step. To resume, a
    function is asked for the batches from that step on; anything else has its first
    batches skipped.
    """
    run, mesh = one_step(step, target), target.mesh
    read_raw = _reader(batches)
    # Several processes read some batches ahead, so as not to ask one another each time.
    ahead = 1 if mesh is None or jax.process_count() == 1 else IN_FLIGHT
    recent = collections.deque(maxlen=IN_FLIGHT + ahead)

    def read(index):
        batch = jax.tree.map(_as_array, as_batch(read_raw(index)))
        return batch if mesh is None else shard(batch, mesh)

    def gone_on(sent):
        # Waiting for a step some way back keeps the device busy all the same.
        return len(sent) <= IN_FLIGHT or bool(np.asarray(sent[-1 - IN_FLIGHT])[2])

    def advance(state, count):
        start, sent = int(state.step), []
        ended, error = None, None
        while len(sent) < count and not (ended or error) and gone_on(sent):
            some = min(ahead, count - len(sent))
            found, ended, error = _read_together(read, start + len(sent), some, mesh)
            for index, batch in found:
                try:
                    state, numbers = run(state, batch, index)
                except Exception as raised:
                    error = raised
                    break
                recent.append((index, batch))
                sent.append(numbers)
        losses, norms, taken = np.array([*sent, np.zeros(3)])[:-1].T
        done = int(taken.sum())
        return Advance(
            state, losses[:done], norms[:done], done == len(sent), ended, error
        )

    def batch(state):
        return dict(recent)[int(state.step)]

    return Source(advance, batch)


def read_data(
    step, state, x, condition, validation, batch_size, target, place
) -> tuple[Source, tuple[Array, Condition] | None]:
    """The source of batches that `fit` reads, and the held-out `(x, condition)`.

    Raises:
        ValueError: data, condition and validation do not go together.
    """
    fraction = isinstance(validation, numbers.Real)
    held_out = None
    if validation is not None and not fraction:
        held_x, held_condition = as_batch(validation)
        if condition is not None and held_condition is None:
            raise ValueError(
                "fit: the data have a condition, so validation= needs one: pass "
                "(x, condition)."
            )
        held_out = check_examples("fit: validation", held_x, held_condition)
    if not is_array(x):
        if fraction or condition is not None:
            raise ValueError(
                "fit: with an iterable of batches, validation= must be an array or "
                "(x, condition), and conditions come with their batches."
            )
        return from_batches(step, x, target), held_out
    x, condition = check_examples("fit: x", x, condition)
    if fraction:
        (x, condition), held_out = hold_out(state.key, x, condition, validation)
    batch_size = min(batch_size, x.shape[0])
    if target.mesh is not None:
        check_divides("fit", target.mesh, batch_size)
    x, condition = place((x, condition))
    return in_memory(step, x, condition, batch_size, target, place), held_out


def placement(mesh: Mesh | None, *trees: Any) -> Callable:
    """Where arrays go: on all of the mesh, or where the user's own have been put."""
    if mesh is not None:
        return lambda tree: replicate(tree, mesh)
    devices = committed_devices(trees)
    if len(devices) > 1:
        raise ValueError(
            f"fit: params and x live on {len(devices)} devices; pass mesh="
            "jflow.parallel.data_mesh() to train on several."
        )
    return lambda tree: jax.device_put(tree, *devices)


def _read_together(read, start, count, mesh):
    """`count` batches as (index, batch), or those that every process has; why there are
    no more, and what this process is to raise.
    """
    found, ended, error = [], None, None
    try:
        while len(found) < count:
            index = start + len(found)
            found.append((index, read(index)))
    except StopIteration:
        ended = "data"
    except Exception as raised:
        error = raised
    trouble = 2 if error else 1 if ended else 0
    # One more than a batch's examples, so that none is told from an empty one.
    sizes = np.zeros(count, int)
    leading = [np.shape(jax.tree.leaves(batch)[0]) for _, batch in found]
    sizes[: len(found)] = [1 + (shape or (0,))[0] for shape in leading]
    worst, *sizes = agree(np.array([trouble, *sizes, *-sizes]), mesh)
    most, least = np.array(sizes[:count]), -np.array(sizes[count:])
    common = int(np.argmin([*(least == most) & (least > 0), False]))
    if worst == 2 and error is None:
        error = RuntimeError(
            "fit: the data of another process raised an error, which its own log tells."
        )
    elif not worst and common < count:
        share = (least[common] - 1) / (most[common] - 1)
        error = ValueError(
            f"fit: batches of step {start + common} differ in size: one process has "
            f"{share:.0%} of another's examples; all need equally many."
        )
    return found[:common], "data" if worst == 1 else None, error


def _as_array(leaf):
    return leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)


def _reader(batches):
    """`index -> batch`, called with consecutive indices from any first one."""
    by_step = callable(batches) and not hasattr(batches, "__iter__")
    if not by_step and not hasattr(batches, "__iter__"):
        raise TypeError(
            f"fit: x is {type(batches).__name__}: expected an array (N, *event), an "
            "iterable of batches, or a function from a step to an iterator of batches."
        )
    iterator = None

    def restart(index):
        nonlocal iterator
        iterator = iter(batches(index) if by_step else batches)

    def following(index):
        try:
            return next(iterator)
        except StopIteration:
            if iterator is batches:
                raise
            restart(index)
            return next(iterator)

    def read(index):
        if iterator is None:
            restart(index)
            for skipped in range(0 if by_step else index):
                following(skipped)
        return following(index)

    return read
