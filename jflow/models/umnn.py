"""UMNN: unconstrained monotonic neural networks as an autoregressive flow.

Wehenkel & Louppe 2019, https://arxiv.org/abs/1908.05164.
"""

from collections.abc import Sequence
from typing import Unpack

from jflow.flow import Flow
from jflow.models.parts import AutoregressiveOptions, autoregressive_flow
from jflow.scalars import unconstrained_monotone


def umnn(
    shape: Sequence[int],
    *,
    units: int = 16,
    nodes: int = 24,
    bound: float = 5.0,
    **options: Unpack[AutoregressiveOptions],
) -> Flow:
    """Autoregressive layers whose law is the integral of a positive network.

    `z_i = t + integral from 0 to x_i of g(u) du`, t and all of g's weights from
    `x_{<i}` (section 3; there the network sees an embedding instead). Outside of
    `-bound .. bound` the law is linear. Densities cost one pass, samples D steps with
    a search in each.

    Args:
        shape: the event, `(D,)`.
        units, nodes, bound: the network's hidden units, the quadrature's nodes and the
            interval, see `jflow.scalars.unconstrained_monotone`.
        options: `layers`, `hidden`, `inverse`, `bounds`, `embed` and the others of
            `jflow.models.maf`.

    Returns:
        A Flow over `(D,)`, conditional as `maf` is.

    Raises:
        TypeError: an unknown option.
        ValueError: an argument that cannot be used, named.

    Example:
        >>> import jax
        >>> f = umnn((3,), units=4, layers=2, hidden=(16,))
        >>> x = jax.random.normal(jax.random.key(0), (64, 3))
        >>> f.log_prob(f.init(jax.random.key(1), x), x).shape
        (64,)
    """
    law = unconstrained_monotone(units, nodes, bound=bound)
    return autoregressive_flow("umnn", shape, law, **options)
