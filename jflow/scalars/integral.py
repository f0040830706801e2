"""Monotone maps as integrals of positive functions, by Gauss-Legendre quadrature.

Unconstrained monotone networks, Wehenkel & Louppe 2019,
https://arxiv.org/abs/1908.05164; sum-of-squares polynomials, Jaini et al. 2019,
https://arxiv.org/abs/1905.02325.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jflow.bijector import check_positive
from jflow.scalars.scalar import Scalar, promote
from jflow.scalars.solve import numerical_inverse
from jflow.scalars.tails import check_bound, with_linear_tails

# What keeps g smooth enough for 16 nodes, however large the raw parameters: its
# network's units are no steeper, and the weights of its output no larger in sum.
STEEPEST = 8.0
LARGEST = 3.0
LEAST_SLOPE = 1e-3


def unconstrained_monotone(
    hidden: int, nodes: int = 24, *, bound: float = 5.0
) -> Scalar:
    """`y = t + integral from 0 to x of g`, g a positive network of one hidden layer.

    UMNN, https://arxiv.org/abs/1908.05164. Here the conditioner predicts the
    whole small network: `log g(u) = c + sum_k v_k tanh(w_k u / bound + b_k)` with
    `|c| < 3`, `sum_k |v_k| < 3` and `|w_k| < 8`, soft bounds that keep g positive and
    so smooth that the quadrature resolves it. Raw parameters are t, c and, for every
    unit, v, w and b, of which w and b are added to fixed values spread over the
    interval: `3 hidden + 2` in all. Zeros give the identity. Outside of
    `-bound .. bound` the map is linear with its end's slope.

    The log-derivative is that of the quadrature's sum, not g, so that it is exact for
    the map as computed. The inverse is numerical, with exact gradients.

    Args:
        hidden: units of the network.
        nodes: Gauss-Legendre nodes between 0 and x.
        bound: half-width of the interval on which the network acts.

    Raises:
        ValueError: `hidden` or `nodes` is no positive integer, `nodes` below 16, or
            `bound` is not positive.

    Example:
        >>> import jflow
        >>> b = jflow.coupling(unconstrained_monotone(8), jflow.nets.mlp(16))
    """
    check_positive("unconstrained_monotone", hidden=hidden, nodes=nodes)
    check_bound("unconstrained_monotone", bound)
    if nodes < 16:
        raise ValueError(
            f"unconstrained_monotone: nodes must be at least 16, got {nodes}: fewer do "
            "not resolve the integrand."
        )
    centres = (2.0 * np.arange(hidden) + 1.0) / hidden - 1.0

    def integrand(raw, s):
        v, w, b = jnp.split(raw[..., 2:], 3, axis=-1)
        c = LARGEST * jnp.tanh(raw[..., 1, None] / LARGEST)
        v = v / (1.0 + jnp.abs(v).sum(-1, keepdims=True) / LARGEST)
        w = STEEPEST * jnp.tanh((2.0 + w) / STEEPEST)
        b = b - 2.0 * jnp.asarray(centres, raw.dtype)
        units = jnp.tanh(s[..., None] * w[..., None, :] + b[..., None, :])
        return jnp.exp(c + (v[..., None, :] * units).sum(-1))

    def inside(raw, x):
        def integral(x):
            s = x / bound
            return raw[..., 0] + _integrate(lambda s: integrand(raw, s), s, nodes, x)

        y, slope = jax.jvp(integral, (x,), (jnp.ones_like(x),))
        return y, jnp.log(slope)

    return _scalar(3 * hidden + 2, inside, bound)


def sum_of_squares(degree: int, terms: int = 2, *, bound: float = 5.0) -> Scalar:
    """`y = c + integral from 0 to x of sum_k p_k(u)^2`, polynomials p_k.

    SOS flows, https://arxiv.org/abs/1905.02325: y is a polynomial of degree
    `2 degree + 1`, and two terms make every increasing one. Raw parameters are c and
    the coefficients of the p_k in powers of `u / bound`, added to the constant that
    makes zeros the identity and scaled so that equal terms part: `terms (degree + 1) +
    1` in all. The slope is at least 1/1000; outside of `-bound .. bound` the map is
    linear with its end's slope. The inverse is numerical, with exact gradients.

    Args:
        degree: of the squared polynomials.
        terms: how many squares.
        bound: half-width of the interval on which the polynomial acts.

    Raises:
        ValueError: `degree` or `terms` is no positive integer, or `bound` is not
            positive.

    Example:
        >>> import jflow
        >>> b = jflow.coupling(sum_of_squares(3), jflow.nets.mlp(16))
    """
    check_positive("sum_of_squares", degree=degree, terms=terms)
    check_bound("sum_of_squares", bound)
    start = np.zeros((terms, degree + 1))
    start[:, 0] = np.sqrt((1.0 - LEAST_SLOPE) / terms)
    # Equal gains would keep all p_k proportional to each other: a single square.
    gain = 1.0 / (1.0 + np.add.outer(np.arange(terms), np.arange(degree + 1)) % terms)

    def slope(raw, s):
        raw = raw[..., 1:].reshape(*raw.shape[:-1], terms, degree + 1)
        a = jnp.asarray(start, raw.dtype) + jnp.asarray(gain, raw.dtype) * raw
        p = 0.0
        for i in range(degree, -1, -1):
            p = p * s[..., None, :] + a[..., i, None]
        return (p * p).sum(-2) + LEAST_SLOPE

    def inside(raw, x):
        s = x / bound
        y = raw[..., 0] + _integrate(lambda s: slope(raw, s), s, degree + 1, x)
        return y, jnp.log(slope(raw, s[..., None])[..., 0])

    return _scalar(terms * (degree + 1) + 1, inside, bound)


def _integrate(f, s, nodes, length):
    """The integral of f from 0 to s, where 0 to s is `length` long in its variable."""
    at, weight = np.polynomial.legendre.leggauss(nodes)
    at, weight = (jnp.asarray(a, s.dtype) for a in ((at + 1.0) / 2.0, weight / 2.0))
    return (f(s[..., None] * at) * weight).sum(-1) * length


def _scalar(size, inside, bound):
    def forward(raw, x):
        wide_raw, wide_x = promote(raw, x)
        y, log_derivative = with_linear_tails(
            lambda x: inside(wide_raw, x), wide_x, -bound, bound
        )
        return y.astype(x.dtype), log_derivative

    return Scalar(size, forward, numerical_inverse(forward))
