"""Rational quadratic splines: published values, smoothness, extremes, densities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jflow.scalars import rational_quadratic_spline as spline

KEY = jax.random.key(0)

# x: y, log-derivative, the inverse of x and its log-derivative, by another
# implementation in double precision for the closed-form parameters below
REFERENCE = {
    0.05: (
        0.04854084650214078,
        0.12688934879851044,
        0.05128089101811163,
        -0.13368999578685017,
    ),
    0.20: (
        0.24971108863467006,
        0.2299763430467196,
        0.16267477470526992,
        -0.3294672916732867,
    ),
    0.35: (
        0.3825703150253313,
        -0.4594030799057909,
        0.3021728314100048,
        0.29826403578318333,
    ),
    0.65: (
        0.5893103922392955,
        0.12527686606052563,
        0.7001286841963714,
        -0.16317214306810712,
    ),
    0.95: (
        0.9674925434760131,
        -0.5170304169028725,
        0.925153289980863,
        0.1324426789584489,
    ),
}


def test_values_are_those_of_another_implementation():
    with jax.enable_x64(True):
        k = np.arange(6.0)
        # there the derivatives are 0.001 + softplus(raw), here zero is derivative 1
        derivatives = np.sin(0.5 * k + 0.2) - np.log(np.expm1(1 - 1e-3))
        raw = [np.sin(1.3 * k[:5] + 0.4), np.sin(0.7 * k[:5] + 1.1), derivatives]
        raw = jnp.asarray(np.concatenate(raw))
        law = spline(5, (0.0, 1.0), ends="box", parametrisation="softmax")
        both = jax.jit(lambda x: (*law.forward(raw, x), *law.inverse(raw, x)))
        for x, expected in REFERENCE.items():
            found = both(jnp.asarray(x))
            np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("ends", ["linear", "box", "circular"])
@pytest.mark.parametrize("parametrisation", ["soft_clip", "softmax"])
def test_slopes_are_continuous_and_the_ends_meet(ends, parametrisation):
    with jax.enable_x64(True):
        law = spline(6, 2.0, ends=ends, parametrisation=parametrisation)
        raw = jax.random.normal(KEY, (law.size,), jnp.float64)
        edge = 1.999999 if ends == "box" else 2.5
        x = jnp.linspace(-edge, edge, 400_001)
        forward = jax.jit(law.forward)
        y, log_derivative = forward(raw, x)
        # whole turns aside, for the circular one
        steps = np.mod(np.diff(y) + 2.0, 4.0) - 2.0
        middle = np.exp((log_derivative[1:] + log_derivative[:-1]) / 2)
        np.testing.assert_allclose(steps / np.diff(x), middle, rtol=2e-4)
        assert np.abs(np.diff(log_derivative)).max() < 2e-3
        if ends == "circular":
            first, last = (forward(raw, jnp.asarray(v)) for v in (-2.0, 2.0))
            np.testing.assert_allclose(first[1], last[1], atol=1e-12)
            again = forward(raw, x + 4.0)[1]
            np.testing.assert_allclose(again, log_derivative, atol=1e-8)
        if ends == "linear":
            outside = np.abs(x) > 2.0
            np.testing.assert_array_equal(y[outside], x[outside])


@pytest.mark.parametrize("ends", ["linear", "box", "circular"])
@pytest.mark.parametrize("parametrisation", ["soft_clip", "softmax"])
def test_nothing_is_ever_nan(ends, parametrisation):
    """Inputs inside, outside, on knots and very far; raw parameters up to 10 wide."""
    law = spline(8, 3.0, ends=ends, parametrisation=parametrisation)

    def both(raw, x):
        return law.forward(raw, x), law.inverse(raw, x)

    def total(raw, x):
        # one output at a time, so that opposite infinities could not hide
        return sum(jnp.abs(v).clip(0, 1e3).sum() for v in jax.tree.leaves(both(raw, x)))

    both, gradient = jax.jit(both), jax.jit(jax.grad(total, (0, 1)))
    n = 2_000
    uniform = jax.random.uniform(jax.random.key(1), (n,), minval=-3.5, maxval=3.5)
    special = jnp.resize(jnp.array([0.0, 3.0, -3.0, 1e30, -1e30, 1e-30]), n)
    for deviation in (0.3, 1.0, 3.0, 10.0):
        raw = deviation * jax.random.normal(KEY, (n, law.size))
        # the places of the knots, found by the spline itself
        knots = -3.0 + 6.0 * jax.nn.softmax(raw[:, :8])[:, 0]
        for x in (uniform, special, knots):
            for leaf in jax.tree.leaves((both(raw, x), gradient(raw, x))):
                assert np.isfinite(leaf).all(), deviation


def test_float32_errors_are_those_of_rounding():
    """Going there and back, in units of the box; 1e5 splines with normal logits."""
    law = spline(8, 3.0)
    raw = jax.random.normal(KEY, (100_000, law.size))
    x = jax.random.uniform(jax.random.key(1), (100_000,), minval=-3.0, maxval=3.0)
    y, _ = jax.jit(law.forward)(raw, x)
    back, _ = jax.jit(law.inverse)(raw, y)
    error = np.abs(back - x) / 6.0
    # the worst of them has a slope of 1/200: what y was rounded by comes back enlarged
    assert error.mean() < 5e-8 and error.max() < 1e-5


@pytest.mark.parametrize("ends", ["linear", "circular"])
def test_densities_integrate_to_one(ends):
    law = spline(6, 3.0, ends=ends)
    raw = 2.0 * jax.random.normal(KEY, (law.size,))
    edge = 3.0 if ends == "circular" else 12.0
    x = jnp.linspace(-edge, edge, 200_001)
    z, log_derivative = jax.jit(law.forward)(raw, x)
    base = -np.log(6.0) if ends == "circular" else jax.scipy.stats.norm.logpdf(z)
    total = np.trapezoid(np.exp(base + log_derivative).astype(np.float64), x)
    assert abs(total - 1) < 1e-3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bins": 0}, "bins"),
        ({"bound": -1.0}, "interval"),
        ({"bound": (1.0, 1.0)}, "interval"),
        ({"ends": "open"}, "ends"),
        ({"parametrisation": "tanh"}, "parametrisation"),
        ({"minimum": 0.2}, "minimum"),
        ({"logit_scale": 0.0}, "logit_scale"),
    ],
)
def test_unusable_arguments_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        spline(**options)
