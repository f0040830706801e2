"""Every base: its density integrates to one and is the law of its samples."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases_bases import CASES, prepared, rows

import jflow
from jflow import base as plain

KEY = jax.random.key(0)
N = 20_000
ids = [case.covers for case in CASES]
every = pytest.mark.parametrize("case", CASES, ids=ids)


@functools.cache
def _built(case):
    base, params = prepared(case)
    log_prob = jax.jit(base.log_prob)
    sample = jax.jit(base.sample, static_argnums=2)
    return base, params, log_prob, sample


@functools.cache
def _grid(case):
    low, high = case.box
    step = (high - low) / case.points
    line = low + step * (np.arange(case.points) + 0.5)
    grid = np.stack(np.meshgrid(*[line] * case.size, indexing="ij"), -1)
    return line, jnp.asarray(grid.reshape(-1, case.size), jnp.float32), step


def test_every_exported_base_is_in_the_registry():
    factories = {
        name
        for room in (plain, jflow.bases)
        for name in vars(room)
        if name in jflow.__all__ and callable(getattr(room, name))
    } - {"Base"}
    assert factories == set(ids)
    assert set(jflow.bases.__all__) <= set(jflow.__all__)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@every
def test_densities_integrate_to_one_and_samples_follow_them(case, temperature):
    base, params, log_prob, sample = _built(case)
    line, grid, step = _grid(case)
    log_p = log_prob(params, grid, rows(case, len(grid)), temperature)
    density = np.exp(np.asarray(log_p, np.float64))
    assert abs(density.sum() * step**case.size - 1) < case.tolerance
    # Of several keys: one alone may be the one in ten thousand.
    z = np.concatenate(
        [
            sample(params, k, N, rows(case, N), temperature)
            for k in jax.random.split(KEY, 5)
        ]
    )
    assert z.shape == (5 * N, *base.shape) and np.isfinite(z).all()
    density = density.reshape((case.points,) * case.size) * step**case.size
    for axis in range(case.size):
        others = tuple(i for i in range(case.size) if i != axis)
        cdf = np.cumsum(density.sum(others)) / density.sum()
        at = np.interp(np.sort(z[:, axis]), line + step / 2, cdf)
        # Kolmogorov-Smirnov, at one in ten thousand: many tests share these keys
        ranks = (np.arange(len(z)) + 0.5) / len(z)
        assert np.abs(at - ranks).max() < 2.23 / np.sqrt(len(z))
    if case.size == 2:  # what marginals do not see
        corner = (z > np.median(z, 0)).all(1).mean()
        above = (line[:, None] > np.median(z, 0)[0]) & (line > np.median(z, 0)[1])
        assert abs(corner - density[above].sum() / density.sum()) < 0.02


@every
def test_importance_weights_average_to_one(case):
    """Of a uniform box in the middle of the mass, over the base's samples."""
    _, params, log_prob, sample = _built(case)
    z = sample(params, KEY, N, rows(case, N), 1.0)
    low, high = jnp.quantile(z, jnp.array([0.25, 0.75]), axis=0)
    inside = ((z >= low) & (z <= high)).all(1)
    weights = jnp.exp(-log_prob(params, z, rows(case, N), 1.0)) / (high - low).prod()
    weights = jnp.where(inside, weights, 0.0)
    error = float(weights.std()) / np.sqrt(N)
    assert abs(float(weights.mean()) - 1) < 4 * error + case.tolerance


@every
def test_temperature_has_the_effect_that_is_stated(case):
    _, params, _, sample = _built(case)
    cold, warm = (sample(params, KEY, N, rows(case, N), t) for t in (0.6, 1.0))
    assert bool(jnp.array_equal(cold, warm)) == (not case.tempered)


@every
def test_gradients_are_finite_far_outside(case):
    base, params, _, _ = _built(case)
    z = jnp.array([0.0, 1e4, -1e10, 1e30, -1e30])[:, None] * jnp.ones(case.size)
    condition = rows(case, len(z))

    def total(params, z):
        log_p = base.log_prob(params, z, condition)
        return jnp.where(jnp.isfinite(log_p), log_p, 0.0).sum(), log_p

    by_z, log_p = jax.jit(jax.grad(total, 1, has_aux=True))(params, z)
    assert not jnp.isnan(log_p).any() and (log_p < jnp.inf).all()
    assert jnp.isfinite(by_z).all()
    each = jax.jit(
        jax.vmap(jax.grad(lambda z: base.log_prob(params, z[None], condition[:1])[0]))
        if condition is not None
        else jax.vmap(jax.grad(lambda z: base.log_prob(params, z[None])[0]))
    )
    assert jnp.isfinite(each(z)).all()


@every
def test_dtypes_follow_the_latents(case):
    with jax.enable_x64(True):
        base, params = prepared(case, jnp.float64)
        z = jax.random.uniform(KEY, (4, case.size), jnp.float64, -1.0, 1.0)
        assert all(a.dtype == jnp.float64 for a in jax.tree.leaves(params))
        wide = jax.jit(base.log_prob)(params, z, rows(case, 4))
        assert wide.dtype == jnp.float64
        sample = jax.jit(base.sample, static_argnums=2)
        assert sample(params, KEY, 4, rows(case, 4)).dtype == jnp.float64
        narrow = jax.tree.map(lambda a: np.asarray(a, np.float32), (params, z))
    params, z = jax.tree.map(jnp.asarray, narrow)
    _, _, log_prob, sample = _built(case)
    got = log_prob(params, z, rows(case, 4), 1.0)
    assert got.dtype == jnp.float32
    # the draws that estimate the normaliser differ between the dtypes
    bound = 0.02 if case.covers == "resampled" else 1e-5
    np.testing.assert_allclose(got, wide, rtol=bound, atol=bound)
    assert sample(params, KEY, N, rows(case, N), 1.0).dtype == jnp.float32


@every
def test_vmap_over_parameters_and_a_batch_of_one(case):
    base, params, log_prob, _ = _built(case)
    z = jnp.linspace(-0.9, 0.9, 4 * case.size).reshape(4, case.size)
    condition = rows(case, 4)
    many = jax.tree.map(lambda a: jnp.stack([a, a + 0.1]), params)
    # Several bases have no parameters: the latents are mapped, too.
    mapped = jax.jit(jax.vmap(base.log_prob, (0, 0, None)))
    got = mapped(many, jnp.stack([z, z]), condition)
    expected = log_prob(params, z, condition, 1.0)
    np.testing.assert_allclose(got[0], expected, rtol=1e-5, atol=1e-5)
    one = log_prob(params, z[2:3], rows(case, 1))
    np.testing.assert_allclose(one[0], expected[2], rtol=1e-5, atol=1e-5)
    keys = jax.random.split(KEY, 2)
    draws = jax.jit(jax.vmap(lambda k: base.sample(params, k, 4, condition)))(keys)
    assert draws.shape == (2, 4, *base.shape) and not jnp.allclose(*draws)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.differentiable], ids=lambda c: c.covers
)
def test_samples_have_the_gradients_of_their_means(case):
    """`d E[f(z)]` through samples against that of the integral of p f."""
    base, params, _, _ = _built(case)
    _, grid, step = _grid(case)
    wave = lambda z: jnp.sin(z + 0.3).sum(1)  # noqa: E731

    def drawn(params):
        return wave(base.sample(params, KEY, N, rows(case, N))).mean()

    def integrated(params):
        p = jnp.exp(base.log_prob(params, grid, rows(case, len(grid))))
        return (p * wave(grid)).sum() * step**case.size

    got, expected = (jax.jit(jax.grad(f))(params) for f in (drawn, integrated))
    if case.covers == "mixture_normal":  # the choice of a component has no gradient
        got["logits"] = expected["logits"]
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=0.04)  # four standard errors


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.condition is not None], ids=lambda c: c.covers
)
def test_conditional_bases_react_to_the_condition(case):
    base, params, log_prob, _ = _built(case)
    z, here = jnp.ones((2, case.size)), rows(case, 2)
    there = here + jnp.ones_like(here)
    assert not jnp.allclose(log_prob(params, z, here), log_prob(params, z, there))
    a, b = (base.sample(params, KEY, 2, c) for c in (here, there))
    assert not jnp.allclose(a, b)
    with pytest.raises(ValueError, match="condition"):
        base.log_prob(params, z, None)


@every
def test_each_is_the_base_of_a_flow(case):
    base = case.build()
    f = jflow.flow(jflow.identity(), base)
    x = jax.random.uniform(KEY, (16, case.size), minval=-0.9, maxval=0.9)
    params = f.init(KEY, x, rows(case, 16))
    z, log_p = f.sample_and_log_prob(params, KEY, 5, rows(case, 5))
    again = f.log_prob(params, z, rows(case, 5))
    np.testing.assert_allclose(log_p, again, rtol=1e-4, atol=1e-4)


@every
def test_latents_of_another_shape_are_refused(case):
    base = case.build()
    with pytest.raises(ValueError, match=f"{case.covers}.*events"):
        base.init(KEY, jnp.zeros((4, case.size + 1)), rows(case, 4))
