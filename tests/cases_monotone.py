"""Scalars without a closed inverse under the contract."""

from case import Case

import jflow
from jflow import nets, scalars


def _coupling(law):
    return lambda: jflow.coupling(law, nets.mlp(8))


def _elementwise(law):
    return lambda: jflow.elementwise(law)


CASES = [
    Case(
        "coupling-mixture_cdf",
        "mixture_cdf",
        _coupling(scalars.mixture_cdf(3)),
        condition=(3,),
        identity=True,
        reached=0.4,
    ),
    Case(
        "elementwise-gaussianization",
        "gaussianization",
        _elementwise(scalars.gaussianization(2)),
        shape=(3,),
        identity=True,
    ),
    Case(
        "elementwise-deep_sigmoidal",
        "deep_sigmoidal",
        _elementwise(scalars.deep_sigmoidal(3, layers=2)),
        shape=(3,),
        identity=True,
    ),
    Case(
        "coupling-unconstrained_monotone",
        "unconstrained_monotone",
        _coupling(scalars.unconstrained_monotone(4)),
        identity=True,
    ),
    Case(
        "coupling-sum_of_squares",
        "sum_of_squares",
        _coupling(scalars.sum_of_squares(2)),
        identity=True,
    ),
    Case(
        "elementwise-bernstein",
        "bernstein",
        _elementwise(scalars.bernstein(6)),
        identity=True,
    ),
]
