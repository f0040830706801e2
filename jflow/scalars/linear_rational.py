"""The monotone linear rational spline.

Dolatabadi et al. 2020, section 3, https://arxiv.org/abs/2001.05168
"""

import jax
import jax.numpy as jnp

from jflow.scalars.knots import Pieces, check_knots, piecewise
from jflow.scalars.scalar import Scalar

# The place where a bin's two pieces meet stays away from its ends.
MARGIN = 0.025


def linear_rational_spline(
    bins: int = 8,
    bound: float | tuple[float, float] = 5.0,
    *,
    ends: str = "linear",
    parametrisation: str = "soft_clip",
    minimum: float = 1e-3,
    logit_scale: float = 1.0,
    learned_box: bool = False,
) -> Scalar:
    """Two linear rational pieces in each bin, once continuously differentiable.

    With v, m and w the weights of a bin's start, of the point (lambda, mu) where its
    pieces meet, and of its end, the first piece is, in units of the bin,
    `mu m t / (v (1 - t) + m t)` at `t = xi / lambda`, and the second `1 - (1 - mu) m t'
    / (w (1 - t') + m t')` at `t' = (1 - xi) / (1 - lambda)`. Equation 8's weights are
    `v = sqrt(d1)`, `w = sqrt(d0)`, `m = sqrt(d0 d1) (lambda w + (1 - lambda) v) / s`
    and `mu = lambda w / (lambda w + (1 - lambda) v)`, for slope s and derivatives d0
    and d1 at the ends. The inverse is such a spline again. Zero raw parameters are the
    identity.

    Args:
        bins: the number of bins K; each takes a width, a height and a lambda.
        bound, ends, parametrisation, minimum, logit_scale, learned_box: as
            `rational_quadratic_spline` takes them.

    Raises:
        ValueError: an argument that cannot be used, named.

    Example:
        >>> law = linear_rational_spline(4)
        >>> y, log_derivative = law.forward(jnp.zeros((3, law.size)), jnp.ones(3))
        >>> float(y[0])
        1.0
    """
    knots = check_knots(
        "linear_rational_spline",
        bins,
        bound,
        ends,
        parametrisation,
        minimum,
        logit_scale,
        learned_box,
    )

    def pieces(raw):
        widths, heights, meets, free = jnp.split(raw, (bins, 2 * bins, 3 * bins), -2)
        slopes = knots.at_knots(knots.positive(free))
        return Pieces(knots.sizes(widths), knots.sizes(heights), slopes, meets)

    return piecewise(knots, 3 * bins + knots.free, pieces, _forward, _inverse)


def _forward(b, xi, eta):
    meeting, image, weights = _pieces(b)
    return _two_pieces(xi, eta, meeting, image, weights, jnp.log(b.s))


def _inverse(b, q, p):
    """A piece's inverse is the piece with its two weights exchanged."""
    meeting, image, (start, middle, end) = _pieces(b)
    # Weights count up to a factor: these are their inverses times all three.
    weights = middle * end, start * end, start * middle
    return _two_pieces(q, p, image, meeting, weights, -jnp.log(b.s))


def _pieces(b):
    """Where the pieces meet and where that goes, from both ends; and the weights."""
    lam = MARGIN + (1 - 2 * MARGIN) * jax.nn.sigmoid(b.logit)
    rest = MARGIN + (1 - 2 * MARGIN) * jax.nn.sigmoid(-b.logit)
    start, end = jnp.sqrt(b.d1), jnp.sqrt(b.d0)
    total = lam * end + rest * start
    middle = start * end * total / b.s
    return (lam, rest), (lam * end / total, rest * start / total), (start, middle, end)


def _two_pieces(xi, eta, meeting, image, weights, log_slope):
    """The place in the image of the place `xi = 1 - eta`, and the log-derivative."""
    (lam, lam_rest), (mu, mu_rest) = meeting, image
    start, middle, end = weights
    first = xi < lam
    length = jnp.where(first, lam, lam_rest)
    t = jnp.clip(jnp.where(first, xi, lam_rest - eta) / length, 0.0, 1.0)
    u = jnp.clip(jnp.where(first, lam - xi, eta) / length, 0.0, 1.0)
    left, right = jnp.where(first, start, middle), jnp.where(first, middle, end)
    den = left * u + right * t
    over, under = right * t / den, left * u / den
    part = jnp.where(first, mu * over, mu + mu_rest * over)
    rest = jnp.where(first, mu_rest + mu * under, mu_rest * under)
    stretch = jnp.log(jnp.where(first, mu, mu_rest)) - jnp.log(length)
    log_weights = jnp.log(left) + jnp.log(right) - 2 * jnp.log(den)
    return part, rest, log_slope + stretch + log_weights
