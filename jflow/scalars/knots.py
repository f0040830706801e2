"""What splines share: knots in a box, the search for a bin, and what lies outside.

Here raw parameters are `(..., size, n)`, the variables' own axis last: arithmetic then
runs over neighbours in memory. A bin's numbers are chosen and summed row by row, not
gathered, and are divided by what normalises them after the sum. XLA never repeats a
division or an exponential: what ends in one is computed once and not for every
parameter, and under a scan no loop reads its layer's slice of a stack in two places,
which would keep it from being vectorised. Together that makes gradients more than five
times as fast on a CPU.
"""

import functools
import math
import operator
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from jflow.bijector import Array, check_positive
from jflow.scalars.circular import interval, wrap
from jflow.scalars.scalar import Scalar, promote
from jflow.scalars.scales import SOFT_CLIP_LIMIT, exp_soft_clip

ENDS = ("linear", "box", "circular")
_BIN_KEPT = jax.checkpoint_policies.save_only_these_names("bin")


class Knots(NamedTuple):
    """A spline's options, checked.

    Attributes:
        bins: the number of pieces K.
        lower, upper: the box.
        ends: one of `ENDS`.
        soft: the parametrisation is `"soft_clip"`, not `"softmax"`.
        minimum: of `"softmax"`.
        logit_scale: what softmax logits are divided by.
        learned_box: two more raw parameters move and scale the box.
    """

    bins: int
    lower: float
    upper: float
    ends: str
    soft: bool
    minimum: float
    logit_scale: float
    learned_box: bool

    @property
    def free(self) -> int:
        """How many of the K + 1 knots' derivatives are free."""
        return self.bins + {"linear": -1, "box": 1, "circular": 0}[self.ends]

    def sizes(self, logits: Array) -> "Sizes":
        """Widths or heights, positive."""
        logits = logits / self.logit_scale
        if self.soft:
            # Clipped, they need no maximum taken off.
            parts = exp_soft_clip(logits, SOFT_CLIP_LIMIT / 2)
            return Sizes(parts, parts.sum(axis=-2))
        largest = jax.lax.stop_gradient(logits.max(axis=-2, keepdims=True))
        parts = jnp.exp(logits - largest)
        total = parts.sum(axis=-2)
        least = self.minimum * total[..., None, :]
        return Sizes(least + (1 - self.bins * self.minimum) * parts, total)

    def positive(self, raw: Array, limit: float = SOFT_CLIP_LIMIT) -> Array:
        """Positive numbers, 1 for zero; soft ones between `exp(-limit)` and its
        inverse.
        """
        if self.soft:
            return exp_soft_clip(raw, limit)
        start = math.log(math.expm1(1 - self.minimum))
        return self.minimum + jax.nn.softplus(raw + start)

    def at_knots(self, free: Array) -> Array:
        """The free values `(..., free, n)` as those at all K + 1 knots; linear ends
        have the value 1.
        """
        if self.ends == "linear":
            rows = [(0, 0)] * (free.ndim - 2) + [(1, 1), (0, 0)]
            return jnp.pad(free, rows, constant_values=1.0)
        if self.ends == "circular":
            return jnp.concatenate([free, free[..., :1, :]], axis=-2)
        return free


class Sizes(NamedTuple):
    """The bins' sizes relative to the box, `parts / total`.

    Attributes:
        parts: `(..., K, n)`.
        total: their sum, `(..., n)`.
    """

    parts: Array
    total: Array | float = 1.0

    def relative(self) -> Array:
        """`(..., K, n)`, of sum 1."""
        return self.parts / self.total[..., None, :]


class Pieces(NamedTuple):
    """What raw parameters `(..., size, n)` become.

    Attributes:
        widths, heights: of the bins.
        slopes: derivatives at the knots, `(..., K + 1, n)`.
        logits: one number more for each bin, `(..., K, n)`.
    """

    widths: Sizes
    heights: Sizes
    slopes: Array | None = None
    logits: Array | None = None


class Bin(NamedTuple):
    """One bin for each variable: where its image starts and ends, its image's size, its
    slope (height over width), the derivatives at its ends, and its logit.
    """

    start: Array
    end: Array
    size: Array
    s: Array
    d0: Array | None
    d1: Array | None
    logit: Array | None


def _rows(table: Array, like: Array) -> list[Array]:
    """The table's rows, each of the shape of `like`."""
    count, axis = table.shape[-2], like.ndim - 1
    table = jnp.broadcast_to(table, (*like.shape[:-1], count, like.shape[-1]))
    return [jax.lax.squeeze(row, (axis,)) for row in jnp.split(table, count, axis)]


def _masked_sum(table: Array, index: Array, chosen: Callable) -> Array:
    """The sum of the rows whose number `chosen(number, index)` is true of."""
    mask = chosen(jnp.arange(table.shape[-2])[:, None], index[..., None, :])
    return jnp.where(mask, table, 0).sum(axis=-2)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _at(table: Array, index: Array, offset: int = 0) -> Array:
    """`table[..., index + offset, :]`, chosen row by row: no masked table is written.
    The derivative is a masked sum, whose transpose is one loop over the table.
    """
    chosen, *rows = _rows(table, index)[offset:]
    for k, row in enumerate(rows, 1):
        chosen = jax.lax.select(index == k, row, chosen)
    return chosen


@_at.defjvp
def _at_jvp(offset, primals, tangents):
    table, index = primals
    tangent = _masked_sum(tangents[0], index + offset, operator.eq)
    return _at(table, index, offset), tangent


@jax.custom_jvp
def _below(table: Array, index: Array) -> Array:
    """The sum of `table[..., :index, :]`, in the same way."""
    zero = sums = jnp.zeros_like(index, table.dtype)
    for k, row in enumerate(_rows(table, index)[:-1]):
        sums = sums + jax.lax.select(index > k, row, zero)
    return sums


@_below.defjvp
def _below_jvp(primals, tangents):
    table, index = primals
    return _below(table, index), _masked_sum(tangents[0], index, operator.lt)


@jax.custom_jvp
def _over(part: Array, total: Array) -> Array:
    """`part / total`, with a derivative that ends in that division."""
    return part / total


@_over.defjvp
def _over_jvp(primals, tangents):
    part, total = primals
    ratio = part / total
    return ratio, (tangents[0] - ratio * tangents[1]) / total


def check_knots(
    owner: str,
    bins: int,
    bound: float | tuple[float, float],
    ends: str,
    parametrisation: str,
    minimum: float,
    logit_scale: float,
    learned_box: bool,
    allowed: tuple[str, ...] = ENDS,
) -> Knots:
    """The options as `Knots`, or a ValueError that names what cannot be used."""
    check_positive(owner, bins=bins)
    lower, upper = interval(owner, bound)
    if ends not in allowed:
        raise ValueError(f"{owner}: ends must be one of {allowed}, got {ends!r}.")
    if parametrisation not in ("soft_clip", "softmax"):
        raise ValueError(
            f'{owner}: parametrisation must be "soft_clip" or "softmax", got '
            f"{parametrisation!r}."
        )
    if not 0 < minimum * bins < 1 or logit_scale <= 0:
        raise ValueError(
            f"{owner}: minimum={minimum} times {bins} bins must be in (0, 1), and "
            f"logit_scale={logit_scale} positive."
        )
    if learned_box and ends != "linear":
        raise ValueError(
            f'{owner}: learned_box=True is for ends="linear", where the box may lie '
            f"anywhere; a {ends!r} one is the data's own."
        )
    soft = parametrisation == "soft_clip"
    return Knots(bins, lower, upper, ends, soft, minimum, logit_scale, learned_box)


def piecewise(
    knots: Knots,
    size: int,
    pieces: Callable[[Array], Pieces],
    forward: Callable,
    inverse: Callable,
) -> Scalar:
    """A scalar that is a monotone piece between each two knots.

    Args:
        knots: the options.
        size: how many raw parameters `pieces` takes, those of a learned box excepted.
        pieces: what they become.
        forward: `(bin, xi, eta) -> (part, rest, log_derivative)`: from the place
            `xi = 1 - eta` in the bin to that in its image, `part = 1 - rest`.
        inverse: the same for the inverse map, where the image is the bin's x-side.
    """
    lower, upper = knots.lower, knots.upper

    def enter(x):
        """The point in the box, and whether the spline is asked there."""
        if knots.ends == "circular":
            return wrap(x, lower, upper), True
        return jnp.clip(x, lower, upper), (x >= lower) & (x <= upper)

    def apply(rows, x, evaluate, search):
        wide, value = promote(rows, x)
        to_box, from_box = _box(knots, wide[..., size:, :])
        inside, asked = enter(to_box(value))
        table = pieces(wide[..., :size, :])
        found, q, p = _find(table, inside, lower, upper, search)
        part, rest, log_derivative = evaluate(found, q, p)
        # By way of the end where what is added is small.
        near = part < rest
        y = jnp.where(
            near, found.start + found.size * part, found.end - found.size * rest
        )
        y = jnp.where(asked, from_box(jnp.clip(y, lower, upper)), value)
        return y.astype(x.dtype), jnp.where(asked, log_derivative, 0.0)

    def recomputed(evaluate, search):
        """Dear to keep, cheap to compute: what lies between would be stored many times
        the raw parameters' size.
        """

        @functools.partial(jax.checkpoint, prevent_cse=False, policy=_BIN_KEPT)
        def once(rows, x):
            return apply(rows, x, evaluate, search)

        def law(raw, x):
            if x.ndim == 0:
                return tuple(a[0] for a in law(raw, x[None]))
            # Exchanged out here: what is kept then lies in memory as it is used.
            rows = jnp.swapaxes(raw[..., None, :] if raw.ndim == 1 else raw, -1, -2)
            return once(rows, x)

        return law

    return Scalar(
        size + 2 * knots.learned_box,
        recomputed(forward, "x"),
        recomputed(inverse, "y"),
        learned=(0.0, 0.0) * knots.learned_box,
    )


def _box(knots, rows):
    """From the learned box to the fixed one and back; slopes do not change."""
    if not knots.learned_box:
        return (lambda x: x), (lambda y: y)
    middle, half = (knots.lower + knots.upper) / 2, (knots.upper - knots.lower) / 2
    centre = middle + half * rows[..., 0, :]
    scale = exp_soft_clip(rows[..., 1, :], SOFT_CLIP_LIMIT)

    def to_box(x):
        return middle + (x - centre) / scale

    def from_box(y):
        return centre + scale * (y - middle)

    return to_box, from_box


def _find(pieces, value, lower, upper, search):
    """The bin that `value` is in, and its place there from the left and the right.

    Sizes are differences of the knots as they are rounded, so that bins meet exactly.
    """
    here, there = pieces.widths, pieces.heights
    here, there = (here, there) if search == "x" else (there, here)
    index = _search(here, (value - lower) / (upper - lower))
    # Kept times three: the quotient, a division, is an array of its own.
    index = jax.lax.div(checkpoint_name(3 * index, "bin"), np.int32(3))

    def pick(table, offset=0):
        return None if table is None else _at(table, index, offset)

    left, right = _edges(here, index, lower, upper)
    start, end = _edges(there, index, lower, upper)
    width, size = right - left, end - start
    s = size / width if search == "x" else width / size
    q = jnp.clip((value - left) / width, 0.0, 1.0)
    p = jnp.clip((right - value) / width, 0.0, 1.0)
    slopes = pick(pieces.slopes), pick(pieces.slopes, 1)
    return Bin(start, end, size, s, *slopes, pick(pieces.logits)), q, p


def _search(sizes, place):
    """The number of the bin that a place in [0, 1] is in; a knot begins its bin."""
    parts, total = jax.lax.stop_gradient((sizes.parts, sizes.total))
    place = jax.lax.stop_gradient(place) * total
    knot, index = 0.0, jnp.zeros(place.shape, jnp.int32)
    for row in _rows(parts, place)[:-1]:
        knot = knot + row
        index = index + (place >= knot)
    return index


def _edges(sizes, index, lower, upper):
    """Where bins begin and end, the box's own ends exact."""

    def knot(part):
        return lower + (upper - lower) * _over(part, jnp.asarray(sizes.total))

    before = _below(sizes.parts, index)
    last = index == sizes.parts.shape[-2] - 1
    end = knot(before + _at(sizes.parts, index))
    return knot(before), jnp.where(last, upper, end)
