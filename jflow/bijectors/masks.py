"""How a coupling layer parts an event into a passive and an active half.

Halves and interleaved halves are slices: two smaller arrays. A checkerboard, or any
boolean mask of an image, stays on the grid: the network sees the event with zeros at
active places, and its outputs at passive places are not used.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jflow.bijector import Array

NAMES = ("half", "interleaved", "checkerboard")


class Partition(NamedTuple):
    """`split(x) -> (passive, active)`, `merge(passive, active) -> x`.

    On a grid both parts have the event's shape: `zero_passive` and `zero_active` zero
    the values at places that are not the part's own. For slices they do nothing, and
    `places` are each part's indices of the last axis; on a grid both parts have all.
    """

    split: Callable[[Array], tuple[Array, Array]]
    merge: Callable[[Array, Array], Array]
    zero_passive: Callable[[Array], Array]
    zero_active: Callable[[Array], Array]
    places: tuple[np.ndarray | None, np.ndarray | None] = (None, None)


def check_mask(mask) -> None:
    """Raise ValueError for a mask that no event can use."""
    if isinstance(mask, str):
        if mask not in NAMES:
            raise ValueError(
                f"coupling: mask must be one of {NAMES} or a boolean array over the "
                f"event, got {mask!r}."
            )
        return
    mask = np.asarray(mask)
    if mask.dtype != bool or mask.ndim == 0:
        raise ValueError(
            "coupling: mask must be a boolean array over the event, True where "
            f"passive; got {mask.dtype}{mask.shape}."
        )
    if mask.all() or not mask.any():
        raise ValueError(
            "coupling: mask has no passive or no active place; both are needed."
        )


def partition(mask, swap: bool, event: tuple[int, ...]) -> Partition:
    """The partition of `event` that `mask` names; `swap` exchanges the two parts.

    Raises:
        ValueError: the mask does not fit the event.
    """
    if isinstance(mask, str) and mask != "checkerboard":
        if event[-1] < 2:
            raise ValueError(
                f"coupling: mask {mask!r} needs at least 2 channels in the last axis, "
                f"got the event {event}; squeeze it first, or use elementwise."
            )
        return (_halves if mask == "half" else _interleaved)(event[-1], swap)
    if isinstance(mask, str):
        if len(event) < 2:
            raise ValueError(
                f"coupling: a checkerboard needs events (H, W, C), got {event}; use "
                "'half' or 'interleaved' for vectors."
            )
        rows, columns = np.indices(event[-3:-1] if len(event) > 2 else event)
        mask = (rows + columns) % 2 == 1
        mask = mask[..., None] if len(event) > 2 else mask
    mask = np.asarray(mask)
    try:
        passive = np.broadcast_to(mask ^ swap, event)
    except ValueError:
        raise ValueError(
            f"coupling: mask {mask.shape} does not broadcast to the event {event}."
        ) from None
    return _indexed(passive) if len(event) == 1 else _grid(passive)


def _unchanged(values):
    return values


def _halves(channels, swap):
    first = channels // 2

    def split(x):
        # Not two slices: cotangents are then concatenated, not padded and added.
        a, b = jnp.split(x, [first], axis=-1)
        return (b, a) if swap else (a, b)

    def merge(passive, active):
        parts = (active, passive) if swap else (passive, active)
        return jnp.concatenate(parts, axis=-1)

    a, b = np.split(np.arange(channels), [first])
    places = (b, a) if swap else (a, b)
    return Partition(split, merge, _unchanged, _unchanged, places)


def _interleaved(channels, swap):
    def split(x):
        even, odd = x[..., 0::2], x[..., 1::2]
        return (odd, even) if swap else (even, odd)

    def merge(passive, active):
        even, odd = (active, passive) if swap else (passive, active)
        pairs = odd.shape[-1]
        woven = jnp.stack([even[..., :pairs], odd], axis=-1)
        woven = woven.reshape(*odd.shape[:-1], 2 * pairs)
        return jnp.concatenate([woven, even[..., pairs:]], axis=-1)

    places = split(np.arange(channels))
    return Partition(split, merge, _unchanged, _unchanged, places)


def _indexed(passive):
    """A mask over a vector: two gathers by constant indices, and one back."""
    places = np.flatnonzero(passive), np.flatnonzero(~passive)
    back = np.argsort(np.concatenate(places))

    def take(x, index):
        return x.at[..., index].get(unique_indices=True, mode="promise_in_bounds")

    def split(x):
        return take(x, places[0]), take(x, places[1])

    def merge(passive, active):
        return take(jnp.concatenate([passive, active], axis=-1), back)

    return Partition(split, merge, _unchanged, _unchanged, places)


def _grid(passive):
    def split(x):
        return zero_active(x), x

    def merge(kept, active):
        return jnp.where(passive, kept, active)

    def zero_passive(values):
        return jnp.where(passive, 0, values)

    def zero_active(values):
        return jnp.where(passive, values, 0)

    return Partition(split, merge, zero_passive, zero_active)
