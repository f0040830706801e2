"""Fixed maps of every coordinate: exp, softplus, sigmoid, tanh and the like.

Those come in pairs of inverses, and `z = f(x)` is the forward pass of the factory that
is called `f`. To carry constrained data to the line, choose by the data's side:
positive data want `log()`, data in (-1, 1) `arctanh()`, others `bounded(...)`.

Where a map has a smaller domain or range than the line, a point outside of it gets the
log-det `-inf` and finite gradients; a point on its edge, where results may be rounded
to, counts as the nearest inside. Results that no float can hold are the nearest
that it can.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jflow.bijector import Bijector, sum_event
from jflow.bijectors.bounds import bounded
from jflow.bijectors.support import log_positive
from jflow.scalars.scales import ATAN_LIMIT
from jflow.scalars.sinh_arcsinh import (
    SKEW_LIMIT,
    skew_and_tail,
    undo_skew_and_tail,
)


def _fixed(name: str, forward: Callable, inverse: Callable) -> Bijector:
    """Two functions `x -> (y, log_derivative)` of each coordinate as a bijector."""

    def init(key, x, condition=None):
        return ()

    def over_events(function):
        def apply(params, x, condition=None, key=None):
            y, log_derivative = function(x)
            return y, sum_event(log_derivative)

        apply.__qualname__ = name
        return apply

    return Bijector(init, over_events(forward), over_events(inverse))


def exp() -> Bijector:
    """`z = exp(x)`, from the line to z > 0; log-det `sum(x)`.

    Example:
        >>> z, log_det = exp().forward((), jnp.zeros((1, 2)))
        >>> z, log_det
        (Array([[1., 1.]], dtype=float32), Array([0.], dtype=float32))
    """
    return _fixed("exp", _exp, _log)


def log() -> Bijector:
    """`z = log(x)`, from x > 0 to the line; log-det `-sum(log x)`.

    Example:
        >>> z, log_det = log().forward((), jnp.array([[1.0, 1.0], [1.0, -1.0]]))
        >>> log_det
        Array([  0., -inf], dtype=float32)
    """
    return _fixed("log", _log, _exp)


def softplus() -> Bijector:
    """`z = log(1 + exp(x))`, from the line to z > 0; log-det `sum(log sigmoid(x))`.

    The inverse of `bounded(0.0)`.
    """
    return _undo("softplus", bounded(0.0))


def sigmoid() -> Bijector:
    """`z = 1 / (1 + exp(-x))`, from the line to (0, 1).

    The log-det is `sum(log z + log(1 - z))`. Its inverse, the plain logit, is
    `bounded(0.0, 1.0)`; `logit` is that of pixels.
    """
    return _undo("sigmoid", bounded(0.0, 1.0))


def tanh() -> Bijector:
    """`z = tanh(x)`, from the line to (-1, 1); log-det `sum(log(1 - z^2))`."""
    return _fixed("tanh", _tanh, _arctanh)


def arctanh() -> Bijector:
    """`z = arctanh(x)`, from (-1, 1) to the line; log-det `-sum(log(1 - x^2))`."""
    return _fixed("arctanh", _arctanh, _tanh)


def sinh_arcsinh(skew: float = 0.0, tail: float = 1.0) -> Bijector:
    """`z = sinh(tail arcsinh(x) - skew)`, from the line to the line.

    The transformation of `jflow.scalars.sinh_arcsinh`, which learns both numbers, for
    given ones: with a standard normal z, `skew` > 0 gives x skewed to the right, and
    `tail` < 1 tails heavier than the normal's.

    Args:
        skew: within -8 .. 8.
        tail: the tail weight, within e^-2 .. e^2.

    Raises:
        ValueError: a number outside of its range.
    """
    if not abs(skew) <= SKEW_LIMIT:
        raise ValueError(f"sinh_arcsinh: skew must be within -8 .. 8, got {skew!r}.")
    if not math.exp(-ATAN_LIMIT) <= tail <= math.exp(ATAN_LIMIT):
        raise ValueError(f"sinh_arcsinh: tail must be within e^+-2, got {tail!r}.")
    log_tail = math.log(tail)

    def forward(x):
        return skew_and_tail(x, *_like(x, skew, log_tail))

    def inverse(z):
        return undo_skew_and_tail(z, *_like(z, skew, log_tail))

    return _fixed("sinh_arcsinh", forward, inverse)


def leaky_relu(slope: float = 0.01) -> Bijector:
    """`z = slope x + (1 - slope) (x + sqrt(1 + x^2) - 1) / 2`: a smooth leaky ReLU.

    The rectifier in it is the squareplus of Barron 2021, equation 1,
    https://arxiv.org/abs/2112.11687, moved so that 0 stays 0. The derivative rises
    from `slope` far left through `(1 + slope) / 2` at 0 to 1 far right. The inverse is
    closed: the branch of a hyperbola.

    Raises:
        ValueError: `slope` not within 0 < slope <= 1.
    """
    if not 0.0 < slope <= 1.0:
        raise ValueError(
            f"leaky_relu: slope must be within 0 < slope <= 1, got {slope!r}."
        )
    mean, half = (1.0 + slope) / 2.0, (1.0 - slope) / 2.0
    root = math.sqrt(slope)

    def log_derivative(x):
        r, above = _hyperbola(x)
        return jnp.log(slope + half * above / r)

    def forward(x):
        r, above = _hyperbola(x)
        return slope * x + half * (x / (r + 1.0)) * (above + 1.0), log_derivative(x)

    def inverse(z):
        w = z + half  # the hyperbola's centre is at -half
        r = root * _hyperbola(w / root)[0]
        # Two forms of the quadratic's root, each where nothing cancels.
        right = z * ((z + 2.0 * half) / (mean * jnp.where(w > 0, w, 1.0) + half * r))
        left = (mean * jnp.where(w > 0, 0.0, w) - half * r) / slope
        x = jnp.where(w > 0, right, left)
        return x, -log_derivative(x)

    return _fixed("leaky_relu", forward, inverse)


def power(exponent: float) -> Bijector:
    """`z = x^exponent`, from x > 0 to z > 0.

    The log-det is `sum(log |exponent| + (exponent - 1) log x)`. Where z or its
    derivative would overflow, z stays what it is at the last point before.

    Raises:
        ValueError: the exponent is 0 or not finite.
    """
    if not 0.0 < abs(exponent) < math.inf:
        raise ValueError(
            f"power: exponent must be finite and not 0, got {exponent!r}; "
            "log() is the limit of (x^p - 1) / p at 0."
        )

    def apply(p):
        steepest = max(1.0, abs(p), abs(p - 1.0))

        def function(x):
            inside, safe, log_x = _positive(x)
            end = float(jnp.finfo(x.dtype).tiny) ** (1.0 / steepest)
            y = jnp.clip(safe, end, 1.0 / end) ** p
            return y, _within(inside, math.log(abs(p)) + (p - 1.0) * log_x)

        return function

    return _fixed("power", apply(exponent), apply(1.0 / exponent))


def _undo(name, b):
    def forward(params, x, condition=None, key=None):
        return b.inverse(params, x)

    def inverse(params, z, condition=None, key=None):
        return b.forward(params, z)

    forward.__qualname__ = inverse.__qualname__ = name
    return Bijector(b.init, forward, inverse)


def _exp(x):
    largest = math.log(jnp.finfo(x.dtype).max)
    return jnp.exp(jnp.minimum(x, largest - 1e-4)), x


def _log(x):
    inside, _, log_x = _positive(x)
    return log_x, _within(inside, -log_x)


def _tanh(x):
    log_derivative = jax.nn.log_sigmoid(2.0 * x) + jax.nn.log_sigmoid(-2.0 * x)
    return jnp.tanh(x), math.log(4.0) + log_derivative


def _arctanh(x):
    inside = jnp.abs(x) <= 1.0
    edge = 1.0 - float(jnp.finfo(x.dtype).epsneg)
    safe = jnp.clip(jnp.where(inside, x, 0.0), -edge, edge)
    above, below = jnp.log1p(safe), jnp.log1p(-safe)
    return 0.5 * (above - below), _within(inside, -above - below)


def _positive(x):
    """Whether x >= 0, x where it is and 1 elsewhere, and the logarithm of that."""
    inside = x >= 0.0
    safe = jnp.where(inside, x, 1.0)
    return inside, safe, log_positive(safe)


def _within(inside, log_derivative):
    return jnp.where(inside, log_derivative, -jnp.inf)


def _hyperbola(x):
    """`r = sqrt(1 + x^2)` and `x + r`, without overflow or cancellation."""
    far = 1.0 / float(jnp.finfo(x.dtype).eps)
    near = jnp.clip(x, -far, far)
    r = jnp.where(jnp.abs(x) < far, jnp.sqrt(1.0 + near * near), jnp.abs(x))
    left, right = jnp.where(x < 0, x, 0.0), jnp.where(x < 0, 0.0, x)
    return r, jnp.where(x < 0, 1.0 / (r - left), r + right)


def _like(x, *numbers):
    return [jnp.asarray(number, x.dtype) for number in numbers]
