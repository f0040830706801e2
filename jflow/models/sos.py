"""SOS: sum-of-squares polynomial flow.

Jaini, Selby & Yu 2019, https://arxiv.org/abs/1905.02325.
"""

from collections.abc import Sequence
from typing import Unpack

from jflow.flow import Flow
from jflow.models.parts import AutoregressiveOptions, autoregressive_flow
from jflow.scalars import sum_of_squares


def sos(
    shape: Sequence[int],
    *,
    degree: int = 4,
    terms: int = 3,
    bound: float = 5.0,
    **options: Unpack[AutoregressiveOptions],
) -> Flow:
    """Autoregressive layers whose law is an increasing polynomial.

    `z_i = c + integral from 0 to x_i of sum_k p_k(u)^2 du`, c and the polynomials'
    coefficients from `x_{<i}` (section 4). Outside of `-bound .. bound` the law is
    linear. Densities cost one pass, samples D steps with a search in each.

    Args:
        shape: the event, `(D,)`.
        degree, terms, bound: the polynomials' degree, how many are squared and the
            interval, see `jflow.scalars.sum_of_squares`.
        options: `layers`, `hidden`, `inverse`, `bounds`, `embed` and the others of
            `jflow.models.maf`.

    Returns:
        A Flow over `(D,)`, conditional as `maf` is.

    Raises:
        TypeError: an unknown option.
        ValueError: an argument that cannot be used, named.

    Example:
        >>> import jax
        >>> f = sos((3,), degree=2, layers=2, hidden=(16,))
        >>> x = jax.random.normal(jax.random.key(0), (64, 3))
        >>> f.log_prob(f.init(jax.random.key(1), x), x).shape
        (64,)
    """
    law = sum_of_squares(degree, terms, bound=bound)
    return autoregressive_flow("sos", shape, law, **options)
