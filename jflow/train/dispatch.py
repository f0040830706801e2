"""The compiled pieces of `fit`, one of each per step function and target.

Many steps run in one `while_loop` with a trip count that is an argument, so any number
of steps uses the same compilation, and numbers do not depend on how steps are grouped.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jflow.bijector import Array, Condition, Params
from jflow.compilation import Effort, options_for
from jflow.parallel import AXIS, batch_sharding, constrain_params, replicated
from jflow.train.losses import Loss
from jflow.train.step import (
    EVALUATION,
    ORDER,
    Best,
    Step,
    current_params,
    stream,
    where,
)

MOST_STEPS = 1024


class Target(NamedTuple):
    """What the pieces are compiled for.

    Attributes:
        mesh: the devices that share a batch; None for one.
        sharded: whether they share parameters and optimiser state, too.
        effort: how much compilation is worth to them.
    """

    mesh: Mesh | None = None
    sharded: bool = False
    effort: Effort = Effort.FULL


class Order(NamedTuple):
    """The order of the examples in one epoch."""

    epoch: Array
    indices: Array


def unknown_order(n: int) -> Order:
    """An order that belongs to no epoch, so that the first step draws one."""
    # Made on the host, where nothing is compiled for it.
    indices = np.arange(n, dtype=jax.dtypes.canonicalize_dtype(int))
    return Order(np.int32(-1), indices)


def draw_order(key: Array, epoch: Array, n: int) -> Order:
    """The order of epoch `epoch`: a function of the run's key and that number."""
    epoch_key = jax.random.fold_in(stream(key, ORDER), epoch)
    return Order(epoch, shuffled(epoch_key, n))


def shuffled(key: Array, n: int) -> Array:
    """A random order of `n` examples.

    `jax.random.permutation` sorts pairs, for which XLA on the CPU takes 10 times as
    long as for numbers: at 4,096 examples, longer than a small flow's steps over them.
    Here random high bits and a position in the low bits make one number. Where few
    bits are left, later rounds break the ties of earlier ones, until as many were
    drawn as leave less than one tie to expect.
    """
    bits = max((n - 1).bit_length(), 1)
    position = jnp.arange(n, dtype=jnp.uint32)
    mask = jnp.uint32(2**bits - 1)
    order = jnp.arange(n)
    rounds = -(-2 * bits // (32 - bits))
    for noise in jax.random.bits(key, (rounds, n), jnp.uint32):
        order = order[jnp.sort(noise & ~mask | position) & mask]
    return order


def take(tree: Any, n: int, pick: Callable[[Array], Array]) -> Any:
    """`pick` applied to arrays over the `n` examples, others (axis 0 is 1) as are."""
    return jax.tree.map(lambda leaf: pick(leaf) if leaf.shape[0] == n else leaf, tree)


def batch_at(
    order: Order, step: Array, x: Array, condition: Condition, batch_size: int
) -> tuple[Array, Condition]:
    """The batch of step `step`, in an order that is its epoch's."""
    n = x.shape[0]
    start = step % (n // batch_size) * batch_size
    indices = jax.lax.dynamic_slice_in_dim(order.indices, start, batch_size)
    return take((x, condition), n, lambda leaf: leaf[indices])


def divide(batch: Any, mesh: Mesh | None, size: int) -> Any:
    """Tell the compiler to divide a batch of `size` among the mesh's devices."""
    if mesh is None:
        return batch
    return jax.lax.with_sharding_constraint(
        batch,
        jax.tree.map(
            lambda leaf: (
                batch_sharding(mesh) if leaf.shape[0] == size else replicated(mesh)
            ),
            batch,
        ),
    )


def _jit(function, target, **options):
    # With outputs placed like inputs, a second call finds what the first compiled.
    if target.sharded:
        whole = function

        @functools.wraps(whole)
        def function(*args, **static):
            return constrain_params(whole(*args, **static), target.mesh)

    elif target.mesh is not None:
        options["out_shardings"] = replicated(target.mesh)
    return jax.jit(function, compiler_options=options_for(target.effort), **options)


@functools.lru_cache(maxsize=64)
def many_steps(step: Step, target: Target) -> Callable:
    """`(state, order, x, condition, count, batch_size)` on in-memory data.

    Returns `(state, order, losses, norms, finite)`, the buffers filled as far as steps
    went. The loop ends at the first step that does not count: it was not finite.
    """

    def run(state, order, x, condition, count, batch_size):
        n = x.shape[0]
        per_epoch = n // batch_size

        def unfinished(carry):
            *_, i, finite = carry
            return (i < count) & finite

        def body(carry):
            state, order, losses, norms, i, _ = carry
            epoch = state.step // per_epoch
            order = jax.lax.cond(
                epoch == order.epoch,
                lambda: order,
                lambda: draw_order(state.key, epoch, n),
            )
            batch = batch_at(order, state.step, x, condition, batch_size)
            new, metrics = step(state, divide(batch, target.mesh, batch_size))
            if target.sharded:
                new = constrain_params(new, target.mesh)
            losses = losses.at[i].set(metrics["loss"])
            norms = norms.at[i].set(metrics["grad_norm"])
            return new, order, losses, norms, i + 1, new.step != state.step

        empty = jnp.zeros(MOST_STEPS)
        carry = state, order, empty, empty, jnp.array(0), jnp.array(True)
        *results, _, finite = jax.lax.while_loop(unfinished, body, carry)
        return *results, finite

    return _jit(run, target, static_argnames="batch_size", donate_argnums=(0, 1))


@functools.lru_cache(maxsize=64)
def one_step(step: Step, target: Target) -> Callable:
    """`(state, batch, index) -> (state, numbers)` for batches from outside.

    The numbers are the loss, the gradient norm, and 1 where the step was taken.

    Does nothing where the state is not at step `index`: after a step that was not
    finite, those sent after it before anyone looked pass without effect.
    """

    def run(state, batch, index):
        new, metrics = step(state, batch)
        here = state.step == index
        taken = (new.step != state.step) & here
        # One array, since fetching each is a good part of a small step's time.
        numbers = jnp.stack([metrics["loss"], metrics["grad_norm"], taken])
        return where(here, new, state), numbers

    return _jit(run, target, donate_argnums=0)


@functools.lru_cache(maxsize=64)
def evaluation(loss: Loss, target: Target) -> Callable:
    """`(state, x, condition, batch_size) -> (mean loss, best)` on held-out data.

    Averaged parameters are used where there are any. Noise is the same each time, so
    that evaluations compare.
    """

    def run(state, x, condition, batch_size):
        params = current_params(state)
        key = stream(state.key, EVALUATION)
        value = mean_loss(loss, params, x, condition, key, batch_size, target.mesh)
        value = value.astype(state.best.loss.dtype)
        better = value < state.best.loss
        kept = where(better, params, state.best.params)
        misses = jnp.where(better, 0, state.best.misses + 1)
        return value, Best(kept, jnp.where(better, value, state.best.loss), misses)

    return _jit(run, target, static_argnames="batch_size")


def evaluator(
    loss: Loss, held_out: tuple, batch_size: int, target: Target, place: Callable
) -> Callable:
    """`state -> (mean loss, best)` on these data, and `.lower(state)`, its program."""
    x, condition = place(held_out)
    devices = 1 if target.mesh is None else target.mesh.shape[AXIS]
    size = _evaluation_size(x.shape[0], min(batch_size, x.shape[0]), devices)
    # Parameters that are divided need the mesh, whether or not the batch divides.
    if size % devices:
        if target.sharded:
            size = max(size // devices, 1) * devices
        else:
            target = target._replace(mesh=None)
    run = evaluation(loss, target)

    def evaluate(state):
        return run(state, x, condition, batch_size=size)

    evaluate.lower = lambda state: run.lower(state, x, condition, batch_size=size)
    return evaluate


def _evaluation_size(n, most, devices):
    """`most`, or a little less that divides the data, so that one size is compiled."""
    sizes = range(most, most // 2, -1)
    return next((b for b in sizes if not (n % b or b % devices)), most)


def mean_loss(
    loss: Loss,
    params: Params,
    x: Array,
    condition: Condition,
    key: Array,
    batch_size: int,
    mesh: Mesh | None = None,
) -> Array:
    """The mean loss over all examples, `batch_size` at a time.

    The last, smaller batch is a call of its own, since a loss is one number per batch
    and could not leave padding out.
    """
    n = x.shape[0]
    full, rest = divmod(n, batch_size)

    def part(i, start, size):
        def pick(leaf):
            return jax.lax.dynamic_slice_in_dim(leaf, start, size)

        batch = take((x, condition), n, pick)
        if size == batch_size:
            batch = divide(batch, mesh, size)
        return loss(params, *batch, jax.random.fold_in(key, i)) * (size / n)

    def body(total, i):
        return total + part(i, i * batch_size, batch_size), None

    total = jnp.zeros(())
    if full:
        total = jax.lax.scan(body, total, jnp.arange(full))[0]
    return total + part(full, full * batch_size, rest) if rest else total
