"""What every benchmark prints and saves: where it ran, and what came out."""

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


def machine() -> dict[str, Any]:
    """The processor, the cores this process may use, and JAX's devices."""
    devices = jax.devices()
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "devices": f"{len(devices)} x {devices[0].device_kind}",
    }


def versions() -> dict[str, str]:
    """Of Python and of what a number may depend on."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {"python": platform.python_version()} | {p: version(p) for p in packages}


def commit() -> str | None:
    """The commit this ran from, with `+` for changes on top; None outside of git."""

    def git(*arguments):
        return subprocess.run(
            ["git", *arguments], cwd=HERE, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # Only what can change a result: not the tables that the runs write.
        changed = git("status", "--porcelain", "--", ":(top)*.py")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def provenance(script: str, arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Where a run's numbers come from: command, machine, versions and commit.

    To be asked at the start: the code that runs is the code that was there then.
    `arguments` are the process's own by default.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    return {
        "command": " ".join([f"python benchmarks/{script}", *arguments]),
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
    }


def fingerprint(tree: Any) -> str:
    """SHA-256 of a pytree: the paths, shapes, dtypes and every bit of its leaves."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        name = f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}"
        digest.update(name.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write_json(path: Path, content: Mapping | Sequence) -> None:
    """Write as JSON; a reader, or a crash, sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(part, path)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; numbers with four significant decimals at most."""

    def cell(value):
        return f"{value:,.4f}" if isinstance(value, float) else str(value)

    lines = [[*header], *([cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if "model name" in line
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
