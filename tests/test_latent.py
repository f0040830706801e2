"""`jflow.latent` against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jflow import latent
from jflow.base import normal as standard_normal
from jflow.bijector import Bijector
from jflow.combinators import identity
from jflow.flow import flow


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def norms(z, event_axes):
    return np.sqrt(np.sum(np.square(z), axis=event_axes))


# --- interpolation --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "spherical"])
def test_interpolation_starts_and_ends_at_its_ends(kind):
    z0, z1 = normal(0, 3, 4, 2), normal(1, 3, 4, 2)
    path = latent.interpolate(z0, z1, 7, kind)
    assert path.shape == (3, 7, 4, 2)
    np.testing.assert_allclose(path[:, 0], z0, atol=1e-6)
    np.testing.assert_allclose(path[:, -1], z1, atol=1e-6)


def test_linear_interpolation_has_equal_steps():
    path = latent.interpolate(normal(0, 2, 5), normal(1, 2, 5), 5)
    steps = np.diff(path, axis=1)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[:, :1], steps.shape), 1e-4)


def test_spherical_interpolation_keeps_the_norm_and_turns_evenly():
    z0, z1 = normal(0, 4, 3, 3), normal(1, 4, 3, 3)
    z0, z1 = (3 * z / norms(z, (1, 2))[:, None, None] for z in (z0, z1))
    path = np.asarray(latent.interpolate(z0, z1, 9, "spherical")).reshape(4, 9, 9)
    np.testing.assert_allclose(norms(path, 2), 3.0, rtol=1e-5)
    cosines = np.sum(path[:, :-1] * path[:, 1:], axis=-1) / 9.0
    np.testing.assert_allclose(cosines, cosines[:, :1].repeat(8, axis=1), rtol=1e-4)


def test_spherical_interpolation_in_the_plane():
    z0, z1 = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 2.0]])
    middle = latent.interpolate(z0, z1, 3, "spherical")[0, 1]
    np.testing.assert_allclose(middle, [np.sqrt(0.5), 2 * np.sqrt(0.5)], rtol=1e-6)


@pytest.mark.parametrize("factor", [0.0, 1.0, 2.5, -1.0, 1.0 + 1e-7])
def test_spherical_interpolation_without_an_arc_is_linear(factor):
    z0 = normal(0, 2, 6)
    z1 = factor * z0
    spherical = latent.interpolate(z0, z1, 5, "spherical")
    np.testing.assert_allclose(spherical, latent.interpolate(z0, z1, 5), atol=1e-6)
    both_zero = latent.interpolate(0 * z0, 0 * z0, 3, "spherical")
    np.testing.assert_array_equal(both_zero, 0)
    gradient = jax.grad(lambda z: latent.interpolate(z, z1, 5, "spherical").sum())(z0)
    assert np.isfinite(gradient).all()


def test_spherical_interpolation_at_small_angles():
    z0 = jnp.array([[1.0, 0.0]])
    z1 = jnp.array([[jnp.cos(2e-3), jnp.sin(2e-3)]])
    middle = latent.interpolate(z0, z1, 3, "spherical")[0, 1]
    np.testing.assert_allclose(middle, [np.cos(1e-3), np.sin(1e-3)], rtol=1e-5)


def test_halfway_between_normal_latents():
    z0, z1 = normal(0, 200, 100), normal(1, 200, 100)
    linear = latent.interpolate(z0, z1, 3)[:, 1]
    spherical = latent.interpolate(z0, z1, 3, "spherical")[:, 1]
    assert abs(np.std(linear) - np.sqrt(0.5)) < 0.01
    assert abs(np.std(spherical) - 1.0) < 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((jnp.zeros((2, 3)), jnp.zeros((2, 4)), 3), "one shape"),
        ((jnp.zeros(3), jnp.zeros(3), 3), "z\\[None\\]"),
        ((jnp.zeros((2, 3)), jnp.zeros((2, 3)), 1), "n >= 2"),
        ((jnp.zeros((2, 3)), jnp.zeros((2, 3)), 3, "cubic"), "'cubic'"),
    ],
)
def test_interpolation_names_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        latent.interpolate(*arguments)


# --- attributes -----------------------------------------------------------------------


def test_attribute_direction_is_the_difference_of_means():
    z = normal(0, 50, 2, 3)
    has = np.arange(50) % 3 == 0
    direction = latent.attribute_direction(z, has)
    expected = np.asarray(z)[has].mean(axis=0) - np.asarray(z)[~has].mean(axis=0)
    np.testing.assert_allclose(direction, expected, atol=1e-6)
    jitted = jax.jit(latent.attribute_direction)(z, has)
    np.testing.assert_allclose(jitted, expected, atol=1e-6)


@pytest.mark.parametrize("has", [jnp.zeros(4, bool), jnp.ones(4, bool)])
def test_attribute_direction_needs_both_groups(has):
    with pytest.raises(ValueError, match="both groups"):
        latent.attribute_direction(jnp.zeros((4, 2)), has)
    with pytest.raises(ValueError, match="one entry for each"):
        latent.attribute_direction(jnp.zeros((5, 2)), has)


def shift_by_condition():
    """x = (z + condition) * exp(params): a flow whose every pass is known."""

    def init(key, x, condition=None):
        return jnp.zeros(())

    def forward(params, x, condition=None, key=None):
        return x * jnp.exp(-params) - condition, jnp.zeros(x.shape[0])

    def inverse(params, z, condition=None, key=None):
        return (z + condition) * jnp.exp(params), jnp.zeros(z.shape[0])

    return flow(Bijector(init, forward, inverse), standard_normal((3,)))


def test_manipulate_moves_along_the_direction():
    model = shift_by_condition()
    x, condition, direction = normal(0, 4, 3), normal(1, 4, 3), normal(2, 3)
    params = {"bijector": jnp.log(2.0), "base": ()}
    amounts = [-1.0, 0.0, 0.5]
    moved = latent.manipulate(model, params, x, direction, amounts, condition)
    assert moved.shape == (4, 3, 3)
    for i, amount in enumerate(amounts):
        np.testing.assert_allclose(moved[:, i], x + 2 * amount * direction, atol=1e-5)
    one = latent.manipulate(model, params, x, direction, amounts, condition[:1])
    np.testing.assert_allclose(one[:, 1], x, atol=1e-5)


def test_manipulate_passes_the_key_on():
    seen = []

    def init(key, x, condition=None):
        return ()

    def apply(params, x, condition=None, key=None):
        seen.append(key is not None)
        return x, jnp.zeros(x.shape[0])

    model = flow(Bijector(init, apply, apply), standard_normal((3,)))
    params = {"bijector": (), "base": ()}
    key = jax.random.key(0)
    latent.manipulate(model, params, jnp.zeros((2, 3)), jnp.ones(3), [1.0], key=key)
    assert len(seen) >= 2 and all(seen)


def test_manipulate_names_what_is_wrong():
    model = flow(identity(), standard_normal((3,)))
    params = {"bijector": (), "base": ()}
    with pytest.raises(ValueError, match="direction"):
        latent.manipulate(model, params, jnp.zeros((2, 3)), jnp.ones(2), [1.0])
    with pytest.raises(ValueError, match="amounts"):
        latent.manipulate(model, params, jnp.zeros((2, 3)), jnp.ones(3), 1.0)


# --- manifolds and the spectrum -------------------------------------------------------


def test_manifold_passes_its_four_latents():
    z = normal(0, 4, 2, 3)
    grid = latent.manifold(*z, n=8)
    assert grid.shape == (8, 8, 2, 3)
    for position, expected in zip([(0, 0), (0, 2), (2, 0), (2, 2)], z, strict=True):
        np.testing.assert_allclose(grid[position], expected, atol=1e-6)
    f, g = 2 * np.pi * 3 / 8, 2 * np.pi * 5 / 8
    formula = np.cos(f) * (np.cos(g) * z[0] + np.sin(g) * z[1])
    formula += np.sin(f) * (np.cos(g) * z[2] + np.sin(g) * z[3])
    np.testing.assert_allclose(grid[3, 5], formula, atol=1e-5)


def test_manifold_of_orthonormal_latents_has_their_norm():
    np.testing.assert_allclose(norms(latent.manifold(*jnp.eye(4), n=6), 2), 1, 1e-6)
    with pytest.raises(ValueError, match="one shape"):
        latent.manifold(jnp.ones(2), jnp.ones(2), jnp.ones(3), jnp.ones(2), 4)
    with pytest.raises(ValueError, match="n must be"):
        latent.manifold(*jnp.eye(4), n=0)


def test_sphere_is_a_sphere_in_three_dimensions():
    grid = latent.sphere(jax.random.key(0), (5, 4), 6)
    flat = np.asarray(grid).reshape(36, 20)
    np.testing.assert_allclose(norms(flat, 1), np.sqrt(20), rtol=1e-5)
    values = np.linalg.svd(flat, compute_uv=False)
    assert values[2] > 1 and values[3] < 1e-4
    small = latent.sphere(jax.random.key(0), (3,), 2, radius=0.5)
    np.testing.assert_allclose(norms(small, 2), 0.5, rtol=1e-5)
    with pytest.raises(ValueError, match="fewer than 3"):
        latent.sphere(jax.random.key(0), (2,), 4)


def test_spectrum_is_sorted_inverse_scale():
    log_scale = normal(0, 3, 4)
    spectrum = latent.scale_spectrum(log_scale)
    expected = np.sort(np.exp(-np.asarray(log_scale)).ravel())[::-1]
    np.testing.assert_allclose(spectrum, expected, rtol=1e-6)


# --- inpainting -----------------------------------------------------------------------


def correlated(dimensions=4):
    factor = np.random.default_rng(0).normal(size=(dimensions, dimensions))
    covariance = factor @ factor.T / dimensions + 0.3 * np.eye(dimensions)
    precision = jnp.asarray(np.linalg.inv(covariance), jnp.float32)
    mean = jnp.arange(dimensions, dtype=jnp.float32)
    return mean, covariance, precision


def test_inpainting_a_normal_finds_the_conditional_mean():
    mean, covariance, precision = correlated()

    def log_prob(x):
        return -0.5 * jnp.einsum("ni,ij,nj->n", x - mean, precision, x - mean)

    hidden = np.array([False, True, False, True])
    x = normal(1, 256, 4) + mean
    filled = latent.inpaint(log_prob, x, hidden, jax.random.key(2), steps=4_000)
    gain = covariance[np.ix_(hidden, ~hidden)] @ np.linalg.inv(
        covariance[np.ix_(~hidden, ~hidden)]
    )
    centred = np.asarray(x - mean)[:, ~hidden]
    expected = np.asarray(mean)[hidden] + centred @ gain.T
    error = np.asarray(filled)[:, hidden] - expected
    # The last steps' noise is left: its variance is about a / (2 precision), so no
    # more than 0.03 standard deviations here, and its mean over 256 examples less.
    assert np.abs(error.mean(axis=0)).max() < 0.01
    assert 0.005 < error.std() < 0.08
    np.testing.assert_array_equal(np.asarray(filled)[:, ~hidden], x[:, ~hidden])


def test_inpainting_keeps_what_was_observed_and_stays_in_range():
    x = jnp.array([[0.1, jnp.nan, 5.0], [-0.0, 1e-30, 7.0]])
    hidden = jnp.array([[False, False, True], [False, False, False]])

    def log_prob(x):
        return 100.0 * x[:, 2]

    filled = latent.inpaint(
        log_prob, x, hidden, jax.random.key(0), steps=3, clip=(0.0, 1.0)
    )
    assert filled[0, 2] == 1.0
    observed = np.asarray(filled)[~np.asarray(hidden)].view(np.int32)
    before = np.asarray(x)[~np.asarray(hidden)].view(np.int32)
    np.testing.assert_array_equal(observed, before)


def test_inpainting_follows_the_papers_steps():
    """Without a density, the hidden coordinates are the weighted sum of the noise."""
    key, x = jax.random.key(3), jnp.zeros((2, 3))

    def flat(x):
        return 0.0 * x.sum(axis=1)

    filled = latent.inpaint(flat, x, jnp.ones(3, bool), key, steps=5)
    expected = sum(
        10 / (100 + i) * jax.random.normal(jax.random.fold_in(key, i), (2, 3))
        for i in range(5)
    )
    np.testing.assert_allclose(filled, expected, rtol=1e-5)
    still = latent.inpaint(
        flat, x, jnp.ones(3, bool), key, steps=5, step_size=lambda i: 0.0 * i
    )
    np.testing.assert_array_equal(still, 0)


def test_inpainting_compiles_once_for_any_number_of_steps():
    calls = []

    def log_prob(x):
        calls.append(x)
        return -jnp.sum(x**2, axis=1)

    latent.inpaint(log_prob, jnp.ones((2, 3)), jnp.ones(3, bool), jax.random.key(0))
    assert len(calls) < 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": jnp.zeros((2, 3), jnp.int32)}, "floating-point"),
        ({"hidden": jnp.zeros(3)}, "booleans"),
        ({"hidden": jnp.zeros((1, 2), bool)}, "shape"),
        ({"steps": 0}, "steps"),
        ({"clip": (1.0, 0.0)}, "clip"),
    ],
)
def test_inpainting_names_what_is_wrong(changes, message):
    arguments = {
        "log_prob": lambda x: x.sum(axis=1),
        "x": jnp.zeros((2, 3)),
        "hidden": jnp.zeros(3, bool),
        "key": jax.random.key(0),
    }
    with pytest.raises(ValueError, match=message):
        latent.inpaint(**{**arguments, **changes})
