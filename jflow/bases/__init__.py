"""Base distributions beyond the plain ones of `jflow.base`, one file per idea."""

from jflow.bases.circular import circular_uniform, von_mises
from jflow.bases.conditional import conditional_normal
from jflow.bases.generalised_normal import generalised_normal
from jflow.bases.joint import joint
from jflow.bases.mixture import mixture_normal
from jflow.bases.resampled import resampled
from jflow.bases.student_t import student_t
from jflow.bases.uniform import uniform

__all__ = [
    "circular_uniform",
    "conditional_normal",
    "generalised_normal",
    "joint",
    "mixture_normal",
    "resampled",
    "student_t",
    "uniform",
    "von_mises",
]
