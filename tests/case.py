"""One bijector under test: how it is built, drawn for and moved from its start."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jflow.train import label_params

BATCH = 6


class Case(NamedTuple):
    """One bijector under test.

    `covers` are the public names that this case stands for. `data` draws a batch;
    `identity` says that it starts as the identity, `whitens` that its init batch comes
    out with mean 0 and variance 1 per channel, `reached` what part of the outputs the
    condition must move (a coupling's active part). `f32` bounds the round trip relative
    to the largest entry, and the log-det's error to 1 + its size. Deep ones are
    moved less from their start (`scramble`): random networks in a row are chaotic.
    `chart` is for data that are not free coordinates (points of a simplex): functions
    from data to as many coordinates as there are dimensions, and back.
    """

    name: str
    covers: str
    build: Callable[[], Any]
    shape: tuple[int, ...] = (5,)
    condition: tuple[int, ...] | None = None
    data: Callable | None = None
    identity: bool = False
    whitens: bool = False
    integers: bool = False
    reached: float = 1.0
    scramble: float = 0.3
    f32: float = 2e-5
    chart: tuple[Callable, Callable] | None = None


def unit(key, shape):
    return jax.random.uniform(key, shape, minval=0.02, maxval=0.98)


def pixels(key, shape):
    return jax.random.randint(key, shape, 0, 8).astype(jnp.float32)


def draw(case: Case, key, batch: int = BATCH, dtype=jnp.float32):
    """A batch and its condition."""
    x_key, c_key = jax.random.split(key)
    data = case.data or (lambda key, shape: 0.5 + 1.5 * jax.random.normal(key, shape))
    x = data(x_key, (batch, *case.shape)).astype(dtype)
    if case.condition is None:
        return x, None
    return x, jax.random.normal(c_key, (batch, *case.condition), dtype)


def scramble(params, key, scale: float):
    """Learned leaves moved away from their initial values: zeros hide bugs."""
    leaves, treedef = jax.tree.flatten(params)
    labels = jax.tree.leaves(label_params(params))
    keys = jax.random.split(key, max(len(leaves), 1))
    moved = [
        a + scale * jax.random.normal(k, a.shape, a.dtype) if label == "learned" else a
        for a, label, k in zip(leaves, labels, keys, strict=False)
    ]
    return jax.tree.unflatten(treedef, moved)


@functools.cache
def prepare(case: Case, dtype=jnp.float32, batch: int = BATCH):
    """The bijector, scrambled params, a batch and its condition."""
    b = case.build()
    x, condition = draw(case, jax.random.key(0), batch, dtype)
    # a larger batch than the one tested, so that fitted layers are well conditioned
    many, many_condition = draw(case, jax.random.key(1), 64, dtype)
    params = jax.jit(b.init)(jax.random.key(2), many, many_condition)
    if case.covers == "frozen":
        return (
            b,
            {"fixed": scramble(params["fixed"], jax.random.key(3), case.scramble)},
            x,
            condition,
        )
    return b, scramble(params, jax.random.key(3), case.scramble), x, condition
