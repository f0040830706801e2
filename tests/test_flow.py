"""Flows and bases: densities integrate to one, samples agree with densities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import scramble

import jflow
from jflow import nets, scalars

KEY = jax.random.key(0)


def _scrambled(f, x, condition=None, scale=0.3):
    return scramble(f.init(KEY, x, condition), jax.random.key(1), scale)


def _line(low, high, n):
    points = jnp.linspace(low, high, n)
    return points, (high - low) / (n - 1)


def _integral(f, params, low, high, dims, n):
    points, step = _line(low, high, n)
    grid = jnp.stack(jnp.meshgrid(*[points] * dims), -1).reshape(-1, dims)
    return float(jnp.exp(f.log_prob(params, grid)).sum() * step**dims)


BASES = {
    "normal": jflow.normal((2,)),
    "logistic": jflow.logistic((2,)),
    "diagonal_normal": jflow.diagonal_normal((2,)),
    "class_normal": jflow.class_normal((2,), 3),
}


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_bases_integrate_to_one_and_sample_their_density(name, temperature):
    base = BASES[name]
    condition = jnp.zeros(1, int) if name == "class_normal" else None
    params = scramble(base.init(KEY, jnp.zeros((1, 2)), condition), KEY, 0.3)
    points, step = _line(-30.0, 30.0, 401)
    grid = jnp.stack(jnp.meshgrid(points, points), -1).reshape(-1, 2)
    labels = None if condition is None else jnp.zeros(len(grid), int)
    density = jnp.exp(base.log_prob(params, grid, labels, temperature))
    assert abs(float(density.sum()) * step**2 - 1) < 1e-3
    labels = None if condition is None else jnp.zeros(20_000, int)
    z = base.sample(params, KEY, 20_000, labels, temperature)
    mean = (density[:, None] * grid).sum(0) * step**2
    variance = (density[:, None] * (grid - mean) ** 2).sum(0) * step**2
    np.testing.assert_allclose(z.mean(0), mean, atol=0.05)
    np.testing.assert_allclose(z.var(0), variance, rtol=0.05)


def test_what_init_made_is_not_made_again_to_check_parameters():
    made = []

    def init(key, x, condition=None):
        made.append(x.shape)
        return jnp.zeros(x.shape[1:])

    def forward(params, x, condition=None, key=None):
        return x + params, jnp.zeros(len(x))

    flow = jflow.flow(jflow.Bijector(init, forward, forward), jflow.normal((2,)))
    params = flow.init(KEY, jnp.ones((4, 2)))
    made.clear()
    flow.log_prob(params, jnp.ones((8, 2)))
    flow.sample(params, KEY, 3)
    assert not made
    with pytest.raises(ValueError, match="do not fit"):
        flow.log_prob(params, jnp.ones((8, 3)))
    assert made


def test_class_normal_takes_labels_and_one_hot_rows():
    base = BASES["class_normal"]
    z, labels = jnp.ones((4, 2)), jnp.array([0, 1, 2, 1])
    params = base.init(KEY, z, labels)
    rows = jax.nn.one_hot(labels, 3)
    np.testing.assert_allclose(
        base.log_prob(params, z, labels), base.log_prob(params, z, rows)
    )
    with pytest.raises(ValueError, match="labels"):
        base.log_prob(params, z, None)


def test_densities_integrate_to_one():
    x = jax.random.normal(KEY, (256, 1))
    line = jflow.flow(
        jflow.chain(jflow.actnorm(), jflow.elementwise(scalars.affine())),
        jflow.logistic((1,)),
    )
    assert abs(_integral(line, _scrambled(line, x), -60, 60, 1, 4001) - 1) < 1e-3
    plane = jax.random.normal(KEY, (256, 2)) * jnp.array([1.0, 2.0])
    step = jflow.chain(
        jflow.batch_norm(),
        jflow.invertible_linear(),
        jflow.coupling(scalars.affine(), nets.mlp(8)),
    )
    f = jflow.flow(jflow.repeat(step, 2), jflow.normal((2,)))
    assert (
        abs(_integral(f, _scrambled(f, plane, scale=0.1), -25, 25, 2, 1001) - 1) < 1e-3
    )


def test_densities_on_the_unit_square_integrate_to_one_preprocessing_included():
    x = jax.random.uniform(KEY, (256, 2))
    f = jflow.models.realnvp((2,), couplings=2, hidden=(8,), alpha=0.05)
    params = _scrambled(f, x, scale=0.05)
    margin = 0.05 / 0.9  # the support is a little wider than the data's range
    edge = margin + 1e-6
    assert abs(_integral(f, params, -edge, 1 + edge, 2, 1501) - 1) < 2e-3


def test_integer_probabilities_sum_to_one():
    """Four grey levels, two pixels: the mean of exp(log_prob) over noise is exact."""
    f = jflow.models.glow((2,), depth=1, hidden=(8,), bits=2)
    levels = jnp.stack(jnp.meshgrid(*[jnp.arange(4)] * 2), -1).reshape(-1, 2)
    params = _scrambled(f, jnp.tile(levels, (8, 1)), scale=0.1)
    keys = jax.random.split(KEY, 4000)
    log_probs = jax.vmap(lambda k: f.log_prob(params, levels, key=k))(keys)
    inside = float(jnp.exp(log_probs).mean(0).sum())
    samples = f.encode  # mass outside of the pixels' range is what is missing
    assert samples is not None and 0.5 < inside <= 1.01
    bound = log_probs.mean(0)
    assert (bound <= jnp.log(jnp.exp(log_probs).mean(0)) + 1e-6).all()


def test_importance_weights_between_samples_and_densities_average_to_one():
    x = jax.random.normal(KEY, (64, 3))
    f = jflow.models.glow((3,), depth=2, hidden=(8,))
    params = _scrambled(f, x, scale=0.1)
    samples, log_p = f.sample_and_log_prob(params, KEY, 20_000)
    np.testing.assert_allclose(f.log_prob(params, samples), log_p, atol=2e-3)
    narrow = jflow.normal((3,))
    q = narrow.log_prob((), samples - samples.mean(0), temperature=0.7)
    assert abs(float(jnp.exp(q - log_p).mean()) - 1) < 0.05


def test_tempered_samples_carry_their_own_density():
    x = jax.random.normal(KEY, (64, 2))
    f = jflow.models.realnvp((2,), couplings=2, hidden=(8,))
    params = _scrambled(f, x, scale=0.1)
    samples, log_p = f.sample_and_log_prob(params, KEY, 50, temperature=0.5)
    z = f.encode(params, samples)
    _, log_det = f.bijector.forward(params["bijector"], samples)
    expected = f.base.log_prob((), z, temperature=0.5) + log_det
    np.testing.assert_allclose(log_p, expected, atol=1e-3)
    cold = f.sample(params, KEY, 50, temperature=0.0001)
    np.testing.assert_allclose(cold, jnp.broadcast_to(cold[:1], cold.shape), atol=1e-2)


def test_chunks_give_the_same_samples():
    x, c = jax.random.normal(KEY, (64, 2)), jnp.ones((64, 3))
    f = jflow.models.realnvp((2,), couplings=2, hidden=(8,))
    params = _scrambled(f, x, c)
    conditions = jax.random.normal(KEY, (10, 3))
    whole = f.sample_and_log_prob(params, KEY, 10, conditions)
    for chunk in (1, 3, 10, 64):
        parts = f.sample_and_log_prob(params, KEY, 10, conditions, chunk=chunk)
        for a, e in zip(parts, whole, strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-5)


def test_one_condition_serves_many_samples():
    x, c = jax.random.normal(KEY, (64, 2)), jnp.ones((64, 3))
    f = jflow.models.realnvp((2,), couplings=2, hidden=(8,))
    params = _scrambled(f, x, c)
    one = f.sample(params, KEY, 5, jnp.ones((1, 3)))
    np.testing.assert_array_equal(one, f.sample(params, KEY, 5, jnp.ones((5, 3))))


@pytest.mark.parametrize(
    ("x", "condition", "words"),
    [
        (jnp.ones(3), None, "batch"),
        (jnp.ones((0, 2)), None, "batch"),
        (jnp.ones((4, 3)), None, "events"),
        (jnp.ones((4, 2)), jnp.ones((3, 1)), "axis 0"),
        (jnp.ones((4, 2)), jnp.ones(()), "axis 0"),
    ],
)
def test_data_that_do_not_fit_are_refused(x, condition, words):
    f = jflow.flow(jflow.actnorm(), jflow.normal((2,)))
    with pytest.raises(ValueError, match=words):
        f.init(KEY, x, condition)


def test_a_second_call_compiles_nothing(compiled):
    f = jflow.flow(jflow.actnorm(), jflow.normal((2,)))
    x = jnp.ones((4, 2))

    def call_each():
        params = f.init(KEY, x)
        z = f.encode(params, x)
        return f.log_prob(params, x), f.sample(params, KEY, 3), f.decode(params, z)

    call_each()
    assert len(compiled) >= 5
    compiled.clear()
    call_each()
    assert not compiled
