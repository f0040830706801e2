"""Tables of numbers: densities, conditional densities, and finding anomalies.

    python benchmarks/tabular.py bsds300_patches --model nsf --data DIR --cpu-minutes 12
    python benchmarks/tabular.py concrete --data DIR     # p(y | x) over 20 splits
    python benchmarks/tabular.py shuttle --data DIR      # density, AUC of anomalies
    python benchmarks/tabular.py power --data DIR        # the MAF paper's archive

A density is compared with the full-covariance Gaussian and with published flows, the
anomalies' AUC with the Gaussian's and an isolation forest's on the same split. Prints a
table and saves it, with the machine, the versions and the commit, as JSON. Checkpoints
go to --out; a run of a density that was stopped goes on from there when it is started
again with the same options.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from images import claim, clocks
from report import RESULTS, provenance, table, write_json
from tables import READERS, REGRESSIONS, Regression, Table, load, regression

import jflow
from jflow.flow import Flow

# Average test log-likelihoods in nats. Gaussian to MAF: the MAF paper, table 1, or its
# re-run in NSF's; NSF: Durkan et al. 2019, table 1, https://arxiv.org/abs/1906.04032.
COLUMNS = ("power", "gas", "hepmass", "miniboone", "bsds300")
PUBLISHED = {
    "Gaussian": (-7.74, -3.58, -27.93, -37.24, 96.67),
    "MADE": (-3.08, 3.56, -20.98, -15.59, 148.85),
    "RealNVP (10)": (0.17, 8.33, -18.71, -13.84, 153.28),
    "MAF (5)": (0.14, 9.07, -17.70, -11.75, 155.69),
    "MAF (10)": (0.24, 10.08, -17.73, -12.24, 154.93),
    "MAF, residual, LU": (0.45, 12.35, -17.03, -10.92, 156.95),
    "RQ-NSF (C)": (0.64, 13.09, -14.75, -9.67, 157.54),
    "RQ-NSF (AR)": (0.66, 13.09, -14.01, -9.22, 157.31),
}
# Test log-likelihoods, mean and standard deviation over the same splits: dropout of Gal
# & Ghahramani 2016, as their code's page has them after ten times the paper's epochs,
# https://github.com/yaringal/DropoutUncertaintyExps
DROPOUT = {
    "concrete": (-2.94, 0.10),
    "kin8nm": (0.97, 0.02),
    "power-plant": (-2.79, 0.04),
    "protein-tertiary-structure": (-2.87, 0.01),
    "wine-quality-red": (-0.92, 0.06),
}
DEFAULTS = dict(layers=5, hidden=[128, 128], batch=256, steps=100_000, lr=1e-3)
DEFAULTS |= dict(whiten=False, bound=5.0)
# Whitened patches have heavy tails, all of which the splines should move.
PATCHES = dict(hidden=[256, 256], batch=512, whiten=True, bound=20.0)
OWN = {
    "bsds300_patches": PATCHES,
    "bsds300": PATCHES,
    **{
        name: dict(layers=2, hidden=[50, 50], batch=100, steps=20_000)
        for name in REGRESSIONS
    },
}
QUICK = dict(layers=2, hidden=[16], batch=50, steps=8, eval_every=4, splits=2)
AVERAGE, CLIP, EVALUATION_BATCH = 0.999, 5.0, 2_500


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; the metrics, as they are saved."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    name = f"{options.name}_{options.model}"
    out = Path(options.out or Path("runs") / "tabular" / name)
    path = Path(options.results or RESULTS / "tabular" / f"{name}.json")
    metrics = provenance("tabular.py", arguments)
    metrics["options"] = {k: v for k, v in vars(options).items() if v is not None}
    # What an earlier process took counts, too, where a run goes on.
    before = clocks()["cpu_minutes"] - spent(out)
    if options.name in REGRESSIONS:
        found = regress(regression(options.name, options.data), options)
    else:
        claim(out, options)
        found = estimate(load(options.name, options.data), options, out)
    metrics["results"] = found
    metrics["timing"] = {"cpu_minutes": clocks()["cpu_minutes"] - before}
    write_json(path, metrics)
    print(summary(metrics))
    print(f"\nmetrics: {path}")
    return metrics


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line, filled up with what suits the data."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("name", choices=[*READERS, *REGRESSIONS])
    add("--data", help="the directory of the data, or one above it")
    add("--model", choices=["maf", "nsf"], default="nsf")
    add("--layers", type=int, help="of the flow")
    add("--hidden", type=int, nargs="+", help="of its networks")
    whiten = "start at the full-covariance Gaussian"
    add("--whiten", action=argparse.BooleanOptionalAction, help=whiten)
    add("--bound", type=float, help="of NSF's splines")
    add("--batch", type=int)
    add("--lr", type=float)
    add("--steps", type=int, help="at most")
    add("--cpu-minutes", type=float, help="stop after so many of training")
    add("--eval-every", type=int, default=250, help="steps between validations")
    add("--patience", type=int, default=20, help="validations without a better one")
    add("--splits", type=int, default=20, help="how many, of the regressions' splits")
    add("--seed", type=int, default=0)
    add("--out", help="for checkpoints; runs/tabular/... by default")
    add("--results", help="the JSON file; under benchmarks/results by default")
    add("--quick", action="store_true", help="a tiny run, for tests")
    options = parser.parse_args(arguments)
    preset = DEFAULTS | OWN.get(options.name, {})
    given = {k: v for k, v in vars(options).items() if v is not None}
    vars(options).update(preset | given)
    if options.quick:
        vars(options).update(QUICK)
    return options


def build(size: int, options: argparse.Namespace) -> Flow:
    """The flow over `(size,)`."""
    sizes = dict(layers=options.layers, hidden=tuple(options.hidden))
    if options.model == "maf":
        # Scales that end: a network's straight continuation to examples far from the
        # others would else make of one of them the loss.
        flow = jflow.models.maf((size,), scale="tanh", **sizes)
    else:
        flow = jflow.models.nsf((size,), bins=8, bound=options.bound, **sizes)
    if not options.whiten:
        return flow
    # Neighbouring pixels are so alike that dequantization noise counts.
    first = jflow.triangular_affine(epsilon=1e-6)
    return jflow.flow(jflow.chain(first, flow.bijector), flow.base)


# --- densities ------------------------------------------------------------------------


def estimate(data: Table, options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Train on the table, and measure."""
    init_key, fit_key, enter_key = jax.random.split(jax.random.key(options.seed), 3)
    start = np.asarray(data.enter(enter_key, data.train[:50_000]))
    flow = build(start.shape[1], options)
    params = flow.init(init_key, start)

    def loss(params, stored, condition=None, key=None):
        return -flow.log_prob(params, data.enter(key, stored)).mean()

    params, history = jflow.fit(
        flow,
        params,
        data.train,
        optimizer(options),
        key=fit_key,
        steps=options.steps,
        batch_size=options.batch,
        validation=data.validation,
        loss=loss,
        evaluate_every=options.eval_every,
        patience=options.patience,
        average=AVERAGE,
        checkpoint=out / "checkpoints",
        checkpoint_every=options.eval_every,
        callbacks=[clock(options.cpu_minutes, out)],
    )
    log_prob = evaluate(flow, params, data.test)
    gaussian = Gaussian(np.asarray(data.enter(enter_key, data.train)))
    found = {
        **described(params, history),
        "validation": -float(history["validation_loss"].min()),
        "test": float(log_prob.mean()),
        "two_standard_errors": two_standard_errors(log_prob),
        "gaussian_test": float(gaussian(data.test).mean()),
        "curve": [
            {"step": int(step), "validation": -float(value)}
            for step, value in zip(
                history["validation_step"], history["validation_loss"], strict=True
            )
        ],
    }
    if data.anomalies is not None:
        odd = evaluate(flow, params, data.anomalies)
        found["auc"] = auc(log_prob, odd)
        found["auc_gaussian"] = auc(gaussian(data.test), gaussian(data.anomalies))
        found["auc_isolation_forest"] = isolation_forest(data, start)
    return found


def clock(limit: float | None, out: Path) -> Any:
    """A callback that stops after `limit` CPU minutes, those before a restart counted.

    The minutes are written down at every validation, as checkpoints are.
    """
    began = clocks()["cpu_minutes"] - spent(out)

    def stop(state, metrics):
        minutes = clocks()["cpu_minutes"] - began
        if "validation_loss" in metrics:
            write_json(out / "clock.json", minutes)
            reached = f"validation {-metrics['validation_loss']:.4f}"
            place = f"step {metrics['step']:,}, {minutes:.2f} CPU minutes"
            print(f"{place}: {reached}", flush=True)
        return minutes >= (limit or math.inf)

    return stop


def spent(out: Path) -> float:
    """CPU minutes of the run in `out` until its last validation."""
    path = out / "clock.json"
    return json.loads(path.read_text()) if path.exists() else 0.0


def optimizer(options: argparse.Namespace) -> optax.GradientTransformation:
    """Adam, clipped: the average of the parameters takes the place of a schedule."""
    return jflow.train.adam(options.lr, warmup=min(100, options.steps), clip=CLIP)


def evaluate(flow: Flow, params: Any, x: np.ndarray) -> np.ndarray:
    """Log-densities `(N,)` in nats."""
    size = min(EVALUATION_BATCH, len(x))
    values = []
    for i in range(0, len(x), size):
        batch = x[i : i + size]
        # The last batch is filled up: one shape, one compilation.
        filled = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), 0)])
        values.append(np.asarray(flow.log_prob(params, filled), np.float64))
    return np.concatenate(values)[: len(x)]


def described(params: Any, history: dict[str, Any]) -> dict[str, Any]:
    """How large, and how long."""
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "steps": int(history["step"][-1]),
        "stopped": history["stopped"],
    }


def two_standard_errors(values: np.ndarray) -> float:
    """Of the mean."""
    return float(2 * values.std() / math.sqrt(len(values)))


class Gaussian:
    """The maximum-likelihood Gaussian of `x`; a call gives log-densities `(N,)`."""

    def __init__(self, x: np.ndarray):
        self.mean = x.mean(axis=0, dtype=np.float64)
        self.factor = np.linalg.cholesky(np.cov(x.T.astype(np.float64)))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        z = np.linalg.solve(self.factor, (x - self.mean).T)
        constant = np.log(2 * math.pi) / 2 + np.log(np.diagonal(self.factor))
        return -(z**2).sum(axis=0) / 2 - constant.sum()


# --- anomalies ------------------------------------------------------------------------


def auc(normal: np.ndarray, odd: np.ndarray) -> float:
    """How often an anomaly has a lower density than a normal example."""
    from sklearn.metrics import roc_auc_score

    scores = np.nan_to_num(-np.concatenate([normal, odd]))
    return float(roc_auc_score(np.repeat([0, 1], [len(normal), len(odd)]), scores))


def isolation_forest(data: Table, train: np.ndarray) -> float:
    """The AUC of scikit-learn's isolation forest, trained on normal examples too."""
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(random_state=0).fit(train)
    parts = (forest.score_samples(part) for part in (data.test, data.anomalies))
    return auc(*parts)


# --- conditional densities ------------------------------------------------------------


def regress(data: Regression, options: argparse.Namespace) -> dict[str, Any]:
    """Train and test `p(y | x)` on each split; y in its own units."""
    flow = build(1, options)
    optimise = optimizer(options)
    means, steps = [], []
    for i, test in enumerate(data.test_index[: options.splits]):
        train = np.setdiff1d(np.arange(len(data.y)), test)
        key = jax.random.fold_in(jax.random.key(options.seed), i)
        init_key, fit_key = jax.random.split(key)
        x, y = data.x[train], data.y[train]
        params, history = jflow.fit(
            flow,
            flow.init(init_key, y, x),
            y,
            optimise,
            key=fit_key,
            steps=options.steps,
            batch_size=options.batch,
            condition=x,
            validation=0.1,
            evaluate_every=min(options.eval_every, 100),
            patience=options.patience,
            average=AVERAGE,
            progress=False,
        )
        log_prob = np.asarray(flow.log_prob(params, data.y[test], data.x[test]))
        means.append(float(np.mean(log_prob, dtype=np.float64)))
        steps.append(int(history["step"][-1]))
        print(f"split {i + 1}: {means[-1]:.4f} after {steps[-1]:,} steps", flush=True)
    return {
        **described(params, history),
        "splits": means,
        "split_steps": steps,
        "test": float(np.mean(means)),
        "standard_deviation": float(np.std(means)),
    }


# --- the table ------------------------------------------------------------------------


def summary(metrics: dict[str, Any]) -> str:
    """The results as a table, what is published beside them."""
    results, options = metrics["results"], metrics["options"]
    name, rows = options["name"], [("test log-likelihood", metrics["results"]["test"])]
    if name in REGRESSIONS:
        mean, deviation = DROPOUT[name]
        rows += [
            ("standard deviation over splits", results["standard_deviation"]),
            ("published: dropout, 10 x epochs", mean),
            ("published: its standard deviation", deviation),
        ]
    else:
        rows += [
            ("two standard errors", results["two_standard_errors"]),
            ("full-covariance Gaussian, here", results["gaussian_test"]),
            ("margin over it", results["test"] - results["gaussian_test"]),
        ]
    if "auc" in results:
        rows += [
            ("AUC of anomalies", results["auc"]),
            ("AUC, Gaussian", results["auc_gaussian"]),
            ("AUC, isolation forest", results["auc_isolation_forest"]),
        ]
    column = name.removesuffix("_patches")
    if column in COLUMNS:
        place = COLUMNS.index(column)
        rows += [(f"published: {who}", v[place]) for who, v in PUBLISHED.items()]
    rows += [
        ("parameters", f"{results['parameters']:,}"),
        ("steps", f"{results['steps']:,}"),
        ("CPU minutes", metrics["timing"]["cpu_minutes"]),
    ]
    return table((f"{options['model']} on {name}, nats", ""), rows)


if __name__ == "__main__":
    main()
