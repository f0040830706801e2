"""How much compilation a program is worth.

On a CPU XLA compiles each loop of a program by itself: 20 to 40 ms, and more than a
megabyte that it keeps until all are done. LLVM's level 1 instead of 3 saves an eighth
to a third of the time, and training steps run as fast. The way XLA had before, one
module for all loops, saves half of time and memory; JAX up to 0.10 has it. Loops that
write where they read are not vectorised by it, so steps then run 2 to 18 % slower and
single passes up to a third: the better choice for what runs once, and for short
trainings.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jflow.bijector import Params

OPTIONS = {"xla_backend_optimization_level": 1}
QUICK = {"xla_cpu_use_fusion_emitters": False}
# Parameters times examples: a training of so many takes seconds, and what each step is
# slower by adds up to less than compilation is shorter by.
SHORT = 2**33


def compiler_options(*, quick: bool = False) -> dict[str, Any]:
    """Options for `jax.jit` by which XLA compiles training steps sooner on a CPU.

    `fit` trains with them, and so can a loop of one's own:
    `jax.jit(step, donate_argnums=0, compiler_options=jflow.compiler_options())`.
    Options that XLA does not have, here or on other devices, are left out, and so are
    those that `XLA_FLAGS` sets.

    Args:
        quick: steps may run 2 to 18 % slower, single passes up to a third, if they
            compile in half the time and memory (JAX up to 0.10; later versions have no
            such option). `Flow.init` and short trainings by `fit` are compiled so.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> double = jax.jit(lambda x: 2 * x, compiler_options=compiler_options())
        >>> float(double(jnp.ones(())))
        2.0
    """
    if jax.default_backend() != "cpu":
        return {}
    options = OPTIONS | (QUICK if quick else {})
    flags = os.environ.get("XLA_FLAGS", "")
    return {k: v for k, v in options.items() if k not in flags and _known(k, v)}


@functools.cache
def _known(option, value):
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options={option: value})
    except jax.errors.JaxRuntimeError:
        return False
    return True


def quick_jit(function: Callable) -> Callable:
    """`jax.jit(function)`, compiled quickly, for what runs once."""
    part = jax.jit(function)

    @functools.cache
    def whole():
        return jax.jit(function, compiler_options=compiler_options(quick=True))

    @functools.wraps(function)
    def call(*args):
        # JAX takes options for whole programs only, not for a part of another one.
        leaves = jax.tree.leaves((args, jnp.zeros(())))
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
        return (part if traced else whole())(*args)

    return call


def is_short(params: Params, examples: int) -> bool:
    """Whether a training that sees so many examples is worth no more than that."""
    return examples * sum(leaf.size for leaf in jax.tree.leaves(params)) <= SHORT
