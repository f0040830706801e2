"""Checkpoints on disk: a directory of Orbax checkpoints, each of them complete.

What is written is a copy on the host, so training goes on while the disk works. A
checkpoint appears under its name only when it is whole: a process killed at any time
leaves the one before.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jflow.train.step import TrainState

FORMAT = 1


class Checkpoints(NamedTuple):
    """A directory of checkpoints, as functions.

    Attributes:
        restore: `state -> (state, history)`: the latest checkpoint in the form of a
            state built by `init_state`, or None where there is none.
        save: `(state, history) -> None`; a step that is there already is left alone.
        close: `() -> None`, once what was saved is on the disk.
    """

    restore: Callable[[TrainState], tuple[TrainState, dict[str, Any]] | None]
    save: Callable[..., None]
    close: Callable[[], None]


def checkpoints(directory: str | os.PathLike, keep: int = 2) -> Checkpoints:
    """Open a directory of checkpoints, for a training loop of one's own.

    `fit(checkpoint=directory)` does all of this by itself.

    Args:
        directory: made if it is not there.
        keep: how many of the latest checkpoints stay.

    Returns:
        The functions `restore`, `save` and `close`. `restore` raises a ValueError that
        says what differs where a checkpoint is not of the state's form.

    Raises:
        ValueError: `keep` < 1.

    Example:
        >>> import tempfile, optax
        >>> from jflow.train import init_state
        >>> state = init_state({"bias": jnp.ones(2)}, optax.sgd(0.1), jax.random.key(0))
        >>> store = checkpoints(tempfile.mkdtemp())
        >>> store.save(state)
        >>> store.close()
    """
    if not isinstance(keep, int) or keep < 1:
        raise ValueError(f"keep must be a positive integer, got {keep!r}.")
    import orbax.checkpoint as ocp

    manager = ocp.CheckpointManager(
        os.path.abspath(directory),
        options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
    )

    def save(state, history=None):
        step = int(state.step)
        if step in manager.all_steps():
            return
        leaves, series, about = _contents(state, history or {})
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(_solid(leaves)),
            series=ocp.args.StandardSave(_solid(series)),
            about=ocp.args.JsonSave(about),
        )
        manager.save(step, args=items)

    def restore(state):
        step = manager.latest_step()
        if step is None:
            return None
        only_about = ocp.args.Composite(about=ocp.args.JsonRestore())
        about = manager.restore(step, args=only_about)["about"]
        leaves, form = _describe(state)
        check_form(f"checkpoint {os.path.join(directory, str(step))}", about, form)
        series = {k: np.empty(s, d) for k, (s, d) in about["series"].items()}
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(_solid(leaves)),
            series=ocp.args.StandardRestore(_solid(series)),
        )
        arrays = manager.restore(step, args=items)
        restored = _rebuild(state, leaves | _whole(arrays["state"]))
        return restored, about["history"] | series | _whole(arrays["series"])

    def close():
        manager.wait_until_finished()
        manager.close()

    return Checkpoints(restore, save, close)


def check_form(owner: str, about: dict[str, Any], form: dict[str, Any]) -> None:
    """Raise ValueError where what was saved has another form than what is asked for."""
    saved = about["form"]
    lines = [f"only there: {name}" for name in saved if name not in form]
    lines += [f"only here: {name}" for name in form if name not in saved]
    lines += [
        f"{name}: {_readable(saved[name])} there, {_readable(form[name])} here"
        for name in form
        if name in saved and list(saved[name]) != list(form[name])
    ]
    if about["format"] != FORMAT:
        lines = [f"format {about['format']}, and this version reads {FORMAT}"]
    if lines:
        more = f"\n  ... and {len(lines) - 8} more" if len(lines) > 8 else ""
        raise ValueError(
            f"{owner} does not fit the flow, optimiser or options given; pass those it "
            "was made with, or another path.\n  " + "\n  ".join(lines[:8]) + more
        )


def _contents(state, history):
    """The state's leaves, the history's arrays, and JSON that says what they are."""
    leaves, form = _describe(state)
    series = {k: v for k, v in history.items() if isinstance(v, np.ndarray)}
    about = {
        "format": FORMAT,
        "form": form,
        "series": {k: _form(v) for k, v in series.items()},
        "history": {k: v for k, v in history.items() if k not in series},
    }
    return leaves, series, about


def _describe(tree):
    """The leaves by number as host arrays, and the shape and dtype of each by path."""
    leaves, form = {}, {}
    for i, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(tree)):
        if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        # A copy: the device's own buffer is handed to the next step meanwhile.
        leaves[str(i)] = np.array(leaf)
        form[jax.tree_util.keystr(path)] = _form(leaves[str(i)])
    return leaves, form


def _rebuild(tree, leaves):
    """The leaves by number in the form of `tree`, keys as keys again."""
    old, treedef = jax.tree.flatten(tree)
    new = []
    for i, like in enumerate(old):
        leaf = jnp.asarray(leaves[str(i)])
        if jnp.issubdtype(jnp.result_type(like), jax.dtypes.prng_key):
            leaf = jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(like))
        new.append(leaf)
    return jax.tree.unflatten(treedef, new)


def _form(array):
    return [list(array.shape), array.dtype.name]


def _readable(form):
    return f"{form[1]}{tuple(form[0])}"


# Orbax does not write arrays without elements, nor trees without arrays.
_NOTHING = "nothing"


def _solid(arrays):
    return {k: v for k, v in arrays.items() if v.size} or {_NOTHING: np.zeros(1)}


def _whole(arrays):
    return {k: v for k, v in arrays.items() if k != _NOTHING}
