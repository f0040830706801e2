"""Resuming is exact; what does not fit is refused; parameters round-trip."""

import os
import pathlib
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jflow.train import (
    NonFiniteError,
    adam,
    checkpoints,
    fit,
    init_state,
    load,
    save,
)

KEY = jax.random.key(7)
HERE = pathlib.Path(__file__).parent

OPTIONS = dict(
    steps=60,
    validation=0.25,
    evaluate_every=7,
    average=0.9,
    patience=50,
    checkpoint_every=10,
    batch_size=48,
)

# The process that the test below starts, and that kills itself.
KILLED = f"""
import os, runpy, signal, sys, jax
from jflow.train import adam, fit
toy = runpy.run_path({str(HERE / "conftest.py")!r})
flow, x = toy["toy_flow"](), toy["toy_data"]()

def kill(state, metrics):
    print(metrics["step"], sorted(os.listdir(sys.argv[1])), flush=True)
    if metrics["step"] >= 36:
        os.kill(os.getpid(), signal.SIGKILL)

fit(flow, flow.init(jax.random.key(0), x), x, adam(1e-2), key=jax.random.key(7),
    checkpoint=sys.argv[1], callbacks=[kill], progress=False, steps_per_dispatch=4,
    **{OPTIONS!r})
"""


def quiet(*args, **options):
    return fit(*args, key=KEY, progress=False, **options)


def square(params, x, condition, key):
    return jnp.mean((params["p"] - x) ** 2)


ONES = np.ones((8, 1), np.float32)
SGD = optax.sgd(0.1)
ZERO = {"p": jnp.zeros(())}


def test_killed_run_ends_like_one_that_was_not(flow, params, x, same, tmp_path):
    expected, history = quiet(flow, params, x, adam(1e-2), **OPTIONS)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", KILLED, str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    # A save is still under way when the process is killed, or just done.
    found = {int(name) for name in os.listdir(tmp_path) if name.isdigit()}
    assert found and found <= {10, 20, 30}
    seen = []
    fitted, resumed = quiet(
        flow,
        params,
        x,
        adam(1e-2),
        checkpoint=tmp_path,
        callbacks=[lambda state, metrics: seen.append(metrics["step"])],
        steps_per_dispatch=5,
        **OPTIONS,
    )
    assert seen[0] > max(found)
    same(fitted, expected)
    for name in ("step", "loss", "grad_norm", "validation_step", "validation_loss"):
        np.testing.assert_array_equal(resumed[name], history[name])


def test_finished_run_returns_at_once_and_more_steps_go_on(same, tmp_path):
    def train(steps, **options):
        return quiet(
            None,
            ZERO,
            ONES,
            SGD,
            loss=square,
            steps=steps,
            checkpoint=tmp_path,
            **options,
        )

    def never(state, metrics):
        raise AssertionError("trained again")

    first, history = train(6, checkpoint_every=2, keep=2)
    assert sorted(os.listdir(tmp_path)) == ["4", "6"]
    again, same_history = train(6, callbacks=[never])
    same(again, first)
    np.testing.assert_array_equal(same_history["loss"], history["loss"])
    assert same_history["seconds"] > 0
    more, longer = train(9)
    np.testing.assert_allclose(more["p"], 1 - 0.8**9, rtol=1e-5)
    np.testing.assert_array_equal(longer["step"], np.arange(1, 10))


def test_early_stopping_is_remembered(same, tmp_path):
    options = dict(
        loss=square,
        steps=100,
        validation=np.full((2, 1), 0.36),
        evaluate_every=1,
        patience=2,
        checkpoint=tmp_path,
    )
    fitted, history = quiet(None, ZERO, ONES, SGD, **options)
    assert history["stopped"] == "patience"
    again, later = quiet(None, ZERO, ONES, SGD, **options)
    assert later["stopped"] == "patience"
    same(again, fitted)
    np.testing.assert_array_equal(later["step"], history["step"])


@pytest.mark.parametrize("kind", ["list", "function", "iterator"])
def test_batches_are_taken_up_where_they_were(kind, tmp_path, same):
    data = np.random.default_rng(0).normal(size=(7, 4, 1)).astype(np.float32)
    asked = []

    def from_step(step):
        asked.append(step)
        return (data[i % 7] for i in range(step, 100))

    def train(steps, **options):
        batches = {
            "list": list(data),
            "function": from_step,
            "iterator": from_step(0),
        }[kind]
        return quiet(None, ZERO, batches, SGD, loss=square, steps=steps, **options)

    expected, _ = train(17)
    train(10, checkpoint=tmp_path)
    asked.clear()
    resumed, _ = train(17, checkpoint=tmp_path)
    same(resumed, expected)
    assert asked == ([0, 10] if kind == "function" else [0])


def test_interrupts_and_overflows_leave_a_checkpoint(tmp_path, capsys, heard):
    def press(state, metrics):
        if metrics["step"] == 3:
            signal.raise_signal(signal.SIGINT)

    options = dict(loss=square, steps_per_dispatch=3, checkpoint=tmp_path / "a")
    quiet(None, ZERO, ONES, SGD, steps=9, callbacks=[press], **options)
    fitted, history = quiet(None, ZERO, ONES, SGD, steps=9, **options)
    np.testing.assert_allclose(fitted["p"], 1 - 0.8**9, rtol=1e-5)
    assert len(history["loss"]) == 9 and history["stopped"] == "steps"

    breaking = optax.sgd(lambda step: jnp.where(step < 5, 0.1, jnp.nan))
    options = dict(loss=square, steps=9, checkpoint=tmp_path / "b")
    for _ in range(2):
        with pytest.raises(NonFiniteError, match=r"step 5 .* checkpoint directory"):
            quiet(None, ZERO, ONES, breaking, **options)
    mended = optax.sgd(lambda step: 0.1 + 0 * step)
    fitted, _ = quiet(None, ZERO, ONES, mended, **options)
    np.testing.assert_allclose(fitted["p"], 1 - 0.8**9, rtol=1e-5)


def test_checkpoint_of_another_form_is_refused(tmp_path):
    options = dict(loss=lambda p, *_: p["p"].sum() * 0, steps=2, checkpoint=tmp_path)
    quiet(None, ZERO, ONES, SGD, **options)
    with pytest.raises(ValueError, match=r"\['p'\]: float32\(\) there, float32\(3,\)"):
        quiet(None, {"p": jnp.zeros(3)}, ONES, SGD, **options)
    with pytest.raises(ValueError, match=r"only here: .*\['q'\]"):
        quiet(None, ZERO | {"q": jnp.zeros(3)}, ONES, SGD, **options)
    with pytest.raises(ValueError, match=r"only here: \.average"):
        quiet(None, ZERO, ONES, SGD, average=0.9, **options)
    with pytest.raises(ValueError, match="keep must be a positive"):
        quiet(None, ZERO, ONES, SGD, keep=0, **options)


def test_store_round_trips_every_kind_of_leaf(tmp_path, same):
    params = {
        "a/b.c": jnp.arange(3.0),
        "half": jnp.ones(2, jnp.bfloat16),
        "none": jnp.zeros((0, 4)),
        "tuple": (jnp.zeros(()), [jnp.ones((1, 1))]),
    }
    state = init_state(params, optax.adamw(1e-3), KEY, average=True, best=True)
    store = checkpoints(tmp_path)
    assert store.restore(state) is None
    history = {"loss": np.array([np.nan, 1.0]), "empty": np.zeros(0), "note": "x"}
    store.save(state, history)
    store.close()
    store = checkpoints(tmp_path)
    blank = init_state(
        jax.tree.map(jnp.zeros_like, params),
        optax.adamw(1e-3),
        jax.random.key(0),
        average=True,
        best=True,
    )
    restored, read = store.restore(blank)
    store.close()
    assert restored.key == state.key
    same(restored._replace(key=0), state._replace(key=0))
    assert [a.dtype for a in jax.tree.leaves(restored)] == [
        a.dtype for a in jax.tree.leaves(state)
    ]
    same(read, history)


def test_parameters_round_trip_through_a_file(flow, params, x, same, tmp_path):
    path = tmp_path / "flow.params"
    save(path, params)
    form = jax.eval_shape(flow.init, KEY, x)
    same(load(path, form), params)
    odd = {"half": jnp.ones((2, 2), jnp.bfloat16) * 1.5, "none": jnp.zeros((0, 4))}
    save(path, odd)
    same(load(path, odd), odd)
    assert os.listdir(tmp_path) == ["flow.params"]
    with pytest.raises(ValueError, match=r"only there: .*half"):
        load(path, params)
    np.savez(tmp_path / "other.npz", a=np.ones(2))
    with pytest.raises(ValueError, match=r"not written by jflow\.save"):
        load(tmp_path / "other.npz", odd)
