"""What float32 does to every bijector: round trips, log-dets, NaN, as parameters grow.

    python benchmarks/precision.py                     # the whole registry of the tests
    python benchmarks/precision.py --only spline qr    # cases with these in their names

Each case of `tests/contract.py` gets normal noise of standard deviation 0.3, 1, 3 and
10 on its learned parameters (weights of networks too, whose outputs then are larger
still). Measured, the largest over a batch: "backward", |forward(inverse(z)) - z| over
the largest |z|; "round trip", |inverse(forward(x)) - x| over the largest |x|, which a
map that flattens must lose; "log-det", |forward's + inverse's| over 1 + its size;
"float64", the distance of forward's log-det from what float64 makes of the same
numbers, in the same unit; NaN and infinite entries of values, log-dets and gradients.
"beyond" counts the deviations at which float64 has values that float32 cannot hold, as
chains of random layers do; their NaN are not float32's fault, and left out.

Rational quadratic splines come first, by themselves: each of 200,000 points of the box
has raw parameters of its own, points are uniform in the box as data and as latents, and
distances are relative to the box's width. Saves all rows, with the machine, the
versions and the commit, as JSON, and the table beside it, as Markdown.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from report import RESULTS, provenance, table, write_json

import jflow
from jflow.bijector import Bijector

# The registry is the tests': what is not in it fails the suite, so nothing is missed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from case import Case, draw, scrambled
from contract import CASES

DEVIATIONS = (0.3, 1.0, 3.0, 10.0)
TARGETS = {"spline backward at 1": 4e-6, "NaN": 0}
BATCH, POINTS, BOX = 256, 200_000, 3.0
ERRORS = ("backward", "round trip", "log-det", "float64")
COUNTS = ("NaN", "infinite", "beyond")
LARGEST = float(np.finfo(np.float32).max)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, save; the metrics."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    metrics = provenance("precision.py", arguments) | {"targets": TARGETS}
    rows = list(splines(100 if options.quick else POINTS))
    chosen = [c for c in CASES if any(part in c.name for part in options.only or [""])]
    for case in chosen:
        rows += measure(case)
        print(f"{case.name}: {rows[-1]['NaN']} NaN", file=sys.stderr, flush=True)
    metrics["rows"] = rows
    path = Path(options.results)
    write_json(path, metrics)
    path.with_suffix(".md").write_text(page(metrics))
    print(summary(rows))
    print(f"\ntargets: {TARGETS}\nmetrics: {options.results}")
    return metrics


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", nargs="+", help="parts of the cases' names")
    add("--results", default=str(RESULTS / "precision.json"))
    add("--quick", action="store_true", help="few points for the splines, for tests")
    return parser.parse_args(arguments)


# --- the registry ---------------------------------------------------------------------


def measure(case: Case) -> list[dict[str, Any]]:
    """One row for each deviation."""
    b = case.build()
    x, condition = draw(case, 0, BATCH)
    start = jax.jit(b.init)(jax.random.key(2), *draw(case, 1, BATCH))
    noise = jax.random.key(7) if case.integers else None
    program = passes(b, noise)
    rows, inputs = [], []
    for deviation in DEVIATIONS:
        params = scrambled(case, start, deviation)
        out = program(params, x, condition)
        rows.append({"case": case.name, "deviation": deviation} | errors(x, *out))
        inputs.append((params, out[0], np.asarray(out[1])))
    with jax.enable_x64(True):
        exact = in_float64(case.build(), noise)
        for row, (params, z, log_det) in zip(rows, inputs, strict=True):
            wide = jax.tree.map(_wide, (params, x, condition, z))
            found, largest = map(np.asarray, exact(*wide))
            row["float64"] = relative(log_det, found)
            row["beyond"] = int(not largest <= LARGEST)
    return rows


def passes(b: Bijector, noise: jax.Array | None) -> Any:
    """The jitted round trip and gradients."""

    def total(params, x, condition):
        z, log_det = b.forward(params, x, condition, noise)
        # As in the tests: values may be huge, their derivatives count.
        finite = jnp.where(jnp.isfinite(log_det), log_det, 0.0)
        return jnp.tanh(z * 1e-6).sum() + finite.sum()

    @jax.jit
    def run(params, x, condition):
        z, log_det = b.forward(params, x, condition, noise)
        again, back = b.inverse(params, z, condition)
        forth, _ = b.forward(params, again, condition, noise)
        slopes = jax.grad(total, argnums=(0, 1))(params, x, condition)
        return z, log_det, again, back, forth, slopes

    return run


def in_float64(b: Bijector, noise: jax.Array | None) -> Any:
    """The jitted log-det, and the largest entry of both passes."""

    @jax.jit
    def run(params, x, condition, z):
        exact, log_det = b.forward(params, x, condition, noise)
        again, _ = b.inverse(params, z, condition)
        return log_det, jnp.maximum(jnp.abs(exact).max(), jnp.abs(again).max())

    return run


def errors(x, z, log_det, again, back, forth, slopes, width=None) -> dict[str, Any]:
    """The measures of one round trip; `float64` is filled in later."""
    every = (z, log_det, again, back, forth, slopes)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(every)]
    return {
        "backward": distance(forth, z, width),
        "round trip": distance(again, x, width),
        "log-det": relative(np.asarray(log_det), -np.asarray(back)),
        "float64": None,
        "NaN": int(sum(np.isnan(leaf).sum() for leaf in leaves)),
        "infinite": int(sum(np.isinf(leaf).sum() for leaf in leaves)),
        "beyond": 0,
    }


def distance(found: Any, exact: Any, width: float | None) -> float:
    """The largest distance, over `width` or the largest entry's size."""
    found, exact = (np.asarray(a, np.float64) for a in (found, exact))
    finite = np.isfinite(found) & np.isfinite(exact)
    found, exact = found[finite], exact[finite]
    width = np.abs(exact).max(initial=1e-30) if width is None else width
    return float(np.abs(found - exact).max(initial=0.0) / width)


def relative(value: np.ndarray, exact: np.ndarray) -> float:
    """The largest error, over 1 + the size; infinities are counted elsewhere."""
    value, exact = value.astype(np.float64), exact.astype(np.float64)
    finite = np.isfinite(value) & np.isfinite(exact)
    value, exact = value[finite], exact[finite]
    return float((np.abs(value - exact) / (1 + np.abs(exact))).max(initial=0.0))


def _wide(a):
    return jnp.asarray(np.asarray(a, np.float64))


# --- splines --------------------------------------------------------------------------


def splines(points: int) -> Any:
    """Rows of the rational quadratic spline, 8 bins, each point its own parameters."""
    for parametrisation in ("soft_clip", "softmax"):
        law = jflow.scalars.rational_quadratic_spline(
            8, BOX, parametrisation=parametrisation
        )

        def both(raw, x, law=law):
            z, log_derivative = law.forward(raw, x)
            again, back = law.inverse(raw, z)
            forth = law.forward(raw, law.inverse(raw, x)[0])[0]
            return z, log_derivative, again, back, forth

        def total(raw, x, law=law):
            return sum(part.sum() for part in law.forward(raw, x))

        run, exact = jax.jit(both), jax.jit(law.forward)
        slopes = jax.jit(jax.grad(total, (0, 1)))
        raw_key, x_key = jax.random.split(jax.random.key(0))
        normal = jax.random.normal(raw_key, (points, law.size))
        x = jax.random.uniform(x_key, (points,), minval=-BOX, maxval=BOX)
        x = x.at[0].set(BOX)
        for deviation in DEVIATIONS:
            raw = deviation * normal
            out = run(raw, x)
            row = {"case": f"RQS, {parametrisation}", "deviation": deviation}
            row |= errors(x, *out, slopes(raw, x), 2 * BOX)
            row["backward"] = distance(out[-1], x, 2 * BOX)
            with jax.enable_x64(True):
                wide = exact(_wide(raw), _wide(x))[1]
                row["float64"] = relative(np.asarray(out[1]), np.asarray(wide))
            yield row


# --- the table ------------------------------------------------------------------------


def page(metrics: dict[str, Any]) -> str:
    """The table with what its columns mean and where it comes from."""
    meaning = __doc__[__doc__.index("Each case") :].strip()
    origin = {k: metrics[k] for k in ("command", "commit", "machine", "versions")}
    lines = [f"{name}: {value}" for name, value in origin.items()]
    parts = ["# What float32 does to every bijector", meaning, *lines]
    return "\n\n".join([*parts, summary(metrics["rows"])]) + "\n"


def summary(rows: list[dict[str, Any]]) -> str:
    """A line for each case: errors at the four deviations, counts over all of them."""

    def count(found, name):
        held = [row for row in found if name == "beyond" or not row["beyond"]]
        return sum(row[name] for row in held)

    cases: dict[str, list] = {}
    for row in rows:
        cases.setdefault(row["case"], []).append(row)
    header = ["case", *(f"{name} {d:g}" for name in ERRORS for d in DEVIATIONS)]
    lines = [
        (
            case,
            *(f"{row[error]:.0e}" for error in ERRORS for row in found),
            *(count(found, name) for name in COUNTS),
        )
        for case, found in cases.items()
    ]
    return table((*header, *COUNTS), lines)


if __name__ == "__main__":
    main()
