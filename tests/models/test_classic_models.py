"""Planar and Sylvester flows as models: normalised, invertible, conditional."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from case import scramble

import jflow
from jflow.models import planar_flow, sylvester_flow

KEY = jax.random.key(0)
MODELS = {
    "planar": lambda: planar_flow((2,), layers=4, hidden=(8,)),
    "sylvester": lambda: sylvester_flow((2,), layers=2, hidden=(8,)),
    "triangular": lambda: sylvester_flow(
        (2,), layers=2, hidden=(8,), kind="triangular"
    ),
}


def _ring(n=256):
    """Correlated, shifted and not Gaussian; the condition says where on the ring."""
    angle, radius = jax.random.normal(KEY, (2, n))
    at = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    return 5.0 + (2.0 + 0.2 * radius[:, None]) * at, angle[:, None]


@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_densities_are_normalised_and_samples_undo_them(name, conditioned):
    f = MODELS[name]()
    x, angle = _ring()
    condition = angle if conditioned else None
    params = f.init(KEY, x, condition)
    z = f.encode(params, x, condition)
    np.testing.assert_allclose(jnp.cov(z.T), np.eye(2), atol=0.2)

    params = scramble(params, jax.random.key(1), 0.1)
    one = None if condition is None else condition[:1]
    line = np.linspace(-10.0, 20.0, 401, dtype=np.float32)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    density = np.exp(f.log_prob(params, grid, one))
    np.testing.assert_allclose(density.sum() * (line[1] - line[0]) ** 2, 1, atol=5e-3)

    samples, log_prob = f.sample_and_log_prob(params, KEY, 32, one)
    np.testing.assert_allclose(
        log_prob, f.log_prob(params, samples, one), rtol=1e-3, atol=1e-3
    )
    if conditioned:
        moved = f.log_prob(params, x, condition + 1)
        assert (moved != f.log_prob(params, x, condition)).all()


def test_training_bends_a_gaussian():
    x, _ = _ring()
    f = sylvester_flow((2,), layers=4)
    params = f.init(KEY, x)
    before = f.log_prob(params, x).mean()
    params, _ = jflow.fit(f, params, x, optax.adam(1e-2), key=KEY, steps=200)
    assert f.log_prob(params, x).mean() > before + 0.3


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="layers"):
        planar_flow((2,), layers=0)
    with pytest.raises(ValueError, match="exceeds"):
        sylvester_flow((2,), size=3)
