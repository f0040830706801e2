"""RealNVP: density estimation using real-valued non-volume-preserving maps.

Dinh, Sohl-Dickstein & Bengio 2017, https://arxiv.org/abs/1605.08803; the dense variant
is that of the MAF paper, Papamakarios et al. 2017, https://arxiv.org/abs/1705.07057.
"""

from collections.abc import Sequence
from typing import Any

from jflow.base import check_shape, normal
from jflow.bijector import Bijector, check_positive
from jflow.bijectors import coupling, reverse, roll, squeeze, unsqueeze
from jflow.combinators import chain, repeat, split
from jflow.flow import Flow, flow
from jflow.models.parts import alternating, norm_layers, pixels, with_classes
from jflow.nets import mlp, residual_net
from jflow.scalars import affine


def realnvp(
    shape: Sequence[int],
    *,
    couplings: int = 8,
    hidden: Sequence[int] = (128, 128),
    scales: int | None = None,
    width: int = 32,
    blocks: int = 4,
    bits: int | None = None,
    alpha: float | None = None,
    scale: str | None = None,
    norm: str | None = "batch_norm",
    classes: int | None = None,
    reversible: bool = False,
    dtype: Any = None,
) -> Flow:
    """Affine couplings: vectors in interleaved halves, images at several scales.

    An image scale is three checkerboard couplings, a squeeze, three channel couplings,
    and half of the channels factored out (section 3.6); the last scale has four
    checkerboard couplings. A normalisation layer follows each coupling.

    Args:
        shape: the event: `(D,)` for vectors, `(H, W, C)` for images.
        couplings, hidden: of the dense model: how many, and each network's hidden
            widths. MAF's paper has 5 or 10, and 2 x 1024 for MNIST.
        scales: of images; by default until a side is odd or 4.
        width, blocks: of the image networks at the first scale: hidden channels, which
            double from scale to scale, and residual blocks. The paper has 32 and 4 for
            32 x 32 images; for CIFAR-10 64, 8 and `scales=2`.
        bits: the data are integers 0 .. 2^bits - 1, and `log_prob` (which then takes a
            key) bounds their log-probability in nats; None for real-valued data.
        alpha: the logit's; by default 0.05 with `bits`, and no logit without.
        scale: the scale map, see `jflow.scalars.scales`; by default `"tanh"`, the
            paper's, for images and `"soft_clip"` for vectors.
        norm: `"batch_norm"` with running statistics (appendix E), `"actnorm"`, or None.
        classes: the condition is a label among so many classes.
        reversible: train in memory that does not grow with depth. Without it, up to 8
            couplings of vectors are written out in training instead of scanned, and
            from 16 on they are recomputed in the backward pass on a CPU, which is
            faster there and keeps each one's input alone.
        dtype: of the networks' hidden layers.

    Returns:
        A Flow over events of `shape`, its latents of the same shape.

    Raises:
        ValueError: an argument that cannot be used, named.

    Example:
        >>> import jax
        >>> f = realnvp((2,), couplings=4, hidden=(32,))
        >>> x = jax.random.normal(jax.random.key(0), (16, 2))
        >>> f.log_prob(f.init(jax.random.key(1), x), x).shape
        (16,)
    """
    shape = check_shape("realnvp", shape)
    if len(shape) not in (1, 3):
        raise ValueError(f"realnvp: shape must be (D,) or (H, W, C), got {shape}.")
    if alpha is None and bits is not None:
        alpha = 0.05
    norms = norm_layers("realnvp", norm)
    if len(shape) == 1:
        body = _dense(
            shape, couplings, hidden, scale or "soft_clip", norms, reversible, dtype
        )
    else:
        check_positive("realnvp", width=width, blocks=blocks)
        scales = _check_scales(shape, scales)
        scale = scale or "tanh"
        body = _scale(shape[:2], scales, width, blocks, scale, norms, reversible, dtype)
    bijector = chain(*pixels(bits, alpha), *body)
    return flow(with_classes(bijector, classes), normal(shape))


def _dense(shape, couplings, hidden, scale, norms, reversible, dtype) -> list[Bijector]:
    check_positive("realnvp", couplings=couplings)
    if shape[0] < 2:
        raise ValueError("realnvp: shape (1,) has one dimension; coupling needs two.")

    layers = [coupling(affine(scale), mlp(*hidden, dtype=dtype)), *norms]
    return alternating(*shape, couplings, layers, reversible=reversible)


def _check_scales(shape, scales) -> int:
    """How many scales: given, or until a side is odd or as small as 4."""
    height, width, possible = *shape[:2], 1
    while not (height % 2 or width % 2) and min(height, width) > 4:
        height, width, possible = height // 2, width // 2, possible + 1
    if scales is None:
        return possible
    check_positive("realnvp", scales=scales)
    side = 2 ** (scales - 1)
    if shape[0] % side or shape[1] % side:
        raise ValueError(
            f"realnvp: scales={scales} needs sides divisible by {side}, got "
            f"{shape[:2]}; use fewer scales, or pad the images."
        )
    return scales


def _scale(
    sides, scales, width, blocks, scale, norms, reversible, dtype
) -> list[Bijector]:
    """The layers of a scale whose images have these sides, coarser scales inside."""

    def couplings(mask, n, width, exchange):
        law = affine(scale, shift_first=True)
        net = residual_net(width, blocks, dtype=dtype)
        if exchange is None:
            turns = [coupling(law, net, mask, swap=i % 2 == 1) for i in range(n)]
            layers = [layer for turn in turns for layer in (turn, *norms)]
            return [chain(*layers, reversible=reversible)]
        layer = chain(coupling(law, net, mask), *norms, exchange)
        keep = None if reversible else ("conv",)
        stack = repeat(layer, n, reversible=reversible, keep=keep)
        return [stack, exchange] if n % 2 else [stack]

    # A mirror along an even side exchanges the checkerboard's parts.
    mirrors = [reverse(axis) for axis in (-2, -3) if sides[axis + 1] % 2 == 0]
    mirror = mirrors[0] if mirrors else None
    if scales == 1:
        return couplings("checkerboard", 4, width, mirror)
    half = [side // 2 for side in sides]
    coarser = _scale(
        half, scales - 1, 2 * width, blocks, scale, norms, reversible, dtype
    )
    return [
        *couplings("checkerboard", 3, width, mirror),
        squeeze(),
        *couplings("half", 3, 2 * width, roll()),
        unsqueeze(),
        squeeze(order="diagonal"),
        split(chain(*coarser)),
        unsqueeze(order="diagonal"),
    ]
