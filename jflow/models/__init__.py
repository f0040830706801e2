"""Published architectures, one file each, readable next to the paper."""

from jflow.models.glow import glow
from jflow.models.iaf import iaf
from jflow.models.maf import maf
from jflow.models.nice import nice
from jflow.models.realnvp import realnvp

__all__ = ["glow", "iaf", "maf", "nice", "realnvp"]
