"""Losses: functions `(params, x, condition, key) -> scalar`."""

from collections.abc import Callable

from jflow.arguments import cached
from jflow.bijector import Array
from jflow.flow import Flow

Loss = Callable[..., Array]


@cached
def negative_log_likelihood(flow: Flow) -> Loss:
    """The mean of `-log p(x)` over the batch, in nats: what `fit` minimises by default.

    The same flow gives the same function again, so what was compiled for it is found.
    A loss of one's own, with a penalty for instance, is any function of the same four
    arguments; build it once, since a new function is compiled anew.

    Args:
        flow: the flow.

    Returns:
        `(params, x, condition=None, key=None) -> scalar`.

    Example:
        >>> import jax, jflow
        >>> flow = jflow.flow(jflow.actnorm(), jflow.normal((2,)))
        >>> nll = negative_log_likelihood(flow)
        >>> def loss(params, x, condition, key):
        ...     weights = jax.tree.leaves(params)
        ...     return nll(params, x, condition, key) + 1e-5 * sum(
        ...         (w**2).sum() for w in weights
        ...     )
    """

    def loss(params, x, condition=None, key=None):
        return -flow.log_prob(params, x, condition, key).mean()

    return loss
