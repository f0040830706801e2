"""What the JAX libraries have in common: Adam around a loss, jitted."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from peers import RATE, Case, Work, batch


def count(tree: Any) -> int:
    """How many floating-point numbers a tree holds."""
    leaves = jax.tree.leaves(tree)
    return sum(a.size for a in leaves if jnp.issubdtype(a.dtype, jnp.floating))


def temporaries(jitted: Callable, *arguments: Any) -> int:
    """Bytes that a compiled function allocates beside arguments and results."""
    memory = jitted.lower(*arguments).compile().memory_analysis()
    return memory.temp_size_in_bytes


def jax_work(
    case: Case, params: Any, log_prob: Callable, sample: Callable, **options: Any
) -> Work:
    """Work from `log_prob(params, x)` and `sample(params, key, n)`.

    Args:
        case: the case.
        params: a pytree; all its floating-point leaves are trained.
        log_prob, sample: not jitted yet.
        **options: of `jax.jit` for `sample`.
    """
    optimizer = optax.adam(RATE)
    x, key = jnp.asarray(batch(case)), jax.random.key(1)

    @jax.jit
    def train(params, opt_state, x):
        def loss(p):
            return -log_prob(p, x).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, value

    state = [params, jax.jit(optimizer.init)(params)]

    def step():
        *state[:], value = train(*state, x)
        return state, value

    evaluate = jax.jit(log_prob)
    draw = jax.jit(sample, static_argnums=2, **options)
    return Work(
        parameters=count(params),
        step=step,
        log_prob=lambda: evaluate(state[0], x),
        sample=lambda: draw(state[0], key, case.batch),
        wait=jax.block_until_ready,
        temporaries=lambda: temporaries(train, *state, x),
    )
