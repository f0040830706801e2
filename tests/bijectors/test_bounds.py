"""Bounds: nothing leaves them, nothing outside has a density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jflow

LOW, HIGH = np.array([0.0, 2.0, -np.inf, -np.inf]), np.array([1.0, np.inf, 1.0, np.inf])


def test_the_inverse_stays_between_the_bounds():
    b = jflow.bounded(LOW, HIGH)
    for far in (1e30, -1e30, 50.0, -50.0, 0.0):
        x, log_det = b.inverse((), jnp.full((1, 4), far))
        assert (x >= LOW).all() and (x <= HIGH).all() and np.isfinite(log_det).all()


def test_outside_there_is_no_density_and_gradients_are_finite():
    b = jflow.bounded(LOW, HIGH)
    inside = np.array([0.5, 3.0, 0.0, 7.0])
    for i, value in ((0, -1.0), (0, 2.0), (1, 1.0), (2, 5.0), (0, 1e30)):
        x = jnp.asarray(inside).at[i].set(value)[None]
        z, log_det = b.forward((), x)
        assert np.isneginf(log_det).all() and np.isfinite(z).all()

        def total(x):
            z, log_det = b.forward((), x)
            return z.sum() + jnp.where(jnp.isfinite(log_det), log_det, 0).sum()

        assert np.isfinite(jax.grad(total)(x)).all()


def test_a_point_on_a_bound_is_inside():
    b = jflow.bounded(LOW, HIGH)
    z, log_det = b.forward((), jnp.array([[0.0, 2.0, 1.0, 1.0], [1.0, 2.0, 1.0, 1.0]]))
    assert np.isfinite(z).all() and np.isfinite(log_det).all()


def test_a_density_on_a_bound_is_its_neighbours_and_has_a_gradient():
    f = jflow.flow(jflow.bounded(0.0, [2.0, np.inf]), jflow.normal((2,)))
    params = f.init(jax.random.key(0), jnp.ones((2, 2)))

    @jax.jit
    def both(x):
        return jax.value_and_grad(lambda x: f.log_prob(params, x).sum())(x)

    least, below = np.finfo(np.float32).tiny, np.nextafter(np.float32(2), 0)
    for on, next_to in (([0.0, 1.0], [least, 1.0]), ([2.0, 0.0], [below, least])):
        (log_p, grad), (expected, _) = (both(jnp.array([x])) for x in (on, next_to))
        np.testing.assert_allclose(log_p, expected, rtol=1e-6)
        assert np.isfinite(log_p) and np.isfinite(grad).all()


def test_bounds_must_fit_the_event():
    b = jflow.bounded([0.0, 1.0], 2.0)
    for event in ((1,), (3,)):
        with pytest.raises(ValueError, match="do not broadcast"):
            b.init(jax.random.key(0), jnp.ones((4, *event)))


def test_densities_of_bounded_data_integrate_to_one():
    f = jflow.flow(jflow.bounded(-1.0, 3.0), jflow.normal((1,)))
    x = jnp.linspace(-1.5, 3.5, 100_001)[:, None]
    density = np.exp(f.log_prob(f.init(jax.random.key(0), x[30_000:50_000]), x))
    assert abs(np.trapezoid(density, x[:, 0]) - 1) < 1e-3


def test_bounds_that_cross_are_refused():
    with pytest.raises(ValueError, match="below"):
        jflow.bounded(1.0, [2.0, 0.0])
