"""NSF: neural spline flows.

Durkan et al. 2019, https://arxiv.org/abs/1906.04032.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from jflow.bijector import check_positive
from jflow.bijectors import autoregressive, coupling, invertible_linear
from jflow.combinators import chain, repeat
from jflow.flow import Flow
from jflow.models.parts import vector_flow, vector_size
from jflow.nets import made, mlp, relu
from jflow.scalars import rational_quadratic_spline


def nsf(
    shape: Sequence[int],
    *,
    layers: int = 5,
    bins: int = 10,
    bound: float = 5.0,
    hidden: Sequence[int] = (64, 64),
    activation: Callable = relu,
    autoregressive_layers: bool = False,
    parametrisation: str = "soft_clip",
    inverse: str = "incremental",
    bounds: tuple[Any, Any] | None = None,
    embed: Any = None,
    reversible: bool = False,
    dtype: Any = None,
) -> Flow:
    """Rational quadratic splines, predicted by couplings or autoregressively.

    Each layer is an LU linear map and a spline layer (section 5); outside the box
    `-bound .. bound` the splines are the identity.

    Args:
        shape: the event, `(D,)`.
        layers: how many; all run under one scan.
        bins, bound, parametrisation: the splines', see
            `jflow.scalars.rational_quadratic_spline`. Softmax logits are divided by the
            square root of the last hidden width.
        hidden: each network's hidden widths.
        activation: of the networks.
        autoregressive_layers: RQ-NSF (AR) instead of RQ-NSF (C); vectors of one
            dimension always have it.
        inverse: how autoregressive layers are undone, see `jflow.autoregressive`.
        bounds: the data's (lower, upper), numbers or one for each dimension, infinite
            where there is none.
        embed: a network for the condition, see `jflow.embed_condition`.
        reversible: train in memory that does not grow with depth. Without it each
            layer's input is kept, and on a CPU the rest computed again: splines take 30
            numbers for each of the event's, dear to store and to fetch.
        dtype: of the networks' hidden layers.

    Returns:
        A Flow over `(D,)`; a condition of any width reaches every dimension. Data and
        condition are standardised by the batch that `init` sees.

    Raises:
        ValueError: an argument that cannot be used, named.

    Example:
        >>> import jax
        >>> f = nsf((2,), layers=2, hidden=(16,), bins=4)
        >>> x = jax.random.normal(jax.random.key(0), (64, 2))
        >>> f.log_prob(f.init(jax.random.key(1), x), x).shape
        (64,)
    """
    size = vector_size("nsf", shape)
    check_positive("nsf", layers=layers)
    law = rational_quadratic_spline(
        bins,
        bound,
        parametrisation=parametrisation,
        logit_scale=math.sqrt(hidden[-1]) if hidden else 1.0,
    )
    if autoregressive_layers or size == 1:
        net = made(*hidden, activation=activation, dtype=dtype)
        spline = autoregressive(law, net, inverse=inverse)
    else:
        net = mlp(*hidden, activation=activation, dtype=dtype)
        # The half that is not transformed by a network has splines of its own.
        spline = coupling(law, net, passive=law)
    keep = None if reversible else ()
    layer = chain(invertible_linear(), spline)
    stack = repeat(layer, layers, reversible=reversible, keep=keep)
    return vector_flow(shape, [stack], bounds=bounds, embed=embed)
