"""NAF: neural autoregressive flow.

Huang, Krueger, Lacoste & Courville 2018, https://arxiv.org/abs/1804.00779.
"""

from collections.abc import Sequence
from typing import Unpack

from jflow.flow import Flow
from jflow.models.parts import AutoregressiveOptions, autoregressive_flow
from jflow.scalars import deep_sigmoidal


def naf(
    shape: Sequence[int],
    *,
    units: int = 16,
    depth: int = 1,
    **options: Unpack[AutoregressiveOptions],
) -> Flow:
    """Autoregressive layers whose law is a monotone network of logistic units.

    `z_i = logit(sum_k w_k sigmoid(a_k x_i + b_k))`, w, a and b from `x_{<i}` (the deep
    sigmoidal flow, section 3.1). Densities cost one pass, samples D steps with a
    search in each.

    Args:
        shape: the event, `(D,)`.
        units: logistic units, `depth`: layers of them in a row, at most 3; see
            `jflow.scalars.deep_sigmoidal`.
        options: `layers`, `hidden`, `inverse`, `bounds`, `embed` and the others of
            `jflow.models.maf`. The paper has 5 and 10 layers.

    Returns:
        A Flow over `(D,)`, conditional as `maf` is.

    Raises:
        TypeError: an unknown option.
        ValueError: an argument that cannot be used, named.

    Example:
        >>> import jax
        >>> f = naf((3,), units=4, layers=2, hidden=(16,))
        >>> x = jax.random.normal(jax.random.key(0), (64, 3))
        >>> f.log_prob(f.init(jax.random.key(1), x), x).shape
        (64,)
    """
    return autoregressive_flow("naf", shape, deep_sigmoidal(units, depth), **options)
