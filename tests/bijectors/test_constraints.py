"""Simplex, ordered vectors, covariances, correlations against SciPy and quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jflow

normal = jax.random.normal


def _log_prob(bijector, size, x):
    """The density of x behind a standard normal."""
    f = jflow.flow(bijector, jflow.normal((size,)))
    return np.asarray(f.log_prob(f.init(jax.random.key(0), x[:2]), x))


def _mass(bijector, size, x, cell):
    return np.exp(_log_prob(bijector, size, jnp.asarray(x, jnp.float32))).sum() * cell


@pytest.mark.parametrize("free", [1, 2])
def test_densities_on_a_simplex_integrate_to_one(free):
    n = 4000 if free == 1 else 400
    points = (np.indices((n,) * free).reshape(free, -1).T + 0.5) / n
    points = points[points.sum(axis=1) < 1 - 1e-6]
    x = np.append(points, 1 - points.sum(axis=1, keepdims=True), axis=1)
    mass = _mass(jflow.simplex(), free, x, n**-free)
    # half a cell is cut off along the slanted edge, where the density is 0
    assert abs(mass - 1) < 1e-3


def test_stick_breaking_makes_a_dirichlet_of_its_beta_shares():
    """Independent Beta(1, K - k) shares make a uniform Dirichlet."""
    z = 2 * normal(jax.random.key(0), (50, 3))
    _, log_det = jax.jit(jflow.simplex().inverse)((), z)
    left = np.arange(3, 0, -1)
    share = np.asarray(jax.nn.sigmoid(z - np.log(left)))
    log_p = stats.beta.logpdf(share, 1, left) + np.log(share) + np.log1p(-share)
    np.testing.assert_allclose(log_p.sum(axis=1) - log_det, np.log(6), atol=1e-4)


def test_zero_is_the_uniform_point_and_far_out_is_a_point():
    b = jflow.simplex()
    np.testing.assert_allclose(b.inverse((), jnp.zeros((1, 6)))[0], 1 / 7, rtol=1e-6)
    far = jnp.array([1e30, -1e30, 100.0, -100.0])
    x, log_det = b.inverse((), jnp.broadcast_to(far[:, None], (4, 6)))
    z, back = b.forward((), x)
    assert (x >= 0).all() and np.allclose(x.sum(axis=1), 1, atol=1e-6)
    assert all(np.isfinite(a).all() for a in (log_det, z, back))


def test_ordered_is_its_steps_and_integrates_to_one():
    x = normal(jax.random.key(0), (5, 2, 4)).cumsum(axis=-1) ** 2
    x = x.sort(axis=-1)
    z, log_det = jflow.ordered().forward((), x)
    steps = np.log(np.diff(x, axis=-1))
    np.testing.assert_allclose(z, np.append(x[..., :1], steps, axis=-1), rtol=1e-5)
    np.testing.assert_allclose(log_det, -steps.sum(axis=(1, 2)), rtol=1e-5)
    first = np.linspace(-6, 6, 241)
    step = np.linspace(-7, 5, 241)  # logarithms of the steps: cells shrink with them
    low, log_step = (a.ravel() for a in np.meshgrid(first, step))
    x = jnp.asarray(np.stack([low, low + np.exp(log_step)], axis=1), jnp.float32)
    density = np.exp(_log_prob(jflow.ordered(), 2, x) + log_step)
    assert abs(density.sum() * 0.05**2 - 1) < 1e-3


def test_far_steps_do_not_overflow():
    x, log_det = jflow.ordered().inverse((), jnp.array([[1e30, 1e30, 1e30, -1e30]]))
    assert np.isfinite(x).all() and np.isfinite(log_det).all()
    z, log_det = jflow.ordered().forward((), x)
    assert np.isfinite(z).all() and np.isfinite(log_det).all()  # ties are neighbours


def test_a_wishart_density_passes_through_either_matrix():
    """p(A) = p(L) / |dA/dL| = p(z) |dz/dA|: SciPy's density in three coordinates."""
    n, scale = 3, np.diag([1.0, 2.0, 0.5])
    law = stats.wishart(7, scale)
    a = law.rvs(20, random_state=0)
    with jax.enable_x64(True):
        z, log_det = jax.jit(jflow.positive_definite().forward)((), jnp.asarray(a))
        lower, there = jax.jit(jflow.positive_definite_cholesky().inverse)((), z)
        lower, total = np.asarray(lower), np.asarray(there + log_det)
    np.testing.assert_allclose(lower, np.linalg.cholesky(a), rtol=1e-9, atol=1e-12)
    # Bartlett: the factor of A / scale has chi diagonals and normal entries
    inner = np.linalg.inv(np.sqrt(scale)) @ lower
    i = np.arange(n)
    log_p = stats.chi.logpdf(inner[:, i, i], 7 - i).sum(axis=1)
    log_p += stats.norm.logpdf(inner[:, *np.tril_indices(n, -1)]).sum(axis=1)
    log_p -= ((i + 1) * np.log(np.diag(scale))).sum() / 2
    expected = law.logpdf(np.moveaxis(a, 0, -1))
    np.testing.assert_allclose(log_p + total, expected, atol=1e-8)


def test_correlations_are_partial_ones_and_integrate_to_one():
    r = np.linspace(-1, 1, 4001)[1:-1]
    x = np.stack([np.ones_like(r), r, r, np.ones_like(r)], axis=1).reshape(-1, 2, 2)
    np.testing.assert_allclose(
        jflow.correlation().forward((), jnp.float32(x[1000:3000]))[0][:, 0],
        np.arctanh(r[1000:3000]),
        atol=1e-5,
    )
    assert abs(_mass(jflow.correlation(), 1, x, r[1] - r[0]) - 1) < 1e-3
    z = normal(jax.random.key(1), (9, 6))
    lower, _ = jax.jit(jflow.correlation_cholesky().inverse)((), z)
    full, _ = jax.jit(jflow.correlation().inverse)((), z)
    np.testing.assert_allclose((lower**2).sum(axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.cholesky(full), lower, atol=1e-5)
    # that of the last two given those before, by the inverse correlation matrix
    precision = np.linalg.inv(np.float64(full))
    partial = -precision[:, 3, 2] / np.sqrt(precision[:, 3, 3] * precision[:, 2, 2])
    np.testing.assert_allclose(np.tanh(z[:, 5]), partial, atol=1e-4)


def test_correlations_of_a_singular_matrix_stay_finite():
    b = jflow.correlation_cholesky()
    far = jnp.array([1e30, -1e30, 30.0])
    lower, log_det = b.inverse((), jnp.broadcast_to(far[:, None], (3, 3)))
    z, back = b.forward((), lower)
    assert all(np.isfinite(a).all() for a in (lower, log_det, z, back))


E22 = np.eye(2)
OUTSIDE = [
    (jflow.simplex(), [0.6, 0.6, -0.2]),
    (jflow.simplex(), [0.3, 0.3, 0.3]),
    (jflow.simplex(), [1e30, -1e30, 1.0]),
    (jflow.ordered(), [1.0, 3.0, 2.0]),
    (jflow.ordered(), [1e30, 0.0, -1e30]),
    (jflow.positive_definite_cholesky(), [[1.0, 0.0], [1.0, -1.0]]),
    (jflow.positive_definite_cholesky(), [[1.0, 0.5], [1.0, 1.0]]),
    (jflow.positive_definite(), [[1.0, 2.0], [2.0, 1.0]]),
    (jflow.positive_definite(), [[1.0, 0.5], [0.1, 1.0]]),
    (jflow.positive_definite(), -1e30 * E22),
    (jflow.correlation_cholesky(), 2 * E22),
    (jflow.correlation_cholesky(), [[1.0, 0.0], [0.6, -0.8]]),
    (jflow.correlation(), 2 * E22),
    (jflow.correlation(), [[1.0, 1.5], [1.5, 1.0]]),
    (jflow.correlation(), np.full((2, 2), np.nan)),
]


def test_outside_nothing_has_a_density_and_gradients_are_finite():
    def sweep(points):
        def total(x, b):
            z, log_det = b.forward((), x)
            finite = jnp.where(jnp.isfinite(log_det), log_det, 0.0)
            return z.sum() + finite.sum(), (z, log_det)

        return [
            jax.grad(total, has_aux=True)(x, b)
            for x, (b, _) in zip(points, OUTSIDE, strict=True)
        ]

    points = [jnp.asarray(x, jnp.float32)[None] for _, x in OUTSIDE]
    for grad, (z, log_det) in jax.jit(sweep)(points):
        assert np.isneginf(log_det).all()
        assert np.isfinite(z).all() and np.isfinite(grad).all()


def test_a_point_on_the_edge_has_a_density_with_a_gradient():
    for b, size, x in (
        (jflow.simplex(), 3, [1.0, 0.0, 0.0, 0.0]),
        (jflow.ordered(), 3, [1.0, 1.0, 1.0]),
        (jflow.correlation_cholesky(), 1, [[1.0, 0.0], [1.0, 0.0]]),
        (jflow.positive_definite_cholesky(), 3, np.zeros((2, 2))),
    ):
        x = jnp.asarray(x, jnp.float32)[None]
        f = jflow.flow(b, jflow.normal((size,)))
        params = f.init(jax.random.key(0), x)
        log_p, grad = jax.value_and_grad(lambda x: f.log_prob(params, x).sum())(x)  # noqa: B023
        assert np.isfinite(log_p) and np.isfinite(grad).all()


def test_points_rounded_to_float32_are_points_in_float64():
    x = np.float32(np.random.default_rng(0).dirichlet(np.ones(50), 20))
    with jax.enable_x64(True):
        _, log_det = jflow.simplex().forward((), jnp.asarray(np.float64(x)))
    assert np.isfinite(log_det).all()


def test_a_vector_model_works_behind_a_simplex():
    x = jax.random.dirichlet(jax.random.key(0), jnp.array([2.0, 3.0, 4.0]), (64,))
    condition = x[:, :1] ** 2
    inner = jflow.models.nsf((2,), layers=1, hidden=(8,), bins=3).bijector
    f = jflow.flow(jflow.chain(jflow.simplex(), inner), jflow.normal((2,)))
    params = f.init(jax.random.key(1), x, condition)
    drawn, log_p = f.sample_and_log_prob(params, jax.random.key(2), 64, condition)
    assert drawn.shape == (64, 3) and (drawn >= 0).all()
    np.testing.assert_allclose(drawn.sum(axis=1), 1, atol=1e-6)
    again = f.log_prob(params, drawn, condition)
    np.testing.assert_allclose(log_p, again, atol=1e-3)


def test_matrices_and_points_in_further_axes():
    z = normal(jax.random.key(0), (4, 2, 6))
    for b, event in (
        (jflow.simplex(), (2, 7)),
        (jflow.positive_definite(), (2, 3, 3)),
        (jflow.correlation(), (2, 4, 4)),
    ):
        x, log_det = jax.jit(b.inverse)((), z)
        assert x.shape == (4, *event) and log_det.shape == (4,)
        _, apart = jax.jit(b.inverse)((), z.reshape(8, 6))
        np.testing.assert_allclose(log_det, apart.reshape(4, 2).sum(axis=1), rtol=1e-5)
        again, back = jax.jit(b.forward)((), x)
        np.testing.assert_allclose(again, z, atol=2e-3)
        np.testing.assert_allclose(back, -log_det, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("build", "event"),
    [
        (jflow.simplex, (1,)),
        (jflow.positive_definite, (2, 3)),
        (jflow.correlation, (1, 1)),
        (jflow.correlation_cholesky, (4,)),
        (jflow.positive_definite_cholesky, (9,)),
    ],
)
def test_events_that_do_not_fit_are_refused(build, event):
    with pytest.raises(ValueError, match=r"simplex|positive_definite|correlation"):
        build().init(jax.random.key(0), jnp.ones((2, *event)))
    if event == (4,):
        with pytest.raises(ValueError, match="triangle"):
            build().inverse((), jnp.ones((2, *event)))
