"""The monotone rational quadratic spline.

Neural spline flows, Durkan et al. 2019, https://arxiv.org/abs/1906.04032; circular
ends as in Rezende et al. 2020, https://arxiv.org/abs/2002.02428.
"""

import jax.numpy as jnp

from jflow.scalars.knots import Pieces, check_knots, piecewise
from jflow.scalars.scalar import Scalar


def rational_quadratic_spline(
    bins: int = 8,
    bound: float | tuple[float, float] = 5.0,
    *,
    ends: str = "linear",
    parametrisation: str = "soft_clip",
    minimum: float = 1e-3,
    logit_scale: float = 1.0,
    learned_box: bool = False,
) -> Scalar:
    """Rational quadratic pieces between knots, once continuously differentiable.

    In a bin of width w, height h and slope s = h / w, with derivatives d0 and d1 at its
    ends and the place xi in [0, 1],
    `y = y_k + h xi (s xi + d0 eta) / (s (xi^2 + eta^2) + (d0 + d1) xi eta)`, where
    `eta = 1 - xi`. Zero raw parameters are the identity.

    Args:
        bins: the number of pieces K.
        bound: the box is `-bound .. bound`, or `(lower, upper)`.
        ends: `"linear"`: the identity outside the box, slope 1 at its ends (K - 1
            derivatives). `"box"`: the box to itself, with free slopes (K + 1); outside
            it is the identity, so the base decides what lies in the support.
            `"circular"`: what is given is wrapped into the box, and both ends have one
            derivative (K).
        parametrisation: `"soft_clip"`: logits u become `u / (1 + 2 |u| / L)` before the
            softmax and derivatives are `exp(d / (1 + |d| / L))`, L = log 1000, so that
            no bin is a thousandth of its neighbour. `"softmax"`: the paper's, sizes
            `min + (1 - K min) softmax` and derivatives `min + softplus`.
        minimum: of the paper's parametrisation.
        logit_scale: what softmax logits are divided by; the square root of the
            network's width keeps wide networks' splines mild.
        learned_box: the box's place and size are learned, per channel, from `bound` on
            (with linear ends): two more raw parameters, not predicted by a network.

    Raises:
        ValueError: an argument that cannot be used, named.

    Example:
        >>> law = rational_quadratic_spline(4)
        >>> y, log_derivative = law.forward(jnp.zeros((3, law.size)), jnp.ones(3))
        >>> float(y[0])
        1.0
    """
    knots = check_knots(
        "rational_quadratic_spline",
        bins,
        bound,
        ends,
        parametrisation,
        minimum,
        logit_scale,
        learned_box,
    )

    def pieces(raw):
        widths, heights, free = jnp.split(raw, (bins, 2 * bins), axis=-2)
        slopes = knots.at_knots(knots.positive(free))
        return Pieces(knots.sizes(widths), knots.sizes(heights), slopes)

    size = 2 * bins + knots.free
    return piecewise(knots, size, pieces, _forward, _inverse)


def _denominator(b, xi, eta):
    return b.s * (xi**2 + eta**2) + (b.d0 + b.d1) * xi * eta


def _forward(b, xi, eta):
    """The place in the image of the place `xi = 1 - eta`, and the log-derivative."""
    den = _denominator(b, xi, eta)
    part = xi * (b.s * xi + b.d0 * eta) / den
    rest = eta * (b.s * eta + b.d1 * xi) / den
    slope = b.d1 * xi**2 + 2 * b.s * xi * eta + b.d0 * eta**2
    log_derivative = 2 * jnp.log(b.s / den) + jnp.log(slope)
    return part, rest, log_derivative


def _inverse(b, q, p):
    """The place of the relative height `q = 1 - p`, every term of it positive.

    With `e = d0 p - d1 q` the quadratic's discriminant is `e^2 + 4 s^2 q p`; of its two
    roots' forms that without a difference is taken.
    """
    e = b.d0 * p - b.d1 * q
    # Never zero: where q or p is, e is one of the derivatives.
    r = jnp.sqrt(e**2 + 4 * b.s**2 * q * p)
    left = e >= 0
    up, down = jnp.where(left, e, 0.0) + r, jnp.where(left, 0.0, -e) + r
    over_left, over_right = 2 * b.s * q + up, 2 * b.s * p + down
    xi = jnp.where(left, 2 * b.s * q / over_left, down / over_right)
    eta = jnp.where(left, up / over_left, 2 * b.s * p / over_right)
    log_derivative = jnp.log(_denominator(b, xi, eta) / r) - jnp.log(b.s)
    return xi, eta, log_derivative
