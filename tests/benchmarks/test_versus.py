"""`benchmarks/versus.py` end to end, tiny, with jflow alone; timings decide nothing."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import peers
import versus


def test_a_tiny_run_leaves_a_table_and_ratios(tmp_path, capsys, monkeypatch):
    out = tmp_path / "versus.json"
    options = "--cases tiny --libraries jflow --rounds 1 --budget 0.01 --output"
    monkeypatch.setattr(sys, "argv", ["versus.py", *options.split(), str(out)])
    versus.main()
    (result,) = json.loads(out.read_text())["cases"]
    row = result["rows"]["jflow"]
    assert result["machine"]["cores"] and result["rounds"] == 1
    assert row["parameters"] == 2 * (2 * 8 + 8 + 8 * 8 + 8 + 8 * 4 + 4)
    assert row["same_size"] and set(row["ratio"].values()) == {1.0}
    assert 0 < row["limit_fraction"] < 1 < row["peak_MiB"]
    assert all(row[key] > 0 for key in versus.TIMES)
    assert "| jflow " in capsys.readouterr().out


def test_a_case_takes_its_own_place_in_the_file(tmp_path):
    path = tmp_path / "versus.json"
    for name, commit in ("tiny-fit", 1), ("tiny", 1), ("tiny-fit", 2):
        versus.store(path, {"case": name, "commit": commit})
    tiny, fit = json.loads(path.read_text())["cases"]
    assert tiny == {"case": "tiny", "commit": 1}
    assert fit == {"case": "tiny-fit", "commit": 2}


def test_what_is_not_installed_is_named_and_left_out(capsys, monkeypatch):
    monkeypatch.setitem(peers.LIBRARIES, "nowhere_to_be_found", ("affine",))
    assert versus.locate(["nowhere_to_be_found"], [sys.executable]) == {}
    assert "left out: nowhere_to_be_found" in capsys.readouterr().out


@pytest.mark.parametrize("case", peers.CASES.values(), ids=peers.CASES)
def test_every_case_counts_its_operations(case):
    """Against the forward pass's shapes for the dense cases: three passes, no more."""
    one = peers.operations(case)
    assert peers.operations(case._replace(layers=2 * case.layers)) > 1.9 * one
    assert peers.operations(case._replace(batch=2 * case.batch)) == 2 * one
