"""The loop against loops written out and closed forms."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jflow.train import (
    fit,
    init_state,
    make_train_step,
)

KEY = jax.random.key(7)
SGD = optax.sgd(0.1)
ADAM = optax.adam(3e-3)


def quiet(*args, **options):
    return fit(*args, key=KEY, progress=False, **options)


def mean_square(params, x, condition, key):
    return jnp.mean((params["p"] - x) ** 2)


def scalar(value=0.0):
    return {"p": jnp.full((), value)}


# --- the loop -------------------------------------------------------------------------


def test_fit_reaches_the_entropy_of_a_normal(flow, params, x):
    fitted, history = quiet(flow, params, x, ADAM, steps=1_500)
    # The maximum-likelihood normal's mean -log p; the flow can do a little better.
    covariance = np.cov(x.T, bias=True)
    best = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * covariance)[1]
    assert -float(flow.log_prob(fitted, x).mean()) < best + 0.02
    assert history["loss"][0] > best + 0.1
    assert history["stopped"] == "steps"
    np.testing.assert_array_equal(history["step"], np.arange(1, 1_501))
    assert history["validation_loss"].shape == (0,)


def test_each_epoch_sees_each_example_once_in_a_new_order():
    def loss(params, x, condition, key):
        assert x.dtype == jnp.uint8
        return 0 * params["p"] + x.astype(jnp.float32).mean()

    # Distinct powers of two: a batch's mean says which examples it holds.
    data = (2 ** np.arange(7)).astype(np.uint8)[:, None]
    _, history = quiet(None, scalar(), data, SGD, loss=loss, steps=90, batch_size=2)
    sums = np.round(2 * history["loss"]).astype(int).reshape(30, 3)
    for epoch in sums:
        assert all(bin(s).count("1") == 2 for s in epoch)
        union = np.bitwise_or.reduce(epoch)
        assert bin(union).count("1") == 6
    assert len({tuple(epoch) for epoch in sums}) > 20
    assert len({127 - epoch.sum() for epoch in sums}) == 7


def test_numbers_do_not_depend_on_the_dispatch(flow, params, x, same):
    runs = [
        quiet(flow, params, x, ADAM, steps=41, steps_per_dispatch=k)
        for k in (1, 7, None)
    ]
    for fitted, history in runs[1:]:
        same(fitted, runs[0][0])
        np.testing.assert_array_equal(history["loss"], runs[0][1]["loss"])
        np.testing.assert_array_equal(history["grad_norm"], runs[0][1]["grad_norm"])


def test_fit_on_batches_is_the_step_in_a_loop(flow, params, x, same):
    batches = [(x[i : i + 64], x[i : i + 64, :1]) for i in range(0, 256, 64)]
    fitted, history = quiet(flow, params, batches, ADAM, steps=20)
    step = jax.jit(make_train_step(flow, ADAM))
    state = init_state(params, ADAM, KEY)
    for i in range(20):
        state, metrics = step(state, batches[i % 4])
    same(fitted, state.params, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(history["loss"][-1], metrics["loss"], rtol=1e-5)


def test_second_fit_compiles_nothing(flow, params, x, compiled):
    def once(steps):
        return quiet(
            flow,
            params,
            x,
            ADAM,
            steps=steps,
            validation=0.25,
            evaluate_every=10,
            average=0.9,
        )

    once(12)
    assert compiled
    compiled.clear()
    once(35)
    batches = [x[:64]] * 3
    assert not compiled
    quiet(flow, params, batches, ADAM, steps=4)
    compiled.clear()
    quiet(flow, params, batches, ADAM, steps=7)
    assert not compiled


def test_conditions_stay_beside_their_examples(flow, params):
    def loss(params, x, condition, key):
        gap = jnp.abs(x - condition["row"]).max() + jnp.abs(condition["all"] - 3)
        return 0 * params["p"] + gap.max()

    data = np.arange(20, dtype=np.float32)[:, None]
    condition = {"row": data.copy(), "all": np.full((1, 1), 3.0)}
    _, history = quiet(
        None,
        scalar(),
        data,
        SGD,
        loss=loss,
        steps=20,
        batch_size=3,
        condition=condition,
        validation=0.2,
    )
    assert history["loss"].max() == 0 == history["validation_loss"].max()


def test_what_the_caller_passed_is_left_alone(flow, x):
    params = flow.init(KEY, x)
    before = jax.tree.map(np.array, params)
    data = jnp.asarray(x)
    legacy = jax.random.PRNGKey(1)
    for key in (legacy, jax.random.key(1)):
        fit(flow, params, data, ADAM, key=key, steps=3, progress=False)
        jax.random.normal(key)
    jax.tree.map(np.testing.assert_array_equal, params, before)
    np.testing.assert_array_equal(data, x)


def test_committed_arrays_compile_once(flow, params, x, compiled):
    device = jax.devices()[1]
    params, x = jax.device_put((params, x), device)
    fitted, _ = quiet(flow, params, x, ADAM, steps=3, steps_per_dispatch=1)
    assert jax.tree.leaves(fitted)[0].devices() == {device}
    compiled.clear()
    quiet(flow, params, x, ADAM, steps=5, steps_per_dispatch=2)
    assert not compiled
    with pytest.raises(ValueError, match="2 devices; pass mesh="):
        quiet(flow, params, jax.device_put(x, jax.devices()[2]), ADAM, steps=3)


# --- validation, averages -------------------------------------------------------------


def test_early_stopping_returns_the_best_parameters():
    # p goes from 0 to 1 along 1 - 0.8^t; on held-out data 0.36 is best: 0.8^2 = 0.64.
    train, held_out = np.ones((8, 1)), np.full((5, 1), 0.36)
    fitted, history = quiet(
        None,
        scalar(),
        train,
        SGD,
        loss=mean_square,
        steps=100,
        validation=held_out,
        evaluate_every=1,
        patience=3,
    )
    np.testing.assert_allclose(fitted["p"], 0.36, rtol=1e-5)
    assert history["stopped"] == "patience"
    np.testing.assert_array_equal(history["validation_step"], [1, 2, 3, 4, 5])
    expected = [(1 - 0.8**t - 0.36) ** 2 for t in range(1, 6)]
    np.testing.assert_allclose(history["validation_loss"], expected, atol=1e-6)


@pytest.mark.parametrize("size", [3, 8, 10])
def test_evaluation_is_the_mean_over_all_examples(size):
    held_out = np.random.default_rng(0).normal(size=(size, 2))
    _, history = quiet(
        None,
        scalar(0.5),
        np.ones((8, 2)),
        optax.sgd(0.0),
        loss=mean_square,
        steps=1,
        batch_size=4,
        validation=held_out,
    )
    expected = ((0.5 - held_out) ** 2).mean()
    np.testing.assert_allclose(history["validation_loss"], [expected], rtol=1e-6)


def test_held_out_fraction_is_kept_from_training():
    def loss(params, x, condition, key):
        return 0 * params["p"] + x.mean()

    data = (2.0 ** np.arange(8))[:, None]
    _, history = quiet(
        None, scalar(), data, SGD, loss=loss, steps=6, batch_size=6, validation=0.25
    )
    seen = {round(6 * v) for v in history["loss"]}
    held = round(2 * history["validation_loss"][0])
    assert len(seen) == 1 and seen.pop() + held == 255


def test_average_is_the_warmed_up_moving_average():
    p, expected = 0.0, 0.0
    for t in range(30):
        p = p + 0.2 * (1 - p)
        rate = min(0.8, (1 + t) / (10 + t))
        expected = rate * expected + (1 - rate) * p
    fitted, _ = quiet(
        None,
        scalar(),
        np.ones((8, 1)),
        SGD,
        loss=mean_square,
        steps=30,
        average=0.8,
    )
    np.testing.assert_allclose(fitted["p"], expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"init_state\(..., average=True\)"):
        make_train_step(None, SGD, mean_square, 0.8)(
            init_state(scalar(), SGD, KEY), jnp.ones((2, 1))
        )


def test_progress_bar_counts_steps(capsys):
    data = np.ones((8, 1))
    fit(None, scalar(), data, SGD, key=KEY, loss=mean_square, steps=7)
    assert "7/7" in capsys.readouterr().err


def test_training_imports_neither_orbax_nor_tqdm():
    code = (
        "import sys, jflow.train, jflow.parallel, jflow.diagnostics;"
        "print(sorted({'orbax', 'tqdm', 'matplotlib'} & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"
