"""Faults that are injected: nothing good is lost, and the message says what to do."""

import errno
import os
import pathlib
import runpy
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jflow
from jflow.train import NonFiniteError, fit

KEY = jax.random.key(7)
SGD = optax.sgd(0.1)
ZERO = {"p": jnp.zeros(())}
ONES = np.ones((8, 1), np.float32)
TOY = pathlib.Path(__file__).parent / "conftest.py"


def square(params, x, condition, key):
    return jnp.mean((params["p"] - x) ** 2)


def train(x=ONES, optimizer=SGD, **options):
    arguments = dict(loss=square, key=KEY, progress=False, steps=9) | options
    return fit(None, ZERO, x, optimizer, **arguments)


def steps_in(directory):
    return sorted(int(name) for name in os.listdir(directory) if name.isdigit())


def test_sigterm_saves_and_stops_and_a_second_one_ends(tmp_path, capsys):
    def press(state, metrics):
        if metrics["step"] == 3:
            signal.raise_signal(signal.SIGTERM)

    options = dict(steps_per_dispatch=3, checkpoint=tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    _, history = train(callbacks=[press], **options)
    assert history["stopped"] == "interrupt" and steps_in(tmp_path) == [3]
    assert signal.getsignal(signal.SIGTERM) is before
    fitted, history = train(**options)
    np.testing.assert_allclose(fitted["p"], 1 - 0.8**9, rtol=1e-5)

    ends = []

    def twice(state, metrics):
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, lambda *_: ends.append(1))
    try:
        train(callbacks=[twice])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ends == [1]


def full(*args, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("when", ["during", "end"])
def test_full_disk_leaves_the_checkpoint_before_and_the_state(
    tmp_path, monkeypatch, when
):
    import orbax.checkpoint as ocp

    train(steps=4, checkpoint=tmp_path)
    monkeypatch.setattr(ocp.CheckpointManager, "save", full)
    every = {"during": 6, "end": 100}[when]
    with pytest.raises(OSError, match=r"was not written: .*No space left") as caught:
        train(checkpoint=tmp_path, checkpoint_every=every)
    step = {"during": 6, "end": 9}[when]
    assert int(caught.value.state.step) == step and steps_in(tmp_path) == [4]
    np.testing.assert_allclose(caught.value.params["p"], 1 - 0.8**step, rtol=1e-5)
    monkeypatch.undo()
    fitted, _ = train(checkpoint=tmp_path)
    np.testing.assert_allclose(fitted["p"], 1 - 0.8**9, rtol=1e-5)


NO_ROOM = """
import resource, sys
import jax, jax.numpy as jnp, numpy as np, optax, jflow

def train(steps):
    loss = lambda p, x, c, key: jnp.mean((p["p"] - x.mean()) ** 2)
    return jflow.fit(None, params, np.ones((8, 1), np.float32), optax.sgd(0.1),
        loss=loss, key=jax.random.key(0), progress=False, steps=steps,
        checkpoint=sys.argv[1])

params = {"p": jax.random.normal(jax.random.key(0), (100_000,))}
train(4)
jflow.save(sys.argv[2], {"p": jnp.zeros(3)})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
for write in (lambda: train(9), lambda: jflow.save(sys.argv[2], params)):
    try:
        write()
    except OSError as error:
        print("refused:", error)
resource.setrlimit(resource.RLIMIT_FSIZE, 2 * (resource.RLIM_INFINITY,))
print(jflow.load(sys.argv[2])["p"].shape, len(train(9)[1]["loss"]))
"""


def test_what_the_system_does_not_write_leaves_what_it_wrote(tmp_path):
    """The limit on a file's size stands for the disk's end: writes fail half-way."""
    pytest.importorskip("resource")
    paths = [str(tmp_path / "run"), str(tmp_path / "flow.npz")]
    said = subprocess.run(
        [sys.executable, "-c", NO_ROOM, *paths],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ).stdout.splitlines()
    assert "was not written" in said[0] and "File too large" in said[1], said
    assert said[2:] == ["(3,) 9"]


def test_full_disk_leaves_the_file_before(tmp_path, monkeypatch, same):
    path = tmp_path / "flow.npz"
    jflow.save(path, ZERO)
    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        jflow.save(path, {"p": jnp.ones(())})
    same(jflow.load(path), ZERO)
    assert os.listdir(tmp_path) == ["flow.npz"]


def test_directory_that_cannot_be_written_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")

    def never(state, metrics):
        raise AssertionError("trained")

    with pytest.raises(OSError, match=r"checkpoint='.*file/x' cannot be written"):
        train(checkpoint=tmp_path / "file" / "x", callbacks=[never])


def test_batch_that_is_not_finite_is_skipped_or_stops(tmp_path):
    hole = np.where(np.arange(8)[:, None] == 3, np.nan, ONES)
    batches = [ONES, hole, 2 * ONES]
    with pytest.raises(NonFiniteError, match=r"step 1 .*x holds values"):
        train(batches, steps=3)
    expected = 1.0 * 0.2
    expected += 0.2 * (2 - expected)
    for options in ({}, {"steps_per_dispatch": 1}):
        fitted, history = train(batches, steps=3, on_nonfinite="skip", **options)
        np.testing.assert_allclose(fitted["p"], expected, rtol=1e-6)
        assert list(np.isnan(history["loss"])) == [False, True, False]
    # In-memory data go on after such a batch, too.
    rows = np.concatenate([ONES, hole])
    _, history = train(rows, batch_size=4, steps=12, on_nonfinite="skip")
    assert 2 <= np.isnan(history["loss"]).sum() <= 3
    with pytest.raises(NonFiniteError, match="100 steps in a row were skipped"):
        train([hole], steps=1_000, on_nonfinite="skip", checkpoint=tmp_path)
    with pytest.raises(ValueError, match="on_nonfinite must be 'stop' or 'skip'"):
        train(on_nonfinite="ignore")


def test_exploding_learning_rate_stops_with_the_layer(flow, params, x):
    options = dict(key=KEY, progress=False, steps=20)
    with pytest.raises(NonFiniteError, match=r"fit: step \d+ .*encode >") as caught:
        fit(flow, params, x, optax.sgd(1e4), **options)
    for leaf in jax.tree.leaves(caught.value.params):
        assert np.isfinite(leaf).all()


def test_damaged_checkpoints_and_other_versions_are_refused(tmp_path, monkeypatch):
    params = {"p": jnp.zeros(()), "big": jnp.arange(64.0)}

    def train():
        return fit(
            None,
            params,
            ONES,
            SGD,
            loss=square,
            key=KEY,
            progress=False,
            steps=3,
            checkpoint=tmp_path,
        )

    train()
    train()
    monkeypatch.setattr("jflow.train.form.__version__", "99.0.0")
    with pytest.raises(ValueError, match=r"by jflow 0.* this is 99\.0\.0; install"):
        train()
    monkeypatch.undo()
    for file in (tmp_path / "3" / "state").rglob("*"):
        if file.is_file() and "/d/" in str(file):
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 0xFF
            file.write_bytes(content)
    with pytest.raises(ValueError, match=r"3 is damaged: .*Delete it, and the one"):
        train()


def test_damaged_files_and_other_versions_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "flow.npz"
    jflow.save(path, {"p": (jnp.arange(64.0), [None, jnp.ones(())])})
    assert isinstance(jflow.load(path)["p"][1], list)
    with pytest.raises(ValueError, match=r"only there: \['p'\]"):
        jflow.load(path, ZERO | {"q": jnp.zeros(2)})
    monkeypatch.setattr("jflow.train.form.__version__", "99.0.0")
    with pytest.raises(ValueError, match=r"this is 99\.0\.0; install jflow==0"):
        jflow.load(path)
    monkeypatch.undo()
    content = path.read_bytes()
    for damaged in (
        content[:200],
        content[:150] + bytes([content[150] ^ 1]) + content[151:],
        b"not a flow",
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged, or was not written"):
            jflow.load(path)
    with jax.enable_x64(True):
        jflow.save(path, {"p": jnp.ones(2, jnp.float64)})
    with pytest.raises(ValueError, match="is float64, and double precision is off"):
        jflow.load(path)


class Trap:
    """What a pickle may do when it is read."""

    def __reduce__(self):
        return pytest.fail, ("code in the file was run",)


def test_files_run_no_code(tmp_path):
    path = tmp_path / "flow.npz"
    np.savez(path, about=np.array([Trap()], object))
    with pytest.raises(ValueError, match="damaged, or was not written"):
        jflow.load(path)


ELSEWHERE = f"""
import runpy, sys, jflow, numpy as np
toy = runpy.run_path({str(TOY)!r})
flow, x = toy["toy_flow"](), toy["toy_data"]()
print(np.asarray(flow.log_prob(jflow.load(sys.argv[1]), x)).tobytes().hex())
"""


def test_log_prob_is_the_same_bit_for_bit_in_another_process(tmp_path):
    toy = runpy.run_path(str(TOY))
    flow, x = toy["toy_flow"](), toy["toy_data"]()
    params = flow.init(jax.random.key(0), x)
    jflow.save(tmp_path / "flow.npz", params)
    there = subprocess.run(
        [sys.executable, "-W", "error", "-c", ELSEWHERE, str(tmp_path / "flow.npz")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    here = np.asarray(flow.log_prob(params, x)).tobytes().hex()
    assert there.stdout.strip() == here
