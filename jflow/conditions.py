"""Combinators for what comes before a flow's condition reaches its layers."""

from typing import Any

import jax
import jax.numpy as jnp

from jflow.bijector import (
    Bijector,
    channel_moments,
    check_bijector_type,
    init_with_output,
    initialiser,
)

__all__ = ["embed_condition", "standardise_condition"]


def embed_condition(bijector: Bijector, net: Any) -> Bijector:
    """The condition first passes a learned network; every layer inside sees its output.

    Args:
        bijector: the conditional bijector.
        net: anything with `init(key, condition) -> params` and
            `apply(params, condition) -> embedding`, a Flax module for instance. The
            condition may be any pytree that it takes.

    Raises:
        ValueError: at `init` or in a pass, if no condition is given.
    """
    check_bijector_type("embed_condition", bijector)
    if not (hasattr(net, "init") and hasattr(net, "apply")):
        raise TypeError(f"embed_condition: net needs init and apply, got {net!r}.")

    def given(condition):
        if condition is None:
            raise ValueError("embed_condition: condition is None; pass condition=.")
        return condition

    def embed(params, condition):
        return net.apply(params["net"], given(condition))

    def run_init(key, x, condition=None):
        net_key, key = jax.random.split(key)
        params = {"net": net.init(net_key, given(condition))}
        embedding = embed(params, condition)
        params["bijector"], z = init_with_output(bijector, key, x, embedding)
        return params, z

    def forward(params, x, condition=None, key=None):
        return bijector.forward(params["bijector"], x, embed(params, condition), key)

    def inverse(params, z, condition=None, key=None):
        return bijector.inverse(params["bijector"], z, embed(params, condition), key)

    return Bijector(initialiser(run_init), forward, inverse)


def standardise_condition(bijector: Bijector, epsilon: float = 1e-6) -> Bijector:
    """The condition's features first get mean 0 and variance 1.

    `init` takes both from its batch, and they stay. Leaves that are floating arrays
    with features on their last axis are standardised; labels pass as they are, and so
    does a condition that is None.

    Args:
        bijector: the conditional bijector.
        epsilon: features whose standard deviation is below it are constant and are
            only centred.
    """
    check_bijector_type("standardise_condition", bijector)

    def has_features(leaf):
        return leaf.ndim > 1 and jnp.issubdtype(leaf.dtype, jnp.floating)

    def moments(leaf):
        if not has_features(leaf):
            return ()
        mean, deviation = channel_moments(leaf, epsilon)
        return {"mean": mean, "deviation": deviation}

    def standardise(params, condition):
        if condition is None and jax.tree.leaves(params["fixed"]):
            raise ValueError(
                "standardise_condition: init saw a condition, and now it is None; pass "
                "condition=."
            )

        def one(leaf, m):
            return (leaf - m["mean"]) / m["deviation"] if m else leaf

        return jax.tree.map(one, condition, jax.lax.stop_gradient(params["fixed"]))

    def run_init(key, x, condition=None):
        fixed = jax.tree.map(moments, condition)
        condition = standardise({"fixed": fixed}, condition)
        params, z = init_with_output(bijector, key, x, condition)
        return {"fixed": fixed, "bijector": params}, z

    def forward(params, x, condition=None, key=None):
        condition = standardise(params, condition)
        return bijector.forward(params["bijector"], x, condition, key)

    def inverse(params, z, condition=None, key=None):
        condition = standardise(params, condition)
        return bijector.inverse(params["bijector"], z, condition, key)

    return Bijector(initialiser(run_init), forward, inverse)
