"""Autoregressive layers under the contract."""

import jax.numpy as jnp
import numpy as np
from case import Case

import jflow
from jflow import scalars
from jflow.nets import made

DAG = np.zeros((5, 5), bool)
DAG[1, 0] = DAG[2, 1] = DAG[4, 0] = DAG[4, 3] = True


def _layer(*hidden, law=None, inverse="incremental", **options):
    net = made(*(hidden or (12, 12)), activation=jnp.tanh, **options)
    return lambda: jflow.autoregressive(law or scalars.affine(), net, inverse=inverse)


CASES = [
    *(
        Case(
            f"autoregressive-{inverse}",
            "autoregressive",
            _layer(inverse=inverse),
            condition=(3,),
            identity=True,
        )
        for inverse in ("incremental", "jacobi", "sequential")
    ),
    Case(
        "autoregressive-residual",
        "autoregressive",
        _layer(10, 10, residual=True, order=[3, 1, 4, 0, 2], passes=3),
        condition=(2,),
        identity=True,
    ),
    Case(
        "autoregressive-graph",
        "autoregressive",
        _layer(8, law=scalars.affine("tanh"), adjacency=DAG),
        condition=(2,),
    ),
    Case(
        "autoregressive-one",
        "autoregressive",
        _layer(4, order="reversed"),
        shape=(1,),
        condition=(2,),
        identity=True,
    ),
    Case(
        "autoregressive-periodic",
        "autoregressive",
        _layer(8, periodic=[(-1.0, 1.0), None, (0.0, 6.0), None, None]),
        identity=True,
    ),
]
