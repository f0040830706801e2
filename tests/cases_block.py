"""Block autoregressive layers and conditional marginals under the contract."""

from case import Case

import jflow
from jflow import nets, scalars

CASES = [
    Case(
        "block_autoregressive",
        "block_autoregressive",
        lambda: jflow.block_autoregressive(4, 3),
        condition=(3,),
    ),
    Case(
        # Without the connection two layers of units contract, so rounding grows back.
        "block_autoregressive-plain",
        "block_autoregressive",
        lambda: jflow.block_autoregressive(3, residual=False),
        shape=(3,),
        f32=2e-4,
    ),
    Case(
        "elementwise-net",
        "elementwise",
        lambda: jflow.elementwise(scalars.affine(), net=nets.mlp(8)),
        condition=(3,),
        identity=True,
    ),
]
