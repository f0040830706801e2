"""Every bijector against autodiff, in float32 and float64, with scrambled params."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import BATCH, draw, initial, prepare
from contract import CASES

from jflow import bijectors, combinators, conditions, scalars


def over(cases):
    """A test for each case."""
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


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


def _passes(case, b, key, params, x, condition):
    z, log_det = b.forward(params, x, condition, key)
    return z, log_det, *b.inverse(params, z, condition)


@functools.cache
def _single(case):
    """Both passes in float32 and what they give; the forward one's gradients with them.

    One program has them all, so that what they share is compiled once.
    """
    b, *arguments = prepare(case)

    def total(params, x, condition):
        z, log_det = b.forward(params, x, condition, _noise(case))
        inside = jnp.where(jnp.isfinite(log_det), log_det, 0.0)
        return jnp.tanh(z * 1e-6).sum() + inside.sum()

    @jax.jit
    def apply(*arguments):
        gradients = jax.grad(total, argnums=(0, 1))(*arguments)
        return _passes(case, b, _noise(case), *arguments), gradients

    return apply, jax.tree.map(np.asarray, apply(*arguments)[0])


@functools.cache
def _double(case):
    """Both passes in float64, and the log-dets of their autodiff Jacobians."""
    b, *arguments = prepare(case, np.float64)
    key = _noise(case)
    to, back_to = case.chart or (_same, _same)

    def passes(params, x, condition):
        out = _passes(case, b, key, params, x, condition)
        if case.integers:  # flooring has no derivative
            return out
        there, back = (to, back_to, _same), (_same, _same, to)
        return (
            *out,
            _jacobian_log_det(b.forward, params, x, condition, key, there),
            _jacobian_log_det(b.inverse, params, out[0], condition, None, back),
        )

    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, jax.jit(passes)(*arguments))


def _noise(case):
    return NOISE if case.integers else None


def _check_passes(case, dtype, passes, bound):
    z, log_det, again, back = passes
    x = prepare(case, dtype)[2]
    assert log_det.shape == back.shape == (BATCH,)
    assert log_det.dtype == back.dtype == z.dtype == again.dtype == dtype
    assert z[0].size == x[0].size or case.chart
    scale = 1 + np.abs(x).max()
    np.testing.assert_allclose(again, x, atol=bound * scale, rtol=0)
    bounds = {"atol": 10 * bound, "rtol": 10 * bound}
    np.testing.assert_allclose(log_det + back, 0 * back, **bounds)
    if case.integers:  # the log-det is the scale's
        np.testing.assert_allclose(log_det, -x[0].size * np.log(8), **bounds)


@all_cases
def test_passes_agree_with_autodiff_in_float64(case):
    *passes, there, back = (
        _double(case) if not case.integers else (*_double(case), 0, 0)
    )
    _check_passes(case, np.float64, passes, 1e-11)
    if not case.integers:
        np.testing.assert_allclose(passes[1][0], there, atol=1e-10, rtol=1e-10)
        np.testing.assert_allclose(passes[3][0], back, atol=1e-10, rtol=1e-10)


@all_cases
def test_passes_agree_with_those_of_float64_in_float32(case):
    _, passes = _single(case)
    _check_passes(case, np.float32, passes, case.f32)
    for i in 1, 3:  # noise differs between precisions, log-dets do not
        bounds = {"atol": 10 * case.f32, "rtol": 10 * case.f32}
        np.testing.assert_allclose(passes[i], _double(case)[i], **bounds)


@all_cases
def test_gradients_are_finite_also_far_outside(case):
    _, params, x, condition = prepare(case)
    apply, _ = _single(case)
    for far in (1.0, -30.0, 1e3, -1e6):
        _, gradients = apply(params, np.float32(far) * x, condition)
        for leaf in jax.tree.leaves(gradients):
            assert np.isfinite(leaf).all(), far


@all_cases
def test_init_is_deterministic_floating_and_takes_a_batch_of_one(case):
    b = case.build()
    _, _, x, condition = prepare(case)
    one = jax.tree.map(lambda a: a[:1], (x, condition))

    @jax.jit
    def init(key, x, condition):
        params = b.init(key, x, condition)
        return params, b.forward(params, x, condition, _noise(case))

    params, (z, log_det) = init(jax.random.key(5), *one)
    assert np.isfinite(z).all() and np.isfinite(log_det).all() and len(z) == 1
    again, _ = init(jax.random.key(5), *one)
    for a, same in zip(*map(jax.tree.leaves, (params, again)), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, same)
    assert {a.dtype for a in jax.tree.leaves(initial(case))} <= {np.dtype(np.float64)}


@over([c for c in CASES if not c.integers])  # noise depends on the shape drawn for
def test_batches_of_one_under_vmap_within_pmap(case):
    b, params, *data = prepare(case)
    parts = jax.tree.map(lambda a: a.reshape(2, -1, 1, *a.shape[1:]), tuple(data))

    def forward(params, data):
        return b.forward(params, *data)

    mapped = jax.pmap(jax.vmap(forward, (None, 0)), in_axes=(None, 0))
    got = mapped(params, parts)
    for a, e in zip(got, _single(case)[1][:2], strict=True):
        np.testing.assert_allclose(a.reshape(e.shape), e, rtol=3e-5, atol=3e-5)


@over([c for c in CASES if c.condition])
def test_the_condition_reaches_every_active_output(case):
    _, params, x, condition = prepare(case)
    apply, (z, *_) = _single(case)
    (there, *_), _ = apply(params, x, condition + np.float32(0.5))
    moved = there != z
    assert moved.any(axis=0).mean() >= case.reached


@over([c for c in CASES if c.identity])
def test_identity_at_initialisation(case):
    params = jax.tree.map(lambda a: a.astype(np.float32), initial(case))
    x, condition = prepare(case)[2:]
    (z, log_det, *_), _ = _single(case)[0](params, x, condition)
    np.testing.assert_allclose(z, x, atol=1e-6)
    np.testing.assert_allclose(log_det, 0, atol=1e-5)


@over([c for c in CASES if c.whitens])
def test_init_whitens_its_batch(case):
    with jax.enable_x64(True):
        forward = jax.jit(case.build().forward)
        z, _ = forward(initial(case), *draw(case, 1, 64, np.float64))
    z = np.asarray(z)
    axes = tuple(range(z.ndim - 1))
    np.testing.assert_allclose(z.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(axes), 1, atol=1e-3)


def test_every_public_layer_is_in_the_registry():
    covered = {name for case in CASES for name in case.covers.split()}
    layers = set(bijectors.__all__) | set(combinators.__all__)
    layers |= set(conditions.__all__)
    layers |= {name for name in scalars.__all__ if name.islower()}
    assert layers == covered & layers, sorted(layers - covered)
