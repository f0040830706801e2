"""How training ends: data, callbacks, interrupts, errors, arguments out of range."""

import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jflow.train import (
    NonFiniteError,
    fit,
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


# --- how it ends ----------------------------------------------------------------------


def test_iterators_end_and_functions_are_asked_again(same):
    data = np.ones((4, 1), np.float32)
    for batches, steps in ((iter([data] * 5), 5), ((data for _ in range(3)), 3)):
        _, history = quiet(None, scalar(), batches, SGD, loss=mean_square, steps=9)
        assert history["stopped"] == "data" and history["step"][-1] == steps
    asked = []

    def reading_from(step):
        asked.append(step)
        return iter([data] * 4)

    _, history = quiet(None, scalar(), reading_from, SGD, loss=mean_square, steps=9)
    assert history["stopped"] == "steps" and asked == [0, 4, 8]
    _, history = quiet(None, scalar(), [], SGD, loss=mean_square, steps=9)
    assert history["stopped"] == "data" and len(history["loss"]) == 0


def test_callbacks_see_metrics_and_may_stop():
    seen = []

    def callback(state, metrics):
        assert int(state.step) == metrics["step"]
        seen.append(metrics)
        return metrics["step"] >= 6

    _, history = quiet(
        None,
        scalar(),
        np.ones((8, 1)),
        SGD,
        loss=mean_square,
        steps=20,
        validation=np.ones((2, 1)),
        evaluate_every=4,
        callbacks=[callback],
        steps_per_dispatch=2,
    )
    assert history["stopped"] == "callback" and len(history["step"]) == 6
    assert [m["step"] for m in seen] == [2, 4, 6]
    assert ["validation_loss" in m for m in seen] == [False, True, False]
    assert seen[-1]["loss"] == history["loss"][-1]


def test_interrupt_returns_what_was_trained(capsys, same, heard):
    def press(state, metrics):
        if metrics["step"] == 4:
            signal.raise_signal(signal.SIGINT)

    options = dict(loss=mean_square, steps_per_dispatch=2)
    data = np.ones((8, 1))
    handler = signal.getsignal(signal.SIGINT)
    fitted, history = quiet(
        None, scalar(), data, SGD, steps=50, callbacks=[press], **options
    )
    assert signal.getsignal(signal.SIGINT) is handler
    assert history["stopped"] == "interrupt" and history["step"][-1] == 4
    assert "interrupted after step 4 of 50" in capsys.readouterr().out
    same(fitted, quiet(None, scalar(), data, SGD, steps=4, **options)[0])


def test_second_interrupt_is_immediate(heard):
    def press(state, metrics):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        quiet(
            None,
            scalar(),
            np.ones((8, 1)),
            SGD,
            loss=mean_square,
            steps=5,
            callbacks=[press],
        )


def test_errors_of_callbacks_and_data_carry_what_was_trained():
    def fail(state, metrics):
        raise RuntimeError("disk full")

    options = dict(loss=mean_square, steps=9, steps_per_dispatch=3)
    with pytest.raises(RuntimeError, match="disk full") as caught:
        quiet(None, scalar(), np.ones((8, 1)), SGD, callbacks=[fail], **options)
    error = caught.value
    np.testing.assert_allclose(error.params["p"], 1 - 0.8**3, rtol=1e-5)
    assert int(error.state.step) == 3 == error.history["step"][-1]
    assert "stopped after step 3" in error.__notes__[0]

    def batches():
        yield from [np.ones((8, 1), np.float32)] * 2
        raise OSError("file truncated")

    with pytest.raises(OSError, match="truncated") as caught:
        quiet(None, scalar(), batches(), SGD, **options)
    np.testing.assert_allclose(caught.value.params["p"], 1 - 0.8**2, rtol=1e-5)


def test_update_that_is_not_finite_stops_with_the_state_before_it(same):
    sizes = [1e-2] * 5 + [jnp.nan] * 45
    breaking = optax.sgd(lambda step: jnp.array(sizes)[step])
    x = np.ones((8, 1), np.float32)
    options = dict(loss=mean_square)
    good, _ = quiet(None, scalar(), x, breaking, steps=5, **options)
    for data in (x, [x], iter([x] * 20)):
        with pytest.raises(NonFiniteError, match=r"step 5 .* update overflowed") as e:
            quiet(None, scalar(), data, breaking, steps=50, **options)
        assert int(e.value.state.step) == 5
        assert e.value.history["step"][-1] == 5
        same(e.value.params, good)


def test_layer_that_overflows_is_named(flow, params, x):
    broken = jax.tree.map(jnp.array, params)
    log_scale = broken["bijector"][1][0]["log_scale"]
    broken["bijector"][1][0]["log_scale"] = log_scale.at[1, 0].set(100.0)
    path = "encode > 1:repeat > chain copy 1 > 0:scale"
    with pytest.raises(NonFiniteError, match=path) as caught:
        quiet(flow, broken, x, SGD, steps=3)
    assert isinstance(caught.value, FloatingPointError)
    assert len(caught.value.history["loss"]) == 0


def test_data_parameters_and_gradients_that_are_not_finite_are_named(flow, params, x):
    hole = x.copy()
    hole[3, 1] = np.nan
    with pytest.raises(NonFiniteError, match="x holds values that are not finite"):
        quiet(None, scalar(), hole, SGD, loss=mean_square, steps=3, batch_size=256)

    def root(params, x, condition, key):
        return params["q"] + jnp.sqrt(params["p"] * 0)

    start = {"q": jnp.ones(()), "p": jnp.ones(())}
    with pytest.raises(NonFiniteError, match=r"gradient is not .* params\['p'\]"):
        quiet(None, start, x, SGD, loss=root, steps=3)

    def logarithm(params, x, condition, key):
        return jnp.log(params["p"] * 0) - flow.log_prob(params["flow"], x).mean()

    start = {"flow": params, "p": jnp.ones(())}
    with pytest.raises(NonFiniteError, match="all layers' outputs are finite"):
        quiet(flow, start, x, SGD, loss=logarithm, steps=3)


# --- arguments, recipes, imports ------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(steps=0), ValueError, "steps must be at least 1"),
        (dict(steps=2.5), TypeError, "steps must be an integer"),
        (dict(steps=2, batch_size=0), ValueError, "batch_size must be"),
        (dict(steps=2, patience=2), ValueError, "need validation="),
        (dict(steps=2, average=1.5), ValueError, "average=1.5"),
        (dict(steps=2, validation=0.001), ValueError, "leaves 256 to train on and 0"),
        (dict(steps=2, condition=np.ones((3, 1))), ValueError, "the 256 examples"),
        (dict(steps=2, mesh="all"), TypeError, "not a jax.sharding.Mesh"),
    ],
)
def test_unusable_arguments_are_refused(flow, params, x, options, error, message):
    with pytest.raises(error, match=message):
        quiet(flow, params, x, SGD, **options)


def test_unusable_data_are_refused(flow, params, x):
    with pytest.raises(ValueError, match=r"event axis, x\[:, None\]"):
        quiet(flow, params, x[:, 0], SGD, steps=2)
    with pytest.raises(TypeError, match="function from a step"):
        quiet(flow, params, 3, SGD, steps=2)
    with pytest.raises(ValueError, match=r"expected x or \(x, condition\)"):
        quiet(flow, params, [{"x": x}], SGD, steps=2)
    with pytest.raises(ValueError, match="conditions come with their batches"):
        quiet(flow, params, [x], SGD, steps=2, validation=0.5)
    with pytest.raises(ValueError, match=r"pass \(x, condition\)"):
        quiet(flow, params, x, SGD, steps=2, condition=x[:, :1], validation=x)
    with pytest.raises(TypeError, match="not an Optax transformation"):
        quiet(flow, params, x, "adam", steps=2)
