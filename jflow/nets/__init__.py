"""Conditioners: functions `out_features -> module`, the modules Flax's.

A module is anything with `init(key, x, condition=None) -> params` and
`apply(params, x, condition=None) -> y`, features on the last axis.
"""

from jflow.nets.convnet import glow_net, residual_net, zero_conv
from jflow.nets.layers import relu
from jflow.nets.made import Made, made
from jflow.nets.mlp import mlp

__all__ = ["Made", "glow_net", "made", "mlp", "relu", "residual_net", "zero_conv"]
