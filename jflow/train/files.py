"""Parameters in one file: plain arrays by name, nothing that runs when it is read."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np

from jflow.bijector import Params
from jflow.train.checkpoint import FORMAT, check_form

_ABOUT = "about"


def save_params(path: str | os.PathLike, params: Params) -> None:
    """Write parameters to a file in NumPy's `.npz` format, whole or not at all.

    Args:
        path: the file's name, as it is; a file there is replaced.
        params: any pytree of arrays.

    Example:
        >>> save_params("/tmp/flow.npz", {"bias": jnp.zeros(2)})
    """
    leaves, form = {}, {}
    for i, (name, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(params)):
        leaf = np.asarray(leaf)
        form[jax.tree_util.keystr(name)] = [list(leaf.shape), leaf.dtype.name]
        # NumPy has no name for bfloat16 and its like: their bytes are kept.
        leaves[str(i)] = np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)
    leaves[_ABOUT] = np.array(json.dumps({"format": FORMAT, "form": form}))
    temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **leaves)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def load_params(path: str | os.PathLike, like: Params) -> Params:
    """Read parameters from a file that `save_params` wrote.

    Args:
        path: the file's name.
        like: the tree to read them into; arrays or only their shapes, as from
            `jax.eval_shape(flow.init, key, x)`.

    Raises:
        ValueError: the file's parameters have another form; the message says where.

    Example:
        >>> params = {"bias": jnp.ones(2)}
        >>> save_params("/tmp/flow.npz", params)
        >>> load_params("/tmp/flow.npz", jax.eval_shape(lambda: params))["bias"]
        Array([1., 1.], dtype=float32)
    """
    paths, treedef = jax.tree_util.tree_flatten_with_path(like)
    form = {
        jax.tree_util.keystr(name): [list(leaf.shape), jnp.dtype(leaf.dtype).name]
        for name, leaf in paths
    }
    with np.load(path, allow_pickle=False) as file:
        if _ABOUT not in file:
            raise ValueError(f"{path} was not written by save_params.")
        check_form(f"file {path}", json.loads(str(file[_ABOUT])), form)
        leaves = [
            jnp.asarray(file[str(i)].view(jnp.dtype(dtype)).reshape(shape))
            for i, (shape, dtype) in enumerate(form.values())
        ]
    return jax.tree.unflatten(treedef, leaves)
