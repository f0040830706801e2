"""Bases against SciPy, far limits, k-means, and parameters that learn the truth."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats as st

import jflow
from jflow.bases.k_means import k_means

KEY = jax.random.key(0)


def _values(base, params, z, temperature=1.0):
    with jax.enable_x64(True):
        params = {name: jnp.asarray(a, jnp.float64) for name, a in params.items()}
        z = jnp.asarray(z, jnp.float64)[:, None]
        return np.asarray(jax.jit(base.log_prob)(params, z, None, temperature))


Z = np.array([-40.0, -2.5, -1.0, 0.0, 0.3, 1.7, 30.0])


@pytest.mark.parametrize("degrees", [0.3, 1.0, 5.0, 31.9, 32.1, 500.0, 1e7])
def test_student_t_is_scipys(degrees):
    got = _values(jflow.student_t((1,)), {"log_degrees": [np.log(degrees)]}, Z, 0.7)
    expected = st.t.logpdf(Z, degrees, scale=0.7)
    np.testing.assert_allclose(got, expected, rtol=1e-10 if degrees < 1e6 else 1e-7)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 7.0])
def test_generalised_normal_is_scipys_and_its_power_may_be_given(power):
    params = {"log_scale": [0.4], "log_power": [np.log(power)]}
    z = Z / 4
    expected = st.gennorm.logpdf(z, power, scale=0.7 * np.exp(0.4))
    learned = _values(jflow.generalised_normal((1,)), params, z, 0.7)
    del params["log_power"]
    given = _values(jflow.generalised_normal((1,), power), params, z, 0.7)
    np.testing.assert_allclose(learned, expected, rtol=1e-10)
    np.testing.assert_allclose(given, expected, rtol=1e-10)
    base = jflow.generalised_normal((1,), power)
    start = float(base.init(KEY, jnp.zeros((1, 1)))["log_scale"][0])
    assert abs(st.gennorm.var(power, scale=np.exp(start)) - 1) < 1e-5


def test_uniform_and_mixture_are_scipys():
    base = jflow.uniform([-1.0, 0.0], [2.0, 5.0])
    z = jnp.array([[0.0, 1.0], [-1.0, 5.0], [2.1, 1.0], [0.0, -1e30]])
    expected = st.uniform.logpdf(z, [-1, 0], [3, 5]).sum(1)
    np.testing.assert_allclose(base.log_prob((), z), expected, rtol=1e-6)
    params = {"logits": [0.0, 1.0], "mean": [[-1.0], [2.0]], "log_scale": [[0.5], [-1]]}
    weights = np.exp([0, 1]) / np.exp([0, 1]).sum()
    each = st.norm.logpdf(Z[:, None], [-1, 2], 0.7 * np.exp([0.5, -1]))
    got = _values(jflow.mixture_normal((1,), 2), params, Z, 0.7)
    expected = np.logaddexp(*(each + np.log(weights)).T)
    np.testing.assert_allclose(got, expected, rtol=1e-10)


@pytest.mark.parametrize("k", [1e-3, 0.5, 4.0, 90.0, 999.0, 1001.0, 1e6])
def test_von_mises_is_scipys_and_samples_its_law(k):
    base, z = jflow.von_mises((1,)), np.linspace(-3, 9, 13)
    params = {"mean": [0.5], "log_concentration": [np.log(k)]}
    got = _values(base, params, z)
    expected = k * (np.cos(z - 0.5) - 1) - np.log(2 * np.pi * scipy.special.i0e(k))
    np.testing.assert_allclose(got, expected, rtol=1e-9)
    params = {name: jnp.asarray(value) for name, value in params.items()}
    drawn = np.asarray(jax.jit(base.sample, static_argnums=2)(params, KEY, 20_000))
    assert (np.abs(drawn) <= np.pi + 1e-6).all()
    away = (drawn[:, 0] - 0.5 + np.pi) % (2 * np.pi) - np.pi
    assert st.kstest(away, st.vonmises(k).cdf).pvalue > 1e-4


def test_resampled_converges_to_the_truncated_law_of_its_acceptance():
    """A hand-made acceptance: nearly 1 on the right, nearly 0 on the left."""

    class Step:
        def init(self, key, z):
            return {"w": jnp.full((), 6.0)}

        def apply(self, params, z):
            return params["w"] * z

    base = jflow.resampled(jflow.normal((1,)), lambda out: Step(), 3, draws=50_000)
    params = base.init(KEY, jnp.zeros((1, 1)))
    z = np.linspace(-3, 3, 13)
    # By symmetry Z = 1/2 exactly, so a quarter reaches the third draw.
    a = scipy.special.expit(6.0 * z)
    expected = st.norm.logpdf(z) + np.log(0.75 * a / 0.5 + 0.25)
    got = base.log_prob(params, jnp.asarray(z, jnp.float32)[:, None])
    np.testing.assert_allclose(got, expected, atol=0.02)
    drawn = np.asarray(base.sample(params, KEY, 20_000))
    grid = np.linspace(-8, 8, 8001)
    p = st.norm.pdf(grid) * (1.5 * scipy.special.expit(6.0 * grid) + 0.25)
    cdf = np.cumsum(p) * (grid[1] - grid[0])
    distance = st.kstest(drawn[:, 0], lambda x: np.interp(x, grid, cdf)).statistic
    assert distance < 2.23 / np.sqrt(20_000)


@pytest.mark.parametrize(
    "build",
    [
        lambda: jflow.uniform(1.0, 1.0, (2,)),
        lambda: jflow.uniform(0.0, jnp.inf, (2,)),
        lambda: jflow.uniform(0.0, 1.0),
        lambda: jflow.student_t((1,), 0.0),
        lambda: jflow.generalised_normal((1,), -1.0),
        lambda: jflow.mixture_normal((1,), 0),
        lambda: jflow.joint(),
        lambda: jflow.joint(jflow.normal((2, 1)), jflow.normal((1,))),
        lambda: jflow.resampled(jflow.normal((1,)), jflow.nets.mlp(4), 1),
        lambda: jflow.von_mises(()),
    ],
)
def test_bad_arguments_are_refused_when_built(build):
    with pytest.raises(ValueError, match=r"uniform|_t|_normal|joint|resampled|_mises"):
        build()


def test_what_is_no_base_is_refused():
    for build in (jflow.joint, lambda b: jflow.resampled(b, jflow.nets.mlp(4))):
        with pytest.raises(TypeError, match="not a Base"):
            build(jflow.normal)


def test_k_means_finds_separate_clusters_for_any_key():
    truth = jnp.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0]]) + 1e3
    labels = jnp.arange(80) % 4
    points = truth[labels] + 0.5 * jax.random.normal(KEY, (80, 2))
    keys = jax.random.split(KEY, 20)
    run = jax.jit(jax.vmap(lambda key: k_means(key, points, 4)))
    centres, nearest = run(keys)
    np.testing.assert_array_equal(centres, run(keys)[0])
    means = np.stack([points[labels == i].mean(0) for i in range(4)])
    for found, cluster in zip(np.asarray(centres), np.asarray(nearest), strict=True):
        order = cluster[:4]  # the first four points are of clusters 0 to 3
        assert set(order) == {0, 1, 2, 3}
        np.testing.assert_allclose(found[order], means, atol=1e-3)


def test_a_mixture_starts_with_more_components_than_points_and_constant_ones():
    base = jflow.mixture_normal((2,), 5)
    for z in (jnp.ones((1, 2)), jnp.zeros((8, 2))):
        params = base.init(KEY, z)
        assert all(jnp.isfinite(a).all() for a in jax.tree.leaves(params))
        assert len(np.unique(np.asarray(params["mean"])[:, 0])) == 5


def test_a_mixture_tells_components_apart_far_outside():
    base = jflow.mixture_normal((1,), 2)
    params = {
        "logits": jnp.zeros(2),
        "mean": jnp.array([[-1.0], [1.0]]),
        "log_scale": jnp.array([[0.0], [1.0]]),
    }
    gradient = jax.grad(lambda p: base.log_prob(p, jnp.array([[1e30]]))[0])(params)
    assert all(jnp.isfinite(a).all() for a in jax.tree.leaves(gradient))
    np.testing.assert_allclose(gradient["logits"], [-0.5, 0.5], atol=1e-6)


def _fit(base, x, steps, rate=0.05):
    f = jflow.flow(jflow.identity(), base)
    params = f.init(KEY, x)
    trained, _ = jflow.fit(
        f,
        params,
        x,
        optax.adam(rate),
        key=KEY,
        steps=steps,
        batch_size=500,
        progress=False,
    )
    return trained["base"]


def test_fit_learns_the_degrees_of_freedom():
    x = np.random.default_rng(0).standard_t([1.0, 4.0], (4000, 2)).astype(np.float32)
    degrees = np.exp(_fit(jflow.student_t((2,)), x, 150)["log_degrees"])
    np.testing.assert_allclose(degrees, [1.0, 4.0], rtol=0.2)


def test_fit_learns_the_mixture():
    random = np.random.default_rng(0)
    second = random.random((4000, 1)) < 0.25
    x = np.where(
        second, random.normal(2.0, 0.5, (4000, 1)), random.normal(-1.0, 1.0, (4000, 1))
    ).astype(np.float32)
    learned = _fit(jflow.mixture_normal((1,), 2), x, 150, 0.03)
    order = np.argsort(learned["mean"][:, 0])
    weights = np.asarray(jax.nn.softmax(learned["logits"]))[order]
    np.testing.assert_allclose(weights, [0.75, 0.25], atol=0.04)
    np.testing.assert_allclose(learned["mean"][order, 0], [-1.0, 2.0], atol=0.1)
    scale = np.exp(learned["log_scale"][order, 0])
    np.testing.assert_allclose(scale, [1.0, 0.5], rtol=0.15)
