"""`benchmarks/images.py` end to end, tiny; a killed run; the loaders; the report."""

import contextlib
import gzip
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(SCRIPTS))

import data  # noqa: E402
import images  # noqa: E402
import recipes  # noqa: E402
import report  # noqa: E402

PICTURES = ["data", "interpolations", "samples", "temperatures", "training"]


@pytest.mark.parametrize(
    "arguments",
    [["glow"], ["realnvp"], ["nice", "--preprocess", "logit", "--alpha", "1e-3"]],
    ids=lambda arguments: arguments[0],
)
def test_a_quick_run_leaves_a_table_pictures_and_metrics(arguments, tmp_path, capsys):
    options = ["--quick", "--out", f"{tmp_path}/out", "--results", f"{tmp_path}/m.json"]
    metrics = images.main([*arguments, *options])
    saved = json.loads((tmp_path / "m.json").read_text())
    assert saved == json.loads(json.dumps(metrics))
    results = saved["results"]
    assert results["steps"] == 8 and results["test_images"] == 360
    assert [point["step"] for point in results["curve"]] == [4, 8]
    assert saved["timing"]["training"]["cpu_minutes"] > 0
    assert {"machine", "versions", "commit", "command"} <= set(saved)
    # The two conventions, from each other: nats of pixels in [0, 1], and bits/dim.
    nats = (4 - results["test_bits_per_dim"]) * 64 * math.log(2)
    assert abs(results["test_nats"] - nats) < 1e-3
    printed = capsys.readouterr().out
    assert f"{results['test_bits_per_dim']:.4f}" in printed
    assert ("test_logit_nats" in results) == (arguments[0] == "nice")
    made = sorted(path.stem for path in (tmp_path / "out").glob("*.png"))
    assert made == PICTURES


def command(out, results):
    size = ["--width", "16", "--depth", "2", "--batch", "32"]
    length = ["--steps", "60", "--eval-every", "6"]
    where = ["--out", str(out), "--results", str(results)]
    return [
        *[sys.executable, str(SCRIPTS / "images.py"), "nice"],
        *[*size, *length, *where],
    ]


def points(path):
    with contextlib.suppress(FileNotFoundError):
        return json.loads(path.read_text())
    return []


def test_a_killed_run_ends_as_one_that_was_not(tmp_path):
    root = str(SCRIPTS.parent)
    # The three of them compile once.
    compiled = {"JAX_COMPILATION_CACHE_DIR": f"{tmp_path}/compiled"}
    compiled |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment = os.environ | {"PYTHONPATH": root} | compiled

    def start(name):
        return subprocess.Popen(
            command(tmp_path / name, tmp_path / f"{name}.json"),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    curve = tmp_path / "killed" / "curve.json"
    process = start("killed")
    try:
        while len(points(curve)) < 3 and process.poll() is None:
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed.json").exists()
    # As though it had been killed between a checkpoint and its point of the curve.
    steps = (tmp_path / "killed" / "checkpoints").iterdir()
    latest = max(int(path.name) for path in steps if path.name.isdigit())
    assert 0 < latest < 60
    kept = [point for point in points(curve) if point["step"] < latest]
    report.write_json(curve, kept)
    for name in ("killed", "whole"):
        assert start(name).wait() == 0
    killed, whole = (
        json.loads((tmp_path / f"{name}.json").read_text())
        for name in ("killed", "whole")
    )
    assert len(killed["results"]["parameters_sha256"]) == 64
    assert killed["results"] == whole["results"]
    assert [p["step"] for p in killed["results"]["curve"]] == list(range(6, 61, 6))


def test_a_budget_of_minutes_ends_the_run_and_holds_when_started_again(tmp_path):
    arguments = [
        *["nice", "--width", "16", "--depth", "2", "--batch", "32"],
        *["--steps", "100000", "--minutes", "0.001", "--eval-every", "50000"],
        *["--out", f"{tmp_path}/out", "--results", f"{tmp_path}/m.json"],
    ]
    first, again = (images.main(arguments)["results"] for _ in range(2))
    assert 0 < first["steps"] < 100_000
    assert first == again


def test_a_directory_of_other_options_is_refused(tmp_path):
    loaded = data.load("digits")
    for arguments in (["glow"], ["glow", "--steps", "3"]):
        parsed = recipes.parse("", arguments)
        images.claim(tmp_path, recipes.complete(parsed, loaded))
    changed = recipes.complete(recipes.parse("", ["glow", "--lr", "0.1"]), loaded)
    with pytest.raises(SystemExit, match="other values of lr"):
        images.claim(tmp_path, changed)


# --- options --------------------------------------------------------------------------


def fake(name, shape, n=50_000):
    pixels = np.broadcast_to(np.zeros((), np.uint8), (n, *shape))
    return data.Images(name, pixels, pixels[:100], pixels[:100], 8)


def chosen(arguments, loaded):
    return recipes.complete(recipes.parse("", arguments), loaded)


def test_full_is_the_papers_recipe():
    mnist, cifar = fake("mnist", (28, 28, 1)), fake("cifar10", (32, 32, 3))
    nice = chosen(["nice", "--full"], mnist)
    assert (nice.steps, nice.width, nice.depth) == (1_500 * 250, 1000, 4)
    assert nice.average is None
    glow = chosen(["glow", "--full"], cifar)
    assert (glow.levels, glow.depth, glow.width, glow.batch) == (3, 32, 512, 512)
    realnvp = chosen(["realnvp", "--full"], cifar)
    assert (realnvp.levels, realnvp.depth, realnvp.width) == (2, 8, 64)
    assert chosen(["realnvp", "--full"], fake("x", (32, 32, 3))).levels == 4
    # 28 can be halved twice.
    assert chosen(["glow", "--full"], mnist).levels == 2
    assert chosen(["realnvp", "--full"], mnist).levels == 3
    assert chosen(["glow", "--full", "--width", "8", "--lr", "0.5"], cifar).width == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nice", "--levels", "2"], "NICE has none"),
        (["glow", "--preprocess", "logit"], "use nice"),
    ],
)
def test_options_that_a_model_lacks_are_refused(arguments, message):
    with pytest.raises(SystemExit, match=message):
        chosen(arguments, fake("mnist", (28, 28, 1)))


def test_only_gains_are_penalised():
    tree = {"a": {"gain": jnp.ones(2), "bias": jnp.ones(2)}, "b": (jnp.ones(1),)}
    found = recipes.gains(tree)
    assert found == {"a": {"gain": True, "bias": False}, "b": (False,)}


def test_the_logit_constant_of_evenly_spread_pixels():
    """The mean of log x + log(1 - x) over [0, 1] is -2."""
    grey = np.arange(256, dtype=np.uint8).repeat(64).reshape(-1, 4, 4, 1)
    grey = np.random.default_rng(0).permutation(grey.ravel()).reshape(grey.shape)
    options = chosen(["nice", "--preprocess", "logit"], fake("grey", (4, 4, 1)))
    loaded = data.Images("grey", grey, grey, grey, 8)
    run = images.Run(options, loaded, None, None, None, None)
    assert abs(images.logit_constant(run) / 16 + 2) < 0.02


# --- data -----------------------------------------------------------------------------


def test_digits_are_four_bits_and_split_without_overlap():
    digits = data.load("digits")
    assert digits.shape == (8, 8, 1) and digits.bits == 4
    parts = digits.train, digits.validation, digits.test
    assert [len(part) for part in parts] == [1257, 180, 360]
    assert digits.train.dtype == np.uint8 and digits.train.max() == 15


def write_idx(path, array, compress):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    raw = header + array.tobytes()
    path.write_bytes(gzip.compress(raw) if compress else raw)


@pytest.mark.parametrize("compress", [True, False])
def test_idx_files_are_read_and_split(tmp_path, compress):
    train = np.arange(12 * 4 * 3, dtype=np.uint8).reshape(12, 4, 3)
    suffix = ".gz" if compress else ""
    write_idx(tmp_path / f"train-images-idx3-ubyte{suffix}", train, compress)
    write_idx(tmp_path / f"t10k-images-idx3-ubyte{suffix}", train[:2], compress)
    loaded = data.load(str(tmp_path))
    assert loaded.shape == (4, 3, 1) and loaded.bits == 8
    np.testing.assert_array_equal(loaded.train[..., 0], train[:10])
    np.testing.assert_array_equal(loaded.validation[..., 0], train[10:])
    np.testing.assert_array_equal(loaded.test[..., 0], train[:2])


def test_an_npz_is_read_and_split(tmp_path):
    train = np.arange(20 * 12, dtype=np.uint8).reshape(20, 2, 2, 3)
    np.savez(tmp_path / "pictures.npz", x_train=train, x_test=train[:3])
    loaded = data.load(str(tmp_path / "pictures.npz"))
    assert loaded.name == "pictures" and len(loaded.train) == 18
    np.testing.assert_array_equal(loaded.validation, train[18:])


def test_data_that_cannot_be_read_say_why(tmp_path):
    with pytest.raises(ValueError, match="neither 'digits'"):
        data.load(str(tmp_path / "nowhere.npz"))
    with pytest.raises(ValueError, match="no file train-images"):
        data.load(str(tmp_path))
    (tmp_path / "train-images").write_bytes(b"\0\0\x08\x01\0\0\0\x05abc")
    with pytest.raises(ValueError, match="not an idx file"):
        data.load(str(tmp_path))
    np.savez(tmp_path / "x.npz", x_train=np.ones((9, 2, 2)), x_test=np.ones((9, 2, 2)))
    with pytest.raises(ValueError, match="uint8"):
        data.load(str(tmp_path / "x.npz"))


# --- the report -----------------------------------------------------------------------


def test_a_fingerprint_knows_every_bit_and_name():
    tree = {"a": jnp.ones((2, 3)), "b": (jnp.zeros(1),)}
    same = {"a": np.ones((2, 3), np.float32), "b": (np.zeros(1, np.float32),)}
    assert report.fingerprint(tree) == report.fingerprint(same)
    others = [
        {**tree, "a": tree["a"].at[1, 2].set(np.nextafter(np.float32(1), 2))},
        {**tree, "a": tree["a"].T},
        {"c": tree["a"], "b": tree["b"]},
        {**tree, "b": (-tree["b"][0],)},
    ]
    prints = [report.fingerprint(other) for other in [tree, *others]]
    assert len(set(prints)) == 5


def test_tables_and_provenance():
    lines = report.table(("a", "b"), [("x", 1.23456), (1_000, "y")]).splitlines()
    assert lines[0].startswith("| a") and set(lines[1]) <= set("|- ")
    assert "1.2346" in lines[2] and len({len(line) for line in lines}) == 1
    assert report.machine()["cores"] >= 1
    assert report.versions()["jax"]
