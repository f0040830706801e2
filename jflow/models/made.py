"""MADE as a density estimator, with Gaussian or mixture conditionals.

Germain et al. 2015, https://arxiv.org/abs/1502.03509; Papamakarios, Pavlakou & Murray
2017, section 4, https://arxiv.org/abs/1705.07057.
"""

from collections.abc import Sequence
from typing import Unpack

from jflow.bijector import check_positive
from jflow.flow import Flow
from jflow.models.parts import AutoregressiveOptions, autoregressive_flow
from jflow.scalars import affine, gaussianization


def made(
    shape: Sequence[int],
    *,
    components: int = 1,
    **options: Unpack[AutoregressiveOptions],
) -> Flow:
    """`p(x) = prod_i p(x_i | x_{<i})`, each factor a Gaussian or a mixture of them.

    One masked network predicts all factors (section 4's MADE and MADE MoG). As a flow,
    a Gaussian factor is `z_i = (x_i - mean_i) / deviation_i`, and a mixture with the
    distribution function F is `z_i = Phi^{-1}(F(x_i))`, so that z is standard normal.
    Samples of mixtures take a search for each dimension.

    Args:
        shape: the event, `(D,)`.
        components: Gaussians in each factor; the paper's MADE MoG has 10.
        options: `hidden`, `inverse`, `bounds`, `embed` and the others of
            `jflow.models.maf`; `layers` is 1.

    Returns:
        A Flow over `(D,)`, conditional as `maf` is.

    Raises:
        TypeError: an unknown option.
        ValueError: an argument that cannot be used, named.

    Example:
        >>> import jax
        >>> f = made((3,), components=4, hidden=(16,))
        >>> x = jax.random.normal(jax.random.key(0), (64, 3))
        >>> f.log_prob(f.init(jax.random.key(1), x), x).shape
        (64,)
    """
    check_positive("made", components=components)
    law = affine() if components == 1 else gaussianization(components)
    return autoregressive_flow("made", shape, law, **{"layers": 1} | options)
