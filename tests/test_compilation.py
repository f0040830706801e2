"""Compiler options: known to this XLA, and each program has what it is worth."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jflow
from jflow import compilation
from jflow.compilation import LEVEL, Effort, compile_side_by_side, options_for
from jflow.train import dispatch, init_state

X = jax.random.normal(jax.random.key(0), (64, 2))
FLOW = jflow.models.realnvp((2,), couplings=2, hidden=(8,))


@pytest.fixture
def no_flags(monkeypatch):
    """The options as users have them; these tests' own flags have them all."""
    monkeypatch.setenv("XLA_FLAGS", "")


@pytest.mark.parametrize("effort", Effort)
def test_the_options_are_xlas(no_flags, effort):
    options = options_for(effort)
    assert options.items() <= compilation.OPTIONS[effort].items()
    assert bool(options) == (jax.default_backend() == "cpu")


@pytest.mark.parametrize("cores", [1, 2])
def test_products_are_eigens_where_there_are_several_cores(
    monkeypatch, no_flags, cores
):
    monkeypatch.setattr(compilation, "_cores", lambda: cores)
    (option,) = compilation.EIGENS_PRODUCTS
    known = option in compilation._known() and jax.default_backend() == "cpu"
    for effort in (Effort.QUICK, Effort.FULL, Effort.MOST):
        assert (option in options_for(effort)) == (known and cores > 1)
    assert option not in options_for(Effort.LEAST)


def test_users_have_full_and_quick(no_flags):
    assert jflow.compiler_options() == options_for(Effort.FULL)
    assert jflow.compiler_options(quick=True) == options_for(Effort.QUICK)


def test_options_that_xla_does_not_have_are_left_out(monkeypatch, no_flags):
    before, quick = options_for(Effort.QUICK), compilation.OPTIONS[Effort.QUICK]
    monkeypatch.setitem(quick, "xla_cpu_no_such_option", True)
    compilation._known.cache_clear()
    try:
        assert options_for(Effort.QUICK) == before
    finally:
        compilation._known.cache_clear()


def test_what_xla_flags_set_stays(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--{LEVEL}=2")
    assert LEVEL not in jflow.compiler_options()


def test_calls_find_what_was_compiled_side_by_side(compiled):
    doubled, shifted = jax.jit(lambda x: 2 * x), jax.jit(lambda x, n: x + n)
    compile_side_by_side(lambda: doubled.lower(X), lambda: shifted.lower(X, 1))
    assert len(compiled) == 2
    doubled(X), shifted(X, 3)
    assert len(compiled) == 2
    with jax.disable_jit():
        compile_side_by_side(lambda: doubled.lower(X[:8]))
    assert len(compiled) == 2


def test_what_tracing_raises_side_by_side_arrives():
    with pytest.raises(ValueError, match="Incompatible shapes"):
        compile_side_by_side(
            lambda: jax.jit(jnp.sin).lower(X),
            lambda: jax.jit(jnp.add).lower(X, X[:, 0]),
        )


@pytest.mark.parametrize("tiny", [0, 2**28])
def test_init_is_the_same_as_part_of_another_program(no_flags, monkeypatch, tiny):
    monkeypatch.setattr(compilation, "TINY", tiny)
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


def test_passes_are_the_same_as_parts_of_other_programs(no_flags):
    params, key = FLOW.init(jax.random.key(1), X), jax.random.key(2)
    draw = functools.partial(FLOW.sample, n=8)
    for function, args in ((FLOW.log_prob, (params, X)), (draw, (params, key))):
        expected = function(*args)
        many = jax.tree.map(lambda leaf: leaf[None], args)
        for found in (
            jax.jit(function)(*args),
            jax.jit(lambda f=function, args=args: f(*args))(),
            jax.vmap(function)(*many)[0],
            jax.lax.map(lambda one, f=function: f(*one), many)[0],
            jax.vjp(lambda p, f=function, a=args[1]: f(p, a), params)[0],
        ):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        assert jax.eval_shape(function, *args).shape == expected.shape


def test_a_pass_has_its_effort_where_it_is_a_whole_program(monkeypatch):
    asked = []
    monkeypatch.setattr(
        compilation, "options_for", lambda effort: asked.append(effort) or {}
    )
    # Of their own, since a pass asks once.
    whole, part = (jflow.flow(FLOW.bijector, FLOW.base) for _ in range(2))
    params = FLOW.init(jax.random.key(1), X)
    jax.jit(part.log_prob)(params, X)
    jax.vmap(part.log_prob, (None, 0))(params, X[None])
    jax.jit(lambda: part.log_prob(params, X))()
    assert not asked
    whole.log_prob(params, X), whole.sample(params, jax.random.key(2), 4)
    assert asked == [Effort.FULL] * 2
    images = jflow.flow(jflow.actnorm(), jflow.normal((2, 2, 1)))
    params = images.init(jax.random.key(1), jnp.ones((3, 2, 2, 1)))
    asked.clear()
    images.sample(params, jax.random.key(2), 4)
    assert asked == [Effort.MOST]


def test_a_new_state_is_of_copies_and_the_same_within_a_program(no_flags):
    params = FLOW.init(jax.random.key(1), X)
    optimizer, key = optax.adam(1e-3), jax.random.key(2)

    def build(params):
        state = init_state(params, optimizer, key, average=True, best=True)
        return state._replace(key=jax.random.key_data(state.key))

    state = build(params)
    for expected in (state, state._replace(params=params, average=params)):
        found = jax.jit(build)(params)
        for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype and not b.weak_type
    arrays = jax.tree.leaves((params, state))
    assert len({a.unsafe_buffer_pointer() for a in arrays}) == len(arrays)


def trained(monkeypatch, tiny, short, **options):
    asked = []
    monkeypatch.setattr(compilation, "TINY", tiny)
    monkeypatch.setattr(compilation, "SHORT", short)
    monkeypatch.setattr(
        dispatch, "options_for", lambda effort: asked.append(effort) or {}
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
        **options,
    )
    return asked


def test_each_piece_of_a_training_has_what_it_is_worth(monkeypatch):
    params = FLOW.init(jax.random.key(1), X)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    # Steps see 4 x 8 examples, the one evaluation 16.
    for tiny, short, expected in (
        (32, 32, [Effort.LEAST, Effort.LEAST]),
        (16, 32, [Effort.QUICK, Effort.LEAST]),
        (0, 31, [Effort.FULL, Effort.QUICK]),
    ):
        assert trained(monkeypatch, tiny * size, short * size) == expected


@pytest.mark.parametrize("quick, effort", [(True, Effort.QUICK), (False, Effort.FULL)])
def test_how_quickly_steps_are_compiled_is_the_users_choice(monkeypatch, quick, effort):
    for limit in (0, 2**40):
        assert trained(monkeypatch, limit, limit, quick=quick)[0] == effort


def test_of_batches_steps_are_compiled_fully():
    assert compilation.worth({}, None) == Effort.FULL
    with pytest.raises(TypeError, match="quick must be True, False or None, got 1"):
        compilation.worth({}, 8, 1)


def test_all_ways_give_the_same_numbers(no_flags):
    def loss(params):
        return -FLOW.log_prob(params, X).mean()

    params = FLOW.init(jax.random.key(1), X)
    params = jax.tree.map(
        lambda a: a + 0.1 * jnp.cos(jnp.arange(a.size)).reshape(a.shape), params
    )
    grads = [
        jax.jit(jax.grad(loss), compiler_options=options)(params)
        for options in ({}, *map(options_for, Effort))
    ]
    for found in grads[1:]:
        for a, b in zip(*map(jax.tree.leaves, (found, grads[0])), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
