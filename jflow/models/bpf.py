"""BPF: Bernstein polynomial flow.

Ramasinghe, Fernando, Khan & Barnes 2021, https://arxiv.org/abs/2102.03509.
"""

from collections.abc import Sequence
from typing import Unpack

from jflow.flow import Flow
from jflow.models.parts import AutoregressiveOptions, autoregressive_flow
from jflow.scalars import bernstein


def bpf(
    shape: Sequence[int],
    *,
    degree: int = 16,
    bound: float = 5.0,
    **options: Unpack[AutoregressiveOptions],
) -> Flow:
    """Autoregressive layers whose law is a Bernstein polynomial.

    Its coefficients increase, and so does it; they come from `x_{<i}`. Outside of
    `-bound .. bound` the law is linear. Densities cost one pass, samples D steps with
    a search in each.

    Args:
        shape: the event, `(D,)`.
        degree, bound: the polynomials' and their interval, see
            `jflow.scalars.bernstein`.
        options: `layers`, `hidden`, `inverse`, `bounds`, `embed` and the others of
            `jflow.models.maf`.

    Returns:
        A Flow over `(D,)`, conditional as `maf` is.

    Raises:
        TypeError: an unknown option.
        ValueError: an argument that cannot be used, named.

    Example:
        >>> import jax
        >>> f = bpf((3,), degree=6, layers=2, hidden=(16,))
        >>> x = jax.random.normal(jax.random.key(0), (64, 3))
        >>> f.log_prob(f.init(jax.random.key(1), x), x).shape
        (64,)
    """
    return autoregressive_flow("bpf", shape, bernstein(degree, bound), **options)
