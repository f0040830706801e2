"""Scalars inverted numerically, against quadrature, scipy and closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P
from scipy import special, stats

import jflow
from jflow import scalars
from jflow.scalars.distributions import NORMAL
from jflow.scalars.solve import numerical_inverse

FAMILIES = {
    "mixture_cdf": scalars.mixture_cdf(3),
    "mixture_cdf-normal": scalars.mixture_cdf(3, "normal"),
    "gaussianization": scalars.gaussianization(3),
    "deep_sigmoidal": scalars.deep_sigmoidal(4, layers=2),
    "unconstrained_monotone": scalars.unconstrained_monotone(5),
    "sum_of_squares": scalars.sum_of_squares(3),
    "bernstein": scalars.bernstein(8),
}
families = pytest.mark.parametrize("name", FAMILIES)
ROWS = 12


def _raw(scalar, deviation, dtype=None):
    """A row of raw parameters for each of ROWS maps, the first at zero."""
    draw = jax.random.normal(jax.random.key(1), (ROWS, 1, scalar.size), dtype)
    return deviation * draw.at[0].set(0.0)


@functools.cache
def _sweep(name):
    """Both passes and all four gradients of a family, compiled once per dtype."""
    scalar = FAMILIES[name]

    def total(apply, raw, x):
        y, log_derivative = apply(raw, x)
        return jnp.tanh(y * 1e-6).sum() + log_derivative.sum()

    def sweep(raw, x):
        y, there = scalar.forward(raw, x)
        back = scalar.inverse(raw, y)
        grads = [
            jax.grad(functools.partial(total, apply), argnums=(0, 1))(raw, x)
            for apply in (scalar.forward, scalar.inverse)
        ]
        return y, there, *back, grads

    return jax.jit(sweep)


@families
def test_everything_is_finite_for_wild_parameters_and_far_inputs(name):
    far = jnp.array([1e2, 1e4, 1e10, 1e30])
    x = jnp.concatenate([-far[::-1], jnp.linspace(-8.0, 8.0, 33), far])
    x = jnp.broadcast_to(x, (ROWS, x.size))
    for deviation in (1.0, 10.0):
        raw = _raw(FAMILIES[name], deviation)
        y, log_derivative, again, back, grads = _sweep(name)(raw, x)
        for leaf in jax.tree.leaves((y, log_derivative, again, back, grads)):
            assert np.isfinite(leaf).all(), deviation
        steps = np.diff(y, axis=1)
        # Between modes far apart a mixture's slope is below float32's resolution.
        assert (steps > 0).all() if deviation == 1.0 else (steps >= 0).all()
        assert (y[:, -1] > 1e24).all() and (y[:, 0] < -1e24).all()  # onto the line
        error = np.abs(again - x) * np.minimum(np.exp(log_derivative), 1.0)
        bound = 1e-6 if deviation == 1.0 else 1e-5
        assert (error <= bound * (np.abs(x) + np.abs(y) + 1.0)).all()


@families
def test_derivatives_round_trip_and_mass_in_float64(name):
    """The base pulled back through the map is a density: its integral is 1."""
    scalar = FAMILIES[name]
    with jax.enable_x64(True):
        raw = _raw(scalar, 0.5, jnp.float64)
        grid = jnp.linspace(-1.0, 1.0, 1001)
        x = jnp.broadcast_to(60.0 * grid**3, (ROWS, grid.size))

        @jax.jit
        def passes(raw, x):
            y, slope = jax.jvp(lambda x: scalar.forward(raw, x)[0], (x,), (x * 0 + 1,))
            return y, slope, scalar.forward(raw, x)[1], *scalar.inverse(raw, y)

        y, slope, log_derivative, again, back = map(np.asarray, passes(raw, x))
    inner = np.abs(x) < 8
    np.testing.assert_allclose(np.log(slope)[inner], log_derivative[inner], atol=1e-11)
    np.testing.assert_allclose(again[inner], x[inner], atol=1e-10)
    np.testing.assert_allclose(back[inner], -log_derivative[inner], atol=1e-10)
    base = stats.norm if name.startswith("gauss") else stats.logistic
    density = np.exp(base.logpdf(y) + log_derivative)
    missing = base.cdf(y[:, 0]) + base.sf(y[:, -1])  # outside of the grid
    mass = np.trapezoid(density, x, axis=1)
    np.testing.assert_allclose(mass + missing, 1, atol=1e-3)


@pytest.mark.parametrize("kind", ["logistic", "normal"])
def test_mixtures_are_scipys(kind):
    logits, means, scales = np.array([[0.3, -1.0], [0.5, -0.7], [0.2, -1.1]])
    gain = np.array([0.75, 1.25])
    law = stats.norm if kind == "normal" else stats.logistic
    scale = np.exp(
        scales * gain[::-1] / (1 + np.abs(scales * gain[::-1]) / np.log(1e3))
    )
    x = np.linspace(-4.0, 4.0, 9)
    u = (x[:, None] - means * gain) / scale
    weights = special.softmax(logits)
    cdf = (weights * law.cdf(u)).sum(-1)
    pdf = (weights * law.pdf(u) / scale).sum(-1)
    with jax.enable_x64(True):
        raw = jnp.concatenate([jnp.asarray(a) for a in (logits, means, scales)])
        y, there = scalars.gaussianization(2, kind).forward(raw, jnp.asarray(x))
        z = stats.norm.ppf(cdf)
        np.testing.assert_allclose(y, z, atol=1e-11)
        np.testing.assert_allclose(
            there, np.log(pdf) - stats.norm.logpdf(z), atol=1e-11
        )
        raw = jnp.concatenate([raw, jnp.array([0.4, 0.0])])
        y, there = scalars.mixture_cdf(2, kind).forward(raw, jnp.asarray(x))
        np.testing.assert_allclose(y, special.logit(cdf) + 0.4, atol=1e-11)
        there_expected = np.log(pdf) - np.log(cdf) - np.log1p(-cdf)
        np.testing.assert_allclose(there, there_expected, atol=1e-11)


def test_the_normals_tails_are_scipys_to_the_last_digits():
    u = np.linspace(-12.0, 60.0, 400)
    with jax.enable_x64(True):
        mass = NORMAL.log_survival(jnp.asarray(u))
        hazard = NORMAL.log_hazard(jnp.asarray(u))
        there = jnp.asarray(np.linspace(0.0, 90.0, 301))
        again = NORMAL.upper_quantile(NORMAL.log_survival(there))
        second = jax.vmap(jax.grad(jax.grad(NORMAL.log_survival)))(jnp.asarray(u))
    np.testing.assert_allclose(mass, special.log_ndtr(-u), rtol=1e-13)
    expected = stats.norm.logpdf(u) - special.log_ndtr(-u)
    np.testing.assert_allclose(hazard, expected, atol=1e-12)
    np.testing.assert_allclose(again, there, atol=1e-13, rtol=1e-13)
    h = np.exp(expected)
    np.testing.assert_allclose(second, -h * (h - u), atol=1e-9)


def test_sums_of_squares_are_their_polynomial():
    scalar = scalars.sum_of_squares(2, terms=1, bound=3.0)
    raw = np.array([0.7, 0.2, -0.4, 0.9])
    p = np.polynomial.Polynomial([np.sqrt(0.999) + 0.2, -0.4 / 3, 0.9 / 9])
    q = p**2 + 1e-3
    x = np.linspace(-2.9, 2.9, 13)
    with jax.enable_x64(True):
        y, log_derivative = scalar.forward(jnp.asarray(raw), jnp.asarray(x))
        np.testing.assert_allclose(y, 0.7 + q.integ()(x), atol=1e-13)
        np.testing.assert_allclose(log_derivative, np.log(q(x)), atol=1e-13)


def test_bernstein_is_scipys_with_tangents_outside():
    from scipy.interpolate import BPoly

    scalar = scalars.bernstein(4, bound=2.0)
    raw = np.array([0.3, 0.5, -1.0, 2.0, 0.1])
    steps = np.logaddexp(0, raw[1:] + np.log(np.expm1(0.999))) + 1e-3
    theta = -2.0 + 0.3 + np.concatenate([[0.0], np.cumsum(steps)])
    curve = BPoly(theta[:, None], [-2.0, 2.0])
    x = np.array([-7.0, -2.0, -1.3, 0.0, 0.4, 1.9, 2.0, 30.0])
    e = np.clip(x, -2.0, 2.0)
    slope = curve.derivative()(e)
    with jax.enable_x64(True):
        y, log_derivative = scalar.forward(jnp.asarray(raw), jnp.asarray(x))
    np.testing.assert_allclose(y, curve(e) + slope * (x - e), atol=1e-12)
    np.testing.assert_allclose(log_derivative, np.log(slope), atol=1e-12)


# --- the solver -----------------------------------------------------------------------


def _cubic(raw, x):
    """`x^3 + a x`: its inverse is known, and flat at 0 for small a."""
    a = raw[..., 0]
    return x**3 + a * x, jnp.log(3 * x**2 + a)


def _cubic_inverse(a, y):
    """Cardano, for a > 0."""
    root = 2 * np.sqrt(a / 3)
    return root * np.sinh(np.arcsinh(3 * y / (a * root)) / 3)


def test_the_solver_is_cardanos_formula_with_its_gradients_in_both_modes():
    inverse = numerical_inverse(_cubic)
    y = np.concatenate([-np.logspace(-6, 9, 16), [0.0], np.logspace(-6, 9, 16)])
    for a in (1e-4, 1.0, 50.0):
        with jax.enable_x64(True):

            def solve(a, y):
                return inverse(a[None], y)[0]

            args = jnp.asarray(a), jnp.asarray(y)
            x = np.asarray(jax.jit(solve)(*args))
            per_y = jax.jit(jax.vmap(jax.grad(solve, argnums=(0, 1)), (None, 0)))(*args)
            forward = jax.jit(jax.jacfwd(solve))(*args)
            second = jax.jit(jax.vmap(jax.grad(jax.grad(solve, 1), 1), (None, 0)))(
                *args
            )
        np.testing.assert_allclose(x, _cubic_inverse(a, y), rtol=1e-10, atol=1e-14)
        slope = 3 * x**2 + a
        np.testing.assert_allclose(per_y[1], 1 / slope, rtol=1e-10)
        np.testing.assert_allclose(per_y[0], -x / slope, rtol=1e-10)
        np.testing.assert_allclose(forward, -x / slope, rtol=1e-10)
        np.testing.assert_allclose(second, -6 * x / slope**3, rtol=1e-9)


def test_the_solver_ignores_a_bracket_that_is_wrong_and_passes_nan_on():
    def wrong(raw, y):
        return y + 100.0, y + 101.0

    raw, y = jnp.ones(1), jnp.array([-30.0, 0.0, 2.0, jnp.nan])
    x, _ = jax.jit(numerical_inverse(_cubic, wrong))(raw, y)
    np.testing.assert_allclose(x[:3], _cubic_inverse(1.0, y[:3]), rtol=1e-6, atol=1e-7)
    assert np.isnan(x[3])


def test_the_solver_works_under_shard_map_and_scan():
    inverse = numerical_inverse(_cubic)
    y = jnp.linspace(-4.0, 9.0, 8)
    expected = _cubic_inverse(2.0, y)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def solve(raw, y):
        x, _ = inverse(raw, y)
        return x, jax.grad(lambda y: inverse(raw, y)[1].sum())(y)

    sharded = jax.shard_map(
        solve, mesh=mesh, in_specs=(P(), P("data")), out_specs=(P("data"), P("data"))
    )
    raw = jnp.full(1, 2.0)
    x, gradient = jax.jit(sharded)(raw, y)
    np.testing.assert_allclose(x, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, -6 * x / (3 * x**2 + 2) ** 2, rtol=1e-4)
    scanned = jax.jit(lambda r: jax.lax.scan(lambda _, y: (_, inverse(r, y)[0]), 0, y))
    np.testing.assert_allclose(scanned(raw)[1], expected, rtol=1e-5)


# --- learning -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "law", [scalars.mixture_cdf(4), scalars.deep_sigmoidal(4)], ids=["mixture", "dsf"]
)
def test_equal_components_part_when_they_learn(law):
    """From the identity to two modes, which no two equal components can express."""
    b = jflow.elementwise(law)
    quantiles = stats.norm.ppf((np.arange(256) + 0.5) / 256)
    x = jnp.asarray(np.concatenate([quantiles * 0.5 - 2, quantiles * 0.5 + 2])[:, None])
    x = x.astype(jnp.float32)
    base = jflow.logistic((1,))
    optimizer = optax.adam(0.05)

    def loss(params):
        z, log_det = b.forward(params, x)
        return -(base.log_prob((), z) + log_det).mean()

    def step(state, _):
        params, moments = state
        value, grads = jax.value_and_grad(loss)(params)
        updates, moments = optimizer.update(grads, moments)
        return (optax.apply_updates(params, updates), moments), value

    params = b.init(jax.random.key(0), x)
    state = params, optimizer.init(params)
    _, losses = jax.jit(lambda s: jax.lax.scan(step, s, length=400))(state)
    two = np.logaddexp(*(stats.norm.logpdf(x, m, 0.5) for m in (-2, 2))) - np.log(2)
    assert losses[-1] < -two.mean() + 0.03


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: scalars.mixture_cdf(0), "components must be a positive integer"),
        (lambda: scalars.mixture_cdf(2, "cauchy"), "kind must be one of"),
        (lambda: scalars.gaussianization(2.5), "components must be a positive"),
        (lambda: scalars.deep_sigmoidal(2, layers=4), "layers must be at most 3"),
        (lambda: scalars.unconstrained_monotone(2, 8), "nodes must be at least 16"),
        (lambda: scalars.sum_of_squares(2, bound=0.0), "bound must be positive"),
        (lambda: scalars.bernstein(61), "degree must be at most 60"),
        (lambda: scalars.bernstein(True), "degree must be a positive integer"),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
