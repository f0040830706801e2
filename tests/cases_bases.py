"""The registry of bases: a base that is not in it fails `test_bases.py`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from case import scramble

import jflow

PI = jnp.pi


class BaseCase(NamedTuple):
    """One base under test, over events of `size` coordinates.

    `box` holds all but 1e-4 of its mass at temperature 1, `points` per axis integrate it;
    `condition` is one row. `tempered` is false where temperature has no effect, `heavy`
    where tails leave no variance to compare, `differentiable` where samples have
    gradients.
    """

    covers: str
    build: Callable[[], Any]
    size: int = 1
    box: tuple[float, float] = (-12.0, 12.0)
    points: int = 4001
    condition: Any = None
    tempered: bool = True
    differentiable: bool = True
    tolerance: float = 1e-3


def _mixed():
    return jflow.joint(
        jflow.uniform(-1.0, 2.0, (1,)), jflow.generalised_normal((1,), 4.0)
    )


ROW = jnp.array([[0.7, -0.4]])

CASES = [
    BaseCase("normal", lambda: jflow.normal((1,))),
    BaseCase("logistic", lambda: jflow.logistic((1,)), box=(-30, 30)),
    BaseCase("diagonal_normal", lambda: jflow.diagonal_normal((1,))),
    BaseCase(
        "class_normal", lambda: jflow.class_normal((1,), 3), condition=jnp.array([1])
    ),
    BaseCase(
        "uniform",
        lambda: jflow.uniform(-2.0, 1.0, (1,)),
        box=(-2, 1),
        tempered=False,
    ),
    BaseCase("student_t", lambda: jflow.student_t((1,), 6.0), box=(-60, 60)),
    BaseCase("generalised_normal", lambda: jflow.generalised_normal((1,))),
    BaseCase(
        "mixture_normal",
        lambda: jflow.mixture_normal((2,), 3),
        size=2,
        points=401,
    ),
    BaseCase(
        "circular_uniform",
        lambda: jflow.circular_uniform((1,)),
        box=(-PI, PI),
        tempered=False,
        differentiable=False,
    ),
    BaseCase("von_mises", lambda: jflow.von_mises((1,)), box=(-PI, PI)),
    BaseCase("joint", _mixed, size=2, box=(-6.0, 6.0), points=1201),
    BaseCase(
        "conditional_normal",
        lambda: jflow.conditional_normal((1,), jflow.nets.mlp(8)),
        condition=ROW,
    ),
    BaseCase(
        "resampled",
        lambda: jflow.resampled(jflow.normal((2,)), jflow.nets.mlp(8), 5, 20_000),
        size=2,
        points=401,
        differentiable=False,
        tolerance=5e-3,
    ),
]


def prepared(case: BaseCase, dtype=jnp.float32):
    """The base and its parameters, moved from where `init` puts them."""
    base = case.build()
    z = jax.random.uniform(jax.random.key(0), (64, case.size), dtype, -1.0, 1.0)
    params = jax.jit(base.init)(jax.random.key(1), z, rows(case, len(z)))
    return base, scramble(params, jax.random.key(2), 0.3)


def rows(case: BaseCase, n: int):
    c = case.condition
    return None if c is None else jnp.broadcast_to(c, (n, *c.shape[1:]))
