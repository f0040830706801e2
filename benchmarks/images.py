"""NICE, RealNVP and Glow on images: train, test, draw.

    python benchmarks/images.py glow                        # scikit-learn's digits
    python benchmarks/images.py nice --data DIRECTORY       # MNIST's idx files
    python benchmarks/images.py realnvp --data x.npz --full # the paper's recipe

Prints a table and saves it, with the machine, the versions and the commit, as JSON.
Pictures and checkpoints go to --out. A run that was stopped, by whatever it was, goes
on from there when it is started again with the same options, and ends with the same
parameters and results as one that never stopped; what depends on the clock is kept
apart, under "timing".
"""

import argparse
import functools
import json
import math
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from data import Images, load
from recipes import build, complete, make_optimizer, parse, shown
from report import RESULTS, fingerprint, provenance, table, write_json

from jflow import latent, plot
from jflow.diagnostics import bits_per_dim
from jflow.flow import Flow
from jflow.train import checkpoints, fit, init_state

EVALUATION_BATCH = 250
TEMPERATURES = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0)


class Run(NamedTuple):
    """A training run, ready to start."""

    options: argparse.Namespace
    images: Images
    flow: Flow
    optimizer: optax.GradientTransformation
    params: Any
    key: jax.Array


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; the metrics, as they are saved."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(__doc__, arguments)
    images = load(options.data)
    options = complete(options, images)
    name = "_".join(
        [options.model, images.name]
        + [options.preprocess] * (options.preprocess != "paper")
        + ["full"] * options.full
    )
    out = Path(options.out or Path("runs") / name)
    results = Path(options.results or RESULTS / "images" / f"{name}.json")
    claim(out, options)
    metrics = provenance("images.py", arguments) | {
        "model": options.model,
        "data": images.name,
        "options": shown(options),
    }
    run = prepare(options, images)
    params, history, curve, timing = train(run, out)
    metrics["results"] = measure(run, params, history, curve)
    metrics["timing"] = timing
    draw(run, params, history, out)
    write_json(out / "metrics.json", metrics)
    write_json(results, metrics)
    print(summary(metrics))
    print(f"\nmetrics: {results}\npictures and checkpoints: {out}/")
    return metrics


# --- the run --------------------------------------------------------------------------


def claim(out: Path, options: argparse.Namespace) -> None:
    """Remember what runs in `out`; refuse to go on with a run of other options."""
    # A longer run may go on from a shorter one.
    aside = ("steps", "minutes", "cpu_minutes")
    own = {k: v for k, v in shown(options).items() if k not in aside}
    path = out / "options.json"
    if path.exists():
        other = json.loads(path.read_text())
        changed = sorted(k for k in {*own, *other} if own.get(k) != other.get(k))
        if changed:
            raise SystemExit(
                f"{out} holds a run with other values of {', '.join(changed)}; delete "
                "it, or choose another --out."
            )
    write_json(path, own)


def prepare(options: argparse.Namespace, images: Images) -> Run:
    """The flow, its initial parameters and the optimiser."""
    key = jax.random.key(options.seed)
    init_key, train_key = jax.random.split(key)
    flow = build(options, images)
    # 256 examples are enough for a channel's moments: as many as Glow's code takes.
    # NICE has moments for each pixel, and some pixels are black in most images.
    examples = 5_000 if options.model == "nice" else 256
    params = flow.init(init_key, images.train[:examples])
    return Run(options, images, flow, make_optimizer(options), params, train_key)


def train(run: Run, out: Path) -> tuple[Any, dict, list[dict], dict[str, Any]]:
    """Train, or go on with training: the parameters, history, curve and timing."""
    options, images = run.options, run.images
    record = Record(run, out / "curve.json")
    where = out / "checkpoints"
    reached = record.resume(where)
    params, history = fit(
        run.flow,
        run.params,
        images.train,
        run.optimizer,
        key=run.key,
        # A run whose minutes were over before it was started again takes no step more.
        steps=max(1, reached) if record.over() else options.steps,
        batch_size=options.batch,
        validation=images.validation,
        evaluate_every=options.eval_every,
        average=options.average,
        checkpoint=where,
        checkpoint_every=options.eval_every,
        callbacks=[record],
    )
    if record.over() and int(history["step"][-1]) < options.steps:
        history = history | {"stopped": "minutes"}
    return params, history, *record.read()


class Record:
    """A callback: test nats at every evaluation, and the time that training took.

    The points are written to disk at once, so that they outlive the process. Time
    spent here is not training's and is left out; compilation is training's. After a
    restart the clock goes on from the last point.
    """

    def __init__(self, run: Run, path: Path):
        self.run, self.path = run, path
        self.points: list[dict[str, float]] = []
        self.began = clocks()

    def spent(self) -> dict[str, float]:
        """Minutes of training so far."""
        return {name: now - self.began[name] for name, now in clocks().items()}

    def over(self) -> bool:
        """Whether the time that the options allow is spent."""
        limits = vars(self.run.options)
        return any(s >= (limits[name] or math.inf) for name, s in self.spent().items())

    def read(self) -> tuple[list[dict], dict[str, Any]]:
        """The curve without time, which is the same for every run, and with it."""
        curve = [{k: point[k] for k in ("step", "test_nats")} for point in self.points]
        return curve, {"training": self.spent(), "curve": self.points}

    def __call__(self, state: Any, metrics: dict[str, float]) -> bool:
        over = self.over()
        if over or "validation_loss" in metrics:
            self.add(state)
        return over

    def add(self, state: Any) -> None:
        """One point of the learning curve."""
        spent = self.spent()
        params = state.params if state.average is None else state.average
        test_nats = nats(self.run, evaluate(self.run, params, self.run.images.test))
        point = {"step": int(state.step), "test_nats": float(test_nats)}
        self.points.append(point | spent)
        write_json(self.path, self.points)
        self.go_on_from(spent)

    def go_on_from(self, spent: dict[str, float]) -> None:
        """Set the clock."""
        self.began = {name: now - spent[name] for name, now in clocks().items()}

    def resume(self, directory: Path) -> int:
        """Take up an earlier process's points, as far as its checkpoint goes: a step.

        A checkpoint is written before callbacks run, so a process that was killed in
        between left an evaluation without its point; it is added here.
        """
        run = self.run
        store = checkpoints(directory)
        average = run.options.average is not None
        state = init_state(
            run.params, run.optimizer, run.key, average=average, best=True
        )
        restored = store.restore(state)
        store.close()
        if restored is None:
            return 0
        state, history = restored
        step = int(state.step)
        if self.path.exists():
            saved = json.loads(self.path.read_text())
            self.points = [point for point in saved if point["step"] <= step]
        if self.points:
            self.go_on_from(self.points[-1])
        if step in {*history["validation_step"]} - {p["step"] for p in self.points}:
            self.add(state)
        print(f"resumed at step {step:,}")
        return step


def clocks() -> dict[str, float]:
    """Minutes on the wall clock and of this process's CPU time, from some start."""
    return {
        "minutes": time.perf_counter() / 60,
        "cpu_minutes": time.process_time() / 60,
    }


# --- measuring ------------------------------------------------------------------------


def evaluate(run: Run, params: Any, x: np.ndarray) -> np.ndarray:
    """The log-probability of each image's integers in nats: a bound, one draw of noise.

    The noise is the same at every call, so that numbers compare.
    """
    key = jax.random.key(run.options.seed + 1)
    size = min(EVALUATION_BATCH, len(x))
    values = []
    for i in range(0, len(x), size):
        batch = x[i : i + size]
        # The last batch is filled up: one shape, one compilation.
        filled = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), 0)])
        log_prob = run.flow.log_prob(params, filled, None, jax.random.fold_in(key, i))
        values.append(np.asarray(log_prob, np.float64)[: len(batch)])
    return np.concatenate(values)


def nats(run: Run, log_prob: np.ndarray) -> np.ndarray:
    """The mean log-density of the pixels scaled to [0, 1], as NICE's table has it."""
    return log_prob.mean() + math.prod(run.images.shape) * run.images.bits * math.log(2)


def measure(run: Run, params: Any, history: dict, curve: list[dict]) -> dict[str, Any]:
    """All that depends on the options alone, not on the machine's speed."""
    shape, options = run.images.shape, run.options
    log_prob = evaluate(run, params, run.images.test)
    size, root = math.prod(shape), math.sqrt(len(log_prob))
    results = {
        "steps": int(history["step"][-1]),
        "stopped": history["stopped"],
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "test_images": len(log_prob),
        "test_bits_per_dim": float(bits_per_dim(log_prob.mean(), shape)),
        "test_bits_per_dim_standard_error": float(
            log_prob.std() / root / (size * math.log(2))
        ),
        "test_nats": float(nats(run, log_prob)),
        "test_nats_standard_error": float(log_prob.std() / root),
        "train_loss": float(history["loss"][-1]),
        # None where the time was over before the first evaluation.
        "best_validation_loss": min(history["validation_loss"].tolist(), default=None),
        "curve": curve,
        "parameters_sha256": fingerprint(params),
    }
    if options.preprocess == "logit":
        results["test_logit_nats"] = results["test_nats"] + logit_constant(run)
    return results


def logit_constant(run: Run) -> float:
    """What turns nats of pixels in [0, 1] into nats of their logits.

    The mean over the test images of `sum log(s (1 - s) / (1 - 2 alpha))`, where
    `s = alpha + (1 - 2 alpha) x`. For MNIST and alpha 1e-6 about -4620.
    """
    test, alpha = run.images.test.astype(np.float64), run.options.alpha
    noise = np.random.default_rng(run.options.seed).random(test.shape)
    s = alpha + (1 - 2 * alpha) * (test + noise) / 2**run.images.bits
    return float(np.log(s * (1 - s) / (1 - 2 * alpha)).sum(axis=(1, 2, 3)).mean())


def summary(metrics: dict[str, Any]) -> str:
    """The results as a table."""
    results, spent = metrics["results"], metrics["timing"]["training"]
    rows = [
        ("test bits/dim", results["test_bits_per_dim"]),
        ("standard error", results["test_bits_per_dim_standard_error"]),
        ("test nats, pixels in [0, 1]", results["test_nats"]),
    ]
    if "test_logit_nats" in results:
        rows.append(("test nats, logits", results["test_logit_nats"]))
    rows += [
        ("test images", f"{results['test_images']:,}"),
        ("parameters", f"{results['parameters']:,}"),
        ("steps", f"{results['steps']:,}"),
        ("minutes of training", spent["minutes"]),
        ("CPU minutes of training", spent["cpu_minutes"]),
    ]
    return table((f"{metrics['model']} on {metrics['data']}", ""), rows)


# --- pictures -------------------------------------------------------------------------


def draw(run: Run, params: Any, history: dict, out: Path) -> None:
    """Samples, a temperature sweep, interpolations and the training curves."""
    images, flow = run.images, run.flow
    sample_key, encode_key, decode_key = jax.random.split(run.key, 3)
    as_image = functools.partial(plot.image_grid, value_range=(0, 2**images.bits - 1))

    def save(name, figure):
        figure.savefig(out / f"{name}.png", dpi=120)

    samples = flow.sample(params, sample_key, 64)
    save("samples", as_image(samples, columns=16))
    save("data", as_image(images.test[:64], columns=16))
    sweep = plot.temperature_sweep(
        flow,
        params,
        sample_key,
        TEMPERATURES,
        12,
        value_range=(0, 2**images.bits - 1),
    )
    save("temperatures", sweep)
    ends = flow.encode(params, jnp.asarray(images.test[:16]), None, encode_key)
    path = latent.interpolate(ends[:8], ends[8:], 12, "spherical")
    between = flow.decode(params, path.reshape(-1, *ends.shape[1:]), None, decode_key)
    save("interpolations", as_image(between, columns=12))
    save("training", plot.training_curves(history))


if __name__ == "__main__":
    main()
