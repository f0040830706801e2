"""NICE: non-linear independent components estimation.

Dinh, Krueger & Bengio 2015, https://arxiv.org/abs/1410.8516.
"""

import math
from collections.abc import Sequence
from typing import Any

from jflow.base import check_shape, logistic, normal
from jflow.bijector import check_positive
from jflow.bijectors import (
    coupling,
    diagonal_scale,
    flatten,
    rescale,
    reverse,
    training_noise,
)
from jflow.combinators import chain, repeat
from jflow.flow import Flow, flow
from jflow.models.parts import alternating, choose, pixels, with_classes
from jflow.nets import mlp, relu
from jflow.scalars import shift


def nice(
    shape: Sequence[int],
    *,
    bits: int | None = 8,
    couplings: int = 4,
    hidden: Sequence[int] = (1000,) * 5,
    prior: str = "logistic",
    preprocess: str = "uniform",
    alpha: float = 1e-6,
    mixing: str = "alternate",
    subtract: bool = False,
    relu_output: bool = False,
    scale_init: str = "data",
    classes: int | None = None,
    reversible: bool = False,
    dtype: Any = None,
) -> Flow:
    """Additive couplings over interleaved halves, then one diagonal scale.

    `h = x_passive, x_active + m(x_passive)` four times by turns, `z = exp(s) h`; only
    the scale changes volume. Events of several axes are flattened.

    Args:
        shape: the event, `(784,)` or `(28, 28, 1)`.
        bits: the data are integers 0 .. 2^bits - 1, and `log_prob` (which then takes a
            key) bounds their log-probability in nats; None for real-valued data.
        couplings: the paper has 4; at least 3 let every dimension reach every other.
        hidden: hidden widths of each m.
        prior: `"logistic"` or `"normal"`.
        preprocess: `"uniform"`: dequantization to [0, 1] alone, as in the paper.
            `"logit"`: then a logit with `alpha`. `"negative_noise"`: the NICE article's
            `x / (2^bits - 1)` and, where a key is given, noise in [-0.01, 0): no bound.
        alpha: the logit's.
        mixing: `"alternate"` the halves (paper), or `"reverse"` all dimensions before
            each coupling (article).
        subtract: the encoder subtracts m and the decoder adds it (article).
        relu_output: m ends in a relu, so m >= 0 (article).
        scale_init: `"data"`: the last layer starts with the scales that give `init`'s
            batch the prior's variance; give it some thousand examples. `"one"`: it
            starts as the identity, and Adam, which moves `log s` by a learning rate a
            step, is thousands of steps on the way. The paper does not say.
        classes: the condition is a label among so many classes.
        reversible: train in memory that does not grow with depth.
        dtype: of the networks' hidden layers.

    Returns:
        A Flow over events of `shape`, its latents vectors.

    Raises:
        ValueError: an argument that cannot be used, named.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f = nice((8, 8), bits=4, hidden=(32,))
        >>> x = jnp.ones((16, 8, 8))
        >>> params = f.init(jax.random.key(0), x)
        >>> f.log_prob(params, x, key=jax.random.key(1)).shape
        (16,)
    """
    shape = check_shape("nice", shape)
    check_positive("nice", couplings=couplings)
    if (size := math.prod(shape)) < 2:
        raise ValueError(f"nice: shape {shape} has one dimension; coupling needs two.")
    base, deviation = choose(
        "nice",
        "prior",
        prior,
        {"logistic": (logistic, math.pi / math.sqrt(3)), "normal": (normal, 1.0)},
    )
    scales = choose("nice", "scale_init", scale_init, {"data": deviation, "one": None})
    net = mlp(*hidden, dtype=dtype)
    if relu_output:
        net = mlp(*hidden, output_activation=relu, zero_last=False, dtype=dtype)

    law = shift(subtract=subtract)
    if preprocess == "negative_noise":
        if bits is None:
            raise ValueError("nice: preprocess='negative_noise' needs bits, got None.")
        layers = [rescale(0.0, 1.0 / (2**bits - 1)), training_noise(-0.01, 0.0)]
    else:
        options = {"uniform": None, "logit": alpha}
        layers = pixels(bits, choose("nice", "preprocess", preprocess, options))
    mixed = choose(
        "nice",
        "mixing",
        mixing,
        {
            "alternate": lambda: alternating(
                size, couplings, [coupling(law, net)], reversible=reversible
            ),
            "reverse": lambda: [
                repeat(
                    chain(reverse(), coupling(law, net, "interleaved")),
                    couplings,
                    reversible=reversible,
                )
            ],
        },
    )()
    last = diagonal_scale(deviation=scales)
    bijector = chain(*layers, flatten(shape), *mixed, last)
    return flow(with_classes(bijector, classes), base((size,)))
