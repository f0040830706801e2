"""The notebooks run from top to bottom in their short form, and are stored whole."""

from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
LARGEST = 2_000_000  # bytes
TIMEOUT = 600  # seconds for one cell, on a machine with other work

every = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    # The format's own checks included: ids, types, no unknown fields.
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook, [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert NOTEBOOKS


@every
def test_a_notebook_runs_in_its_short_form(path, tmp_path, monkeypatch):
    monkeypatch.setenv("JFLOW_QUICK", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook, _ = read(path)
    before = path.read_bytes()
    client = nbclient.NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()  # raises for a cell that fails
    assert path.read_bytes() == before


@every
def test_a_notebook_is_stored_executed_and_without_errors(path):
    assert path.stat().st_size < LARGEST
    _, cells = read(path)
    # Once, from top to bottom.
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = [output for cell in cells for output in cell.outputs]
    kinds = {output.output_type for output in outputs}
    assert kinds & {"display_data", "execute_result"} and "error" not in kinds
    # Warnings and progress bars are written there.
    assert not [o for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
