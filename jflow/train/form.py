"""What a saved tree is, in JSON: shapes and dtypes by path, and who wrote it."""

from typing import Any

import jax
import jax.numpy as jnp

from jflow.version import __version__

FORMAT = 2


def versions() -> dict[str, Any]:
    """The format of what is written, and the version of jflow that writes it."""
    return {"format": FORMAT, "jflow": __version__}


def describe(tree: Any) -> tuple[dict[str, Any], dict[str, list]]:
    """The leaves by number, keys as their data, and each one's form by its path."""
    leaves, form = {}, {}
    for i, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(tree)):
        if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        leaves[str(i)] = leaf
        dtype = jnp.dtype(jnp.result_type(leaf)).name
        form[jax.tree_util.keystr(path)] = [list(jnp.shape(leaf)), dtype]
    return leaves, form


def check_form(owner: str, about: dict[str, Any], form: dict[str, Any]) -> None:
    """Raise ValueError where what was saved is not what is asked for, and say how.

    Versions of jflow that differ in more than their last number may build other
    parameters of the same shapes, so they do not read each other's.
    """
    check_versions(owner, about)
    saved = about["form"]
    lines = [f"only there: {name}" for name in saved if name not in form]
    lines += [f"only here: {name}" for name in form if name not in saved]
    lines += [
        f"{name}: {_readable(saved[name])} there, {_readable(form[name])} here"
        for name in form
        if name in saved and list(saved[name]) != list(form[name])
    ]
    if lines:
        more = f"\n  ... and {len(lines) - 8} more" if len(lines) > 8 else ""
        raise ValueError(
            f"{owner} does not fit the flow, optimiser or options given; pass those it "
            "was made with, or another path.\n  " + "\n  ".join(lines[:8]) + more
        )


def check_versions(owner: str, about: dict[str, Any]) -> None:
    """Raise ValueError where another format or version of jflow wrote it."""
    mine = versions()
    if about["format"] != mine["format"]:
        raise ValueError(
            f"{owner} has format {about['format']}, and this version of jflow reads "
            f"{mine['format']}; read it with the version that wrote it."
        )
    if _series(about["jflow"]) != _series(mine["jflow"]):
        raise ValueError(
            f"{owner} was written by jflow {about['jflow']}, and this is "
            f"{mine['jflow']}; install jflow=={about['jflow']} to read it."
        )


def _series(version):
    return version.split(".")[:2]


def _readable(form):
    return f"{form[1]}{tuple(form[0])}"
