"""Gaussianization flow: rotations and marginals made normal, by turns.

Meng, Song, Song & Ermon 2020, https://arxiv.org/abs/2003.01941.
"""

from collections.abc import Sequence
from typing import Any

from jflow.bijector import check_positive
from jflow.bijectors import elementwise, invertible_linear
from jflow.combinators import chain, repeat
from jflow.flow import Flow
from jflow.models.parts import choose, vector_flow, vector_size
from jflow.nets import mlp
from jflow.scalars import gaussianization as law_of
from jflow.scalars.mixture import mixture_of

ROTATIONS = {kind: kind for kind in ("householder", "cayley", "skew_expm", "rotation")}


def gaussianization(
    shape: Sequence[int],
    *,
    layers: int = 5,
    components: int = 16,
    rotation: str = "householder",
    hidden: Sequence[int] = (64,),
    bounds: tuple[Any, Any] | None = None,
    embed: Any = None,
    reversible: bool = False,
) -> Flow:
    """Layers `z_i = Phi^{-1}(F_i(x_i))` after rotations, F_i learned mixtures.

    Every layer's mixtures start as smooth estimates of the densities along the rotated
    axes, from the batch that `init` sees, so that each layer is a step of iterative
    Gaussianization before any training (section 3). Densities cost one pass in closed
    form, samples a search per layer, for all dimensions at once.

    Args:
        shape: the event, `(D,)`.
        layers: how many; all run under one scan.
        components: Gaussians in each mixture.
        rotation: how the rotations are parametrised, `"householder"` (the paper's
            trainable one), `"cayley"` or `"skew_expm"`; `"rotation"` ones are random
            and stay. See `jflow.invertible_linear`.
        hidden: hidden widths of the network that moves each layer's mixtures with the
            condition; unused without one.
        bounds: the data's (lower, upper), numbers or one for each dimension, infinite
            where there is none.
        embed: a network for the condition, see `jflow.embed_condition`.
        reversible: train in memory that does not grow with depth; the backward pass
            then undoes each layer, with its search.

    Returns:
        A Flow over `(D,)`; a condition of any width moves every dimension. Data and
        condition are standardised by the batch that `init` sees.

    Raises:
        ValueError: an argument that cannot be used, named.

    Example:
        >>> import jax
        >>> f = gaussianization((3,), layers=2, components=4)
        >>> x = jax.random.normal(jax.random.key(0), (64, 3))
        >>> f.log_prob(f.init(jax.random.key(1), x), x).shape
        (64,)
    """
    vector_size("gaussianization", shape)
    check_positive("gaussianization", layers=layers)
    kind = choose("gaussianization", "rotation", rotation, ROTATIONS)
    marginals = elementwise(law_of(components), net=mlp(*hidden))

    def fitted(key, x, condition=None):
        params = marginals.init(key, x, condition)
        return params | {"raw": mixture_of(x, components)}

    layer = chain(invertible_linear(kind), marginals._replace(init=fitted))
    stack = repeat(layer, layers, reversible=reversible)
    return vector_flow(shape, [stack], bounds=bounds, embed=embed)
