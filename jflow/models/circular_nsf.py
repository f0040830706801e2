"""Circular spline flows: vectors some of whose dimensions are angles.

Rezende et al. 2020, https://arxiv.org/abs/2002.02428
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import jax
import numpy as np

from jflow.base import Base, normal
from jflow.bases import joint, uniform
from jflow.bijector import Bijector, check_positive, init_with_output, initialiser
from jflow.bijectors import (
    actnorm,
    autoregressive,
    coupling,
    elementwise,
    invertible_linear,
)
from jflow.bijectors.masks import partition
from jflow.combinators import chain, identity, repeat
from jflow.flow import Flow
from jflow.models.parts import vector_flow, vector_size
from jflow.nets import made, mlp, relu
from jflow.scalars import circular_shift, mixed, rational_quadratic_spline

Box = tuple[float, float]


def circular_nsf(
    shape: Sequence[int],
    circular: Sequence[int] | Mapping[int, Box],
    *,
    layers: int = 6,
    bins: int = 8,
    bound: float = 5.0,
    hidden: Sequence[int] = (64, 64),
    activation: Callable = relu,
    autoregressive_layers: bool = False,
    parametrisation: str = "soft_clip",
    inverse: str = "incremental",
    bounds: tuple[Any, Any] | None = None,
    embed: Any = None,
    reversible: bool = False,
    dtype: Any = None,
) -> Flow:
    """Splines on circles and on the line in one flow, for tori and cylinders.

    Each layer turns the angles by learned shifts that start at random (section 2.1),
    mixes the other dimensions linearly, and applies rational quadratic splines, closed
    on circles, open on the line. Networks see cosine and sine of angles; layers go
    through the dimensions one way and the other by turns. The density is periodic in
    the angles: whole turns change nothing.

    Args:
        shape: the event, `(D,)`.
        circular: the dimensions that are angles, of period `-pi .. pi`; or a dictionary
            from dimension to its (lower, upper).
        layers: how many.
        bins, bound, parametrisation: the splines', see
            `jflow.scalars.rational_quadratic_spline`; `bound` is for the line. Softmax
            logits are divided by the square root of the last hidden width.
        hidden, activation, dtype: the networks'.
        autoregressive_layers: autoregressive layers instead of couplings; vectors of
            one dimension always have them.
        inverse: how autoregressive layers are undone, see `jflow.autoregressive`.
        bounds: the data's (lower, upper), one for each dimension, infinite where there
            is none, and for angles.
        embed: a network for the condition, see `jflow.embed_condition`.
        reversible: train in memory that does not grow with depth.

    Returns:
        A Flow over `(D,)` to the uniform distribution on the circles and the standard
        normal elsewhere. The condition, and dimensions that are no angles, are
        standardised by the batch that `init` sees; samples' angles are in their period.

    Raises:
        ValueError: an argument that cannot be used, named.

    Example:
        >>> f = circular_nsf((2,), [0], layers=2, hidden=(16,), bins=4)
        >>> x = jax.random.normal(jax.random.key(0), (64, 2))
        >>> f.log_prob(f.init(jax.random.key(1), x), x).shape
        (64,)
    """
    size = vector_size("circular_nsf", shape)
    check_positive("circular_nsf", layers=layers)
    boxes = _boxes(size, circular)
    _check_bounds(boxes, bounds)
    scale = math.sqrt(hidden[-1]) if hidden else 1.0
    options = {"parametrisation": parametrisation, "logit_scale": scale}

    def spline(box):
        if box is None:
            return rational_quadratic_spline(bins, bound, **options)
        return rational_quadratic_spline(bins, box, ends="circular", **options)

    law = _by_box(spline, boxes)
    network = {"activation": activation, "dtype": dtype}

    def predicted(swap):
        if autoregressive_layers or size == 1:
            order = "reversed" if swap else "natural"
            net = made(*hidden, order=order, periodic=boxes, **network)
            return autoregressive(law, net, inverse=inverse)
        seen = partition("interleaved", swap, (size,)).places[0]
        net = mlp(*hidden, periodic=[boxes[i] for i in seen], **network)
        # The half that is not transformed by a network has splines of its own.
        return coupling(law, net, "interleaved", swap=swap, passive=law)

    even, odd = (chain(*_mixing(boxes), predicted(swap)) for swap in (False, True))
    line = [i for i, box in enumerate(boxes) if box is None]
    return vector_flow(
        shape,
        _by_turns(even, odd, layers, reversible=reversible),
        standardise=_on(actnorm(), line) if line else identity(),
        bounds=bounds,
        embed=embed,
        base=_base(boxes),
    )


def _by_turns(even: Bijector, odd: Bijector, n: int, **options: Any) -> list[Bijector]:
    """`n` layers, `even` and `odd` by turns, the pairs under one scan."""
    pairs = [repeat(chain(even, odd), n // 2, **options)] if n > 1 else []
    return [*pairs, *([even] if n % 2 else [])]


def _boxes(size: int, circular: Any) -> list[Box | None]:
    """Each dimension's period, None for those on the line."""
    if not isinstance(circular, Mapping):
        circular = dict.fromkeys(circular, (-math.pi, math.pi))
    wrong = [i for i in circular if not isinstance(i, int) or not 0 <= i < size]
    if wrong or not circular:
        raise ValueError(
            f"circular_nsf: circular must name dimensions among 0 .. {size - 1}, got "
            f"{list(circular)}; without angles use nsf."
        )
    return [tuple(circular[i]) if i in circular else None for i in range(size)]


def _check_bounds(boxes, bounds):
    if bounds is None:
        return
    ends = [np.inf if end is None else end for end in bounds]
    bounded = np.broadcast_to(np.isfinite(np.asarray(ends[0])), len(boxes))
    bounded = bounded | np.isfinite(np.asarray(ends[1]))
    wrong = [i for i, box in enumerate(boxes) if box is not None and bounded[i]]
    if wrong:
        raise ValueError(
            f"circular_nsf: bounds={bounds!r} bound the angles {wrong}; give infinite "
            "ones there."
        )


def _by_box(make: Callable, boxes: Sequence[Box | None]):
    """One scalar for each kind of box, at the dimensions that have it."""
    kinds = dict.fromkeys(boxes)
    return mixed(
        *((make(kind), [i for i, b in enumerate(boxes) if b == kind]) for kind in kinds)
    )


def _mixing(boxes) -> list[Bijector]:
    """What is between splines: circles turn, other dimensions mix."""
    circles = [i for i, box in enumerate(boxes) if box is not None]
    line = [i for i, box in enumerate(boxes) if box is None]
    turn = _turn([boxes[i] for i in circles])
    mixing = [_on(invertible_linear(), line)] if line else []
    return [_on(turn, circles), *mixing]


def _turn(boxes: Sequence[Box]) -> Bijector:
    """Learned shifts of circles, anywhere on them at first."""
    turn = elementwise(_by_box(circular_shift, boxes))
    periods = np.array([upper - lower for lower, upper in boxes])

    def init(key, x, condition=None):
        share = jax.random.uniform(key, (len(boxes), 1), x.dtype)
        return {"raw": share * periods[:, None].astype(x.dtype)}

    return turn._replace(init=init)


def _on(bijector: Bijector, dimensions: Sequence[int]) -> Bijector:
    """`bijector` on some dimensions of a vector; the others stay as they are."""
    places = np.array(dimensions)

    def run_init(key, x, condition=None):
        params, z = init_with_output(bijector, key, x[:, places], condition)
        return params, x.at[:, places].set(z)

    def on(apply):
        def part(params, x, condition=None, key=None):
            z, log_det = apply(params, x[:, places], condition, key)
            return x.at[:, places].set(z), log_det

        return part

    return Bijector(initialiser(run_init), on(bijector.forward), on(bijector.inverse))


def _base(boxes: Sequence[Box | None]) -> Base:
    """Uniform on circles, normal on the line, in the dimensions' order."""
    parts = []
    for on_line, run in groupby(boxes, lambda box: box is None):
        run = list(run)
        if on_line:
            parts.append(normal((len(run),)))
        else:
            parts.append(uniform([low for low, _ in run], [high for _, high in run]))
    return joint(*parts)
