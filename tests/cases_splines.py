"""Splines and bounds under the contract."""

import jax
import jax.numpy as jnp
import numpy as np
from case import Case, unit

import jflow
from jflow.nets import made, mlp
from jflow.scalars import rational_quadratic_spline


def angles(key, shape):
    return jax.random.uniform(key, shape, minval=-2.9, maxval=2.9)


def mixed(key, shape):
    """Between bounds, above one, below one, anywhere."""
    x = jax.random.uniform(key, shape, minval=0.05, maxval=0.95)
    return x * jnp.array([1.0, 3.0, -3.0, 5.0]) + jnp.array([0.0, 2.0, 1.0, -2.0])


CASES = [
    Case(
        "spline-elementwise",
        "rational_quadratic_spline",
        lambda: jflow.elementwise(rational_quadratic_spline(5, 2.0)),
        identity=True,
    ),
    Case(
        "spline-softmax",
        "rational_quadratic_spline",
        lambda: jflow.elementwise(
            rational_quadratic_spline(4, 4.0, parametrisation="softmax")
        ),
        identity=True,
    ),
    Case(
        "spline-box",
        "rational_quadratic_spline",
        lambda: jflow.elementwise(rational_quadratic_spline(4, (0, 1), ends="box")),
        data=unit,
        identity=True,
    ),
    Case(
        "spline-circular",
        "rational_quadratic_spline",
        lambda: jflow.elementwise(rational_quadratic_spline(4, 3.0, ends="circular")),
        data=angles,
        identity=True,
    ),
    Case(
        "spline-coupling",
        "rational_quadratic_spline coupling",
        lambda: jflow.coupling(
            rational_quadratic_spline(4), mlp(8), passive=rational_quadratic_spline(4)
        ),
        condition=(3,),
        identity=True,
        reached=0.4,
    ),
    Case(
        "spline-autoregressive",
        "rational_quadratic_spline autoregressive",
        lambda: jflow.autoregressive(
            rational_quadratic_spline(4, logit_scale=3.0), made(9, activation=jnp.tanh)
        ),
        condition=(3,),
        identity=True,
        # A point in the tail is moved by nothing.
        reached=0.8,
    ),
    Case(
        "bounded",
        "bounded",
        lambda: jflow.bounded([0.0, 2.0, -np.inf, -np.inf], [1.0, np.inf, 1.0, np.inf]),
        shape=(4,),
        data=mixed,
    ),
    Case("bounded-scalar", "bounded", lambda: jflow.bounded(0.0, 1.0), data=unit),
]
