"""`benchmarks/turns.py`, tiny; timings decide nothing."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import turns

import jflow


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Runs the script, on all cores, and gives what it saved."""
    monkeypatch.setattr(turns, "pin", lambda cores: None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    out = tmp_path / "turns.json"

    def run(options):
        argv = ["turns.py", *options.split(), "--pairs", "3", "--output", str(out)]
        monkeypatch.setattr(sys, "argv", argv)
        turns.main()
        return json.loads(out.read_text())["runs"]

    return run


def test_rows_are_of_each_call_and_library(command, capsys):
    (run,) = command("tiny jflow jflow:reversible --calls log_prob sample")
    names = [(row[0], row[1]) for row in run["rows"]]
    libraries = ("jflow", "jflow:reversible")
    assert names == [(c, n) for c in ("log_prob", "sample") for n in libraries]
    for _, name, shortest, middle, cpu, ratio in run["rows"]:
        assert 0 < shortest <= middle and cpu >= 0
        assert ratio == 1 if name == "jflow" else ratio > 0
    assert run["machine"]["cores"] and run["pairs"] == 3
    assert "| jflow:reversible " in capsys.readouterr().out


def test_a_comparison_takes_its_last_ones_place(tmp_path):
    path, run = tmp_path / "turns.json", {"case": "tiny", "libraries": ["jflow"]}
    for cores, pairs in (1, 3), (2, 3), (1, 6):
        turns.store(path, run | {"cores": cores, "pairs": pairs})
    two, one = json.loads(path.read_text())["runs"]
    assert (two["cores"], two["pairs"]) == (2, 3)
    assert (one["cores"], one["pairs"]) == (1, 6)


def test_another_checkout_is_other_code():
    """Its modules are its own, and this one's are what they were."""
    name = f"jflow@{Path(__file__).parents[2]}"
    work = turns.load(name, "tiny", ("log_prob",))
    assert sys.modules["jflow"] is jflow
    inside = [cell.cell_contents for cell in work.log_prob.__closure__]
    (theirs,) = [f for f in inside if hasattr(f, "bijector")]
    assert not isinstance(theirs, jflow.Flow)


def test_a_fit_is_not_taken_by_turns(command, capsys):
    with pytest.raises(SystemExit):
        command("tiny-fit jflow")
    assert "versus.py" in capsys.readouterr().err
