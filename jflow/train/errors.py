"""What `fit` raises when training stops being finite, and the search for the place."""

from typing import Any

import jax

from jflow.bijector import Array, Condition, Params
from jflow.diagnostics import nonfinite_argument, nonfinite_leaf, watch
from jflow.train.losses import Loss
from jflow.train.step import TrainState


class NonFiniteError(FloatingPointError):
    """A loss or gradient that is not finite, with all that was trained until then.

    Attributes:
        state: the last good `TrainState`.
        params: what `fit` would have returned at that step: the best by validation,
            else the averaged, else the last parameters.
        history: as `fit` returns it, `stopped` being `"error"`.
    """

    def __init__(
        self, message: str, state: TrainState, params: Params, history: dict[str, Any]
    ) -> None:
        super().__init__(message)
        self.state, self.params, self.history = state, params, history


def explain(
    loss: Loss, params: Params, x: Array, condition: Condition, key: Array
) -> str:
    """Where a step's numbers stopped being finite, in words."""
    given = nonfinite_argument(params, x, condition)
    if given is not None:
        return f"{given} holds values that are not finite"
    try:
        layer, value = watch(lambda: loss(params, x, condition, key))
        if layer is not None:
            return f"the first layer whose output or log-det is not finite is {layer}"
        if not abs(float(value)) < float("inf"):
            return (
                "all layers' outputs are finite, but the loss is not: it became so in "
                "the base distribution or the loss itself"
            )
    # The search runs the pass in another way than training did; that it cannot must
    # not hide that training stopped.
    except Exception as error:
        return f"the search for the layer failed with {type(error).__name__}: {error}"
    grads = jax.jit(jax.grad(loss))(params, x, condition, key)
    leaf = nonfinite_leaf(grads)
    if leaf is None:
        return (
            "loss and gradient are finite in themselves, but the gradient's norm or "
            "the optimiser's update overflowed; clip the gradient or lower the "
            "learning rate"
        )
    return (
        "the loss is finite, but its gradient is not; the first parameter whose "
        f"gradient is not finite is params{leaf}"
    )
