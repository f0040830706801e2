"""Parameters in one file: plain arrays by name, nothing that runs when it is read."""

import json
import os
import zipfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jflow.bijector import Params
from jflow.parallel import whole
from jflow.train.form import check_form, check_versions, describe, versions

_ABOUT = "about"


def save(path: str | os.PathLike, params: Params) -> None:
    """Write parameters to a file in NumPy's `.npz` format, whole or not at all.

    Args:
        path: the file's name, as it is; a file there is replaced.
        params: any pytree of arrays, what `fit` returned for instance.

    Raises:
        OSError: the disk does not take it; a file that was there stays.

    Example:
        >>> save("/tmp/flow.npz", {"bias": jnp.zeros(2)})
    """
    leaves, form = describe(params)
    about = versions() | {"form": form, "tree": _tree(params)}
    # NumPy has no name for bfloat16 and its like: their bytes are kept.
    arrays = {
        name: np.ascontiguousarray(whole(leaf)).reshape(-1).view(np.uint8)
        for name, leaf in leaves.items()
    }
    arrays[_ABOUT] = np.array(json.dumps(about))
    temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)
            # On the disk before its name is, or a crash could leave an empty file.
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def load(path: str | os.PathLike, like: Params | None = None) -> Params:
    """Read parameters from a file that `save` wrote. No code in it is run.

    Args:
        path: the file's name.
        like: the tree to read them into, and to hold them against; arrays or only
            their shapes, as from `jax.eval_shape(flow.init, key, x)`. Without it the
            file's own tree of dictionaries, tuples and lists is built.

    Raises:
        ValueError: the file is damaged, of another version of jflow, or its parameters
            have another form; the message says what differs.

    Example:
        >>> save("/tmp/flow.npz", {"bias": jnp.ones(2)})
        >>> load("/tmp/flow.npz")
        {'bias': Array([1., 1.], dtype=float32)}
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as entries:
            arrays = {name: entries[name] for name in entries.files}
        about = json.loads(str(arrays[_ABOUT]))
    except (zipfile.BadZipFile, ValueError, EOFError, KeyError, TypeError) as e:
        raise ValueError(
            f"file {path} is damaged, or was not written by jflow.save: {e}. Save it "
            "again."
        ) from e
    owner = f"file {path}"
    check_versions(owner, about)
    form = about["form"]
    if like is not None:
        form = {
            jax.tree_util.keystr(name): [list(leaf.shape), jnp.dtype(leaf.dtype).name]
            for name, leaf in jax.tree_util.tree_leaves_with_path(like)
        }
        check_form(owner, about, form)
    elif about["tree"] is None:
        raise ValueError(
            f"{owner} holds a tree of the user's own classes; pass like=, such as "
            "jax.eval_shape(flow.init, key, x)."
        )
    else:
        like = _template(about["tree"])
    leaves = []
    for i, (name, (shape, dtype)) in enumerate(form.items()):
        leaf = jnp.asarray(arrays[str(i)].view(jnp.dtype(dtype)).reshape(shape))
        if leaf.dtype != dtype:
            raise ValueError(
                f"{owner}: {name} is {dtype}, and double precision is off; call "
                'jax.config.update("jax_enable_x64", True) first.'
            )
        leaves.append(leaf)
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _tree(params: Params) -> Any:
    """Dictionaries, tuples and lists as JSON, or None where there are others."""
    try:
        tree = _encoded(params)
    except TypeError:
        return None
    same = jax.tree.structure(_template(tree)) == jax.tree.structure(params)
    return tree if same else None


def _encoded(node):
    if node is None:
        return None
    if type(node) is dict and all(isinstance(key, str) for key in node):
        return {"dict": {key: _encoded(value) for key, value in node.items()}}
    if type(node) in (list, tuple):
        return {type(node).__name__: [_encoded(value) for value in node]}
    if jax.tree.structure(node) == jax.tree.structure(0):
        return 0
    raise TypeError(type(node))


def _template(tree):
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "dict":
        return {key: _template(value) for key, value in content.items()}
    values = [_template(value) for value in content]
    return tuple(values) if kind == "tuple" else values
