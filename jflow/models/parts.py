"""What the models share: how data and labels enter, stacks, choosing by name."""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

from jflow.base import Base, check_shape, normal, one_hot
from jflow.bijector import Bijector, check_positive
from jflow.bijectors import (
    actnorm,
    autoregressive,
    batch_norm,
    bounded,
    dequantize,
    invertible_linear,
    logit,
    permutation,
    random_permutation,
    rescale,
    reverse,
    roll,
)
from jflow.combinators import chain, repeat
from jflow.conditions import embed_condition, standardise_condition
from jflow.flow import Flow, flow
from jflow.nets import made, relu
from jflow.scalars import Scalar

# So few couplings train faster without a loop, and compile in a second more.
SHALLOW = 8
# So many would keep more for the backward pass than a CPU's caches hold: 64 of width
# 128 train in 0.7 of the time when they are computed again, of width 512 in 1.05.
DEEP = 16
MIXING = {
    "reverse": reverse,
    "shuffle": random_permutation,
    "linear": invertible_linear,
}


def choose(owner: str, argument: str, value: Any, options: dict) -> Any:
    """`options[value]`, or a ValueError that names the argument and the options."""
    if value not in options:
        raise ValueError(
            f"{owner}: {argument} must be one of {list(options)}, got {value!r}."
        )
    return options[value]


def pixels(bits: int | None, alpha: float | None, centred: bool = False) -> list:
    """The layers between the data and the flow.

    Args:
        bits: the data are integers of so many bits, dequantized; None for real numbers.
        alpha: the logit's; None for no logit.
        centred: move [0, 1] to [-1/2, 1/2].
    """
    layers = [] if bits is None else [dequantize(bits)]
    if alpha is not None:
        layers.append(logit(alpha))
    if centred:
        layers.append(rescale(-0.5, 0.5))
    return layers


def vector_size(owner: str, shape: Any, least: int = 1) -> int:
    """The number of dimensions D of a shape `(D,)`, or a ValueError."""
    shape = check_shape(owner, shape)
    if len(shape) != 1:
        raise ValueError(f"{owner}: shape must be (D,), got {shape}; flatten the data.")
    if shape[0] < least:
        raise ValueError(f"{owner}: shape {shape} has one dimension; it needs two.")
    return shape[0]


def vector_flow(
    shape: Sequence[int],
    layers: Sequence[Bijector],
    *,
    bounds: tuple[Any, Any] | None = None,
    embed: Any = None,
    base: Base | None = None,
    standardise: Bijector | None = None,
) -> Flow:
    """A flow over vectors: data standardised, then `layers`, then the base.

    Args:
        shape: the event, `(D,)`.
        layers: from data to latent.
        bounds: the data's (lower, upper), numbers or one for each dimension, infinite
            where there is none; they are mapped to the whole line first.
        embed: a network for the condition, as `embed_condition` takes it. Its features
            are standardised before, by the batch that `init` sees.
        base: the standard normal by default.
        standardise: the layer that standardises the data, `actnorm()` by default.
    """
    front = [] if bounds is None else [bounded(*bounds)]
    bijector = chain(*front, standardise or actnorm(), *layers)
    if embed is not None:
        bijector = embed_condition(bijector, embed)
    return flow(standardise_condition(bijector), base or normal(shape))


class AutoregressiveOptions(TypedDict, total=False):
    """What `autoregressive_flow` takes besides the shape and the law."""

    layers: int
    hidden: Sequence[int]
    residual: bool
    activation: Callable
    norm: str | None
    mixing: str
    passes: int | None
    inverse: str
    bounds: tuple[Any, Any] | None
    embed: Any
    reversible: bool
    dtype: Any


def autoregressive_flow(
    owner: str,
    shape: Sequence[int],
    law: Scalar,
    *,
    layers: int = 5,
    hidden: Sequence[int] = (128, 128),
    residual: bool = False,
    activation: Callable = relu,
    norm: str | None = None,
    mixing: str = "reverse",
    passes: int | None = None,
    inverse: str = "incremental",
    bounds: tuple[Any, Any] | None = None,
    embed: Any = None,
    reversible: bool = False,
    dtype: Any = None,
) -> Flow:
    """Autoregressive layers of one law, all under one scan; see `jflow.models.maf`."""
    vector_size(owner, shape)
    check_positive(owner, layers=layers)
    mix = choose(owner, "mixing", mixing, MIXING)
    net = made(
        *hidden, passes=passes, residual=residual, activation=activation, dtype=dtype
    )
    layer = chain(
        autoregressive(law, net, inverse=inverse), *norm_layers(owner, norm), mix()
    )
    stack = repeat(layer, layers, reversible=reversible)
    return vector_flow(shape, [stack], bounds=bounds, embed=embed)


def norm_layers(owner: str, norm: str | None) -> list[Bijector]:
    """A list of the one normalisation layer of that name, or of none."""
    make = choose(
        owner, "norm", norm, {"actnorm": actnorm, "batch_norm": batch_norm, None: list}
    )
    return [layer] if isinstance(layer := make(), Bijector) else []


def with_classes(bijector: Bijector, classes: int | None) -> Bijector:
    """The condition is a label `(N,)`, and every layer sees it as a one-hot row."""
    return bijector if classes is None else embed_condition(bijector, _OneHot(classes))


def alternating(
    size: int, couplings: int, layers: Sequence[Bijector], *, reversible: bool
) -> list[Bijector]:
    """Couplings of odd places by even ones and of even by odd ones, by turns.

    Where the size is odd the active half is the larger one, each time.

    Args:
        size: of the event, `(size,)`.
        couplings: how many.
        layers: a coupling of halves, and what follows it; one scan repeats them.
        reversible: as of `repeat`.
    """
    sorted_places = [*range(0, size, 2), *range(1, size, 2)]
    layer = chain(*layers, roll())
    unroll = couplings <= SHALLOW and not reversible
    keep = () if couplings >= DEEP and not reversible else None
    stack = repeat(
        layer,
        couplings,
        reversible=reversible,
        unroll=unroll,
        keep=keep,
        halves=not reversible,
    )
    return [permutation(sorted_places), stack]


class _OneHot:
    """A net without parameters for `embed_condition`."""

    def __init__(self, classes):
        self.classes = classes

    def init(self, key, condition):
        return ()

    def apply(self, params, condition):
        return one_hot(condition, self.classes)
