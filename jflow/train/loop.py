"""`fit`: the loop over the training step."""

import contextlib
import math
import numbers
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from jflow.arguments import check_key
from jflow.bijector import Array, Condition, Params
from jflow.compilation import compile_side_by_side, worth
from jflow.flow import Flow
from jflow.parallel import agree, check_mesh, gather
from jflow.parallel import shard_params as divide_params
from jflow.train.checkpoint import Checkpoints, checkpoints
from jflow.train.data import Source, is_array, placement, read_data
from jflow.train.dispatch import Target, evaluator
from jflow.train.errors import NonFiniteError, explain
from jflow.train.history import History, start_history
from jflow.train.losses import Loss, negative_log_likelihood
from jflow.train.progress import deferred_interrupt, pacer, progress_bar
from jflow.train.step import (
    NOISE,
    TrainState,
    current_params,
    init_state,
    make_train_step,
    stream,
)

# Steps skipped in a row after which training is not going anywhere.
MOST_SKIPPED = 100

Callback = Callable[[TrainState, dict[str, float]], Any]


def fit(
    flow: Flow,
    params: Params,
    x: Any,
    optimizer: optax.GradientTransformation,
    *,
    key: Array,
    steps: int,
    batch_size: int = 128,
    condition: Condition = None,
    validation: Any = None,
    loss: Loss | None = None,
    evaluate_every: int | None = None,
    patience: int | None = None,
    average: float | None = None,
    mesh: Mesh | None = None,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_every: int = 1_000,
    keep: int = 2,
    on_nonfinite: str = "stop",
    shard_params: bool = False,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    steps_per_dispatch: int | None = None,
    quick: bool | None = None,
) -> tuple[Params, dict[str, Any]]:
    """Train a flow: a loop over `make_train_step`'s step.

    Everything is a function of `key` and the step's number: the order of examples
    (shuffled anew in each epoch, its last partial batch dropped), the noise, the
    validation split. A second call with the same flow, optimiser and loss objects
    compiles nothing. On a CPU short trainings are compiled with less effort than long
    ones (`quick`), as evaluations are, and numbers may differ in the last digits.

    With `checkpoint=`, calling `fit` again with the same arguments goes on where the
    last checkpoint ends, and ends with the same parameters, bit for bit, as a run that
    was never stopped. Ctrl-C and SIGTERM end the training after the steps under way:
    what was trained until then is saved and returned. A loss that stops being finite
    raises.

    Args:
        flow: the flow.
        params: from `flow.init` on data, or from an earlier `fit`. Left as they are.
        x: an array `(N, *event)`, which is put on the device as it is (integers stay
            integers) and is not to be changed while `fit` runs, since a CPU may read it
            where it lies; or an iterable of batches, `x` or `(x, condition)`; or a
            function from a step to an iterator of the batches from that step on, which
            lets a resumed run begin without reading what it has seen.
        optimizer: any Optax transformation; parameters under `"fixed"` and
            `"statistics"` are kept from it (`label_params`).
        key: decides all that is random. A resumed run keeps its own.
        steps: how many in all, those of a resumed run included.
        batch_size: examples per step; at most N.
        condition: for array data, as the flow takes it.
        validation: held-out data: an array, `(x, condition)`, or for array data the
            fraction to hold out. The parameters with the lowest loss on it are
            returned.
        loss: `(params, x, condition, key) -> scalar`; the mean negative log-likelihood
            by default.
        evaluate_every: steps between evaluations. Once per epoch by default, but at
            least 100 steps apart; 1,000 where epochs are not known. Also at the end.
        patience: stop after this many evaluations without a better one.
        average: the decay of a moving average of the parameters, 0.999 for instance.
            The average is then evaluated and returned.
        mesh: devices to spread every batch over (`jflow.parallel.data_mesh()`).
        checkpoint: a directory for checkpoints.
        checkpoint_every: steps between them. Also at the end.
        keep: how many of the latest stay.
        on_nonfinite: `"stop"` raises at the first step that is not finite; `"skip"`
            leaves such a step out, its loss NaN in the history, and raises only when
            100 in a row were.
        shard_params: divide parameters and optimiser state among the mesh's devices
            instead of keeping them whole on each (`jflow.parallel.shard_params`).
        callbacks: called as `callback(state, metrics)` after every dispatch with the
            last step's `step`, `loss`, `grad_norm` and, just after an evaluation,
            `validation_loss`. One that returns True ends the training. The state's
            arrays live until the callback returns; copy what should stay.
        progress: draw a bar, if tqdm is installed.
        steps_per_dispatch: how many steps run between two looks at them; by default
            as many as take half a second. Changes no number.
        quick: compile the steps in half the time (`jflow.compiler_options`), best for
            Glow; by default where `steps * batch_size` times the number of parameters
            is at most 2^33, of arrays, and up to 2^28 sooner still.

    Returns:
        The parameters (by validation the best, else averaged, else last) and the
        history: arrays `step`, `loss`, `grad_norm`, `validation_step`,
        `validation_loss`; `seconds`; and why it `stopped`: `"steps"`, `"patience"`,
        `"callback"`, `"data"` or `"interrupt"`.

    Raises:
        ValueError: an argument is out of range, or a checkpoint is of another form,
            another version of jflow, or damaged.
        OSError: the checkpoint's directory or disk does not take it. Those before it
            stay whole.
        NonFiniteError: loss, gradient or update were not finite; names the step and the
            layer, and carries the last good state, which is saved as well. Other
            errors from callbacks or data carry `state`, `params` and `history` too.

    Example:
        >>> import jflow
        >>> flow = jflow.flow(jflow.actnorm(), jflow.normal((2,)))
        >>> x = jax.random.normal(jax.random.key(0), (512, 2))
        >>> params = flow.init(jax.random.key(1), x)
        >>> params, history = fit(
        ...     flow, params, x, optax.adam(1e-3), key=jax.random.key(2), steps=50,
        ...     progress=False,
        ... )
    """
    _check_counts(
        steps=steps,
        batch_size=batch_size,
        evaluate_every=evaluate_every,
        patience=patience,
        checkpoint_every=checkpoint_every,
        steps_per_dispatch=steps_per_dispatch,
    )
    if validation is None and (patience or evaluate_every):
        raise ValueError("fit: evaluate_every and patience need validation=.")
    check_key("fit", key)
    if not (isinstance(callbacks, Sequence) and all(map(callable, callbacks))):
        raise TypeError(f"fit: callbacks={callbacks!r} must be a list of functions.")
    mesh = None if mesh is None else check_mesh("fit", mesh)
    if shard_params and mesh is None:
        raise ValueError("fit: shard_params needs mesh=jflow.parallel.data_mesh().")
    loss = negative_log_likelihood(flow) if loss is None else loss
    step = make_train_step(flow, optimizer, loss, average, on_nonfinite=on_nonfinite)
    averaged, validated = average is not None, validation is not None
    state = init_state(params, optimizer, key, average=averaged, best=validated)
    place = placement(mesh, state, x if is_array(x) else None, condition)
    spread = (lambda tree: divide_params(tree, mesh)) if shard_params else place
    state = spread(state)
    examples = steps * batch_size if is_array(x) else None
    target = Target(mesh, shard_params, worth(state.params, examples, quick))
    with contextlib.ExitStack() as stack:
        store = earlier = None
        if checkpoint is not None:
            store = checkpoints(checkpoint, keep)
            stack.callback(store.close)
            state, earlier = store.restore(state) or (state, None)
        source, held_out = read_data(
            step, state, x, condition, validation, batch_size, target, place
        )
        evaluate_every = evaluate_every or max(source.epoch or 1_000, 100)
        if held_out is not None:
            examples = held_out[0].shape[0] * (steps // evaluate_every + 1)
            target = target._replace(effort=worth(state.params, examples))
        run = _Run(
            source=source,
            loss=loss,
            evaluate=held_out and evaluator(loss, held_out, batch_size, target, place),
            store=store,
            history=start_history(earlier),
            steps=steps,
            evaluate_every=evaluate_every,
            checkpoint_every=checkpoint_every,
            patience=patience,
            callbacks=tuple(callbacks),
            pace=pacer(steps_per_dispatch, mesh),
            mesh=mesh,
            skipped=_skipped_in_a_row(),
        )
        return _train(run, spread(state), progress)


class _Run(NamedTuple):
    source: Source
    loss: Loss
    evaluate: Callable | None
    store: Checkpoints | None
    history: History
    steps: int
    evaluate_every: int
    checkpoint_every: int
    patience: int | None
    callbacks: tuple[Callback, ...]
    pace: tuple[Callable, Callable]
    mesh: Mesh | None
    skipped: Callable


def _train(run, state, progress):
    """Dispatch after dispatch until there is a reason to stop."""
    start = int(state.step)
    with (
        deferred_interrupt() as interrupted,
        progress_bar(progress, start, run.steps) as update,
    ):
        stopped = _finished(run, state)
        if stopped is None and run.evaluate and run.source.lower:
            compile_side_by_side(
                lambda: run.source.lower(state), lambda: run.evaluate.lower(state)
            )
        while stopped is None:
            state, stopped = _advance(run, state, update)
            if agree(interrupted(), run.mesh) and stopped is None:
                stopped = "interrupt"
    history = run.history.read(stopped)
    if run.store is not None:
        try:
            run.store.save(state, history, wait=True)
        except OSError as error:
            _attach(run, state, error)
            raise
    if stopped == "interrupt":
        print(
            f"fit: interrupted after step {int(state.step)} of {run.steps}; returning "
            "what was trained until then."
        )
    return _collect(run, _result(state)), history


def _advance(run, state, update):
    """One dispatch, and what is due after it: `(state, reason to stop or None)`."""
    count, record = run.pace
    before = int(state.step)
    came = run.source.advance(state, count(_next_stop(run, before) - before))
    state, done = came.state, len(came.losses)
    step = before + done
    record(done)
    run.history.steps(step, came.losses, came.norms)
    try:
        if came.error is not None:
            raise came.error
        if not came.finite:
            raise _non_finite(run, state)
        if run.skipped(came.losses) >= MOST_SKIPPED:
            raise _non_finite(run, state, skipped=True)
        metrics = {"step": step}
        if done:
            metrics |= {"loss": came.losses[-1], "grad_norm": came.norms[-1]}
        if _due(run, step, came.ended):
            value, best = run.evaluate(state)
            state = state._replace(best=best)
            metrics["validation_loss"] = float(value)
            run.history.evaluation(step, float(value))
        stopped = _finished(run, state) or came.ended
        if run.store is not None and done and step % run.checkpoint_every == 0:
            run.store.save(state, run.history.read(stopped))
        update(done, **{k: v for k, v in metrics.items() if k != "step"})
        for callback in run.callbacks if done else ():
            if callback(state, metrics) is True:
                stopped = stopped or "callback"
    except Exception as error:
        _keep(run, state, error)
        raise
    return state, stopped


def _next_stop(run, step):
    """The next step after which something is due: a function of the step alone."""
    stops = [run.steps]
    if run.evaluate is not None:
        stops.append((step // run.evaluate_every + 1) * run.evaluate_every)
    if run.store is not None:
        stops.append((step // run.checkpoint_every + 1) * run.checkpoint_every)
    return min(stops)


def _due(run, step, ended):
    if run.evaluate is None or run.history.evaluated() == step:
        return False
    return step % run.evaluate_every == 0 or step >= run.steps or bool(ended)


def _finished(run, state):
    if run.patience is not None and int(state.best.misses) >= run.patience:
        return "patience"
    return "steps" if int(state.step) >= run.steps else None


def _result(state):
    """What training is for: the best by validation, else averaged, else last."""
    if state.best is not None and math.isfinite(state.best.loss):
        return state.best.params
    return current_params(state)


def _non_finite(run, state, skipped=False):
    # A skipped step has been counted: what it was given is that of the step before.
    at = state._replace(step=state.step - 1) if skipped else state
    x, condition = _collect(run, run.source.batch(at))
    params, key, step = _collect(run, (at.params, at.key, at.step))
    noise = jax.random.fold_in(stream(key, NOISE), step)
    place = explain(run.loss, params, x, condition, noise)
    message = (
        f"fit: step {int(step)} (counted from 0) is not finite: {place}. The state "
        "before it is this error's .state, its parameters are .params."
    )
    if skipped:
        message = f"{message} {MOST_SKIPPED} steps in a row were skipped before."
    if run.store is not None:
        message += " It is saved in the checkpoint directory, too."
    return NonFiniteError(message, state, _result(state), run.history.read("error"))


def _skipped_in_a_row():
    """`losses -> count` of steps skipped, up to and with the last of these."""
    count = 0

    def update(losses):
        nonlocal count
        taken = np.flatnonzero(~np.isnan(losses))
        count = len(losses) - 1 - taken[-1] if taken.size else count + len(losses)
        return count

    return update


def _keep(run, state, error):
    """Put what was trained on the error, and on the disk if there is one."""
    _attach(run, state, error)
    if run.store is not None:
        try:
            run.store.save(state, error.history, wait=True)
        except OSError as failure:
            error.add_note(f"The last state could not be saved, either: {failure}")


def _attach(run, state, error):
    history = run.history.read("error")
    error.state, error.params, error.history = state, _result(state), history
    if not isinstance(error, NonFiniteError):
        error.add_note(
            f"jflow.fit stopped after step {int(state.step)}. What was trained until "
            "then is on this exception as .params, .state and .history."
        )


def _collect(run, tree):
    """What a mesh holds, as ordinary arrays."""
    return tree if run.mesh is None else gather(tree)


def _check_counts(**counts):
    required = ("steps", "batch_size", "checkpoint_every")
    for name, value in counts.items():
        if value is None and name not in required:
            continue
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise TypeError(f"fit: {name} must be an integer, got {value!r}.")
        if value < 1:
            raise ValueError(f"fit: {name} must be at least 1, got {value}.")
