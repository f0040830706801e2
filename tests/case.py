"""One bijector under test: how it is built, drawn for and moved from its start."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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


def draw(case: Case, seed: int, batch: int = BATCH, dtype=np.float32):
    """A batch and its condition, in NumPy: drawing compiles nothing."""
    rng = np.random.default_rng(seed)
    if case.data is None:
        x = 0.5 + 1.5 * rng.normal(size=(batch, *case.shape))
    else:
        with jax.enable_x64(True):
            x = np.asarray(case.data(jax.random.key(seed), (batch, *case.shape)))
    if case.condition is None:
        return x.astype(dtype), None
    return x.astype(dtype), rng.normal(size=(batch, *case.condition)).astype(dtype)


def scramble(params, key, scale: float):
    """Learned leaves moved away from their initial values: zeros hide bugs."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))

    def move(leaf, label):
        leaf = np.asarray(leaf)
        noise = rng.normal(size=leaf.shape).astype(leaf.dtype)
        return leaf + leaf.dtype.type(scale) * noise if label == "learned" else leaf

    return jax.tree.map(move, params, label_params(params))


@functools.cache
def initial(case: Case):
    """The bijector's initial params in float64.

    The batch is larger than those tested, so that fitted layers are well conditioned.
    """
    with jax.enable_x64(True):
        x, condition = draw(case, 1, 64, np.float64)
        params = jax.jit(case.build().init)(jax.random.key(2), x, condition)
    return jax.tree.map(np.asarray, params)


def scrambled(case: Case, params, scale: float):
    """The case's params moved; what is frozen counts as fixed, and is moved here."""
    if case.covers == "frozen":
        return {"fixed": scramble(params["fixed"], jax.random.key(3), scale)}
    return scramble(params, jax.random.key(3), scale)


@functools.cache
def prepare(case: Case, dtype=np.float32):
    """The bijector, scrambled params, a batch and its condition.

    Both precisions have the same numbers, up to rounding.
    """
    params = scrambled(case, initial(case), case.scramble)
    params = jax.tree.map(lambda a: a.astype(dtype), params)
    return case.build(), params, *draw(case, 0, dtype=dtype)
