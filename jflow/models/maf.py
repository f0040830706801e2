"""MAF: masked autoregressive flow.

Papamakarios, Pavlakou & Murray 2017, https://arxiv.org/abs/1705.07057.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jflow.flow import Flow
from jflow.models.parts import autoregressive_flow
from jflow.nets import relu
from jflow.scalars import affine


def maf(
    shape: Sequence[int],
    *,
    layers: int = 5,
    hidden: Sequence[int] = (128, 128),
    residual: bool = False,
    activation: Callable = relu,
    scale: str = "soft_clip",
    norm: str | None = None,
    mixing: str = "reverse",
    passes: int | None = None,
    inverse: str = "incremental",
    bounds: tuple[Any, Any] | None = None,
    embed: Any = None,
    reversible: bool = False,
    dtype: Any = None,
) -> Flow:
    """Affine autoregressive layers: densities in one pass, samples in D steps.

    `z_i = x_i exp(a_i(x_{<i})) + m_i(x_{<i})`, the order reversed from layer to layer
    (section 3.1). One layer is `jflow.models.made`.

    Args:
        shape: the event, `(D,)`.
        layers: the paper has 5 and 10; all run under one scan.
        hidden: each MADE's hidden widths; the paper has 1 or 2 of 100 to 1,024.
        residual: residual blocks, see `jflow.nets.made`.
        activation: the paper has relu and tanh.
        scale: the scale map, see `jflow.scalars.scales`; the paper's is `"exp"`.
        norm: `"batch_norm"` between the layers, as in the paper, `"actnorm"`, or None.
        mixing: `"reverse"` the dimensions between layers, or `"shuffle"` them, each
            layer in its own way, or `"linear"`: a learned linear map, Glow's.
        passes: groups of dimensions that are independent given the groups before, so
            that samples take so many steps instead of D; 2 makes couplings.
        inverse: how samples are found, see `jflow.autoregressive`.
        bounds: the data's (lower, upper), numbers or one for each dimension, infinite
            where there is none.
        embed: a network for the condition, see `jflow.embed_condition`.
        reversible: train in memory that does not grow with depth; the backward pass
            then undoes each layer.
        dtype: of the networks' hidden layers.

    Returns:
        A Flow over `(D,)`; a condition of any width reaches every dimension. Data and
        condition are standardised by the batch that `init` sees.

    Raises:
        ValueError: an argument that cannot be used, named.

    Example:
        >>> import jax
        >>> f = maf((3,), layers=2, hidden=(16,))
        >>> x = jax.random.normal(jax.random.key(0), (64, 3))
        >>> f.log_prob(f.init(jax.random.key(1), x), x).shape
        (64,)
    """
    return autoregressive_flow(
        "maf",
        shape,
        affine(scale),
        layers=layers,
        hidden=hidden,
        residual=residual,
        activation=activation,
        norm=norm,
        mixing=mixing,
        passes=passes,
        inverse=inverse,
        bounds=bounds,
        embed=embed,
        reversible=reversible,
        dtype=dtype,
    )
