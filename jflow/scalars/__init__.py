"""Monotone maps of one real variable, each usable in every structure."""

from jflow.scalars.affine import affine, multiplicative, shift
from jflow.scalars.bernstein import bernstein
from jflow.scalars.circular import circular_shift
from jflow.scalars.integral import sum_of_squares, unconstrained_monotone
from jflow.scalars.linear_rational import linear_rational_spline
from jflow.scalars.mixed import mixed
from jflow.scalars.mixture import gaussianization, mixture_cdf
from jflow.scalars.quadratic import linear_spline, quadratic_spline
from jflow.scalars.rational_quadratic import rational_quadratic_spline
from jflow.scalars.scalar import Scalar
from jflow.scalars.scales import SCALE_MAPS
from jflow.scalars.sigmoidal import deep_sigmoidal

__all__ = [
    "SCALE_MAPS",
    "Scalar",
    "affine",
    "bernstein",
    "circular_shift",
    "deep_sigmoidal",
    "gaussianization",
    "linear_rational_spline",
    "linear_spline",
    "mixed",
    "mixture_cdf",
    "multiplicative",
    "quadratic_spline",
    "rational_quadratic_spline",
    "shift",
    "sum_of_squares",
    "unconstrained_monotone",
]
