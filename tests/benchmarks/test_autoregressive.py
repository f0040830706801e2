"""`benchmarks/autoregressive.py` end to end, tiny."""

import json
import sys
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import autoregressive


def test_a_quick_run_leaves_a_row_for_each_strategy(tmp_path, capsys):
    path = tmp_path / "m.json"
    metrics = autoregressive.main(["--quick", "--results", str(path)])
    assert json.loads(path.read_text()) == metrics
    assert len(metrics["rows"]) == 6
    for row in metrics["rows"]:
        assert row["sample / log_prob"] > 0 and float(row["error"]) < 1e-4
        assert (row["sweeps"] is None) == (row["inverse"] != "jacobi")
    assert "| incremental" in capsys.readouterr().out


def test_the_mixture_has_correlations():
    x = np.asarray(autoregressive.mixture(jax.random.key(0), 4_000, 6))
    assert x.shape == (4_000, 6) and np.isfinite(x).all()
    off = np.corrcoef(x.T) - np.eye(6)
    assert np.abs(off).max() > 0.1
