"""Circular spline flows: normalised over torus and cylinder, periodic, invertible."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from case import scramble

import jflow
from jflow.models import circular_nsf

KEY = jax.random.key(0)
WRAP = (-math.pi, math.pi)


def _flow(shape=(2,), circular=(0, 1), **options):
    return circular_nsf(shape, circular, layers=2, hidden=(8,), bins=4, **options)


@pytest.mark.parametrize("autoregressive", [False, True])
def test_densities_on_a_torus(autoregressive):
    """Two periods of different length; the midpoint rule over whole turns."""
    lower, period = np.array([-math.pi, 1.0]), np.array([2 * math.pi, 3.0])
    f = _flow(circular={0: WRAP, 1: (1.0, 4.0)}, autoregressive_layers=autoregressive)
    x = lower + period * jax.random.uniform(KEY, (64, 2))
    params = scramble(f.init(KEY, x), jax.random.key(1), 0.5)
    log_prob = jax.jit(f.log_prob)
    side = (np.arange(200) + 0.5) / 200
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    density = np.exp(log_prob(params, jnp.asarray(lower + period * grid, jnp.float32)))
    assert abs(density.mean() * period.prod() - 1) < 1e-3
    assert density.std() / density.mean() > 0.1
    found = log_prob(params, x)
    for turns in ([1, 0], [0, -2], [-1, 3]):
        moved = log_prob(params, x + np.array(turns) * period)
        np.testing.assert_allclose(moved, found, atol=1e-3)
    # over the place where a circle is closed, too
    ends = jnp.stack([x, x]).at[:, :, 0].set(jnp.array([[-math.pi], [math.pi]]))
    at_ends = [log_prob(params, end) for end in ends]
    np.testing.assert_allclose(*at_ends, atol=1e-3)
    samples, there = f.sample_and_log_prob(params, KEY, 64)
    assert ((samples >= lower) & (samples <= lower + period + 1e-6)).all()
    np.testing.assert_allclose(log_prob(params, samples), there, atol=1e-3)
    np.testing.assert_allclose(f.decode(params, f.encode(params, x)), x, atol=1e-4)


def test_a_cylinder_with_bounds_and_a_condition():
    bounds = [-np.inf, 0.0], [np.inf, np.inf]
    f = _flow(circular=[0], bounds=bounds, reversible=True)
    x = jnp.abs(jax.random.normal(KEY, (64, 2)) * np.array([1.0, 4.0])) + 0.1
    c = jax.random.normal(jax.random.key(1), (64, 3))
    params = scramble(f.init(KEY, x, c), jax.random.key(2), 0.3)
    side, u = (np.arange(200) + 0.5) / 200 * 2 * math.pi, np.linspace(-9.0, 6.0, 301)
    grid = np.stack(np.meshgrid(side, np.exp(u), indexing="ij"), -1).reshape(-1, 2)
    condition = jnp.broadcast_to(c[:1], (len(grid), 3))
    found = jax.jit(f.log_prob)(params, jnp.asarray(grid, jnp.float32), condition)
    density = np.exp(found).reshape(200, 301) * np.exp(u)
    total = density.sum() * (u[1] - u[0]) * (side[1] - side[0])
    assert abs(total - 1) < 5e-3
    moved = f.encode(params, x, c + 1.0) != f.encode(params, x, c)
    assert moved.any(axis=0).all()
    negative = f.log_prob(params, x.at[:, 1].set(-1.0), c)
    assert (negative == -jnp.inf).all()


def test_training_finds_a_peak_across_the_seam():
    f = _flow((1,), [0])
    x = math.pi + 0.3 * jax.random.normal(KEY, (256, 1))
    params = f.init(KEY, x)
    before = f.log_prob(params, x).mean()
    np.testing.assert_allclose(before, -math.log(2 * math.pi), rtol=1e-5)
    trained, _ = jflow.fit(
        f, params, x, optax.adam(3e-2), key=KEY, steps=100, progress=False
    )
    # a normal of deviation 0.3 has -0.215
    assert f.log_prob(trained, x).mean() > -0.4


@pytest.mark.parametrize(
    ("circular", "options", "words"),
    [
        ([], {}, "nsf"),
        ([2], {}, "circular"),
        ({0: (1.0, 1.0)}, {}, "interval"),
        ([0], {"bounds": (0.0, 1.0)}, "angles"),
        ([0], {"layers": 0}, "layers"),
    ],
)
def test_unusable_arguments_are_refused(circular, options, words):
    with pytest.raises(ValueError, match=words):
        circular_nsf((2,), circular, **options)


def test_networks_see_a_circle_closed():
    net = jflow.nets.mlp(8, periodic=[WRAP, None], zero_last=False)(3)
    x = jax.random.normal(KEY, (4, 2))
    params = net.init(KEY, x)
    y = net.apply(params, x)
    turned = net.apply(params, x + np.array([2 * math.pi, 0.0]))
    np.testing.assert_allclose(turned, y, atol=1e-5)
    assert not np.allclose(net.apply(params, x + np.array([0.0, 1.0])), y)
    with pytest.raises(ValueError, match="mlp: periodic"):
        jflow.nets.mlp(8, periodic=[None])(3).init(KEY, x)
