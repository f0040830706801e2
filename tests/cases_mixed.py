"""Other splines, circles, and laws that differ between places, under the contract."""

import math

import jax.numpy as jnp
from case import Case
from cases_splines import angles

import jflow
from jflow import scalars
from jflow.nets import made, mlp


def cylinder():
    return scalars.mixed(
        (scalars.rational_quadratic_spline(3, math.pi, ends="circular"), [0, 3]),
        (scalars.affine(), [4]),
        (scalars.rational_quadratic_spline(3, learned_box=True), [1, 2]),
    )


def _elementwise(law):
    return lambda: jflow.elementwise(law)


CASES = [
    Case(
        "spline-linear-rational",
        "linear_rational_spline",
        lambda: jflow.coupling(scalars.linear_rational_spline(4), mlp(8)),
        condition=(3,),
        identity=True,
        reached=0.4,
    ),
    Case(
        "spline-quadratic",
        "quadratic_spline",
        _elementwise(scalars.quadratic_spline(4)),
        identity=True,
    ),
    Case(
        "spline-linear",
        "linear_spline",
        _elementwise(scalars.linear_spline(4)),
        identity=True,
    ),
    Case(
        "spline-learned-box",
        "rational_quadratic_spline",
        _elementwise(scalars.rational_quadratic_spline(4, 2.0, learned_box=True)),
        identity=True,
    ),
    Case(
        "circular_shift",
        "circular_shift",
        _elementwise(scalars.circular_shift()),
        data=angles,
        identity=True,
    ),
    Case(
        "mixed-coupling",
        "mixed coupling",
        lambda: jflow.coupling(
            cylinder(), mlp(8), "interleaved", swap=True, passive=cylinder()
        ),
        condition=(3,),
        data=angles,
        identity=True,
        reached=0.4,
    ),
    Case(
        "mixed-autoregressive",
        "mixed autoregressive",
        lambda: jflow.autoregressive(cylinder(), made(9, activation=jnp.tanh)),
        condition=(3,),
        data=angles,
        identity=True,
        reached=0.8,
    ),
]
