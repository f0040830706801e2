"""`benchmarks/precision.py` on a few cases."""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import precision


def test_a_quick_run_leaves_a_table_of_errors(tmp_path, capsys):
    path = tmp_path / "m.json"
    chosen = ["--only", "actnorm-image", "dequantize", "--results", str(path)]
    metrics = precision.main(["--quick", *chosen])
    assert json.loads(path.read_text()) == metrics
    found = {(row["case"], row["deviation"]): row for row in metrics["rows"]}
    assert len(found) == 4 * 4
    assert found["actnorm-image", 1.0]["round trip"] < 1e-5
    assert found["actnorm-image", 1.0]["float64"] < 1e-5
    assert found["dequantize", 10.0]["round trip"] == 0
    assert found["RQS, soft_clip", 1.0]["backward"] < 4e-6
    assert sum(row["NaN"] for row in metrics["rows"]) == 0
    assert "| actnorm-image" in capsys.readouterr().out
    assert "| actnorm-image" in path.with_suffix(".md").read_text()


def test_what_is_not_finite_is_counted_and_left_out_of_the_errors():
    x = np.ones((4, 2))
    z = np.array([[1.0, np.inf], [2, 2], [np.nan, 2], [2, 2]])
    row = precision.errors(x, z, x[:, 0], x + 0.25, -x[:, 0] + 0.5, z + 1, ())
    assert row["NaN"] == 2 and row["infinite"] == 2
    assert row["backward"] == 0.5 and row["round trip"] == 0.25
    assert row["log-det"] == 0.5 / 1.5
