"""What every model over vectors must satisfy."""

import jax
import numpy as np
import optax
from case import scramble

import jflow

KEY = jax.random.key(0)


def check_density_between_bounds(build, scale=0.2):
    """With a condition: normalised by quadrature, undone, reached by the condition."""
    with jax.enable_x64(True):
        lower, upper = np.array([-1.0, 2.0]), np.array([1.0, np.inf])
        f = build(bounds=(lower, upper))
        rng = np.random.default_rng(0)
        x = rng.uniform(0.1, 0.9, (64, 2)) * np.array([2.0, 3.0]) + lower
        c = 10.0 + rng.normal(size=(64, 3))
        params = scramble(f.init(KEY, x, c), jax.random.key(2), scale)
        # x = tanh(u) and x = 2 + exp(u): dense where the bounds are near
        t = np.linspace(-2.5, 2.5, 401)
        u, weight = 3.0 * np.sinh(t), 3.0 * np.cosh(t) * (t[1] - t[0])
        side = [np.tanh(u), 2.0 + np.exp(u)]
        grid = np.stack(np.meshgrid(*side, indexing="ij"), axis=-1).reshape(-1, 2)
        log_density = f.log_prob(params, grid, c[:1]).reshape(len(u), len(u))
        volume = np.outer(weight * np.cosh(u) ** -2, weight * np.exp(u))
        total = (np.exp(log_density) * volume).sum()
        assert abs(total - 1) < 1e-3

        @jax.jit  # density and latents share one pass
        def ahead(x, c):
            return f.log_prob(params, x, c), f.encode(params, x, c)

        samples, log_prob = f.sample_and_log_prob(params, KEY, 64, c)
        assert (samples > lower).all() and (samples < upper).all()
        found, _ = ahead(samples, c)
        np.testing.assert_allclose(found, log_prob, rtol=1e-6, atol=1e-6)
        _, z = ahead(x, c)
        np.testing.assert_allclose(f.decode(params, z, c), x, atol=1e-9)
        moved = ahead(x, c + 1.0)[1] != z
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
