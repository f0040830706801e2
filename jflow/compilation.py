"""How much compilation a program is worth.

On a CPU XLA compiles each loop of a program by itself: 20 to 40 ms, and more than a
megabyte that it keeps until all are done. LLVM's level 1 instead of 3 saves an eighth
to a third of the time, and training steps run as fast. The way XLA had before, one
module for all loops, saves half of time and memory; JAX up to 0.10 has it. Loops that
write where they read are not vectorised by it, so steps then run 2 to 18 % slower and
single passes up to a third: the better choice for what runs once, and for short
trainings. Level 0 besides halves the time again, and loops run at a quarter of their
rate or less: for what is over as soon as it is compiled.
"""

import enum
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jflow.bijector import Params

LEVEL = "xla_backend_optimization_level"
OLDER_EMITTERS = {"xla_cpu_use_fusion_emitters": False}


class Effort(enum.IntEnum):
    """How well a program is compiled."""

    LEAST = 0
    QUICK = 1
    FULL = 2


OPTIONS = {
    Effort.LEAST: {LEVEL: 0} | OLDER_EMITTERS,
    Effort.QUICK: {LEVEL: 1} | OLDER_EMITTERS,
    Effort.FULL: {LEVEL: 1},
}
# Up to so many parameters times examples a program takes a second or seconds, and what
# it runs longer adds up to less than its compilation is shorter by.
TINY, SHORT = 2**28, 2**33


def compiler_options(*, quick: bool = False) -> dict[str, Any]:
    """Options for `jax.jit` by which XLA compiles training steps sooner on a CPU.

    `fit` trains with them, and so can a loop of one's own:
    `jax.jit(step, donate_argnums=0, compiler_options=jflow.compiler_options())`.
    Options that XLA does not have, here or on other devices, are left out, and so are
    those that `XLA_FLAGS` sets.

    Args:
        quick: steps may run 2 to 18 % slower, single passes up to a third, if they
            compile in half the time and memory (JAX up to 0.10; later versions have no
            such option). Short trainings by `fit` are compiled so; `Flow.init` and what
            is over in a moment, so or with less effort still.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> double = jax.jit(lambda x: 2 * x, compiler_options=compiler_options())
        >>> float(double(jnp.ones(())))
        2.0
    """
    return options_for(Effort.QUICK if quick else Effort.FULL)


def options_for(effort: Effort) -> dict[str, Any]:
    """Those that XLA has here and that are not the user's own."""
    if jax.default_backend() != "cpu":
        return {}
    flags = os.environ.get("XLA_FLAGS", "")
    options = OPTIONS[effort].items()
    return {k: v for k, v in options if k not in flags and _known(k, v)}


def worth(params: Params, examples: int) -> Effort:
    """The effort for a program that sees so many examples in all."""
    work = examples * sum(leaf.size for leaf in jax.tree.leaves(params))
    if work > SHORT:
        return Effort.FULL
    return Effort.QUICK if work > TINY else Effort.LEAST


@functools.cache
def _known(option, value):
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options={option: value})
    except jax.errors.JaxRuntimeError:
        return False
    return True


def jit_once(function: Callable, effort_of: Callable[..., Effort]) -> Callable:
    """`jax.jit(function)`, compiled for the one time that it runs.

    Args:
        function: takes arrays and trees of them, by their positions.
        effort_of: `(what it returns, as shapes, *its arguments) -> Effort`.
    """
    part = jax.jit(function)

    @functools.cache
    def whole(effort):
        return jax.jit(function, compiler_options=options_for(effort))

    @functools.wraps(function)
    def call(*args):
        # JAX takes options for whole programs only, not for a part of another one.
        leaves = jax.tree.leaves((args, jnp.zeros(())))
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return part(*args)
        return whole(effort_of(jax.eval_shape(part, *args), *args))(*args)

    return call
