"""Different scalars for different places of one layer."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jflow.scalars.scalar import Scalar


def mixed(*groups: tuple[Scalar, Sequence[int]]) -> Scalar:
    """One scalar for each group of places of the last axis, angles beside numbers, say.

    Raw parameters are as many as the largest scalar takes; smaller ones leave what they
    do not need. `coupling` and `autoregressive` give every place its own law.

    Args:
        *groups: pairs `(scalar, places)`; together the places are `0 .. D - 1`, each
            named once.

    Raises:
        TypeError: a group is no pair of a Scalar and a sequence of integers.
        ValueError: the places do not make up `0 .. D - 1`; at trace time, the last axis
            has another size than D.

    Example:
        >>> from jflow.scalars import affine, rational_quadratic_spline
        >>> circle = rational_quadratic_spline(4, np.pi, ends="circular")
        >>> law = mixed((circle, [0, 2]), (affine(), [1]))
        >>> y, log_derivative = law.forward(jnp.zeros((3, law.size)), jnp.ones(3))
    """
    groups = [_checked(group) for group in groups]
    order = np.concatenate([places for _, places in groups] or [np.zeros(0, int)])
    back = np.argsort(order)
    if not len(order) or not np.array_equal(order[back], np.arange(len(order))):
        raise ValueError(
            f"mixed: the groups' places must name each of 0 .. D - 1 once, got "
            f"{sorted(order.tolist())}."
        )
    predicted = max(law.size - len(law.learned) for law, _ in groups)
    learned = _learned(groups, back)

    def apply(raw, x, one):
        if x.shape[-1] != len(order):
            raise ValueError(
                f"mixed: the groups name {len(order)} places, the last axis of "
                f"{x.shape} has {x.shape[-1]}."
            )
        rows = jnp.broadcast_shapes(raw.shape[:-1], x.shape[-1:])
        raw = jnp.broadcast_to(raw, (*rows, raw.shape[-1]))
        values, log_derivatives = [], []
        for law, places in groups:
            n = len(law.learned)
            part = raw[..., places, :]
            free = part[..., : law.size - n]
            own = jnp.concatenate([free, part[..., predicted : predicted + n]], axis=-1)
            y, log_derivative = one(law)(own, x[..., places])
            values.append(y)
            log_derivatives.append(log_derivative)
        both = (jnp.concatenate(v, axis=-1) for v in (values, log_derivatives))
        return tuple(v[..., back] for v in both)

    def forward(raw, x):
        return apply(raw, x, lambda law: law.forward)

    def inverse(raw, y):
        return apply(raw, y, lambda law: law.inverse)

    def take(places):
        places = np.asarray(places)
        kept = []
        for law, own in groups:
            new, old = np.nonzero(places[:, None] == own)
            if len(new):
                kept.append((law if law.take is None else law.take(old), new))
        return mixed(*kept)

    return Scalar(predicted + len(learned), forward, inverse, learned, take)


def _checked(group):
    if not isinstance(group, tuple) or len(group) != 2 or isinstance(group, Scalar):
        raise TypeError(f"mixed: a group is a pair (scalar, places), got {group!r}.")
    law, places = group
    places = np.asarray(places)
    if not isinstance(law, Scalar) or places.ndim != 1 or places.dtype.kind != "i":
        raise TypeError(
            f"mixed: a group is a Scalar and a list of places such as [0, 2], got "
            f"{group!r}."
        )
    return law, places


def _learned(groups, back):
    """Initial values, one for each place; zero where a law has fewer."""
    columns = max(len(law.learned) for law, _ in groups)
    table = np.zeros((len(back), columns))
    row = 0
    for law, places in groups:
        for i, value in enumerate(law.learned):
            table[row : row + len(places), i] = value
        row += len(places)
    return tuple(tuple(column) for column in table[back].T)
