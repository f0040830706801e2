"""How much compilation a program is worth.

On a CPU XLA compiles each loop of a program by itself: 10 to 40 ms, and more than a
megabyte that it keeps until all are done. LLVM's level 1 instead of 3 saves an eighth
to a half of the time. Training steps run as fast by it, and so do vectors' passes:
level 3 writes out loops over few places, and of a spline's, over 16 to 24, it then
makes no vectors (level 1: 0.3 to 0.8 of the time; but affine couplings of 12 to 24
places sample in up to 1.4). Images' passes have level 3, for their few channels.

The way XLA had before, one module for all loops, saves half of time and memory; JAX up
to 0.10 has it. Loops that write where they read, as a rectifier's after a product, are
not vectorised by it, so vectors' steps run slower and splines' by far; Glow's do not,
which keeps its convolutions' results for the backward pass: the better choice for Glow,
for what runs once, and for short trainings. Level 0 besides halves the time again, and
loops run at a quarter of their rate or less: for what is over as soon as it is
compiled.

XLA has LLVM use half of AVX-512's vectors, because early processors slow their clock
down for whole ones. Products of matrices use whole ones in any case, by libraries, and
so does all else here but what has the least effort: 1.03 to 1.16 of the rate.

YNNPACK, XLA's choice for products since JAX 0.10 or before (0.8 has Eigen's), gains
little by a second core. With more than one, Eigen's take their place: training steps
take 0.88 to 0.97 of the time, passes 0.75 to 0.9. (On JAX 0.10 MAF's sampling, whose
products are small, takes 1.2 of it; on 0.12 it does not.)
"""

import enum
import functools
import operator
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
from flax.core.tracers import current_trace

from jflow.bijector import Params

LEVEL = "xla_backend_optimization_level"
OLDER_EMITTERS = {"xla_cpu_use_fusion_emitters": False}
WHOLE_VECTORS = {"xla_cpu_prefer_vector_width": 512}
# What is left to YNNPACK; for several cores only.
EIGENS_PRODUCTS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
FASTER = WHOLE_VECTORS | EIGENS_PRODUCTS


class Effort(enum.IntEnum):
    """How well a program is compiled."""

    LEAST = 0
    QUICK = 1
    FULL = 2
    MOST = 3


OPTIONS = {
    Effort.LEAST: {LEVEL: 0} | OLDER_EMITTERS,
    Effort.QUICK: {LEVEL: 1} | OLDER_EMITTERS | FASTER,
    Effort.FULL: {LEVEL: 1} | FASTER,
    Effort.MOST: FASTER,
}
# Up to so many parameters times examples a program takes a second or seconds, and what
# it runs longer adds up to less than its compilation is shorter by.
TINY, SHORT = 2**28, 2**33


def compiler_options(*, quick: bool = False) -> dict[str, Any]:
    """Options for `jax.jit` by which XLA compiles training steps sooner on a CPU.

    Where there are several cores they also run faster (Eigen's products).
    `fit` trains with them, and so can a loop of one's own:
    `jax.jit(step, donate_argnums=0, compiler_options=jflow.compiler_options())`.
    Options that XLA does not have, here or on other devices, are left out, and so are
    those that `XLA_FLAGS` sets.

    Args:
        quick: compile in half to two thirds of the time and memory (JAX up to 0.10;
            later versions have no such option). Glow's steps then run as fast, vectors'
            8 to 20 % slower, splines' up to two thirds. Short trainings by `fit` are
            compiled so; `Flow.init` and what is over in a moment, so or with less
            effort still.

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
    wanted = _known() if _cores() > 1 else _known() - EIGENS_PRODUCTS.keys()
    options = OPTIONS[effort].items()
    return {k: v for k, v in options if k in wanted and k not in flags}


def worth(params: Params, examples: int | None, quick: bool | None = None) -> Effort:
    """The effort for a program that sees so many examples in all.

    Args:
        params: of the flow.
        examples: None where they are not known, for the full effort.
        quick: the user's own choice.

    Raises:
        TypeError: `quick` is neither True, False nor None.
    """
    if not (quick is None or isinstance(quick, bool)):
        raise TypeError(f"quick must be True, False or None, got {quick!r}.")
    if quick is not None or examples is None:
        return Effort.QUICK if quick else Effort.FULL
    work = examples * sum(leaf.size for leaf in jax.tree.leaves(params))
    if work > SHORT:
        return Effort.FULL
    return Effort.QUICK if work > TINY else Effort.LEAST


@functools.cache
def _known():
    """The options that XLA has here."""
    every = functools.reduce(operator.or_, OPTIONS.values())
    # All at once, since each time is a compilation.
    if _compiles(every):
        return set(every)
    return {k for k, v in every.items() if _compiles({k: v})}


def _cores():
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _compiles(options):
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options=options)
    except jax.errors.JaxRuntimeError:
        return False
    return True


def jit_whole(
    function: Callable, effort_of: Callable[..., Effort], **options: Any
) -> Callable:
    """`jax.jit(function, **options)`, compiled with an effort of its own.

    JAX takes such options for whole programs only: where the function is a part of
    another one, or transformed, it is `jax.jit(function, **options)` and no more.

    Args:
        function: what is compiled.
        effort_of: `(what the function takes) -> Effort`.
        **options: of `jax.jit`.
    """
    part = jax.jit(function, **options)

    @functools.cache
    def whole(effort):
        return jax.jit(function, compiler_options=options_for(effort), **options)

    def chosen(*args, **kwargs):
        if current_trace() != _NO_TRACE:
            return part
        return whole(effort_of(*args, **kwargs))

    @functools.wraps(function)
    def call(*args, **kwargs):
        return chosen(*args, **kwargs)(*args, **kwargs)

    call.lower = lambda *args, **kwargs: chosen(*args, **kwargs).lower(*args, **kwargs)
    return call


def compile_side_by_side(*lowerings: Callable[[], jax.stages.Lowered]) -> None:
    """Compile several programs; what a first call of each would do is done then.

    XLA's compiler begins with work for one core, and needs no Python: meanwhile the
    next program is traced and compiled.

    Args:
        *lowerings: each traces a program, `lambda: jax.jit(f).lower(...)`.
    """
    if jax.config.jax_disable_jit:
        return
    with ThreadPoolExecutor() as threads:
        compilations = [threads.submit(lower().compile) for lower in lowerings]
    for compilation in compilations:
        compilation.result()


with jax.core.eval_context():
    _NO_TRACE = current_trace()
