"""Checkpoints on disk: a directory of Orbax checkpoints, each of them complete.

What is written is a copy, so training goes on while the disk works. A checkpoint
appears under its name only when it is whole: a process killed at any time leaves the
one before. Every leaf's checksum is kept beside it, with the shapes and the version.
"""

import contextlib
import os
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jflow.bijector import check_positive
from jflow.parallel import whole
from jflow.train.form import check_form, describe, versions
from jflow.train.step import TrainState


class Checkpoints(NamedTuple):
    """A directory of checkpoints, as functions.

    Attributes:
        restore: `state -> (state, history)`: the latest checkpoint in the form of a
            state built by `init_state`, placed as that is, or None where there is none.
        save: `(state, history=None, wait=False) -> None`; a step that is there already
            is left alone. With `wait`, it returns when the disk has all.
        close: `() -> None`, once what was saved is on the disk.
    """

    restore: Callable[[TrainState], tuple[TrainState, dict[str, Any]] | None]
    save: Callable[..., None]
    close: Callable[[], None]


def checkpoints(directory: str | os.PathLike, keep: int = 2) -> Checkpoints:
    """Open a directory of checkpoints, for a training loop of one's own.

    `fit(checkpoint=directory)` does all of this by itself. Under `jax.distributed`
    every process calls the functions, and writes and reads its part.

    Args:
        directory: made if it is not there.
        keep: how many of the latest checkpoints stay.

    Returns:
        The functions `restore`, `save` and `close`. `restore` raises a ValueError that
        says what differs where a checkpoint is not of the state's form, of another
        version of jflow, or damaged; `save` raises an OSError where the disk does not
        take it, and the checkpoints before stay whole.

    Raises:
        ValueError: `keep` < 1.
        OSError: the directory cannot be written to.

    Example:
        >>> import tempfile, optax
        >>> from jflow.train import init_state
        >>> state = init_state({"bias": jnp.ones(2)}, optax.sgd(0.1), jax.random.key(0))
        >>> store = checkpoints(tempfile.mkdtemp())
        >>> store.save(state)
        >>> store.close()
    """
    check_positive("checkpoints", keep=keep)
    import orbax.checkpoint as ocp

    directory = os.path.abspath(directory)
    _check_writable(directory)
    manager = ocp.CheckpointManager(
        directory,
        options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
    )
    failed = []

    @contextlib.contextmanager
    def writing():
        try:
            yield
        # Orbax and what it writes with raise errors of many kinds.
        except Exception as error:
            failed.append(error)
            raise OSError(
                f"checkpoint={directory!r} was not written: {_first_line(error)}. "
                "Checkpoints before it are whole; make room or name another directory."
            ) from error

    def save(state, history=None, wait=False):
        step = int(state.step)
        with writing():
            if step not in manager.all_steps():
                leaves, series, about = _contents(state, history or {})
                items = ocp.args.Composite(
                    state=ocp.args.StandardSave(_solid(leaves)),
                    series=ocp.args.StandardSave(_solid(series)),
                    about=ocp.args.JsonSave(about),
                )
                manager.save(step, args=items)
            if wait:
                manager.wait_until_finished()

    def restore(state):
        step = manager.latest_step()
        if step is None:
            return None
        name = os.path.join(directory, str(step))
        with _reading(name):
            only_about = ocp.args.Composite(about=ocp.args.JsonRestore())
            about = manager.restore(step, args=only_about)["about"]
            expected = about["form"], about["series"], about["checksums"]
        _, form = describe(state)
        check_form(f"checkpoint {name}", about, form)
        with _reading(name):
            templates = {k: _template(v) for k, v in _leaves(state).items()}
            series = {k: np.empty(s, d) for k, (s, d) in expected[1].items()}
            items = ocp.args.Composite(
                state=ocp.args.StandardRestore(_solid(templates)),
                series=ocp.args.StandardRestore(_solid(series)),
            )
            arrays = manager.restore(step, args=items)
            leaves = templates | _full(arrays["state"])
            series = series | _full(arrays["series"])
            _check_bytes(expected[2], leaves, form, series)
        return _rebuild(state, leaves), about["history"] | series

    def close():
        # What has been raised already must not be raised again over what came of it.
        with contextlib.suppress(Exception) if failed else writing():
            manager.wait_until_finished()
        manager.close()

    return Checkpoints(restore, save, close)


def _check_writable(directory):
    probe = os.path.join(directory, f".probe.{os.getpid()}")
    try:
        os.makedirs(directory, exist_ok=True)
        with open(probe, "wb"):
            pass
        os.unlink(probe)
    except OSError as error:
        raise type(error)(
            error.errno,
            f"checkpoint={directory!r} cannot be written to ({error.strerror}); name a "
            "directory that can",
        ) from error


@contextlib.contextmanager
def _reading(name):
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"checkpoint {name} is damaged: {_first_line(error)}. Delete it, and the "
            "one before it is used."
        ) from error


def _first_line(error):
    return f"{type(error).__name__}: {str(error).strip()}".split("\n")[0][:300]


def _contents(state, history):
    """The state's leaves, the history's arrays, and JSON that says what they are."""
    leaves, form = describe(state)
    series = {k: v for k, v in history.items() if isinstance(v, np.ndarray)}
    about = versions() | {
        "form": form,
        "series": {k: [list(v.shape), v.dtype.name] for k, v in series.items()},
        "history": {k: v for k, v in history.items() if k not in series},
        "checksums": _checksums(leaves, form, series),
    }
    return {k: _copy(v) for k, v in leaves.items()}, series, about


def _leaves(state):
    return describe(state)[0]


def _divided(leaf):
    """Whether an array is written and read by several processes or in parts."""
    return isinstance(leaf, jax.Array) and (
        jax.process_count() > 1 or not leaf.is_fully_replicated
    )


def _copy(leaf):
    # The device's own buffer is handed to the next step meanwhile.
    return jnp.copy(leaf) if _divided(leaf) else np.array(leaf)


def _template(leaf):
    if _divided(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    return np.asarray(leaf)


def _checksums(leaves, form, series):
    names = dict(zip(form, leaves.values(), strict=True)) | series
    return {name: _checksum(leaf) for name, leaf in names.items()}


def _checksum(leaf):
    return zlib.crc32(np.ascontiguousarray(whole(leaf)).reshape(-1).view(np.uint8))


def _check_bytes(expected, leaves, form, series):
    found = _checksums(leaves, form, series)
    changed = [name for name in expected if found.get(name) != expected[name]]
    if changed:
        raise ValueError(f"other bytes than were written in {', '.join(changed[:5])}")


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


# Orbax does not write arrays without elements, nor trees without arrays.
_NOTHING = "nothing"


def _solid(arrays):
    solid = {k: v for k, v in arrays.items() if np.prod(v.shape)}
    return solid or {_NOTHING: np.zeros(1)}


def _full(arrays):
    return {k: v for k, v in arrays.items() if k != _NOTHING}
