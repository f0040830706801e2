"""Flax NNX modules as conditioners."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx


class _Adapter:
    """`init` and `apply` around a constructor of NNX modules."""

    def __init__(self, build, out_features):
        self.build, self.out_features = build, out_features

    def _split(self, rngs, x):
        module = self.build(rngs, x.shape[-1], self.out_features)
        graph, params, rest = nnx.split(module, nnx.Param, ...)
        if jax.tree.leaves(rest):
            raise ValueError(
                "nnx_net: the module holds state other than nnx.Param (dropout keys, "
                "batch statistics); a conditioner is a pure function of its parameters."
            )
        return graph, params

    def init(self, key, x, condition=None):
        _, params = self._split(nnx.Rngs(key), x)
        return nnx.to_pure_dict(params)

    def apply(self, params, x, condition=None):
        abstract = nnx.eval_shape(
            lambda: self.build(nnx.Rngs(0), x.shape[-1], self.out_features)
        )
        graph, state = nnx.split(abstract)
        nnx.replace_by_pure_dict(state, params)
        module = nnx.merge(graph, state)
        return module(x) if condition is None else module(x, condition)


def nnx_net(build: Callable[[Any, int, int], Any]) -> Callable[[int], _Adapter]:
    """A constructor of Flax NNX modules as a net for `coupling`.

    Args:
        build: `(rngs, in_features, out_features) -> nnx.Module`; the module is called
            with `x`, and with `x, condition` where there is a condition.

    Raises:
        ValueError: at `init`, if the module holds anything but parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> net = nnx_net(lambda rngs, i, o: nnx.Linear(i, o, rngs=rngs))(4)
        >>> params = net.init(jax.random.key(0), jnp.ones((2, 3)))
        >>> net.apply(params, jnp.ones((2, 3))).shape
        (2, 4)
    """
    if not callable(build):
        raise TypeError(f"nnx_net: build must be callable, got {build!r}.")
    return lambda out_features: _Adapter(build, out_features)
