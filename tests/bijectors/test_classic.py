"""Planar, radial and Sylvester flows: formulas, far points, implicit gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import scramble

import jflow
from jflow.bijectors.rank_one import SLOPE, above_minus_one, constrain

KEY = jax.random.key(0)
LAYERS = {
    "planar": jflow.planar,
    "leaky": lambda: jflow.planar("leaky_relu"),
    "radial": jflow.radial,
    "orthogonal": lambda: jflow.sylvester("orthogonal", 2),
    "triangular": lambda: jflow.sylvester("triangular"),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def _ready(b, x, scale=1.0):
    return scramble(b.init(KEY, x), jax.random.key(1), scale)


@every_layer
def test_the_inverse_has_the_derivatives_of_the_implicit_function_theorem(name):
    """Both modes, data and parameters, with parameters far from their start."""
    b = LAYERS[name]()
    with jax.enable_x64(True):
        x = jax.random.normal(KEY, (1, 3))
        raw = _ready(b, x)["raw"]

        def forward(raw, x):
            return b.forward({"raw": raw}, x[None])[0][0]

        def inverse(raw, z):
            return b.inverse({"raw": raw}, z[None])[0][0]

        @jax.jit
        def derivatives(raw, x):
            z = forward(raw, x)
            there = jax.jacfwd(forward, (0, 1))(raw, x)
            modes = [jac(inverse, (0, 1))(raw, z) for jac in (jax.jacfwd, jax.jacrev)]
            return inverse(raw, z), there, modes

        back, (by_raw, by_x), modes = derivatives(raw, x[0])
        np.testing.assert_allclose(back, x[0], atol=1e-11)
        undone = np.linalg.inv(by_x)
        for inverse_by_raw, inverse_by_z in modes:
            np.testing.assert_allclose(inverse_by_z, undone, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(
                inverse_by_raw, -undone @ by_raw, rtol=1e-9, atol=1e-9
            )


@every_layer
def test_values_and_gradients_are_finite_at_extreme_points(name):
    b = LAYERS[name]()
    x = jax.random.normal(KEY, (4, 3))
    params = _ready(b, x)

    def total(apply, params, x):
        y, log_det = apply(params, x)
        return jnp.tanh(y * 1e-30).sum() + log_det.sum()

    for apply in (b.forward, b.inverse):
        both = jax.jit(
            jax.value_and_grad(lambda p, x, f=apply: total(f, p, x), argnums=(0, 1))
        )
        for size in (0.0, 1.0, 1e10, -1e30):
            for leaf in jax.tree.leaves(both(params, size * x)):
                assert np.isfinite(leaf).all(), size


@every_layer
def test_zero_raw_parameters_give_the_identity(name):
    b = LAYERS[name]()
    x = jax.random.normal(KEY, (4, 3))
    params = b.init(KEY, x)
    zero = jax.tree.map(jnp.zeros_like, params)
    forward = jax.jit(b.forward)
    np.testing.assert_array_equal(forward(zero, x)[0], x)
    np.testing.assert_array_equal(forward(zero, x)[1], 0)
    near, log_det = forward(params, x)
    assert np.abs(near - x).max() < 0.2 and np.abs(log_det).max() < 0.2
    loss = jax.jit(jax.grad(lambda p: (b.forward(p, x)[0] ** 3).sum()))
    for leaf in jax.tree.leaves(loss(zero)):
        assert np.isfinite(leaf).all()
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(loss(params)))


def test_the_constraint_is_smooth_and_keeps_what_is_allowed():
    a = jnp.linspace(-40.0, 4.0, 400)
    c = above_minus_one(a)
    assert (c >= -1 + SLOPE - 1e-6).all() and (jnp.diff(c) >= 0).all()
    np.testing.assert_array_equal(c[a > 0], a[a > 0])
    slope = jax.grad(above_minus_one)
    np.testing.assert_allclose([slope(-1e-7), slope(1e-7)], 1.0, atol=1e-6)

    u, w = jax.random.normal(KEY, (2, 50, 3))
    moved, product = constrain(u, w)
    kept = (u * w).sum(-1) > 0
    np.testing.assert_array_equal(moved[kept], u[kept])
    np.testing.assert_allclose((moved * w).sum(-1), product, atol=1e-5)


@pytest.mark.parametrize("activation", ["tanh", "leaky_relu"])
def test_planar_maps_are_monotone_under_the_worst_parameters(activation):
    b = jflow.planar(activation)
    w = jnp.array([2.0, -1.0])
    params = {"raw": jnp.concatenate([-50.0 * w, w, jnp.array([0.3])])}
    x = jax.random.normal(KEY, (200, 2))
    z, log_det = jax.jit(b.forward)(params, x)
    order = jnp.argsort(x @ w)
    assert (jnp.diff((z @ w)[order]) >= 0).all()
    assert (log_det > np.log(0.9 * SLOPE)).all()
    np.testing.assert_allclose(jax.jit(b.inverse)(params, z)[0], x, atol=2e-3)


def test_a_radial_map_moves_along_rays_by_the_papers_formula():
    b = jflow.radial()
    with jax.enable_x64(True):
        centre, m = jnp.array([1.0, -2.0, 0.5]), 1.5
        params = {"raw": jnp.append(centre, jnp.array([0.0, m]))}
        x = jax.random.normal(KEY, (5, 3))
        z, log_det = b.forward(params, x)
        r = jnp.linalg.norm(x - centre, axis=1)
        h = 1 / (1 + r)
        expected = x + m * h[:, None] * (x - centre)
        np.testing.assert_allclose(z, expected, atol=1e-13)
        slope = 1 + m * h - m * h**2 * r
        np.testing.assert_allclose(
            log_det, 2 * jnp.log(1 + m * h) + jnp.log(slope), atol=1e-13
        )


def test_a_sylvester_flow_of_one_column_is_planar():
    b, planar = jflow.sylvester("orthogonal", 1), jflow.planar()
    with jax.enable_x64(True):
        v, r, s, bias = jnp.array([1.0, 2.0, -2.0]), -0.7, 0.9, 0.2
        q = jnp.array([1.0, 0.0, 0.0]) - 2 * v * v[0] / 9  # the reflection's column
        x = jax.random.normal(KEY, (5, 3))
        one = jax.jit(b.forward)({"raw": jnp.append(v, jnp.array([r, s, bias]))}, x)
        raw = jnp.concatenate([r * q, s * q, jnp.array([bias])])
        for a, e in zip(one, jax.jit(planar.forward)({"raw": raw}, x), strict=True):
            np.testing.assert_allclose(a, e, atol=1e-13)


@pytest.mark.parametrize("kind", ["orthogonal", "householder"])
def test_many_dimensions_are_undone_in_float32(kind):
    b = jflow.sylvester(kind, 10)
    x = jax.random.normal(KEY, (16, 40))
    params = _ready(b, x, 0.05)
    z, log_det = jax.jit(b.forward)(params, x)
    assert np.abs(z - x).max() > 0.1
    again, back = jax.jit(b.inverse)(params, z)
    np.testing.assert_allclose(again, x, atol=1e-4)
    np.testing.assert_allclose(back, -log_det, atol=1e-4)


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: jflow.planar("relu"), ValueError, "activation"),
        (lambda: jflow.planar(net=3), TypeError, "out_features"),
        (lambda: jflow.sylvester("qr"), ValueError, "kind"),
        (lambda: jflow.sylvester("orthogonal", 0), ValueError, "size"),
        (lambda: jflow.sylvester("triangular", 2), ValueError, "leave it out"),
        (
            lambda: jflow.sylvester(size=4).init(KEY, jnp.ones((2, 3))),
            ValueError,
            "at most 3",
        ),
    ],
)
def test_bad_arguments_are_named(build, error, words):
    with pytest.raises(error, match=words):
        build()
