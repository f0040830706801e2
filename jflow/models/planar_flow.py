"""Planar flows as density estimators.

Rezende & Mohamed 2015, section 4.1, https://arxiv.org/abs/1505.05770.
"""

from collections.abc import Sequence
from typing import Any

from jflow.bijector import check_positive
from jflow.bijectors import planar, triangular_affine
from jflow.combinators import repeat
from jflow.flow import Flow
from jflow.models.parts import vector_flow, vector_size
from jflow.nets import mlp


def planar_flow(
    shape: Sequence[int],
    *,
    layers: int = 32,
    activation: str = "tanh",
    hidden: Sequence[int] = (64,),
    bounds: tuple[Any, Any] | None = None,
    embed: Any = None,
    reversible: bool = False,
) -> Flow:
    """A Gaussian fit, then planar layers `z = x + u h(w . x + b)`.

    The layers run from data to latent, so densities cost one pass in closed form and
    samples a one-dimensional search per layer. (The paper has them the other way round,
    for posteriors that are sampled: `jflow.invert(jflow.planar())`.)

    Args:
        shape: the event, `(D,)`.
        layers: each bends the density along one direction, so many are wanted; the
            paper has up to 32 in two dimensions.
        activation: h, see `jflow.planar`.
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
        >>> f = planar_flow((3,), layers=4)
        >>> x = jax.random.normal(jax.random.key(0), (64, 3))
        >>> f.log_prob(f.init(jax.random.key(1), x), x).shape
        (64,)
    """
    vector_size("planar_flow", shape)
    check_positive("planar_flow", layers=layers)
    layer = planar(activation, net=mlp(*hidden))
    stack = repeat(layer, layers, reversible=reversible)
    return vector_flow(shape, [triangular_affine(), stack], bounds=bounds, embed=embed)
