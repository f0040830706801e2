"""The monotone rational quadratic spline.

Neural spline flows, Durkan et al. 2019, https://arxiv.org/abs/1906.04032; circular
ends as in Rezende et al. 2020, https://arxiv.org/abs/2002.02428.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jflow.bijector import Array
from jflow.scalars.scalar import Scalar, check_count, promote

ENDS = ("linear", "box", "circular")
SOFT_CLIP = abs(math.log(1e-3))


def rational_quadratic_spline(
    bins: int = 8,
    bound: float | tuple[float, float] = 5.0,
    *,
    ends: str = "linear",
    parametrisation: str = "soft_clip",
    minimum: float = 1e-3,
    logit_scale: float = 1.0,
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

    Raises:
        ValueError: an argument that cannot be used, named.

    Example:
        >>> law = rational_quadratic_spline(4)
        >>> y, log_derivative = law.forward(jnp.zeros((3, law.size)), jnp.ones(3))
        >>> float(y[0])
        1.0
    """
    name = "rational_quadratic_spline"
    check_count(name, "bins", bins)
    lower, upper = (-bound, bound) if isinstance(bound, int | float) else bound
    if not -math.inf < lower < upper < math.inf:
        raise ValueError(f"{name}: bound={bound!r} is no interval of positive length.")
    if ends not in ENDS:
        raise ValueError(f"{name}: ends must be one of {ENDS}, got {ends!r}.")
    if parametrisation not in ("soft_clip", "softmax"):
        raise ValueError(
            f'{name}: parametrisation must be "soft_clip" or "softmax", got '
            f"{parametrisation!r}."
        )
    if not 0 < minimum * bins < 1 or logit_scale <= 0:
        raise ValueError(
            f"{name}: minimum={minimum} times {bins} bins must be in (0, 1), and "
            f"logit_scale={logit_scale} positive."
        )
    derivatives = {"linear": bins - 1, "box": bins + 1, "circular": bins}[ends]

    def sizes(logits):
        logits = logits / logit_scale
        if parametrisation == "soft_clip":
            logits = logits / (1 + jnp.abs(2 * logits / SOFT_CLIP))
            return jax.nn.softmax(logits)
        return minimum + (1 - bins * minimum) * jax.nn.softmax(logits)

    def slopes(raw):
        if parametrisation == "soft_clip":
            inner = jnp.exp(raw / (1 + jnp.abs(raw / SOFT_CLIP)))
        else:
            inner = minimum + jax.nn.softplus(raw + math.log(math.expm1(1 - minimum)))
        if ends == "linear":
            one = jnp.ones_like(raw, shape=(*raw.shape[:-1], 1))
            return jnp.concatenate([one, inner, one], axis=-1)
        if ends == "circular":
            return jnp.concatenate([inner, inner[..., :1]], axis=-1)
        return inner

    def spline(raw):
        widths = (upper - lower) * sizes(raw[..., :bins])
        heights = (upper - lower) * sizes(raw[..., bins : 2 * bins])
        return widths, heights, slopes(raw[..., 2 * bins :])

    def enter(x):
        """The point in the box, and whether the spline is asked there."""
        if ends == "circular":
            wrapped = lower + jnp.mod(x - lower, upper - lower)
            return jnp.clip(wrapped, lower, upper), True
        return jnp.clip(x, lower, upper), (x >= lower) & (x <= upper)

    def apply(raw, x, evaluate, search):
        wide, value = promote(raw, x)
        inside, asked = enter(value)
        bin_, q, p = _find(*spline(wide), inside, lower, upper, search)
        y, log_derivative = evaluate(bin_, q, p)
        y = jnp.clip(y, lower, upper)
        y = jnp.where(asked, y, value)
        return y.astype(x.dtype), jnp.where(asked, log_derivative, 0.0)

    def forward(raw, x):
        return apply(raw, x, _forward, "x")

    def inverse(raw, y):
        return apply(raw, y, _inverse, "y")

    return Scalar(2 * bins + derivatives, forward, inverse)


class _Bin(NamedTuple):
    """One bin for each variable: where its image starts and ends, its image's size, its
    slope and the derivatives at its ends.
    """

    start: Array
    end: Array
    size: Array
    s: Array
    d0: Array
    d1: Array


def _find(widths, heights, slopes, value, lower, upper, search):
    """The bin that `value` is in, and its place there from the left and the right.

    Sizes are differences of the knots as they are rounded, so that bins meet exactly.
    """
    here, there = (widths, heights) if search == "x" else (heights, widths)
    knots, images = (_knots(sizes, lower, upper) for sizes in (here, there))
    # A knot belongs to the bin that begins there.
    index = (value[..., None] >= knots[..., 1:-1]).sum(axis=-1, keepdims=True)

    def pick(table, offset=0):
        table = jnp.broadcast_to(table, (*value.shape, table.shape[-1]))
        return jnp.take_along_axis(table, index + offset, axis=-1)[..., 0]

    width = pick(knots, 1) - pick(knots)
    size = pick(images, 1) - pick(images)
    s = size / width if search == "x" else width / size
    q = jnp.clip((value - pick(knots)) / width, 0.0, 1.0)
    p = jnp.clip((pick(knots, 1) - value) / width, 0.0, 1.0)
    found = _Bin(pick(images), pick(images, 1), size, s, pick(slopes), pick(slopes, 1))
    return found, q, p


def _knots(sizes, lower, upper):
    """Where the bins begin and end, the box's own ends exact."""
    inner = lower + jnp.cumsum(sizes, axis=-1)[..., :-1]
    ones = jnp.ones_like(sizes, shape=(*sizes.shape[:-1], 1))
    return jnp.concatenate([lower * ones, inner, upper * ones], axis=-1)


def _denominator(b, xi, eta):
    return b.s * (xi**2 + eta**2) + (b.d0 + b.d1) * xi * eta


def _from_nearer(b, part, rest):
    """`start + size * part`, by way of the end where what is added is small."""
    return jnp.where(part < rest, b.start + b.size * part, b.end - b.size * rest)


def _forward(b, xi, eta):
    """Value and log-derivative at the place `xi = 1 - eta`."""
    den = _denominator(b, xi, eta)
    part = xi * (b.s * xi + b.d0 * eta) / den
    rest = eta * (b.s * eta + b.d1 * xi) / den
    slope = b.d1 * xi**2 + 2 * b.s * xi * eta + b.d0 * eta**2
    log_derivative = 2 * jnp.log(b.s) + jnp.log(slope) - 2 * jnp.log(den)
    return _from_nearer(b, part, rest), log_derivative


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
    log_derivative = jnp.log(_denominator(b, xi, eta)) - jnp.log(b.s) - jnp.log(r)
    return _from_nearer(b, xi, eta), log_derivative
