"""Permutations along one axis: volume-preserving mixing, log-det 0."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jflow.bijector import Bijector, zero_log_det
from jflow.mixing import mixing, reorder


def reverse(axis: int = -1) -> Bijector:
    """An axis in reverse order: channels, as NICE's and Glow's simplest mixing.

    Along an image's axis of even size it is the mirror that exchanges the two parts of
    a checkerboard, so `repeat(chain(coupling(law, net, "checkerboard"), reverse(-2)),
    n)` are couplings whose parts alternate, and one is compiled for all.

    Args:
        axis: an axis of the event, from the end: -1 are channels, -2 and -3 the columns
            and rows of an image.

    Raises:
        TypeError: `axis` is no integer.
        ValueError: `axis` is not negative; at trace time, the event has no such axis.

    Example:
        >>> z, log_det = reverse().forward((), jnp.arange(6.0).reshape(2, 3))
    """
    if not isinstance(axis, int):
        raise TypeError(f"reverse: axis must be an integer, got {axis!r}.")
    if axis >= 0:
        raise ValueError(f"reverse: axis counts from the end (-1, -2 ...), got {axis}.")

    def init(key, x, condition=None):
        return ()

    def apply(params, x, condition=None, key=None):
        if x.ndim + axis < 1:
            raise ValueError(
                f"reverse: axis={axis} is no axis of the event {x.shape[1:]}."
            )
        return jnp.flip(x, axis), zero_log_det(x)

    kind = "order" if axis == -1 else None
    return Bijector(init, mixing(kind, apply), mixing(kind, apply))


def roll(places: int | None = None) -> Bijector:
    """The last axis moved round: `z[..., i] = x[..., (i + places) mod D]`.

    With the default, `D // 2`, each half of the axis takes the other's place, so
    `repeat(chain(coupling(law, net), roll()), n)` are couplings whose halves alternate,
    and one is compiled for all; XLA writes the halves where they go, at no cost. With
    cheap laws, an affine one, `repeat(..., halves=True)` makes their passes faster.

    Args:
        places: how far; `D // 2` by default.

    Raises:
        TypeError: `places` is no integer.

    Example:
        >>> z, log_det = roll(1).forward((), jnp.arange(6.0).reshape(2, 3))
        >>> z[0].tolist()
        [1.0, 2.0, 0.0]
    """
    if not (places is None or isinstance(places, int)):
        raise TypeError(f"roll: places must be an integer or None, got {places!r}.")

    def init(key, x, condition=None):
        return ()

    def by(sign, x):
        shift = x.shape[-1] // 2 if places is None else places
        parts = jnp.split(x, [sign * shift % x.shape[-1]], axis=-1)
        return jnp.concatenate(parts[::-1], axis=-1), zero_log_det(x)

    def forward(params, x, condition=None, key=None):
        return by(1, x)

    def inverse(params, z, condition=None, key=None):
        return by(-1, z)

    return Bijector(init, mixing("order", forward), mixing("order", inverse))


def permutation(order: Sequence[int]) -> Bijector:
    """A fixed permutation of the last axis: `z[..., i] = x[..., order[i]]`.

    Raises:
        ValueError: `order` is not a permutation of `0 .. len(order) - 1`, or, at trace
            time, has another length than the last axis.
    """
    order = np.asarray(order)
    if order.ndim != 1 or not np.array_equal(np.sort(order), np.arange(order.size)):
        raise ValueError(
            f"permutation: order must hold each of 0 .. n-1 once, got {order.tolist()}."
        )
    there, back = _reordered(order), _reordered(np.argsort(order))

    def init(key, x, condition=None):
        _check_channels(x)
        return ()

    def _check_channels(x):
        if x.shape[-1] != order.size:
            raise ValueError(
                f"permutation: order has {order.size} entries, the last axis of "
                f"{x.shape} has {x.shape[-1]}."
            )

    def forward(params, x, condition=None, key=None):
        _check_channels(x)
        return there(x), zero_log_det(x)

    def inverse(params, z, condition=None, key=None):
        _check_channels(z)
        return back(z), zero_log_det(z)

    return Bijector(init, mixing("order", forward), mixing("order", inverse))


def random_permutation() -> Bijector:
    """A permutation of the last axis drawn at `init`: Glow's shuffle.

    `params["fixed"]` are scores whose order is the permutation, so copies under
    `repeat` differ, and scaling the leaf (weight decay) leaves the map as it is.
    """

    def init(key, x, condition=None):
        channels = x.shape[-1]
        scores = jax.random.permutation(key, channels).astype(x.dtype)
        return {"fixed": (scores + 1) / channels}

    def order(params):
        return jnp.argsort(jax.lax.stop_gradient(params["fixed"]))

    def forward(params, x, condition=None, key=None):
        return reorder(x, order(params)), zero_log_det(x)

    def inverse(params, z, condition=None, key=None):
        return reorder(z, jnp.argsort(order(params))), zero_log_det(z)

    return Bijector(init, mixing("order", forward), mixing("order", inverse))


def _reordered(order):
    """`x -> x[..., order]`; where `order` reads a grid column by column, as even places
    and then odd ones do, a transposition: XLA's gathers have no vectors.
    """
    width = int(order[1]) if order.size > 1 else 1
    if not width or order.size % width:
        width = 1
    grid = np.arange(order.size).reshape(-1, width)
    if not np.array_equal(order, grid.T.ravel()):
        return lambda x: reorder(x, order)

    def transposed(x):
        rows = x.reshape(*x.shape[:-1], *grid.shape)
        return jnp.swapaxes(rows, -1, -2).reshape(x.shape)

    return transposed
