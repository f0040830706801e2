"""Settings for tests, which compile many small programs and run each a few times."""

import gc
import os
from importlib.metadata import version


def compile_cheaply(*more: str) -> None:
    """Set XLA's flags, and `more`, which JAX reads with its first array.

    Dear passes are off: without fusion emitters and in one piece a program compiles in
    a third of the time. Garbage collections are rare: what JAX has traced and compiled
    stays, and each collection goes through it.
    """
    gc.set_threshold(100_000, 20, 100)
    flags = [os.environ.get("XLA_FLAGS", ""), *more]
    flags += ["--xla_backend_optimization_level=0"]
    flags += ["--xla_cpu_parallel_codegen_split_count=1"]
    # jaxlib ends the process on a flag that it does not know, and 0.12 does not know
    # this one.
    if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
        flags += ["--xla_cpu_use_fusion_emitters=false"]
    os.environ["XLA_FLAGS"] = " ".join(flags)
