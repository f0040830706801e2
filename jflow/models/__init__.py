"""Published architectures, one file each, readable next to the paper."""

from jflow.models.circular_nsf import circular_nsf
from jflow.models.glow import glow
from jflow.models.iaf import iaf
from jflow.models.maf import maf
from jflow.models.nice import nice
from jflow.models.nsf import nsf
from jflow.models.planar_flow import planar_flow
from jflow.models.realnvp import realnvp
from jflow.models.sylvester_flow import sylvester_flow

__all__ = [
    "circular_nsf",
    "glow",
    "iaf",
    "maf",
    "nice",
    "nsf",
    "planar_flow",
    "realnvp",
    "sylvester_flow",
]
