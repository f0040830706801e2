"""IAF: inverse autoregressive flow.

Kingma et al. 2016, https://arxiv.org/abs/1606.04934.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jflow.bijector import check_positive
from jflow.bijectors import autoregressive, reverse
from jflow.combinators import chain, invert, repeat
from jflow.flow import Flow
from jflow.models.parts import vector_flow, vector_size
from jflow.nets import made, relu
from jflow.scalars import affine


def iaf(
    shape: Sequence[int],
    *,
    layers: int = 5,
    hidden: Sequence[int] = (128, 128),
    residual: bool = False,
    activation: Callable = relu,
    scale: str = "soft_clip",
    inverse: str = "incremental",
    bounds: tuple[Any, Any] | None = None,
    embed: Any = None,
    dtype: Any = None,
) -> Flow:
    """Affine autoregressive layers turned round: samples in one pass.

    `x_i = z_i exp(a_i(z_{<i})) + m_i(z_{<i})` (section 3): MAF's passes
    exchanged, so samples and their densities are cheap, which is what variational
    inference wants. Densities of other points are found dimension by dimension.

    Args:
        shape: the event, `(D,)`.
        layers, hidden, residual, activation, scale, dtype: as in `jflow.models.maf`.
        inverse: how densities of given points are found, see `jflow.autoregressive`.
        bounds: the data's (lower, upper), numbers or one for each dimension, infinite
            where there is none.
        embed: a network for the condition, see `jflow.embed_condition`.

    Returns:
        A Flow over `(D,)`, conditional as `maf` is.

    Raises:
        ValueError: an argument that cannot be used, named.

    Example:
        >>> import jax
        >>> f = iaf((3,), layers=2, hidden=(16,))
        >>> params = f.init(jax.random.key(1), jax.numpy.zeros((64, 3)))
        >>> x, log_prob = f.sample_and_log_prob(params, jax.random.key(0), 8)
    """
    vector_size("iaf", shape)
    check_positive("iaf", layers=layers)
    net = made(*hidden, residual=residual, activation=activation, dtype=dtype)
    layer = chain(autoregressive(affine(scale), net, inverse=inverse), reverse())
    stack = invert(repeat(layer, layers))
    return vector_flow(shape, [stack], bounds=bounds, embed=embed)
