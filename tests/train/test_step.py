"""Labels, the step, its optimisers and its order of examples, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jflow.base import normal
from jflow.bijectors import batch_norm
from jflow.flow import flow as make_flow
from jflow.train import (
    adam,
    adamax,
    fit,
    init_state,
    label_params,
    make_train_step,
    negative_log_likelihood,
    prepare_optimizer,
)
from jflow.train.dispatch import shuffled

KEY = jax.random.key(7)
SGD = optax.sgd(0.1)
ADAM = optax.adam(3e-3)


def quiet(*args, **options):
    return fit(*args, key=KEY, progress=False, **options)


def mean_square(params, x, condition, key):
    return jnp.mean((params["p"] - x) ** 2)


def scalar(value=0.0):
    return {"p": jnp.full((), value)}


# --- labels ---------------------------------------------------------------------------


def test_labels_follow_dictionary_keys_at_any_depth():
    params = (
        {"w": 1.0, "fixed": {"a": 1.0, "statistics": 2.0}},
        {"statistics": {"mean": 0.0}, "b": [0.0]},
    )
    assert label_params(params) == (
        {"w": "learned", "fixed": {"a": "fixed", "statistics": "fixed"}},
        {"statistics": {"mean": "statistics"}, "b": ["learned"]},
    )


def test_fixed_leaves_escape_weight_decay_and_noise_and_clipping_is_of_learned_ones():
    params = {
        "w": jnp.ones(2),
        "fixed": jnp.ones(3),
        "statistics": {"mean": jnp.full(1, 5.0)},
    }
    grads = {
        "w": jnp.array([3.0, 4.0]),
        "fixed": jnp.full(3, 100.0),
        "statistics": {"mean": jnp.full(1, 2.0)},
    }
    noisy = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.add_decayed_weights(0.5),
        optax.sgd(1.0),
    )
    tx = prepare_optimizer(noisy, statistics_momentum=0.75)
    assert tx is prepare_optimizer(noisy, statistics_momentum=0.75)
    assert prepare_optimizer(tx) is tx
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], [-0.6 - 0.5, -0.8 - 0.5], rtol=1e-6)
    np.testing.assert_array_equal(updates["fixed"], 0.0)
    np.testing.assert_allclose(updates["statistics"]["mean"], -0.25 * 2.0)


def test_batch_statistics_become_running_averages(x):
    flow = make_flow(batch_norm(), normal((2,)))
    params = flow.init(KEY, x)
    start = {"mean": jnp.array([1.0, -1.0]), "variance": jnp.array([2.0, 3.0])}
    params["bijector"]["statistics"] = start
    trained, _ = quiet(flow, params, x, SGD, steps=10, batch_size=len(x))
    stored = trained["bijector"]["statistics"]
    rest = 0.95**10
    for name, value in (("mean", x.mean(0)), ("variance", x.var(0))):
        expected = rest * start[name] + (1 - rest) * value
        np.testing.assert_allclose(stored[name], expected, rtol=1e-4)


# --- the step -------------------------------------------------------------------------


def test_step_is_the_gradient_step_written_out(flow, params, x):
    step = make_train_step(flow, SGD)
    assert step is make_train_step(flow, SGD)
    state = init_state(params, SGD, KEY)
    loss, grads = jax.value_and_grad(lambda p: -flow.log_prob(p, x).mean())(params)
    state, metrics = jax.jit(step)(state, (x, None))
    assert int(state.step) == 1 and bool(metrics["finite"])
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
    squares = sum((np.asarray(g) ** 2).sum() for g in jax.tree.leaves(grads))
    np.testing.assert_allclose(metrics["grad_norm"], np.sqrt(squares), rtol=1e-5)
    for new, old, g in zip(
        *map(jax.tree.leaves, (state.params, params, grads)), strict=True
    ):
        np.testing.assert_allclose(new, old - 0.1 * g, rtol=1e-5, atol=1e-6)


def test_step_that_is_not_finite_changes_nothing(same):
    step = make_train_step(None, ADAM, mean_square, average=0.9)
    state = init_state(scalar(), ADAM, KEY, average=True)
    after, metrics = step(state, jnp.array([[jnp.nan]]))
    assert not metrics["finite"]
    same(after._replace(key=0), state._replace(key=0))


def test_updates_wait_for_all_gradients():
    """They take no memory while the backward pass needs what the forward pass kept."""
    params = {"early": jnp.zeros((512, 4096)), "late": jnp.ones(512)}
    x = jnp.ones((64, 512))

    def loss(params, x, condition, key):
        def body(x, _):
            return jnp.tanh(x * params["late"]), None

        x, _ = jax.lax.scan(body, x, length=256)
        return jnp.mean((x @ params["early"]) ** 2)

    def temporaries(function, *args):
        program = jax.jit(function, donate_argnums=0).lower(*args).compile()
        return program.memory_analysis().temp_size_in_bytes

    step = temporaries(
        make_train_step(None, ADAM, loss), init_state(params, ADAM, KEY), x
    )
    gradient = temporaries(jax.grad(loss), params, x, None, KEY)
    # The gradient waits, which is one; new parameters and moments would be more.
    assert step < gradient + 1.5 * params["early"].nbytes


def test_optimisers_are_given_finite_gradients():
    given = []

    def update(grads, state, params=None):
        given.append(grads["p"])
        return grads, state

    spy = optax.GradientTransformation(lambda params: (), update)
    state = init_state(scalar(), spy, KEY)
    for x in (1.0, jnp.nan):
        make_train_step(None, spy, mean_square)(state, jnp.full((2, 1), x))
    np.testing.assert_allclose(given, [-2.0, 0.0])


def test_update_that_overflows_changes_nothing_and_fixed_may_be_infinite(same):
    params = scalar() | {"fixed": jnp.full(2, jnp.inf)}
    x = jnp.full((2, 1), 5.0)
    for rate, finite in ((0.1, True), (3e38, False)):
        steep = optax.sgd(rate)
        state = init_state(params, steep, KEY)
        after, metrics = jax.jit(make_train_step(None, steep, mean_square))(state, x)
        assert bool(metrics["finite"]) is finite
        assert bool(jnp.isfinite(metrics["grad_norm"]))
        if not finite:
            same(after._replace(key=0), state._replace(key=0))


def test_gradient_norm_is_that_of_small_and_large_leaves_together():
    params = {"large": jnp.zeros((600, 500)), "small": jnp.zeros(3, jnp.bfloat16)}

    def loss(params, x, condition, key):
        return 2 * params["large"].sum() + 3 * params["small"].sum()

    step = jax.jit(make_train_step(None, optax.sgd(0.0), loss))
    _, metrics = step(init_state(params, optax.sgd(0.0), KEY), jnp.ones((1, 1)))
    expected = np.sqrt(4 * 300_000 + 9 * 3)
    np.testing.assert_allclose(metrics["grad_norm"], expected, rtol=1e-6)


def test_step_hands_the_loss_to_optimisers_that_ask(same):
    plateau = optax.chain(
        optax.sgd(0.1), optax.contrib.reduce_on_plateau(factor=0.5, patience=1)
    )
    step = jax.jit(make_train_step(None, plateau, lambda p, x, c, k: 0 * p["p"] + 1.0))
    state = init_state(scalar(), plateau, KEY)
    for _ in range(4):
        state, _ = step(state, jnp.ones((2, 1)))
    scales = [a for a in jax.tree.leaves(state.opt_state) if a.dtype == jnp.float32]
    assert any(float(a) < 1 for a in scales if a.shape == ())


def test_noise_differs_between_steps_and_repeats_with_the_key():
    def loss(params, x, condition, key):
        return 0 * params["p"] + jax.random.normal(key)

    data = np.ones((4, 1), np.float32)
    _, first = quiet(None, scalar(), data, SGD, loss=loss, steps=50)
    _, again = quiet(None, scalar(), data, SGD, loss=loss, steps=50)
    assert len(set(first["loss"])) == 50
    np.testing.assert_array_equal(first["loss"], again["loss"])


def test_integer_parameters_are_refused():
    with pytest.raises(TypeError, match=r"params\['n'\] is int32"):
        init_state({"n": jnp.arange(2)}, SGD, KEY)


# --- recipes and shuffles -------------------------------------------------------------


@pytest.mark.parametrize("recipe", [adam, adamax])
def test_recipes_warm_up_decay_and_clip(recipe):
    assert recipe(1e-2) is recipe(1e-2)
    optimizer = recipe(1e-2, warmup=4, decay_steps=12, clip=1.0)
    params = jnp.zeros(1)
    state, sizes = optimizer.init(params), []
    for _ in range(14):
        # The first update of either optimiser is the step size, as all of them are
        # for a constant gradient.
        updates, state = optimizer.update(jnp.ones(1), state, params)
        sizes.append(-float(updates[0]))
    cosine = [0.5 * (1 + np.cos(np.pi * i / 8)) for i in range(9)]
    expected = [0.25, 0.5, 0.75, 1.0, *cosine[:9], 0.0]
    np.testing.assert_allclose(np.array(sizes) / 1e-2, expected, atol=2e-3)
    for wrong in (
        dict(learning_rate=-1.0),
        dict(warmup=-1),
        dict(clip=0.0),
        dict(warmup=5, decay_steps=5),
        dict(learning_rate=optax.constant_schedule(1.0), decay_steps=5),
    ):
        with pytest.raises(ValueError, match=recipe.__name__):
            recipe(**wrong)


def test_default_loss_is_memoised(flow):
    assert negative_log_likelihood(flow) is negative_log_likelihood(flow)


@pytest.mark.parametrize("n", [1, 2, 3, 1_000, 5_000])
def test_shuffles_are_permutations(n):
    orders = jax.vmap(lambda k: shuffled(k, n))(jax.random.split(KEY, 20))
    np.testing.assert_array_equal(np.sort(orders, axis=1), [np.arange(n)] * 20)


def test_shuffles_of_few_are_equally_likely():
    orders = jax.vmap(lambda k: shuffled(k, 3))(jax.random.split(KEY, 6_000))
    counts = np.unique(np.asarray(orders) @ [9, 3, 1], return_counts=True)[1]
    # Five degrees of freedom: 20.5 is exceeded once in a thousand keys, and the key is
    # fixed.
    assert len(counts) == 6 and ((counts - 1_000) ** 2 / 1_000).sum() < 20.5
