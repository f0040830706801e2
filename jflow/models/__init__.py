"""Published architectures, one file each, readable next to the paper."""

from jflow.models.bnaf import bnaf
from jflow.models.bpf import bpf
from jflow.models.circular_nsf import circular_nsf
from jflow.models.gaussianization import gaussianization
from jflow.models.glow import glow
from jflow.models.iaf import iaf
from jflow.models.made import made
from jflow.models.maf import maf
from jflow.models.naf import naf
from jflow.models.nice import nice
from jflow.models.nsf import nsf
from jflow.models.planar_flow import planar_flow
from jflow.models.realnvp import realnvp
from jflow.models.sos import sos
from jflow.models.sylvester_flow import sylvester_flow
from jflow.models.umnn import umnn

__all__ = [
    "bnaf",
    "bpf",
    "circular_nsf",
    "gaussianization",
    "glow",
    "iaf",
    "made",
    "maf",
    "naf",
    "nice",
    "nsf",
    "planar_flow",
    "realnvp",
    "sos",
    "sylvester_flow",
    "umnn",
]
