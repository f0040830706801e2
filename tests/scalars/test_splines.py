"""All splines: formulas written out, smoothness, extremes, densities, mixtures."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jflow import scalars
from jflow.scalars import (
    circular_shift,
    linear_rational_spline,
    linear_spline,
    mixed,
    quadratic_spline,
    rational_quadratic_spline,
)

KEY = jax.random.key(0)
FAMILIES = {
    "rational-quadratic-learned": functools.partial(
        rational_quadratic_spline, learned_box=True
    ),
    "linear-rational": linear_rational_spline,
    "linear-rational-circular": functools.partial(
        linear_rational_spline, ends="circular", parametrisation="softmax"
    ),
    "linear-rational-learned": functools.partial(
        linear_rational_spline, learned_box=True
    ),
    "quadratic": quadratic_spline,
    "quadratic-box": functools.partial(
        quadratic_spline, ends="box", parametrisation="softmax"
    ),
    "quadratic-circular": functools.partial(quadratic_spline, ends="circular"),
    "linear": linear_spline,
    "linear-circular": functools.partial(
        linear_spline, ends="circular", parametrisation="softmax"
    ),
}
every = pytest.mark.parametrize("name", FAMILIES)


def _softmax(logits):
    return np.exp(logits) / np.exp(logits).sum()


def _sizes(logits):
    return 1e-3 + (1 - 1e-3 * len(logits)) * _softmax(logits)


def _slopes(raw):
    return 1e-3 + np.log1p(np.expm1(1 - 1e-3) * np.exp(raw))


def test_linear_rational_spline_is_that_of_the_paper():
    """Algorithm 1 of the paper, with its weights, for one point after the other."""
    with jax.enable_x64(True):
        k = np.arange(5.0)
        raw = [np.sin(1.3 * k + 0.4), np.sin(0.7 * k + 1.1), np.sin(k)]
        raw.append(np.sin(0.5 * np.arange(6.0) + 0.2))
        law = linear_rational_spline(
            5, (0.0, 1.0), ends="box", parametrisation="softmax"
        )
        x = np.array([0.003, 0.2, 0.35, 0.5, 0.65, 0.95])
        knots = np.concatenate([[0.0], np.cumsum(_sizes(raw[0]))])
        images = np.concatenate([[0.0], np.cumsum(_sizes(raw[1]))])
        slopes = _slopes(raw[3])
        meets = 0.025 + 0.95 / (1 + np.exp(-raw[2]))
        forward = jax.jit(law.forward)
        y, log_derivative = forward(jnp.asarray(np.concatenate(raw)), x)
        for i, point in enumerate(x):
            j = np.searchsorted(knots, point) - 1
            lam, (y0, y1) = meets[j], images[j : j + 2]
            s = (y1 - y0) / (knots[j + 1] - knots[j])
            w0, w1 = 1.0, np.sqrt(slopes[j] / slopes[j + 1])
            wm = (lam * w0 * slopes[j] + (1 - lam) * w1 * slopes[j + 1]) / s
            ym = ((1 - lam) * w0 * y0 + lam * w1 * y1) / ((1 - lam) * w0 + lam * w1)
            xi = (point - knots[j]) / (knots[j + 1] - knots[j])
            if xi <= lam:
                a, b = w0 * (lam - xi), wm * xi
                expected = (a * y0 + b * ym) / (a + b)
                slope = lam * w0 * wm * (ym - y0) / (a + b) ** 2
            else:
                a, b = wm * (1 - xi), w1 * (xi - lam)
                expected = (a * ym + b * y1) / (a + b)
                slope = (1 - lam) * wm * w1 * (y1 - ym) / (a + b) ** 2
            slope /= knots[j + 1] - knots[j]
            np.testing.assert_allclose(y[i], expected, atol=1e-12)
            np.testing.assert_allclose(log_derivative[i], np.log(slope), atol=1e-12)


def test_quadratic_and_linear_splines_integrate_their_densities():
    with jax.enable_x64(True):
        k = np.arange(6.0)
        widths, vertices = np.sin(1.3 * k[:5] + 0.4), np.sin(0.5 * k + 0.2)
        options = {"parametrisation": "softmax"}
        law = quadratic_spline(5, (0.0, 1.0), ends="box", **options)
        knots = np.concatenate([[0.0], np.cumsum(_sizes(widths))])
        knots[-1] = 1.0
        density = _slopes(vertices)
        density = 1e-3 + (1 - 1e-3) * density / np.trapezoid(density, knots)
        forward = jax.jit(law.forward)
        for x in (0.05, 0.2, 0.35, 0.65, 0.95):
            at = np.append(knots[knots < x], x)
            raw = jnp.asarray(np.concatenate([widths, vertices]))
            y, log_derivative = forward(raw, jnp.asarray(x))
            there = np.interp(at, knots, density)
            np.testing.assert_allclose(y, np.trapezoid(there, at), atol=1e-12)
            np.testing.assert_allclose(log_derivative, np.log(there[-1]), atol=1e-12)

        x = np.linspace(0.01, 0.99, 17)
        law = linear_spline(5, (0.0, 1.0), **options)
        images = np.concatenate([[0.0], np.cumsum(_sizes(widths))])
        y, _ = jax.jit(law.forward)(jnp.asarray(widths), x)
        expected = np.interp(x, np.linspace(0, 1, 6), images)
        np.testing.assert_allclose(y, expected, atol=1e-12)


@every
def test_smooth_invertible_and_of_mass_one(name):
    """C1 across knots and tails; both passes agree; densities integrate to 1."""
    with jax.enable_x64(True):
        law = FAMILIES[name](6, 2.0)
        # a learned box moves by its half-width and doubles
        free = law.size - len(law.learned)
        raw = jax.random.normal(KEY, (law.size,), jnp.float64).at[free:].set(0.7)
        closed = name.endswith("circular")
        edge = 2.0 if closed else 1.999999 if name.endswith("box") else 9.0
        x = jnp.linspace(-edge, edge, 100_001)
        forward = jax.jit(law.forward)
        y, log_derivative = forward(raw, x)
        back, log_back = jax.jit(law.inverse)(raw, y)

        def difference(a, b):
            """Whole turns aside, where there are some."""
            return np.mod(a - b + 2.0, 4.0) - 2.0 if closed else a - b

        np.testing.assert_allclose(difference(back, x), 0, atol=1e-10)
        np.testing.assert_allclose(log_back[1:-1], -log_derivative[1:-1], atol=1e-9)
        if name not in ("linear", "linear-circular"):
            assert np.abs(np.diff(log_derivative)).max() < 1e-2
            middle = np.exp((log_derivative[1:] + log_derivative[:-1]) / 2)
            steps = difference(y[1:], y[:-1])
            np.testing.assert_allclose(steps / np.diff(x), middle, rtol=2e-3)
        base = -np.log(2 * edge) if edge < 9 else jax.scipy.stats.norm.logpdf(y)
        assert abs(np.trapezoid(np.exp(base + log_derivative), x) - 1) < 1e-3
        if name in ("linear-rational-circular", "quadratic-circular"):
            first, last = (forward(raw, jnp.asarray(v))[1] for v in (-2.0, 1.9999999))
            np.testing.assert_allclose(first, last, atol=1e-4)


@every
def test_nothing_is_ever_nan(name):
    law = FAMILIES[name](8, 3.0)

    def both(raw, x):
        return law.forward(raw, x), law.inverse(raw, x)

    def total(raw, x):
        return sum(jnp.abs(v).clip(0, 1e3).sum() for v in jax.tree.leaves(both(raw, x)))

    everything = jax.jit(lambda raw, x: (both(raw, x), jax.grad(total, (0, 1))(raw, x)))
    n = 3_000
    special = jnp.array([0.0, 3.0, -3.0, 1e30, -1e30, 1e-30])
    x = jax.random.uniform(jax.random.key(1), (n,), minval=-3.5, maxval=3.5)
    for deviation in (1.0, 10.0):
        raw = deviation * jax.random.normal(KEY, (n, law.size))
        # a third special points, a third first inner knots
        first = 3.0 * (2 * jax.nn.softmax(raw[:, :8])[:, 0] - 1)
        at = jnp.where(jnp.arange(n) % 3 == 0, jnp.resize(special, n), x)
        at = jnp.where(jnp.arange(n) % 3 == 1, first, at)
        for leaf in jax.tree.leaves(everything(raw, at)):
            assert np.isfinite(leaf).all(), deviation


def test_a_learned_box_moves_and_scales_the_spline():
    fixed = rational_quadratic_spline(5, 2.0)
    law = rational_quadratic_spline(5, 2.0, learned_box=True)
    assert law.learned == (0.0, 0.0)
    raw = jax.random.normal(KEY, (fixed.size,))
    scale = math.exp(0.5 / (1 + 0.5 / math.log(1e3)))
    moved = jnp.concatenate([raw, jnp.array([1.5, 0.5])])
    u = jnp.linspace(-2.5, 2.5, 11)
    y, log_derivative = jax.jit(law.forward)(moved, 3.0 + scale * u)
    expected = jax.jit(fixed.forward)(raw, u)
    np.testing.assert_allclose(y, 3.0 + scale * expected[0], rtol=1e-5)
    np.testing.assert_allclose(log_derivative, expected[1], atol=1e-4)


PARTS = (
    (rational_quadratic_spline(4, 3.0, ends="circular"), [3, 0]),
    (scalars.affine("tanh"), [1]),
    (quadratic_spline(3, learned_box=True), [2, 4]),
)


def test_mixed_agrees_with_its_parts_and_with_its_restrictions():
    law = mixed(*PARTS)
    predicted = max(part.size - len(part.learned) for part, _ in PARTS)
    raw = jax.random.normal(KEY, (6, 5, law.size))
    x = jax.random.uniform(KEY, (6, 5), minval=-3.0, maxval=3.0)

    def own(part, places):
        n = len(part.learned)
        free = raw[:, places, : part.size - n]
        learned = raw[:, places, predicted : predicted + n]
        values = jnp.concatenate([free, learned], axis=-1)
        return part.forward(values, x[:, places]), part.inverse(values, x[:, places])

    @jax.jit
    def everything():
        parts = [own(part, np.array(places)) for part, places in PARTS]
        return (law.forward(raw, x), law.inverse(raw, x)), parts

    found, parts = everything()
    for expected, (_, places) in zip(parts, PARTS, strict=True):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a[:, places], b, rtol=1e-5, atol=1e-5)
    # a law of its own for some places, in another order: those raw parameters that
    # the restriction needs are the first of each kind
    places = np.array([4, 0, 2])
    some = law.take(places)
    kept = jnp.concatenate(
        [raw[..., : some.size - 2], raw[..., predicted:][..., :2]], -1
    )
    found = jax.jit(some.forward)(kept[:, places], x[:, places])
    for a, b in zip(found, everything()[0][0], strict=True):
        np.testing.assert_allclose(a, b[:, places], rtol=1e-5, atol=1e-6)


def test_turning_a_circle_keeps_to_it():
    law = circular_shift((1.0, 3.0))
    x = jnp.array([1.0, 2.9, 1e30, -1e30, 7.5])
    y, log_derivative = law.forward(jnp.full((5, 1), 0.5), x)
    np.testing.assert_allclose(y[jnp.array([0, 1, 4])], [1.5, 1.4, 2.0], atol=1e-6)
    assert (y >= 1.0).all() and (y <= 3.0).all() and not log_derivative.any()


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: linear_spline(ends="box"), ValueError, "ends"),
        (lambda: quadratic_spline(1), ValueError, "two bins"),
        (lambda: linear_rational_spline(0), ValueError, "bins"),
        (
            lambda: linear_rational_spline(ends="box", learned_box=True),
            ValueError,
            "box",
        ),
        (lambda: circular_shift(-1.0), ValueError, "interval"),
        (lambda: mixed(), ValueError, "places"),
        (lambda: mixed((linear_spline(), [0, 2])), ValueError, "places"),
        (lambda: mixed(linear_spline()), TypeError, "pair"),
        (lambda: mixed((linear_spline, [0])), TypeError, "Scalar"),
    ],
)
def test_unusable_arguments_are_refused(build, error, words):
    with pytest.raises(error, match=words):
        build()


def test_mixed_wants_as_many_places_as_it_names():
    law = mixed((linear_spline(), [0, 1]))
    with pytest.raises(ValueError, match="2 places"):
        law.forward(jnp.zeros((3, law.size)), jnp.zeros(3))


@every
def test_derivatives_are_those_of_differences(name):
    """Of both passes, in both modes, by raw parameters too; of forward second ones."""
    with jax.enable_x64(True):
        law = FAMILIES[name](4)
        raw = jax.random.normal(KEY, (5, law.size), jnp.float64)
        x = jnp.array([-7.0, -1.9, 0.3, 2.2, 4.6])

        @jax.jit
        def both(raw, x):
            return law.forward(raw, x), law.inverse(raw, x)

        @jax.jit
        def slope(raw, x):
            return jax.grad(lambda *a: sum(map(jnp.sum, both(*a)[0])), (0, 1))(raw, x)

        check_grads(both, (raw, x), order=1, eps=1e-6, atol=1e-6, rtol=1e-6)
        check_grads(slope, (raw, x), order=1, modes=["fwd"], atol=1e-6, rtol=1e-6)
