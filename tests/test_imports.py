"""Imports run downhill, and `import jflow` pulls in no heavy package."""

import ast
import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import jflow

ROOT = Path(jflow.__file__).parent
MODULES = sorted(
    m.name for m in pkgutil.walk_packages([str(ROOT)], "jflow.") if m.name != "jflow."
)

# what each room may import; rooms that are not listed may import anything downhill
ALLOWED = {
    "bijector": set(),
    "reversible": {"bijector"},
    "storing": {"bijector"},
    "mixing": {"bijector"},
    "combinators": {"bijector", "mixing", "reversible", "storing"},
    "conditions": {"bijector"},
    "scalars": {"bijector", "scalars"},
    "arguments": {"bijector"},
    "compilation": {"bijector"},
    "nets": {"arguments", "bijector", "nets"},
    "bijectors": {"bijector", "mixing", "scalars", "nets", "bijectors"},
    "base": {"bijector"},
    "bases": {"base", "bases", "bijector"},
    "flow": {"arguments", "bijector", "base", "compilation"},
    "models": {
        "base",
        "bases",
        "bijector",
        "bijectors",
        "combinators",
        "conditions",
        "flow",
        "models",
        "nets",
        "scalars",
    },
    "train": {
        "arguments",
        "base",
        "bijector",
        "compilation",
        "diagnostics",
        "flow",
        "parallel",
        "train",
        "version",
    },
}

PICTURES = {"plot", "plot_calibration"}


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jflow"):
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [a.name for a in node.names]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: p.stem)
def test_imports_run_downhill(path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    found = set(_imports(path))
    top = PICTURES if room in PICTURES else {room}
    above = {*PICTURES, "interop"} - top
    assert not found & above, "nothing imports plots or interop"
    if room in ALLOWED:
        assert found <= ALLOWED[room], f"{room} imports {found - ALLOWED[room]}"


def test_import_is_light():
    heavy = ["matplotlib", "tqdm", "orbax", "sklearn", "IPython", "pandas"]
    code = (
        "import jax, flax.linen, optax, sys; before = set(sys.modules); import jflow;"
        "new = {m.split('.')[0] for m in set(sys.modules) - before};"
        f"print(sorted(new & set({heavy})))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples_run(module):
    failures, _ = doctest.testmod(
        importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert not failures


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: p.stem)
def test_a_file_is_one_idea(path):
    assert len(path.read_text().splitlines()) <= 400
