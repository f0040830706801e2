"""Every bijector against autodiff, in float32 and float64, with scrambled params."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import BATCH, draw, prepare
from contract import CASES

from jflow import bijectors, combinators, scalars


def over(cases):
    """A test for each case; one worker has all of a case's, and prepares it once."""
    return pytest.mark.parametrize(
        "case",
        [
            pytest.param(case, id=case.name, marks=pytest.mark.xdist_group(case.name))
            for case in cases
        ],
    )


all_cases = over(CASES)
NOISE = jax.random.key(7)


def _same(x):
    return x


def _jacobian_log_det(apply, params, x, condition, key, chart):
    """`log |det|` of the autodiff Jacobian of one pass at the first example.

    `chart` is the coordinates of the argument and what makes the argument of them, and
    the coordinates of the result.
    """
    one = None if condition is None else condition[:1]
    coordinates, point, result = chart
    start = coordinates(x[:1])

    def flat(v):
        return result(apply(params, point(v.reshape(start.shape)), one, key)[0])[0]

    jacobian = jax.jacrev(lambda v: flat(v).reshape(-1))(start.reshape(-1))
    return jnp.linalg.slogdet(jacobian)[1]


def _passes(case, b, params, x, condition):
    key = NOISE if case.integers else None
    z, log_det = b.forward(params, x, condition, key)
    again, back = b.inverse(params, z, condition)
    to, back_to = case.chart or (_same, _same)
    jacobians = (
        _jacobian_log_det(b.forward, params, x, condition, key, (to, back_to, _same)),
        _jacobian_log_det(b.inverse, params, z, condition, None, (_same, _same, to)),
    )
    return z, log_det, again, back, jacobians


def _check_passes(case, dtype, round_trip, log_det_bound):
    b, params, x, condition = prepare(case, dtype)
    out = jax.jit(lambda p, x, c: _passes(case, b, p, x, c))(params, x, condition)
    z, log_det, again, back, (there_jacobian, back_jacobian) = out
    assert log_det.shape == back.shape == (BATCH,)
    assert log_det.dtype == back.dtype == dtype and z.dtype == dtype
    assert z[0].size == x[0].size or case.chart
    scale = 1 + np.abs(x).max()
    np.testing.assert_allclose(again, x, atol=round_trip * scale, rtol=0)
    bound = {"atol": log_det_bound, "rtol": log_det_bound}
    np.testing.assert_allclose(log_det + back, 0 * back, **bound)
    if case.integers:  # flooring has no derivative: its log-det is the scale's
        np.testing.assert_allclose(log_det, -x[0].size * np.log(8), **bound)
        return
    np.testing.assert_allclose(log_det[0], there_jacobian, **bound)
    np.testing.assert_allclose(back[0], back_jacobian, **bound)


@all_cases
def test_passes_agree_with_autodiff_in_float32(case):
    _check_passes(case, jnp.float32, case.f32, 10 * case.f32)


@all_cases
def test_passes_agree_with_autodiff_in_float64(case):
    with jax.enable_x64(True):
        _check_passes(case, jnp.float64, 1e-11, 1e-10)


@all_cases
def test_gradients_are_finite_also_far_outside(case):
    b, params, x, condition = prepare(case)
    key = NOISE if case.integers else None

    def total(params, x, condition):
        z, log_det = b.forward(params, x, condition, key)
        inside = jnp.where(jnp.isfinite(log_det), log_det, 0.0)
        return jnp.tanh(z * 1e-6).sum() + inside.sum()

    grad = jax.jit(jax.grad(total, argnums=(0, 1)))
    for far in (1.0, -30.0, 1e3, -1e6):
        for leaf in jax.tree.leaves(grad(params, far * x, condition)):
            assert np.isfinite(leaf).all(), far


@all_cases
def test_a_batch_of_one_and_nested_transformations(case):
    b, params, x, condition = prepare(case)
    key = NOISE if case.integers else None
    one = jax.tree.map(lambda a: a[:1], (x, condition))
    alone = jax.jit(b.init)(jax.random.key(2), *one)
    z, log_det = jax.jit(b.forward)(alone, *one, key)
    assert np.isfinite(z).all() and np.isfinite(log_det).all() and len(z) == 1

    if case.integers:  # noise depends on the shape it is drawn for
        return
    expected = jax.jit(b.forward)(params, x, condition)
    pairs = jax.tree.map(lambda a: a.reshape(2, -1, *a.shape[1:]), (x, condition))

    def pair(params, data):
        return b.forward(params, *data)

    for mapped in (
        jax.jit(jax.vmap(pair, (None, 0))),
        jax.pmap(pair, in_axes=(None, 0)),
    ):
        got = mapped(params, pairs)
        for a, e in zip(got, expected, strict=True):
            np.testing.assert_allclose(a.reshape(e.shape), e, rtol=3e-5, atol=3e-5)


@all_cases
def test_params_are_floating_arrays_and_init_is_deterministic(case):
    b = case.build()
    x, condition = draw(case, jax.random.key(0))
    init = jax.jit(b.init)
    first, second = (init(jax.random.key(5), x, condition) for _ in range(2))
    for a, again in zip(*map(jax.tree.leaves, (first, second)), strict=True):
        assert jnp.issubdtype(a.dtype, jnp.floating)
        np.testing.assert_array_equal(a, again)


@over([c for c in CASES if c.condition])
def test_the_condition_reaches_every_active_output(case):
    b, params, x, condition = prepare(case)

    def outputs(params, x, condition):
        return b.forward(params, x, condition)[0]

    outputs = jax.jit(outputs)
    moved = outputs(params, x, condition + 0.5) != outputs(params, x, condition)
    assert moved.any(axis=0).mean() >= case.reached


@over([c for c in CASES if c.identity])
def test_identity_at_initialisation(case):
    b = case.build()
    x, condition = draw(case, jax.random.key(0))
    params = jax.jit(b.init)(jax.random.key(1), x, condition)
    z, log_det = jax.jit(b.forward)(params, x, condition)
    np.testing.assert_allclose(z, x, atol=1e-6)
    np.testing.assert_allclose(log_det, 0, atol=1e-5)


@over([c for c in CASES if c.whitens])
def test_init_whitens_its_batch(case):
    b = case.build()
    x, condition = draw(case, jax.random.key(0), batch=64)
    z, _ = b.forward(b.init(jax.random.key(1), x, condition), x, condition)
    axes = tuple(range(z.ndim - 1))
    np.testing.assert_allclose(z.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(axes), 1, atol=1e-3)


def test_every_public_layer_is_in_the_registry():
    covered = {name for case in CASES for name in case.covers.split()}
    layers = set(bijectors.__all__) | set(combinators.__all__)
    layers |= {name for name in scalars.__all__ if name.islower()}
    assert layers == covered & layers, sorted(layers - covered)
