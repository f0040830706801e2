"""Raw parameters that are learned directly, and moved by a network of the condition."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from jflow.bijector import Array, Params

# Networks far outside of what they were trained on must not make products overflow.
LIMIT = 1e3


class Amortised(NamedTuple):
    """Where a layer's raw parameters come from.

    Attributes:
        init: `(key, start, condition) -> params`, for an array `start`.
        values: `(params, condition, n) -> raw` of its shape, one row for all examples,
            `(1, *shape)`, or one for each of `n`, `(n, *shape)`.
    """

    init: Callable[..., Params]
    values: Callable[..., Array]


def amortised(owner: str, net: Any) -> Amortised:
    """`raw = learned + net(condition)`; without a network or a condition, the first.

    The learned part keeps a layer away from the point where all is zero and gradients
    vanish, at which networks start.

    Args:
        owner: the layer's name, for messages.
        net: `out_features -> module` with `init(key, condition) -> params` and
            `apply(params, condition) -> (N, out_features)`, or None.

    Raises:
        TypeError: `net` is neither.
    """
    if net is not None and not callable(net):
        raise TypeError(
            f"{owner}: net must map out_features to a module, got {net!r}; "
            "jflow.nets.mlp(64) for instance."
        )

    def init(key, start, condition):
        params = {"raw": start}
        if net is not None and condition is not None:
            params["net"] = net(start.size).init(key, condition)
        return params

    def values(params, condition, n):
        raw = params["raw"][None]
        if net is None:
            return raw
        if ("net" in params) != (condition is not None):
            given = "without" if "net" in params else "with"
            raise ValueError(
                f"{owner}: called {given} a condition, but initialised the other way; "
                "pass condition= to both or to neither."
            )
        if condition is None:
            return raw
        out = net(raw.size).apply(params["net"], condition)
        if out.shape != (n, raw.size):
            raise ValueError(
                f"{owner}: the network returned {out.shape}, expected {(n, raw.size)}; "
                "give it a condition (N, c) and the out_features it is asked for."
            )
        out = jnp.clip(out, -LIMIT, LIMIT)
        return raw + out.reshape(n, *raw.shape[1:])

    return Amortised(init, values)
