"""Which parameters an optimiser may change, told by the keys they lie under."""

from typing import Any

import jax
import optax

from jflow.arguments import cached
from jflow.bijector import Params

LEARNED, FIXED, STATISTICS = "learned", "fixed", "statistics"


def label_params(params: Params) -> Any:
    """Label every leaf `"learned"`, `"fixed"` or `"statistics"`.

    A leaf under a dictionary key `"fixed"`, at any depth, is never changed. One under
    `"statistics"` is tracked: its "gradient" is `stored - batch value`, whatever the
    loss. `"fixed"` wins where both apply, so `frozen` freezes statistics too.

    Args:
        params: a flow's or a bijector's.

    Returns:
        The same tree with a label for each leaf.

    Example:
        >>> label_params({"bias": 0.0, "fixed": {"scores": 1.0}})
        {'bias': 'learned', 'fixed': {'scores': 'fixed'}}
    """

    def label(path, _):
        keys = {entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)}
        return next((name for name in (FIXED, STATISTICS) if name in keys), LEARNED)

    return jax.tree_util.tree_map_with_path(label, params)


def select(params: Params, *labels: str) -> list[Any]:
    """The leaves with one of the labels, in the tree's order."""
    pairs = zip(
        jax.tree.leaves(params), jax.tree.leaves(label_params(params)), strict=True
    )
    return [leaf for leaf, label in pairs if label in labels]


@cached
def prepare_optimizer(
    optimizer: optax.GradientTransformation, statistics_momentum: float = 0.95
) -> optax.GradientTransformationExtraArgs:
    """Confine an optimiser to the learned parameters.

    It sees no other leaf: weight decay, noise and clipping by the global norm leave
    `"fixed"` and `"statistics"` out. Statistics become running averages,
    `stored <- momentum * stored + (1 - momentum) * batch value`. `fit` and
    `make_train_step` do this to whatever they are given; call it yourself for another
    momentum. The same optimiser gives the same object again.

    Args:
        optimizer: any Optax transformation.
        statistics_momentum: of the running averages, in [0, 1).

    Raises:
        TypeError: `optimizer` is not an Optax transformation.
        ValueError: the momentum is outside of [0, 1).

    Example:
        >>> tx = prepare_optimizer(optax.adamw(1e-3), statistics_momentum=0.99)
        >>> state = tx.init({"bias": jax.numpy.zeros(2)})
    """
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"optimizer is {optimizer!r}, not an Optax transformation; "
            "build one such as optax.adam(1e-3) or jflow.train.adam()."
        )
    if not 0 <= statistics_momentum < 1:
        raise ValueError(
            f"statistics_momentum must be in [0, 1), got {statistics_momentum}; "
            "0 keeps the last batch's statistics."
        )
    if hasattr(optimizer.init, "prepared"):
        return optimizer
    tx = optax.partition(
        {
            LEARNED: optimizer,
            FIXED: optax.set_to_zero(),
            STATISTICS: optax.sgd(1.0 - statistics_momentum),
        },
        label_params,
    )
    tx.init.prepared = True
    return tx
