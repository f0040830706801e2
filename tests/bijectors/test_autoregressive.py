"""Autoregressive layers: sparsity, strategies, derivatives of the inverse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case import scramble

import jflow
from jflow.diagnostics import jacobi_sweeps
from jflow.nets import made

KEY = jax.random.key(0)
LAW = jflow.scalars.shift()
GRAPH = np.zeros((6, 6), bool)
GRAPH[1, 0] = GRAPH[3, [1, 2]] = GRAPH[5, [0, 4]] = GRAPH[4, 3] = True

STRUCTURES = {
    "natural": {},
    "reversed": {"order": "reversed"},
    "given": {"order": [3, 1, 0, 2, 5, 4], "residual": True},
    "random": {"order": 7},
    "passes": {"passes": 2},
    "graph": {"adjacency": GRAPH},
}


def _built(inverse="incremental", dimensions=6, condition=2, scale=0.3, **options):
    net = made(14, 14, activation=jnp.tanh, **options)
    b = jflow.autoregressive(jflow.scalars.affine(), net, inverse=inverse)
    x = jax.random.normal(KEY, (4, dimensions))
    c = jax.random.normal(jax.random.key(1), (4, condition)) if condition else None
    params = scramble(jax.jit(b.init)(KEY, x, c), jax.random.key(2), scale)
    return b, params, x, c


def _depends(options):
    """Which dimension depends on which, written down anew."""
    if "adjacency" in options:
        return GRAPH
    order = options.get("order", "natural")
    if isinstance(order, int):
        order = np.random.default_rng(order).permutation(6)
    named = {"natural": range(6), "reversed": range(5, -1, -1)}
    place = np.array(named[order] if isinstance(order, str) else np.argsort(order))
    if "passes" in options:
        place = place // 3
    return place[:, None] > place[None, :]


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_jacobian_is_as_sparse_as_the_mask(name):
    options = STRUCTURES[name]
    b, params, x, c = _built(**options)

    def one(v):
        return b.forward(params, v[None], c[:1])[0][0]

    expected = np.eye(6, dtype=bool) | _depends(options)
    jacobian = jax.jit(jax.jacrev(one))(x[0])
    np.testing.assert_array_equal(jacobian != 0, expected)


@pytest.mark.parametrize("name", ["natural", "given", "graph"])
def test_strategies_and_their_derivatives_agree(name):
    """With each other, and with the inverse of the forward pass's Jacobian."""
    with jax.enable_x64(True):
        found = {}
        for inverse in ("sequential", "incremental", "jacobi"):
            b, params, x, c = _built(inverse, **STRUCTURES[name])

            @jax.jit
            def undone(params, z, c, b=b):
                def first(params, z, c):
                    x, log_det = b.inverse(params, z, c)
                    return jnp.concatenate([x[0], log_det[:1]])

                return (
                    b.inverse(params, z, c)[0],
                    jax.jacrev(first, (0, 1, 2))(params, z, c),
                    jax.jacfwd(first, 1)(params, z, c),
                )

            z = jax.jit(b.forward)(params, x, c)[0]
            found[inverse] = undone(params, z, c)
            np.testing.assert_allclose(found[inverse][0], x, atol=1e-12)
        for inverse in ("incremental", "jacobi"):
            pairs = map(jax.tree.leaves, (found[inverse], found["sequential"]))
            for a, e in zip(*pairs, strict=True):
                np.testing.assert_allclose(a, e, atol=1e-10)
        _, (_, by_z, _), forward_mode = found["incremental"]
        there = jax.jit(jax.jacrev(lambda v: b.forward(params, v[None], c[:1])[0][0]))(
            x[0]
        )
        np.testing.assert_allclose(by_z[:6, 0], jnp.linalg.inv(there), atol=1e-10)
        np.testing.assert_allclose(forward_mode, by_z, atol=1e-10)


def test_parameters_gradients_are_those_of_the_unrolled_solution():
    """Against differentiation straight through D passes, written out here."""
    with jax.enable_x64(True):
        b, params, x, c = _built()
        z = jax.jit(b.forward)(params, x, c)[0]

        def plain(params):
            net = made(14, 14, activation=jnp.tanh)(6, 2)
            v = jnp.zeros_like(z)
            for i in range(6):
                raw = net.apply(params["net"], v, c)
                found = jflow.scalars.affine().inverse(raw, z)[0]
                v = v.at[:, i].set(found[:, i])
            return jnp.sin(v).sum()

        def implicit(params):
            return jnp.sin(b.inverse(params, z, c)[0]).sum()

        grads = (jax.jit(jax.grad(f))(params) for f in (implicit, plain))
        for a, e in zip(*map(jax.tree.leaves, grads), strict=True):
            np.testing.assert_allclose(a, e, atol=1e-11)


def test_jacobi_stops_early_and_never_later_than_the_longest_path():
    for options, scale, most in (({}, 0.02, 6), ({"passes": 2}, 2.0, 2), ({}, 2.0, 6)):
        b, params, x, c = _built("jacobi", scale=scale, **options)
        z = jax.jit(b.forward)(params, x, c)[0]
        (sweeps,) = jacobi_sweeps(b, params, z, c)
        assert 1 <= sweeps <= most
    gentle, params, x, c = _built("jacobi", dimensions=30, scale=0.01)
    (sweeps,) = jacobi_sweeps(gentle, params, x, c)
    assert sweeps < 15
    layers = jflow.repeat(gentle, 3)
    params = jax.jit(layers.init)(KEY, x, c)
    assert jacobi_sweeps(layers, params, x, c) == [2, 2, 2]


def test_jacobis_tolerance_trades_exactness_for_sweeps():
    law, net = jflow.scalars.affine(), made(14, activation=jnp.tanh)
    x = jax.random.normal(KEY, (4, 12))
    sweeps, errors = {}, {}
    for tolerance in (None, 1e-2, 0.5):
        b = jflow.autoregressive(law, net, inverse="jacobi", tolerance=tolerance)
        params = scramble(jax.jit(b.init)(KEY, x), jax.random.key(2), 0.6)
        z = jax.jit(b.forward)(params, x)[0]
        (sweeps[tolerance],) = jacobi_sweeps(b, params, z)
        errors[tolerance] = float(abs(jax.jit(b.inverse)(params, z)[0] - x).max())
    assert sweeps[None] > sweeps[1e-2] > sweeps[0.5]
    assert errors[None] < 1e-5 < errors[1e-2] < 0.1 < errors[0.5]


def test_jacobi_survives_an_overflow_on_the_way():
    law = jflow.scalars.affine("exp")
    net = made(8, activation=jnp.tanh)
    x = jax.random.normal(KEY, (3, 5))
    b = jflow.autoregressive(law, net, inverse="jacobi")
    params = scramble(b.init(KEY, x), jax.random.key(5), 6.0)
    z = 1e3 * x
    reference = jflow.autoregressive(law, net, inverse="sequential")
    np.testing.assert_allclose(
        b.inverse(params, z)[0], reference.inverse(params, z)[0], rtol=1e-4
    )


def test_bfloat16_bodies_keep_the_inverse():
    b, params, x, c = _built(dtype=jnp.bfloat16)
    z, log_det = jax.jit(b.forward)(params, x, c)
    again, _ = jax.jit(b.inverse)(params, z, c)
    assert z.dtype == log_det.dtype == jnp.float32
    # The network is evaluated anew, its matrix products in another order.
    np.testing.assert_allclose(again, x, atol=0.05)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: made(), "no hidden widths"),
        (lambda: made(0), "hidden must be a positive integer, got 0"),
        (lambda: made(4, order="random"), "seed"),
        (lambda: made(4, passes=0), "passes"),
        (lambda: made(4, adjacency=GRAPH, passes=2), "takes the place"),
        (lambda: made(4, 5, residual=True), "one width"),
        (lambda: made(4, order=[0, 0])(2, 1), "permutation"),
        (lambda: made(4, adjacency=GRAPH)(5, 1), r"\(5, 5\)"),
        (lambda: made(4, adjacency=np.ones((2, 2)))(2, 1), "cycle"),
        (lambda: made(4, periodic=[None])(2, 1), "periodic"),
        (
            lambda: jflow.autoregressive(jflow.scalars.shift(), made(4), inverse="x"),
            "x",
        ),
        (
            lambda: jflow.autoregressive(LAW, made(4), tolerance=1.0),
            "jacobi",
        ),
        (
            lambda: jflow.autoregressive(LAW, made(4)).init(KEY, jnp.ones((2, 3, 3))),
            "vectors",
        ),
    ],
)
def test_unusable_arguments_are_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()
