"""One library's run of one case, in a process of its own; `versus.py` starts it.

    python benchmarks/versus_run.py jflow realnvp-8 --cpus 0

Prints one line of JSON. Cores are chosen before any library is imported, so that its
threads are as many as they. Seconds are this process's CPU time and, beside it, wall
time: on a busy machine the first is what compares.
"""

import argparse
import gc
import importlib
import json
import os
import resource
import statistics
import sys
import time

from peers import CALLS, CASES, PROBE, batch, package


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library")
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--cpus", type=int, nargs="+", default=[0])
    parser.add_argument("--budget", type=float, default=2.0, help="seconds per row")
    options = parser.parse_args()
    pin(options.cpus)
    if options.library == PROBE:
        print(json.dumps(probe(CASES[options.case], options.budget)))
    else:
        print(json.dumps(measure(options.library, options.case, options.budget)))


def pin(cpus: list[int]) -> None:
    """Keep to these cores; before a library starts, so that its threads are as many."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(len(cpus))


def measure(library: str, case: str, budget: float) -> dict:
    """Import, build, first calls, steady calls, memory."""
    case = CASES[case]
    name, _, variant = library.partition(":")
    with clock() as imported:
        importlib.import_module(package(library))
        if name in TORCH:
            importlib.import_module("torch")
        else:
            importlib.import_module("optax")
    rss_import = peak()
    module = importlib.import_module(f"peers.with_{name}")
    result = {"import": imported(), "import_MiB": rss_import}
    if case.kind == "fit":
        return result | fit(module, case, variant) | {"peak_MiB": peak()}
    with clock() as built:
        work = module.build(case, variant or None)
    result |= {"build": built(), "parameters": work.parameters}
    for name in CALLS:
        call = getattr(work, name)
        with clock() as first:
            work.wait(call())
        result[f"first_{name}"] = first()
        result[name] = steady(call, work.wait, budget)
    result["peak_MiB"] = peak()
    if work.temporaries is not None:
        result["temporaries_MiB"] = work.temporaries() / 2**20
    return result


def fit(module, case, variant) -> dict:
    """A whole run of the library's own loop, compilation included, and a second one."""
    with clock() as first:
        fitted = module.fit(case, variant or None)
    with clock() as again:
        module.fit(case, variant or None)
    return {
        "parameters": fitted.parameters,
        "steps": fitted.steps,
        "loss": fitted.loss,
        "fit": first(),
        "fit_again": again(),
    }


def probe(case, budget) -> dict:
    """Rates of float32 matrix products, in operations per second: the machine's limit.

    `peak` for 1,024^3, `body` for the case's own narrow ones: batch x width x width.
    """
    import jax
    import jax.numpy as jnp

    rows = case.batch if case.kind != "glow" else case.batch * 64
    rates = {}
    for name, (m, n) in {"peak": (1024, 1024), "body": (rows, case.width)}.items():
        a = jnp.ones((m, n)) + jnp.asarray(batch(case)).ravel()[0]
        b = jnp.eye(n)

        @jax.jit
        def products(a, b):
            for _ in range(4):
                a = a @ b
            return a

        jax.block_until_ready(products(a, b))
        call = lambda: products(a, b)  # noqa: B023, E731
        times = steady(call, jax.block_until_ready, budget)
        rates[name] = {k: 4 * 2 * m * n * n / t for k, t in times.items()}
    return rates


TORCH = ("nflows", "normflows", "zuko", "freia")


class clock:
    """`with clock() as passed: ...; passed()` is CPU and wall seconds."""

    def __enter__(self):
        self.start = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_):
        cpu, wall = self.start
        self.passed = {
            "cpu": time.process_time() - cpu,
            "wall": time.perf_counter() - wall,
        }

    def __call__(self):
        return self.passed


def steady(call, wait, budget) -> dict:
    """The median of many calls."""
    wait(call())
    gc.collect()
    times, end = [], time.process_time() + budget
    while len(times) < 5 or (time.process_time() < end and len(times) < 200):
        with clock() as passed:
            wait(call())
        times.append(passed())
    return {k: statistics.median(t[k] for t in times) for k in ("cpu", "wall")}


def peak() -> float:
    """The process's largest resident size so far, in MiB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    main()
