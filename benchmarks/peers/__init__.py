"""The work that `versus.py` compares, and who can do it.

Each module `peers.with_<library>` has `build(case) -> Work`, the case's model in that
library's documented way; those that have a training loop also `fit(case) -> Fitted`.
This file imports no library, so that importing one can be timed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Case(NamedTuple):
    """A model and its batch.

    Attributes:
        name: as the table shows it.
        kind: `"affine"`, `"spline"`, `"maf"`, `"glow"` or `"fit"`.
        shape: of the event.
        layers: couplings, autoregressive layers, or Glow's steps per level.
        batch: examples per step, `log_prob` and `sample`.
        width: of two hidden layers, or of Glow's hidden channels.
        bins: of splines.
        levels: of Glow.
        size, epochs: of `fit`'s data and run.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    layers: int
    batch: int = 1024
    width: int = 128
    bins: int = 8
    levels: int = 3
    size: int = 10_000
    epochs: int = 20


class Work(NamedTuple):
    """What is timed; each function gives something that `wait` waits for.

    Attributes:
        parameters: how many numbers the optimiser changes.
        step: one training step on the case's batch: gradient of the mean negative
            log-likelihood, and Adam.
        log_prob: of the case's batch.
        sample: as many as the batch.
        wait: until the result is there.
        temporaries: bytes that the compiled step allocates beside its arguments and
            results, where there is such a number.
    """

    parameters: int
    step: Callable[[], Any]
    log_prob: Callable[[], Any]
    sample: Callable[[], Any]
    wait: Callable[[Any], Any]
    temporaries: Callable[[], int] | None = None


CALLS = ("step", "log_prob", "sample")


class Fitted(NamedTuple):
    """What a library's own training loop came to.

    Attributes:
        parameters: how many numbers were trained.
        steps: how many were taken.
        loss: mean negative log-likelihood of the held-out data, in nats.
    """

    parameters: int
    steps: int
    loss: float


CASES = {
    case.name: case
    for case in (
        *(Case(f"realnvp-{n}", "affine", (64,), n) for n in (8, 32, 64, 128)),
        *(Case(f"spline-{n}", "spline", (64,), n) for n in (8, 32, 64, 128)),
        *(Case(f"maf-{d}", "maf", (d,), 5) for d in (64, 128)),
        Case("glow", "glow", (32, 32, 3), 8, batch=16),
        Case("fit", "fit", (2,), 6, batch=256, width=32),
        # For the tests: seconds, and no number of any use.
        Case("tiny", "affine", (4,), 2, batch=8, width=8),
        Case("tiny-fit", "fit", (2,), 2, batch=8, width=8, size=64, epochs=1),
    )
}
# Of Adam in the timed steps, so small that 128 couplings without any normalisation stay
# finite however many steps a machine takes; `fit` has its own.
RATE = 1e-6
QUICK = ("realnvp-8", "realnvp-64", "spline-8", "maf-64", "glow", "fit")

# Which kinds of case each library has a documented way for. A variant has its module
# before the colon. bijx's and nflojax's unrolled layers compile too long to repeat.
LIBRARIES = {
    "jflow": ("affine", "spline", "maf", "glow", "fit"),
    "jflow:reversible": ("affine", "spline", "glow"),
    "jflow:quick": ("affine", "spline", "maf"),
    "jflow:full": ("glow",),
    "flowjax": ("affine", "spline", "maf", "fit"),
    "distrax": ("affine", "spline", "glow"),
    "bijx": ("affine", "spline"),
    "nflojax": ("affine",),
    "numpyro": ("maf",),
    "nflows": ("affine", "spline", "maf", "glow"),
    "normflows": ("affine", "spline", "maf", "glow"),
    "zuko": ("affine", "spline", "maf"),
    "freia": ("affine",),
}
PACKAGES = {"freia": "FrEIA"}
# In a library's place: the machine's rate of matrix products is measured.
PROBE = "probe"
# Unrolled layers whose compilation would take the time of all the rest together.
TOO_DEEP = {"nflojax": 8, "distrax": 64}


def package(library: str) -> str:
    """The package that a library or a variant of it is imported from."""
    name = library.split(":")[0]
    return PACKAGES.get(name, name)


def does(library: str, case: Case) -> bool:
    """Whether a library takes part in a case."""
    shallow = case.layers <= TOO_DEEP.get(library, case.layers)
    return case.kind in LIBRARIES[library] and shallow


def batch(case: Case) -> np.ndarray:
    """The batch that every library trains on."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(case.batch, *case.shape)).astype(np.float32)


def moons(n: int, seed: int) -> np.ndarray:
    """`fit`'s data: two noisy half circles."""
    rng = np.random.default_rng(seed)
    angle, upper = rng.uniform(0, np.pi, n), rng.integers(0, 2, n)
    x = np.where(upper, np.cos(angle), 1 - np.cos(angle))
    y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle))
    points = np.stack([x - 0.5, y - 0.25], axis=-1)
    return (2 * points + rng.normal(0, 0.1, (n, 2))).astype(np.float32)


def operations(case: Case) -> int:
    """Multiplications and additions in the matrix products of one training step.

    Three times the forward pass: the products for the inputs' and for the weights'
    gradients are as large; those for the data's own are not needed and not counted.
    """
    if case.kind == "glow":
        return _glow_operations(case)
    (d,) = case.shape
    width, half = case.width, d - d // 2
    outputs = {
        "affine": 2 * half,
        "spline": (3 * case.bins - 1) * half,
        "fit": (3 * case.bins - 1) * half,
        "maf": 2 * d,
    }[case.kind]
    inputs = d if case.kind == "maf" else half
    layer = inputs * width + width * width + width * outputs
    return 2 * case.batch * (3 * case.layers * layer - inputs * width)


def _glow_operations(case: Case) -> int:
    side, channels, total = case.shape[0], case.shape[2], 0
    for _ in range(case.levels):
        side, channels = side // 2, channels * 4
        net = 9 * (channels // 2) * case.width + case.width**2
        net += 9 * case.width * channels
        total += case.layers * side**2 * (net + channels**2)
        channels //= 2
    return 3 * 2 * case.batch * total
