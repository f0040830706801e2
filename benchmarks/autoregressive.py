"""Sampling from a masked autoregressive flow over its density: each strategy's ratio.

    python benchmarks/autoregressive.py            # D = 64 and 128, prints and saves
    python benchmarks/autoregressive.py --sizes 64 --steps 100

MAF of five layers, MADEs of 2 x 128 hidden units, batches of 1024: the processor time
of `sample` over that of `log_prob`, both jitted and taken by turns in one run, at the
start, where the flow is its standardisation, and after some hundred steps on a mixture
of Gaussians with random covariances. For `jacobi`, the sweeps of each layer too; for
all of them, how far the samples are from the sequential ones, relative to 1 + |x|.
Saves the table, with the machine, the versions and the commit, as JSON.
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
from report import RESULTS, provenance, table, write_json

import jflow
from jflow.diagnostics import jacobi_sweeps
from jflow.flow import Flow

STRATEGIES = ("incremental", "jacobi", "sequential")
TARGETS = {"incremental": 10.0, "jacobi": 5.0}
COMPONENTS = 8
HEADER = ("D", "params", "inverse", "sample / log_prob", "log_prob CPU-ms")
HEADER += ("sweeps", "error")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, save; the metrics."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    metrics = provenance("autoregressive.py", arguments) | {"targets": TARGETS}
    rows = [row for size in options.sizes for row in measure(size, options)]
    metrics["rows"] = [dict(zip(HEADER, row, strict=True)) for row in rows]
    write_json(Path(options.results), metrics)
    print(table(HEADER, rows))
    print(f"\ntargets, trained: {TARGETS}\nmetrics: {options.results}")
    return metrics


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--sizes", type=int, nargs="+", default=[64, 128], help="dimensions")
    add("--layers", type=int, default=5)
    add("--hidden", type=int, nargs="+", default=[128, 128])
    add("--batch", type=int, default=1024)
    add("--steps", type=int, default=400, help="of training")
    add("--rounds", type=int, default=7, help="of timing; the median counts")
    add("--results", default=str(RESULTS / "autoregressive.json"))
    add("--quick", action="store_true", help="a tiny run, for tests")
    options = parser.parse_args(arguments)
    if options.quick:
        tiny = dict(sizes=[5], layers=2, hidden=[16], batch=16, steps=4, rounds=2)
        vars(options).update(tiny)
    return options


def mixture(key: jax.Array, n: int, size: int) -> jax.Array:
    """Draws `(n, size)` from Gaussians with random means and covariances."""
    mean_key, root_key, which_key, noise_key = jax.random.split(key, 4)
    means = 2 * jax.random.normal(mean_key, (COMPONENTS, size))
    roots = jax.random.normal(root_key, (COMPONENTS, size, size)) / size**0.5
    which = jax.random.randint(which_key, (n,), 0, COMPONENTS)
    noise = jax.random.normal(noise_key, (n, size))
    correlated = jnp.einsum("nj,kij->nki", noise, roots)
    chosen = jnp.take_along_axis(correlated, which[:, None, None], axis=1)[:, 0]
    return means[which] + chosen + 0.1 * jax.random.normal(key, (n, size))


def measure(size: int, options: argparse.Namespace) -> list[tuple]:
    """The rows of one size: start and trained, each strategy."""

    def build(inverse):
        sizes = dict(layers=options.layers, hidden=tuple(options.hidden))
        return jflow.models.maf((size,), inverse=inverse, **sizes)

    flows = {inverse: build(inverse) for inverse in STRATEGIES}
    first = flows["incremental"]
    data_key, init_key, fit_key, key = jax.random.split(jax.random.key(size), 4)
    x = mixture(data_key, 20 * options.batch, size)
    start = first.init(init_key, x)
    trained, history = jflow.fit(
        first,
        start,
        x,
        jflow.train.adam(1e-3, clip=5.0),
        key=fit_key,
        steps=options.steps,
        batch_size=min(256, options.batch),
        progress=False,
    )
    print(f"D = {size}: loss {history['loss'][0]:.2f} to {history['loss'][-1]:.2f}")
    return [
        row
        for name, params in (("start", start), ("trained", trained))
        for row in compare(name, size, flows, params, x[: options.batch], key, options)
    ]


def compare(
    name: str,
    size: int,
    flows: dict[str, Flow],
    params: Any,
    x: jax.Array,
    key: jax.Array,
    options: argparse.Namespace,
) -> list[tuple]:
    """One row for each strategy, all timed by turns."""
    n = len(x)
    calls = {k: lambda f=f: f.sample(params, key, n) for k, f in flows.items()}
    calls["log_prob"] = lambda: flows["incremental"].log_prob(params, x)
    spent, values = by_turns(calls, options.rounds)
    base, exact = spent["log_prob"], values["sequential"]
    rows = []
    for inverse, flow in flows.items():
        error = jnp.abs(values[inverse] - exact) / (1 + jnp.abs(exact))
        sweeps = None
        if inverse == "jacobi":
            z = flow.base.sample(params["base"], key, n)
            sweeps = jacobi_sweeps(flow.bijector, params["bijector"], z)
        ratio = spent[inverse] / base
        rows.append(
            (size, name, inverse, ratio, 1e3 * base, sweeps, f"{error.max():.1e}")
        )
    return rows


def by_turns(calls: dict[str, Any], rounds: int) -> tuple[dict, dict]:
    """The median CPU seconds of each call, and what it returned.

    Fast calls are repeated, so that each turn takes some hundredths of a second.
    """
    values = {name: jax.block_until_ready(call()) for name, call in calls.items()}
    repeats = {}
    for name, call in calls.items():
        repeats[name] = max(1, round(0.05 / max(seconds(call, 1), 1e-4)))
    spent = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            spent[name].append(seconds(call, repeats[name]))
    return {name: median(times) for name, times in spent.items()}, values


def seconds(call: Any, repeats: int) -> float:
    """CPU seconds of one call."""
    before = time.process_time()
    for _ in range(repeats):
        jax.block_until_ready(call())
    return (time.process_time() - before) / repeats


if __name__ == "__main__":
    main()
