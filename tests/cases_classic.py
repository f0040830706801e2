"""Cases of the linear maps and of planar, radial and Sylvester flows."""

from case import Case

import jflow
from jflow import nets

net = nets.mlp(8)

CASES = [
    Case(
        "invertible_linear-qr",
        "invertible_linear",
        lambda: jflow.invertible_linear("qr", net=net),
        condition=(3,),
        f32=1e-4,
    ),
    Case(
        "invertible_linear-svd",
        "invertible_linear",
        lambda: jflow.invertible_linear("svd", offset=True),
        shape=(2, 2, 3),
        f32=1e-4,
    ),
    Case(
        "invertible_linear-expm",
        "invertible_linear",
        lambda: jflow.invertible_linear("expm", net=net),
        shape=(2, 2, 3),
        condition=(3,),
        f32=1e-4,
    ),
    Case(
        "invertible_linear-orthogonal",
        "invertible_linear",
        lambda: jflow.chain(
            jflow.invertible_linear("cayley"),
            jflow.invertible_linear("skew_expm"),
            jflow.invertible_linear("householder"),
        ),
    ),
    Case(
        "low_rank_linear",
        "low_rank_linear",
        lambda: jflow.low_rank_linear(2, net=net),
        shape=(2, 2, 3),
        condition=(3,),
        f32=1e-4,
    ),
    Case("dct", "dct", jflow.dct),
    Case("haar", "haar", jflow.haar, shape=(6,)),
    Case("haar_squeeze", "haar_squeeze", jflow.haar_squeeze, shape=(2, 4, 2)),
    Case("planar", "planar", lambda: jflow.planar(net=net), condition=(3,), f32=1e-4),
    Case("planar-leaky", "planar", lambda: jflow.planar("leaky_relu"), f32=1e-4),
    Case("radial", "radial", lambda: jflow.radial(net=net), condition=(3,), f32=1e-4),
    Case(
        "sylvester-orthogonal",
        "sylvester",
        lambda: jflow.sylvester("orthogonal", 2, net=net),
        condition=(3,),
        f32=1e-4,
    ),
    Case(
        "sylvester-householder",
        "sylvester",
        lambda: jflow.sylvester("householder", 2),
        shape=(2, 2),
        f32=1e-4,
    ),
    Case("sylvester-triangular", "sylvester", lambda: jflow.sylvester("triangular")),
]
