"""What every model over vectors must satisfy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from case import scramble

import jflow

KEY = jax.random.key(0)


def check_density_between_bounds(build, points=401, scale=0.2):
    """With a condition: normalised by quadrature, undone, reached by the condition."""
    lower, upper = np.array([-1.0, 2.0]), np.array([1.0, np.inf])
    f = build(bounds=(lower, upper))
    u = jax.random.uniform(KEY, (64, 2), minval=0.1, maxval=0.9)
    x = u * np.array([2.0, 3.0]) + lower
    c = 10.0 + jax.random.normal(jax.random.key(1), (64, 3))
    params = scramble(f.init(KEY, x, c), jax.random.key(2), scale)
    # x = tanh(u) and x = 2 + exp(u): dense where the bounds are near
    u = np.linspace(-7.0, 7.0, points)
    side = [np.tanh(u), 2.0 + np.exp(u)]
    grid = np.stack(np.meshgrid(*side, indexing="ij"), axis=-1).reshape(-1, 2)
    condition = jnp.broadcast_to(c[:1], (len(grid), 3))
    density = np.exp(f.log_prob(params, jnp.asarray(grid, jnp.float32), condition))
    volume = (1 - side[0] ** 2)[:, None] * np.exp(u)
    total = (density.reshape(points, points) * volume).sum() * (u[1] - u[0]) ** 2
    assert abs(total - 1) < 5e-3

    samples, log_prob = f.sample_and_log_prob(params, KEY, 64, c)
    assert (samples >= lower).all() and (samples <= upper).all()
    # Near a bound float32 has few numbers left.
    clear = ((samples > lower + 1e-2) & (samples < upper - 1e-2)).all(axis=1)
    found = f.log_prob(params, samples, c)
    np.testing.assert_allclose(found[clear], log_prob[clear], rtol=1e-3, atol=1e-2)
    z = f.encode(params, x, c)
    np.testing.assert_allclose(f.decode(params, z, c), x, atol=1e-4)
    moved = f.encode(params, x, c + 1.0) != z
    assert moved.any(axis=0).all(), "a latent coordinate ignores the condition"


def check_one_dimension_and_training(build):
    f = build(d=1)
    c = jax.random.normal(KEY, (256, 1))
    x = 5.0 + c + 0.1 * jax.random.normal(jax.random.key(1), (256, 1))
    params = f.init(KEY, x, c)
    before = f.log_prob(params, x, c).mean()
    trained, history = jflow.fit(
        f, params, x, optax.adam(1e-2), condition=c, key=KEY, steps=60, progress=False
    )
    assert f.log_prob(trained, x, c).mean() > before + 0.3
    assert np.isfinite(history["loss"]).all()
