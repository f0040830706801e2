"""The record of a training run, grown piece by piece."""

import time
from typing import Any, NamedTuple

import numpy as np

_STEPS = ("step", "loss", "grad_norm")
_EVALUATIONS = ("validation_step", "validation_loss")


class History(NamedTuple):
    """A record as functions.

    Attributes:
        steps: `(last step, losses, norms) -> None`, for consecutive steps.
        evaluation: `(step, loss) -> None`.
        evaluated: `() -> step` of the last evaluation, -1 before the first.
        read: `(stopped) -> dict`, as `fit` returns it.
    """

    steps: Any
    evaluation: Any
    evaluated: Any
    read: Any


def start_history(earlier: dict[str, Any] | None) -> History:
    """A record that goes on from an earlier one, as `read` returned it."""
    earlier = earlier or {}
    pieces = {
        name: [np.asarray(earlier[name])] if name in earlier else []
        for name in _STEPS + _EVALUATIONS
    }
    before, began = earlier.get("seconds", 0.0), time.perf_counter()

    def steps(last, losses, norms):
        numbers = np.arange(last - len(losses) + 1, last + 1)
        for name, piece in zip(_STEPS, (numbers, losses, norms), strict=True):
            pieces[name].append(np.asarray(piece))

    def evaluation(step, loss):
        for name, number in zip(_EVALUATIONS, (step, loss), strict=True):
            pieces[name].append(np.asarray([number]))

    def evaluated():
        parts = [p for p in pieces["validation_step"] if p.size]
        return int(parts[-1][-1]) if parts else -1

    def read(stopped):
        history = {}
        for name, parts in pieces.items():
            kind = np.int64 if name.endswith("step") else np.float64
            # Joined once, so that reading often does not cost more each time.
            parts[:] = [np.concatenate([np.zeros(0, kind), *parts]).astype(kind)]
            history[name] = parts[0].copy()
        seconds = before + time.perf_counter() - began
        return history | {"seconds": seconds, "stopped": stopped}

    return History(steps, evaluation, evaluated, read)
