"""`benchmarks/tabular.py` end to end, tiny, and its data as the papers prepare them."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.stats

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import tables
import tabular

RNG = np.random.default_rng(0)


def run(tmp_path, *arguments):
    results = tmp_path / "m.json"
    paths = ["--data", str(tmp_path), "--out", f"{tmp_path}/out", "--results"]
    metrics = tabular.main([*arguments, "--quick", *paths, str(results)])
    assert json.loads(results.read_text()) == metrics
    assert {"machine", "versions", "commit", "command", "timing"} <= set(metrics)
    return metrics["results"]


def test_a_density_with_anomalies_is_estimated_and_resumed(tmp_path, capsys):
    normal = RNG.normal(50, 20, (300, 4)).astype(np.int16)
    parts = dict(zip(("train", "valid", "test"), np.split(normal, 3), strict=True))
    np.savez(tmp_path / "cover.npz", anomalies=normal[:30] + 200, **parts)
    results = run(tmp_path, "cover", "--model", "maf")
    assert results["steps"] == 8 and len(results["curve"]) == 2
    assert results["auc"] > 0.9 and results["auc_gaussian"] == 1.0
    assert results["auc_isolation_forest"] > 0.9
    printed = capsys.readouterr().out
    assert "AUC of anomalies" in printed and "published" not in printed
    # It goes on where it ended, which is the end.
    again = run(tmp_path, "cover", "--model", "maf")
    assert again["test"] == results["test"]
    assert (tmp_path / "out" / "clock.json").exists()
    with pytest.raises(SystemExit, match="other values of model"):
        run(tmp_path, "cover")


def test_a_conditional_density_over_splits(tmp_path, capsys):
    x = RNG.normal(size=(90, 3))
    test = np.arange(27).reshape(3, 9)
    np.savez(tmp_path / "concrete.npz", x=x, y=x[:, 0] * 2 + 30, test_index=test)
    results = run(tmp_path, "concrete")
    assert len(results["splits"]) == 2 and np.isfinite(results["test"])
    assert "-2.9400" in capsys.readouterr().out


def test_patches_are_given_to_the_flow_as_the_papers_have_them(tmp_path):
    pixels = RNG.integers(0, 256, (40, 8, 8), np.uint8)
    parts = {"train": pixels[:20], "valid": pixels[20:30], "test": pixels[30:]}
    np.savez(tmp_path / "bsds300_patches.npz", **parts)
    data = tables.load("bsds300_patches", str(tmp_path))
    first, second = (data.enter(jax.random.key(i), data.train) for i in range(2))
    assert data.test.shape == (10, 63) and first.shape == (20, 63)
    assert data.test.dtype == first.dtype == np.float32
    centred = pixels[:20].reshape(-1, 64) / 256.0
    centred = centred - centred.mean(axis=1, keepdims=True)
    assert 1e-4 < np.abs(first - centred[:, :-1]).max() < 1.01 / 256
    assert np.abs(first - second).max() > 1e-4


def test_the_archives_tables_are_prepared_as_the_maf_papers_code_does(tmp_path):
    for name in ("power", "miniboone", "hepmass"):
        (tmp_path / name).mkdir()
    np.save(tmp_path / "power" / "data.npy", RNG.normal(3, 2, (200, 8)))
    np.save(tmp_path / "miniboone" / "data.npy", RNG.normal(3, 2, (200, 5)))
    for part, extra in (("train", 0), ("test", 1)):
        rows = RNG.normal(3, 2, (100, 28 + extra))
        rows[:, 0] = np.arange(100) < 50
        # A column that repeats a value is dropped.
        rows[:, 4] = 1.0 + (np.arange(100) % 2)
        path = tmp_path / "hepmass" / f"1000_{part}.csv"
        np.savetxt(path, rows, delimiter=",", header="names", comments="")
    columns = {"power": 6, "miniboone": 5, "hepmass": 26}
    for name, size in columns.items():
        data = tables.load(name, str(tmp_path))
        counts = {"hepmass": (45, 5, 50)}.get(name, (162, 18, 20))
        assert tuple(map(len, data[1:4])) == counts
        known = np.concatenate([data.train, data.validation])
        assert known.shape[1] == size
        np.testing.assert_allclose(known.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(known.std(axis=0), 1, atol=1e-5)
    with pytest.raises(SystemExit, match="holds"):
        tables.load("cover", str(tmp_path))


def test_the_gaussian_is_scipys():
    x = RNG.normal(size=(500, 3)) @ RNG.normal(size=(3, 3)) + 2
    expected = scipy.stats.multivariate_normal(x.mean(axis=0), np.cov(x.T)).logpdf(x)
    np.testing.assert_allclose(tabular.Gaussian(x)(x), expected, rtol=1e-10)
