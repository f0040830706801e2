"""Fixed maps against SciPy, autodiff and each other, at home and far out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

import jflow
from jflow import scalars

LINE, POSITIVE = (-np.inf, np.inf), (0.0, np.inf)
# the map, its formula, its domain and its range
MAPS = {
    "exp": (jflow.exp(), np.exp, LINE, POSITIVE),
    "log": (jflow.log(), np.log, POSITIVE, LINE),
    "softplus": (jflow.softplus(), lambda x: np.logaddexp(0, x), LINE, POSITIVE),
    "sigmoid": (jflow.sigmoid(), special.expit, LINE, (0.0, 1.0)),
    "tanh": (jflow.tanh(), np.tanh, LINE, (-1.0, 1.0)),
    "arctanh": (jflow.arctanh(), np.arctanh, (-1.0, 1.0), LINE),
    "sinh_arcsinh": (
        jflow.sinh_arcsinh(0.5, 1.4),
        lambda x: np.sinh(1.4 * np.arcsinh(x) - 0.5),
        LINE,
        LINE,
    ),
    "leaky_relu": (
        jflow.leaky_relu(0.01),
        lambda x: 0.01 * x + 0.99 * (x + np.sqrt(1 + x * x) - 1) / 2,
        LINE,
        LINE,
    ),
    "power": (jflow.power(0.3), lambda x: x**0.3, POSITIVE, POSITIVE),
    "power-3": (jflow.power(-3.0), lambda x: x**-3.0, POSITIVE, POSITIVE),
}
FAR = np.array([0, 1e-30, 1, 3, 50, 1e3, 1e6, 1e15, 1e30])
FAR = np.concatenate([-FAR[::-1], FAR])


@functools.cache
def _sweep():
    """Every map's two passes and their gradients at the far points, in one program."""

    def total(apply, x):
        y, log_det = apply((), x)
        finite = jnp.where(jnp.isfinite(log_det), log_det, 0.0)
        return jnp.tanh(y * 1e-6).sum() + finite.sum()

    def one(apply, x):
        grad = jax.grad(functools.partial(total, apply))(x)
        return *apply((), x), grad

    def sweep(x):
        return {
            name: (one(m[0].forward, x), one(m[0].inverse, x))
            for name, m in MAPS.items()
        }

    return jax.jit(sweep)(jnp.asarray(FAR, jnp.float32)[:, None])


@pytest.mark.parametrize("name", MAPS)
def test_far_out_all_is_finite_and_outside_has_no_density(name):
    ends = MAPS[name][2:]
    for (y, log_det, grad), (low, high) in zip(_sweep()[name], ends, strict=True):
        outside = (FAR < low) | (FAR > high)
        assert np.isfinite(y).all() and np.isfinite(grad).all()
        np.testing.assert_array_equal(np.isneginf(log_det), outside)
        assert np.isfinite(log_det[~outside]).all()


@pytest.mark.parametrize("name", MAPS)
def test_values_slopes_and_inverses_are_those_of_the_formula(name):
    b, formula, (low, high), _ = MAPS[name]
    x = np.linspace(max(low, -6.0), min(high, 6.0), 42)[1:-1]
    with jax.enable_x64(True):

        @jax.jit
        def passes(x):
            z, log_det = b.forward((), x)
            return z, log_det, *b.inverse((), z)

        z, log_det, again, back = (np.ravel(a) for a in passes(x[:, None]))
    np.testing.assert_allclose(z, formula(x), rtol=1e-12, atol=1e-14)
    step = 1e-5
    slope = np.abs(formula(x + step) - formula(x - step)) / (2 * step)
    np.testing.assert_allclose(log_det, np.log(slope), atol=1e-4)
    np.testing.assert_allclose(again, x, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(log_det + back, 0, atol=1e-9)
    single_x = x.astype(np.float32)[:, None]
    with jax.enable_x64(True):
        exact = [np.ravel(a) for a in passes(single_x.astype(np.float64))[:2]]
    for got, want in zip(passes(single_x)[:2], exact, strict=True):
        np.testing.assert_allclose(np.ravel(got), want, rtol=2e-6, atol=1e-6)


def test_rounded_results_on_an_edge_go_back():
    for b, z in ((jflow.tanh(), 20.0), (jflow.sigmoid(), 40.0), (jflow.exp(), -200.0)):
        x, _ = b.forward((), jnp.full((1, 1), z))
        again, log_det = b.inverse((), x)
        assert np.isfinite(again).all() and np.isfinite(log_det).all()
        assert abs(again.item()) > 8


def test_sinh_arcsinh_is_jones_and_peweys_distribution():
    skew, tail = 0.7, 0.6
    f = jflow.flow(jflow.sinh_arcsinh(skew, tail), jflow.normal((1,)))
    params = f.init(jax.random.key(0), jnp.ones((2, 1)))

    def quantile(z):
        return np.sinh((np.arcsinh(z) + skew) / tail)

    edges = np.linspace(-3, 3, 400)
    x = quantile(edges)
    density = np.exp(f.log_prob(params, jnp.float32(x)[:, None]))
    mass = integrate.cumulative_trapezoid(density, x, initial=0)
    expected = stats.norm.cdf(edges) - stats.norm.cdf(-3)
    np.testing.assert_allclose(mass, expected, atol=1e-3)
    assert quantile(0.0) > 1 and quantile(2.0) > -2 * quantile(-2.0)  # to the right


def test_the_learned_sinh_arcsinh_holds_for_wild_parameters():
    scalar = scalars.sinh_arcsinh()
    raw = 10 * jax.random.normal(jax.random.key(0), (200, 1, 2))
    x = jnp.concatenate([jnp.asarray(FAR, jnp.float32), jnp.linspace(-9, 9, 41)])
    x = jnp.broadcast_to(jnp.sort(x), (200, x.size))

    def total(apply, raw, x):
        y, log_derivative = apply(raw, x)
        return jnp.tanh(y * 1e-6).sum() + log_derivative.sum()

    @jax.jit
    def sweep(raw, x):
        y, there = scalar.forward(raw, x)
        grads = [
            jax.grad(functools.partial(total, apply), argnums=(0, 1))(raw, x)
            for apply in (scalar.forward, scalar.inverse)
        ]
        return y, there, *scalar.inverse(raw, y), grads

    out = sweep(raw, x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out))
    y, there, again = out[:3]
    assert (np.diff(y, axis=1) >= 0).all()
    error = np.abs(again - x) * np.minimum(np.exp(there), 1.0)
    assert (error <= 1e-5 * (1 + np.abs(x) + np.abs(y))).all()


def test_the_learned_sinh_arcsinh_is_smooth_to_its_straight_ends():
    scalar = scalars.sinh_arcsinh()
    with jax.enable_x64(True):
        raw = jnp.array([1.0, 0.5])
        x = jnp.geomspace(1e2, 1e8, 4001)
        slope = jax.jit(jax.vmap(jax.grad(lambda x: scalar.forward(raw, x)[0])))(x)
        y, log_derivative = scalar.forward(raw, x)
    np.testing.assert_allclose(np.log(slope), log_derivative, atol=1e-9)
    assert np.abs(np.diff(log_derivative)).max() < 0.01
    assert (np.diff(log_derivative)[-100:] == 0).all() and (np.diff(y) > 0).all()


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: jflow.power(0.0), "exponent"),
        (lambda: jflow.power(np.nan), "exponent"),
        (lambda: jflow.leaky_relu(0.0), "slope"),
        (lambda: jflow.sinh_arcsinh(skew=9.0), "skew"),
        (lambda: jflow.sinh_arcsinh(tail=0.0), "tail"),
    ],
)
def test_unusable_numbers_are_refused(build, match):
    with pytest.raises(ValueError, match=match):
        build()
