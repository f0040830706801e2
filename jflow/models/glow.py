"""Glow: generative flow with invertible 1x1 convolutions.

Kingma & Dhariwal 2018, https://arxiv.org/abs/1807.03039.
"""

from collections.abc import Sequence
from typing import Any

from jflow.base import check_shape, normal
from jflow.bijector import Bijector, check_positive
from jflow.bijectors import (
    actnorm,
    coupling,
    invertible_linear,
    random_permutation,
    reverse,
    squeeze,
    unsqueeze,
)
from jflow.combinators import chain, repeat, split
from jflow.flow import Flow, flow
from jflow.models.parts import choose, pixels, with_classes
from jflow.nets import glow_net, mlp, zero_conv
from jflow.scalars import affine, shift

COUPLINGS = {"affine": affine("sigmoid", shift_first=True), "additive": shift()}


def glow(
    shape: Sequence[int],
    *,
    levels: int = 3,
    depth: int = 32,
    width: int = 512,
    hidden: Sequence[int] = (128, 128),
    law: str = "affine",
    mixing: str = "1x1",
    linear: str = "lu",
    prior: str = "conditional",
    bits: int | None = None,
    classes: int | None = None,
    mark_edges: bool = False,
    reversible: bool | None = None,
    anchor: int | None = None,
    dtype: Any = None,
) -> Flow:
    """Levels of squeeze, `depth` steps of flow, and factoring out half (figure 2).

    A step is actnorm, a permutation, and a coupling whose network starts at zero (table
    1). The `depth` steps of a level are one scan. For vectors there is one level, and
    the networks are perceptrons. On a CPU `fit(..., quick=True)` compiles the training
    of images in two thirds of the time and memory, and loses nothing.

    Args:
        shape: the event: `(H, W, C)` for images, `(D,)` for vectors.
        levels: of images; sides must be divisible by `2 ** levels`.
        depth: steps per level.
        width: hidden channels of the image networks.
        hidden: hidden widths of the dense networks.
        law: `"affine"`, with the code's `(x + t) sigmoid(u + 2)`, or `"additive"`.
        mixing: `"1x1"`, `"shuffle"` or `"reverse"`.
        linear: how a 1x1 convolution is parametrised, see `invertible_linear`.
        prior: of what a level factors out: `"conditional"` on what goes on (a normal
            whose mean and scale are a convolution of it, as in the code), or `"unit"`.
            The last level's channels have a learned mean and scale either way.
        bits: the data are integers 0 .. 2^bits - 1, centred to [-1/2, 1/2], and
            `log_prob` (which then takes a key) bounds their log-probability in nats;
            None for real-valued data.
        classes: the condition is a label among so many classes.
        mark_edges: the networks' padding carries an indicator channel, as in the code.
        reversible: train in memory that does not grow with `depth`. By default for the
            additive law, whose inverse is exact up to rounding. The affine law's
            divides by scales that training may bring near zero, where rebuilt inputs
            drift and gradients overflow: give it an `anchor`, and watch
            `jflow.diagnostics.reconstruction_error`. Else the backward pass on a CPU
            keeps each step's input and its convolutions' outputs.
        anchor: with `reversible`, keep every so-manieth step's output.
        dtype: of the networks' hidden layers.

    Returns:
        A Flow over events of `shape`, its latents of the same shape: standard normal at
        every level, as Glow's code whitens them.

    Raises:
        ValueError: an argument that cannot be used, named.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f = glow((8, 8, 1), levels=2, depth=2, width=16, bits=4)
        >>> x = jnp.ones((4, 8, 8, 1))
        >>> f.log_prob(f.init(jax.random.key(0), x), x, key=jax.random.key(1)).shape
        (4,)
    """
    shape = check_shape("glow", shape)
    if len(shape) not in (1, 3):
        raise ValueError(f"glow: shape must be (D,) or (H, W, C), got {shape}.")
    check_positive("glow", levels=levels, depth=depth, width=width)
    image = len(shape) == 3
    if image and (shape[0] % 2**levels or shape[1] % 2**levels):
        raise ValueError(
            f"glow: levels={levels} needs sides divisible by {2**levels}, got "
            f"{shape[:2]}; use fewer levels, or pad the images."
        )
    if shape == (1,):
        raise ValueError("glow: shape (1,) has one dimension; coupling needs two.")
    if reversible is None:
        reversible = law == "additive" or anchor is not None
    mix = choose(
        "glow",
        "mixing",
        mixing,
        {
            "1x1": lambda: invertible_linear(linear),
            "shuffle": random_permutation,
            "reverse": reverse,
        },
    )()
    net = (
        glow_net(width, mark_edges=mark_edges, dtype=dtype)
        if image
        else mlp(*hidden, dtype=dtype)
    )
    step = chain(
        actnorm(gain=3.0), mix, coupling(choose("glow", "law", law, COUPLINGS), net)
    )
    # What a step computes besides its convolutions takes less time than to keep it.
    keep = ("conv",) if image and not reversible else None
    steps = repeat(step, depth, reversible=reversible, anchor=anchor, keep=keep)
    priors = choose("glow", "prior", prior, {"conditional": True, "unit": False})
    top = actnorm()
    body = (
        _level(levels, steps, priors, mark_edges, top) if image else chain(steps, top)
    )
    bijector = chain(*pixels(bits, None, centred=bits is not None), body)
    return flow(with_classes(bijector, classes), normal(shape))


def _level(levels, steps, conditional, mark_edges, top) -> Bijector:
    """This level's layers, with the coarser levels inside."""
    if levels == 1:
        return chain(squeeze(), steps, top, unsqueeze())
    coarser = _level(levels - 1, steps, conditional, mark_edges, top)
    whiten = [split_prior(mark_edges)] if conditional else []
    return chain(squeeze(), steps, *whiten, split(coarser), unsqueeze())


def split_prior(mark_edges: bool = False) -> Bijector:
    """The second half's normal given the first, as an affine coupling.

    `z2 = (x2 + t(x1)) s(x1)`, t and s from one 3x3 convolution that starts at zero.
    """
    return coupling(affine(shift_first=True), zero_conv(mark_edges=mark_edges))
