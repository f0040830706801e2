"""Compiler options: known to this XLA, and quick for init and short trainings alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jflow
from jflow import compilation
from jflow.train import dispatch

X = jax.random.normal(jax.random.key(0), (64, 2))
FLOW = jflow.models.realnvp((2,), couplings=2, hidden=(8,))
LEVEL = "xla_backend_optimization_level"


@pytest.fixture
def no_flags(monkeypatch):
    """The options as users have them; these tests' own flags have them all."""
    monkeypatch.setenv("XLA_FLAGS", "")


@pytest.mark.parametrize("quick", [False, True])
def test_the_options_are_xlas(no_flags, quick):
    options = jflow.compiler_options(quick=quick)
    asked = compilation.OPTIONS | (compilation.QUICK if quick else {})
    assert options.items() <= asked.items()
    assert (LEVEL in options) == (jax.default_backend() == "cpu")


def test_options_that_xla_does_not_have_are_left_out(monkeypatch, no_flags):
    monkeypatch.setitem(compilation.QUICK, "xla_cpu_no_such_option", True)
    assert "xla_cpu_no_such_option" not in jflow.compiler_options(quick=True)


def test_what_xla_flags_set_stays(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--{LEVEL}=2")
    assert LEVEL not in jflow.compiler_options()


def test_init_is_the_same_as_part_of_another_program(no_flags):
    # A flow of its own: the options are those of its first call.
    init = jflow.models.realnvp((2,), couplings=2, hidden=(8,)).init
    key = jax.random.key(1)
    expected = init(key, X)
    of_many = jax.vmap(init, (0, None))(key[None], X)
    for found in (
        jax.jit(init)(key, X),
        jax.jit(lambda: init(key, X))(),
        jax.tree.map(lambda leaf: leaf[0], of_many),
    ):
        for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    shapes = jax.eval_shape(init, key, X)
    assert jax.tree.structure(shapes) == jax.tree.structure(expected)


def trained(monkeypatch, short):
    asked = []
    monkeypatch.setattr(compilation, "SHORT", short)
    monkeypatch.setattr(
        dispatch, "compiler_options", lambda *, quick: asked.append(quick) or {}
    )
    for piece in (dispatch.many_steps, dispatch.evaluation):
        piece.cache_clear()
    jflow.fit(
        FLOW,
        FLOW.init(jax.random.key(1), X),
        X,
        optax.adam(1e-3),
        key=jax.random.key(2),
        steps=4,
        batch_size=8,
        validation=0.25,
        progress=False,
    )
    return asked


def test_only_short_trainings_are_compiled_quickly(monkeypatch):
    params = FLOW.init(jax.random.key(1), X)
    work = 4 * 8 * sum(leaf.size for leaf in jax.tree.leaves(params))
    assert trained(monkeypatch, work) == [True, True]
    assert trained(monkeypatch, work - 1) == [False, False]


def test_both_ways_give_the_same_numbers(no_flags):
    def loss(params):
        return -FLOW.log_prob(params, X).mean()

    params = FLOW.init(jax.random.key(1), X)
    params = jax.tree.map(
        lambda a: a + 0.1 * jnp.cos(jnp.arange(a.size)).reshape(a.shape), params
    )
    grads = [
        jax.jit(jax.grad(loss), compiler_options=options)(params)
        for options in (jflow.compiler_options(quick=True), {})
    ]
    for a, b in zip(*map(jax.tree.leaves, grads), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
