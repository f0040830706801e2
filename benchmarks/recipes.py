"""How NICE, RealNVP and Glow are sized and trained in `images.py`: its options."""

import argparse
from typing import Any

import jax
import optax
from data import Images

from jflow import models
from jflow.flow import Flow
from jflow.train import adam, adamax

# By default a run is sized for two CPU cores and some minutes.
DEFAULTS = {
    "nice": dict(depth=4, width=1000, batch=200, steps=2_000, lr=1e-3),
    "realnvp": dict(levels=2, depth=1, width=16, batch=128, steps=1_500, lr=1e-3),
    "glow": dict(levels=2, depth=8, width=24, batch=128, steps=1_000, lr=2e-3),
}
AVERAGE, EVAL_EVERY = 0.999, 100
# --full: the papers' sizes. How long RealNVP and Glow were trained for is not in the
# papers; 250 epochs is a published reproduction of Glow's CIFAR-10 number.
FULL = {
    "nice": dict(depth=4, width=1000, batch=200, epochs=1_500, lr=1e-3),
    "realnvp": dict(levels=4, depth=4, width=32, batch=64, epochs=250, lr=1e-3),
    "glow": dict(levels=3, depth=32, width=512, batch=512, epochs=250, lr=1e-3),
}
FULL_EVAL_EVERY = 1_000
# RealNVP's own size for CIFAR-10.
FULL_CIFAR = dict(levels=2, depth=8, width=64)
# --quick: as small as can be, for tests.
QUICK = {
    "nice": dict(depth=2, width=16, batch=32, steps=8),
    "realnvp": dict(levels=1, depth=1, width=4, batch=32, steps=8),
    "glow": dict(levels=1, depth=2, width=4, batch=32, steps=8),
}
QUICK_EVAL_EVERY = 4


def parse(description: str, arguments: list[str] | None) -> argparse.Namespace:
    """The command line; what is not given there is None."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", choices=list(DEFAULTS))
    add("--data", default="digits", help="digits, a directory of idx files, or an .npz")
    add("--out", help="for pictures and checkpoints; runs/... by default")
    add("--results", help="the JSON file; under benchmarks/results/images by default")
    add("--full", action="store_true", help="the paper's recipe")
    add("--quick", action="store_true", help="a tiny model, for tests")
    add("--steps", type=int, help="training steps in all")
    add("--minutes", type=float, help="stop after so many minutes of training")
    add("--cpu-minutes", type=float, help="the same, of the process's CPU time")
    add("--batch", type=int, help="examples per step")
    add("--levels", type=int, help="Glow's levels or RealNVP's scales, at most")
    depths = "couplings (NICE), residual blocks (RealNVP), steps per level (Glow)"
    add("--depth", type=int, help=depths)
    add("--width", type=int, help="hidden units or channels")
    add("--lr", type=float, help="learning rate")
    add("--average", type=float, help="decay of the parameters' moving average")
    add("--preprocess", choices=["paper", "logit"], default="paper")
    add("--alpha", type=float, help="the logit's; 1e-6 for NICE, 0.05 for RealNVP")
    add("--eval-every", type=int, help="steps between evaluations")
    add("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def complete(options: argparse.Namespace, images: Images) -> argparse.Namespace:
    """Fill in what was not given, for this model and these data."""
    model = options.model
    if options.levels is not None and model == "nice":
        raise SystemExit("--levels: NICE has none.")
    if options.preprocess == "logit" and model != "nice":
        raise SystemExit(
            f"--preprocess logit: {model} is trained as in its paper only; use nice."
        )
    preset = (FULL if options.full else DEFAULTS)[model]
    preset = {"eval_every": FULL_EVAL_EVERY if options.full else EVAL_EVERY} | preset
    if not options.full:
        preset["average"] = AVERAGE
    elif model == "realnvp" and "cifar" in images.name:
        preset |= FULL_CIFAR
    if options.quick:
        preset |= QUICK[model] | {"eval_every": QUICK_EVAL_EVERY}
    given = {name: value for name, value in vars(options).items() if value is not None}
    filled = argparse.Namespace(**{**vars(options), **preset, **given})
    filled.batch = min(filled.batch, len(images.train))
    if filled.steps is None:
        filled.steps = preset["epochs"] * (len(images.train) // filled.batch)
    vars(filled).pop("epochs", None)
    if filled.levels is not None:
        filled.levels = min(filled.levels, most_levels(images.shape, model))
    if filled.alpha is None:
        filled.alpha = 0.05 if model == "realnvp" else 1e-6
    return filled


def most_levels(shape: tuple[int, ...], model: str) -> int:
    """How often the sides can be halved; RealNVP's last scale does not halve them."""
    halvings = 0
    while not any(side % 2 ** (halvings + 1) for side in shape[:2]):
        halvings += 1
    return halvings + (model == "realnvp")


def shown(options: argparse.Namespace) -> dict[str, Any]:
    """The options that a result depends on."""
    aside = ("out", "results", "quick")
    return {k: v for k, v in sorted(vars(options).items()) if k not in aside}


def build(options: argparse.Namespace, images: Images) -> Flow:
    """The model as its paper has it, at the size of the options."""
    shape, bits = images.shape, images.bits
    if options.model == "nice":
        return models.nice(
            shape,
            bits=bits,
            couplings=options.depth,
            hidden=(options.width,) * 5,
            preprocess="logit" if options.preprocess == "logit" else "uniform",
            alpha=options.alpha,
        )
    if options.model == "realnvp":
        return models.realnvp(
            shape,
            bits=bits,
            scales=options.levels,
            blocks=options.depth,
            width=options.width,
            alpha=options.alpha,
        )
    return models.glow(
        shape,
        bits=bits,
        levels=options.levels,
        depth=options.depth,
        width=options.width,
    )


def make_optimizer(options: argparse.Namespace) -> optax.GradientTransformation:
    """With --full the paper's, else Adam with a short warm-up and clipping."""
    if not options.full:
        return adam(options.lr, warmup=min(100, options.steps), clip=50.0)
    if options.model == "nice":
        return adam(options.lr, b2=0.99, eps=1e-4)
    if options.model == "realnvp":
        # L2 on the gains of weight normalisation, added to the gradient as in its code.
        penalty = optax.masked(optax.add_decayed_weights(5e-5), gains)
        return optax.chain(penalty, adam(options.lr, clip=100.0))
    # Ten epochs of CIFAR-10's 50,000 images.
    return adamax(options.lr, warmup=10 * 50_000 // options.batch, b2=0.99)


def gains(params: Any) -> Any:
    """True for the leaves named "gain"."""

    def named(path, _):
        return isinstance(path[-1], jax.tree_util.DictKey) and path[-1].key == "gain"

    return jax.tree_util.tree_map_with_path(named, params)
