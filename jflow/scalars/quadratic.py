"""Monotone quadratic and linear splines: densities linear or constant in each bin.

Neural importance sampling, Mueller et al. 2019, section 4,
https://arxiv.org/abs/1808.03856
"""

import jax.numpy as jnp

from jflow.scalars.knots import Knots, Pieces, Sizes, check_knots, piecewise
from jflow.scalars.scalar import Scalar
from jflow.scalars.scales import SOFT_CLIP_LIMIT


def quadratic_spline(
    bins: int = 8,
    bound: float | tuple[float, float] = 5.0,
    *,
    ends: str = "linear",
    parametrisation: str = "soft_clip",
    minimum: float = 1e-3,
    logit_scale: float = 1.0,
    learned_box: bool = False,
) -> Scalar:
    """The integral of a density that is linear between knots (section 4.2).

    With the densities d0 and d1 at the ends of a bin of height h and the place xi,
    `y = y_k + h xi (d0 (2 - xi) + d1 xi) / (d0 + d1)`: once continuously
    differentiable. Densities are scaled so that the box goes to itself. Zero raw
    parameters are the identity.

    Args:
        bins: the number of bins K; each takes a width.
        bound, ends, logit_scale, learned_box: as `rational_quadratic_spline` takes
            them. With linear ends the density is 1 at both, and the inner ones are
            scaled; that takes two bins.
        parametrisation: `"soft_clip"`: widths as there, and densities before scaling
            `exp(u / (1 + 4 |u| / L))`, so that no height is lost to rounding.
            `"softmax"`: densities are `min + softplus`, and after scaling they are
            mixed with the uniform one, of weight `min`.
        minimum: of the second.

    Raises:
        ValueError: an argument that cannot be used, named.

    Example:
        >>> law = quadratic_spline(4)
        >>> y, log_derivative = law.forward(jnp.zeros((3, law.size)), jnp.ones(3))
        >>> float(y[0])
        1.0
    """
    knots = check_knots(
        "quadratic_spline",
        bins,
        bound,
        ends,
        parametrisation,
        minimum,
        logit_scale,
        learned_box,
    )
    if ends == "linear" and bins < 2:
        raise ValueError(
            f'quadratic_spline: bins={bins} with ends="linear" leaves no free density; '
            "use two bins or more."
        )

    def pieces(raw):
        widths = knots.sizes(raw[..., :bins, :]).relative()
        densities = _scaled(knots, widths, raw[..., bins:, :])
        heights = widths * (densities[..., :-1, :] + densities[..., 1:, :]) / 2
        return Pieces(Sizes(widths), Sizes(heights), densities)

    return piecewise(
        knots, bins + knots.free, pieces, _quadratic_forward, _quadratic_inverse
    )


def linear_spline(
    bins: int = 8,
    bound: float | tuple[float, float] = 5.0,
    *,
    ends: str = "linear",
    parametrisation: str = "soft_clip",
    minimum: float = 1e-3,
    logit_scale: float = 1.0,
    learned_box: bool = False,
) -> Scalar:
    """Straight pieces over bins of one width: a histogram's density (section 4.1).

    `y = y_k + h xi`. Continuous, with slopes that jump at the knots, at the box's ends
    too. Zero raw parameters are the identity.

    Args:
        bins: the number of bins K; each takes a height.
        bound, parametrisation, minimum, logit_scale, learned_box: as
            `rational_quadratic_spline` takes them.
        ends: `"linear"`: the identity outside the box; there is no derivative to match
            at its ends, so this is the bounded spline, too. `"circular"`: what is given
            is wrapped into the box.

    Raises:
        ValueError: an argument that cannot be used, named.

    Example:
        >>> law = linear_spline(4)
        >>> y, log_derivative = law.forward(jnp.zeros((3, law.size)), jnp.ones(3))
        >>> float(y[0])
        1.0
    """
    knots = check_knots(
        "linear_spline",
        bins,
        bound,
        ends,
        parametrisation,
        minimum,
        logit_scale,
        learned_box,
        allowed=("linear", "circular"),
    )

    def pieces(raw):
        heights = knots.sizes(raw)
        return Pieces(Sizes(jnp.full_like(heights.parts, 1 / bins)), heights)

    return piecewise(knots, bins, pieces, _linear_forward, _linear_inverse)


def _scaled(knots: Knots, widths, raw):
    """Densities at the knots, those of linear ends 1, with integral 1."""
    densities = knots.at_knots(knots.positive(raw, SOFT_CLIP_LIMIT / 4))
    # A density's share of the trapezoids beside it.
    nothing = jnp.zeros_like(widths[..., :1, :])
    before = jnp.concatenate([nothing, widths], axis=-2)
    after = jnp.concatenate([widths, nothing], axis=-2)
    shares = (before + after) / 2
    if knots.ends == "linear":
        shares, inner = shares[..., 1:-1, :], densities[..., 1:-1, :]
        free = shares.sum(axis=-2, keepdims=True)
        inner = inner * (free / (shares * inner).sum(axis=-2, keepdims=True))
        one = densities[..., :1, :]
        densities = jnp.concatenate([one, inner, one], axis=-2)
    else:
        densities = densities / (shares * densities).sum(axis=-2, keepdims=True)
    if knots.soft:
        return densities
    return knots.minimum + (1 - knots.minimum) * densities


def _quadratic_forward(b, xi, eta):
    """The place in the image of the place `xi = 1 - eta`, and the log-derivative."""
    total = b.d0 + b.d1
    part = xi * (b.d0 * (1 + eta) + b.d1 * xi) / total
    rest = eta * (b.d1 * (1 + xi) + b.d0 * eta) / total
    density = 2 * (b.d0 * eta + b.d1 * xi) / total
    return part, rest, jnp.log(b.s) + jnp.log(density)


def _quadratic_inverse(b, q, p):
    """The place of the relative height `q = 1 - p`; the density there is a root."""
    total = b.d0 + b.d1
    density = jnp.sqrt(b.d0**2 * p + b.d1**2 * q)
    xi = q * total / (b.d0 + density)
    eta = p * total / (b.d1 + density)
    return xi, eta, -jnp.log(b.s) - jnp.log(2 * density / total)


def _linear_forward(b, xi, eta):
    return xi, eta, jnp.log(b.s)


def _linear_inverse(b, q, p):
    return q, p, -jnp.log(b.s)
