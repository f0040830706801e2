"""Monotone maps of one real variable, each usable in every structure."""

from jflow.scalars.affine import affine, multiplicative, shift
from jflow.scalars.scalar import Scalar
from jflow.scalars.scales import SCALE_MAPS

__all__ = ["SCALE_MAPS", "Scalar", "affine", "multiplicative", "shift"]
