"""Sylvester flows as density estimators.

van den Berg, Hasenclever, Tomczak & Welling 2018, https://arxiv.org/abs/1803.05649.
"""

from collections.abc import Sequence
from typing import Any

from jflow.bijector import check_positive
from jflow.bijectors import reverse, sylvester, triangular_affine
from jflow.combinators import chain, repeat
from jflow.flow import Flow
from jflow.models.parts import vector_flow, vector_size
from jflow.nets import mlp


def sylvester_flow(
    shape: Sequence[int],
    *,
    layers: int = 8,
    kind: str = "orthogonal",
    size: int | None = None,
    hidden: Sequence[int] = (64,),
    bounds: tuple[Any, Any] | None = None,
    embed: Any = None,
    reversible: bool = False,
) -> Flow:
    """A Gaussian fit, then layers `z = x + Q R tanh(S Q^T x + b)`.

    The layers run from data to latent, so densities cost one pass in closed form and
    samples a search per layer and column of Q, one after another. (The paper has them
    the other way round, for posteriors that are sampled: `jflow.invert`.)

    Args:
        shape: the event, `(D,)`.
        layers: the paper has 4 to 16.
        kind: how Q is made, see `jflow.sylvester`. `"triangular"` layers come with the
            dimensions reversed in between.
        size: Q's columns or reflections, by default D.
        hidden: hidden widths of the network that moves each layer's parameters with the
            condition; unused without one.
        bounds: the data's (lower, upper), numbers or one for each dimension, infinite
            where there is none.
        embed: a network for the condition, see `jflow.embed_condition`.
        reversible: train in memory that does not grow with depth.

    Returns:
        A Flow over `(D,)`. Data and condition are standardised by the batch that `init`
        sees; the first layer starts at the inverse Cholesky factor of its covariance.

    Raises:
        ValueError: an argument that cannot be used, named.

    Example:
        >>> import jax
        >>> f = sylvester_flow((3,), layers=2)
        >>> x = jax.random.normal(jax.random.key(0), (64, 3))
        >>> f.log_prob(f.init(jax.random.key(1), x), x).shape
        (64,)
    """
    dimensions = vector_size("sylvester_flow", shape)
    check_positive("sylvester_flow", layers=layers)
    if size is not None and size > dimensions:
        raise ValueError(
            f"sylvester_flow: size={size} exceeds the {dimensions} dimensions; "
            "leave it out, or give fewer."
        )
    layer = sylvester(kind, size, net=mlp(*hidden))
    if kind == "triangular":
        layer = chain(layer, reverse())
    stack = repeat(layer, layers, reversible=reversible)
    return vector_flow(shape, [triangular_affine(), stack], bounds=bounds, embed=embed)
