"""BNAF: block neural autoregressive flow.

De Cao, Titov & Aziz 2019, https://arxiv.org/abs/1904.04676.
"""

from collections.abc import Sequence
from typing import Any

from jflow.bijector import check_positive
from jflow.bijectors import actnorm, block_autoregressive, reverse
from jflow.combinators import chain, repeat
from jflow.flow import Flow
from jflow.models.parts import vector_flow, vector_size


def bnaf(
    shape: Sequence[int],
    *,
    layers: int = 5,
    hidden: Sequence[int] = (10,),
    residual: bool = True,
    bounds: tuple[Any, Any] | None = None,
    embed: Any = None,
    reversible: bool = False,
) -> Flow:
    """Block autoregressive networks, the order reversed from layer to layer.

    Each layer's output is whitened by the batch that `init` sees. Densities cost one
    pass, samples D steps with a search in each.

    Args:
        shape: the event, `(D,)`.
        layers: how many networks; all run under one scan.
        hidden: each network's hidden units per dimension; the paper has up to 2 hidden
            layers of up to 40.
        residual: gated residual connections, see `jflow.block_autoregressive`.
        bounds: the data's (lower, upper), numbers or one for each dimension, infinite
            where there is none.
        embed: a network for the condition, see `jflow.embed_condition`.
        reversible: train in memory that does not grow with depth; the backward pass
            then undoes each layer, with its searches.

    Returns:
        A Flow over `(D,)`; a condition of any width reaches every dimension. Data and
        condition are standardised by the batch that `init` sees.

    Raises:
        ValueError: an argument that cannot be used, named.

    Example:
        >>> import jax
        >>> f = bnaf((3,), layers=2, hidden=(4,))
        >>> x = jax.random.normal(jax.random.key(0), (64, 3))
        >>> f.log_prob(f.init(jax.random.key(1), x), x).shape
        (64,)
    """
    vector_size("bnaf", shape)
    check_positive("bnaf", layers=layers)
    layer = chain(
        block_autoregressive(*hidden, residual=residual), actnorm(), reverse()
    )
    stack = repeat(layer, layers, reversible=reversible)
    return vector_flow(shape, [stack], bounds=bounds, embed=embed)
