"""Random compositions of the library's layers and combinators, for property tests.

`compose(choose)` builds one by calling `choose(options)` for every decision, so that
Hypothesis, which shrinks what fails, and a seeded generator both drive it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jflow
from jflow import nets, scalars
from jflow.check import check_bijector

Choose = Callable[[Sequence[Any]], Any]
BATCH, MANY = 3, 32
DEPTH = 2


class Composition(NamedTuple):
    """A bijector, the expression that builds it, and what it is over."""

    bijector: Any
    text: str
    shape: tuple[int, ...]
    condition: tuple[int, ...] | None


SCALARS = {
    "affine()": scalars.affine,
    "affine('tanh')": lambda: scalars.affine("tanh"),
    "rational_quadratic_spline(3)": lambda: scalars.rational_quadratic_spline(3),
    "deep_sigmoidal(2)": lambda: scalars.deep_sigmoidal(2),
    "mixture_cdf(2)": lambda: scalars.mixture_cdf(2),
    "bernstein(4)": lambda: scalars.bernstein(4),
    "sum_of_squares(2)": lambda: scalars.sum_of_squares(2),
}
FIXED = {
    "identity()": jflow.identity,
    "actnorm()": jflow.actnorm,
    "batch_norm()": jflow.batch_norm,
    "reverse()": jflow.reverse,
    "roll()": jflow.roll,
    "random_permutation()": jflow.random_permutation,
    "diagonal_scale()": jflow.diagonal_scale,
    "dct()": jflow.dct,
    "haar()": jflow.haar,
    "invertible_linear('lu')": lambda: jflow.invertible_linear("lu"),
    "invertible_linear('rotation')": lambda: jflow.invertible_linear("rotation"),
}
VECTOR = {
    "low_rank_linear(1)": lambda: jflow.low_rank_linear(1),
    "triangular_affine()": jflow.triangular_affine,
    "whitening()": jflow.whitening,
    "planar()": jflow.planar,
    "radial()": jflow.radial,
    "sylvester()": jflow.sylvester,
}
IMAGE = {
    "chain(squeeze(), actnorm(), unsqueeze())": lambda: jflow.chain(
        jflow.squeeze(), jflow.actnorm(), jflow.unsqueeze()
    ),
    "chain(haar_squeeze(), reverse(), unsqueeze())": lambda: jflow.chain(
        jflow.haar_squeeze(), jflow.reverse(), jflow.unsqueeze()
    ),
}
WRAPPERS = {
    "invert": jflow.invert,
    "remat": jflow.remat,
    "frozen": jflow.frozen,
    "standardise_condition": jflow.standardise_condition,
}


def compose(choose: Choose) -> Composition:
    """A random composition over vectors or images, conditional or not."""
    shape = choose([(2,), (3,), (4,), (2, 2, 2), (2, 4, 4)])
    bijector, text, conditional = _node(choose, shape, DEPTH)
    condition = (2,) if conditional and choose([True, False]) else None
    return Composition(bijector, text, shape, condition)


def _node(choose, shape, depth):
    """`(bijector, text, whether a condition reaches outputs)`."""
    kinds = ["fixed", "coupling", "elementwise"]
    kinds += ["autoregressive"] if len(shape) == 1 else []
    if depth:
        kinds += ["chain", "chain", "repeat", *WRAPPERS]
        kinds += ["split"] if shape[-1] > 3 else []
    kind = choose(kinds)
    return BUILD.get(kind, _wrapped)(choose, shape, depth, kind)


def _fixed(choose, shape, depth, kind):
    layers = FIXED | (VECTOR if len(shape) == 1 else IMAGE)
    odd = {"haar()"} if shape[-1] % 2 else set()
    name = choose([name for name in layers if name not in odd])
    return layers[name](), name, False


def _law(choose):
    name = choose(list(SCALARS))
    return SCALARS[name](), name


def _elementwise(choose, shape, depth, kind):
    law, name = _law(choose)
    return jflow.elementwise(law), f"elementwise({name})", False


def _coupling(choose, shape, depth, kind):
    law, name = _law(choose)
    masks = ["half", "interleaved"] + (["checkerboard"] if len(shape) > 1 else [])
    mask, swap = choose(masks), choose([False, True])
    layer = jflow.coupling(law, nets.mlp(4, activation=jnp.tanh), mask, swap=swap)
    return layer, f"coupling({name}, mlp(4), {mask!r}, swap={swap})", True


def _autoregressive(choose, shape, depth, kind):
    law, name = _law(choose)
    inverse = choose(["incremental", "jacobi", "sequential"])
    net = nets.made(4, activation=jnp.tanh)
    layer = jflow.autoregressive(law, net, inverse=inverse)
    return layer, f"autoregressive({name}, made(4), inverse={inverse!r})", True


def _chain(choose, shape, depth, kind):
    parts = [_node(choose, shape, depth - 1) for _ in range(choose([2, 3]))]
    options = choose([{}, {"reversible": True}, {"reversible": True, "anchor": 1}])
    layers, texts, conditional = zip(*parts, strict=True)
    text = f"chain({', '.join(texts)}, **{options})"
    return jflow.chain(*layers, **options), text, any(conditional)


def _repeat(choose, shape, depth, kind):
    layer, text, conditional = _node(choose, shape, depth - 1)
    options = choose([{}, {"reversible": True}, {"reversible": True, "anchor": 2}])
    text = f"repeat({text}, 2, **{options})"
    return jflow.repeat(layer, 2, **options), text, conditional


def _split(choose, shape, depth, kind):
    layer, text, conditional = _node(choose, (*shape[:-1], shape[-1] // 2), depth - 1)
    return jflow.split(layer), f"split({text})", conditional


def _wrapped(choose, shape, depth, kind):
    layer, text, conditional = _node(choose, shape, depth - 1)
    # A frozen network stays as it starts, where its last layer is zero.
    reaches = conditional and kind != "frozen"
    return WRAPPERS[kind](layer), f"{kind}({text})", reaches


BUILD = {
    "fixed": _fixed,
    "coupling": _coupling,
    "elementwise": _elementwise,
    "autoregressive": _autoregressive,
    "chain": _chain,
    "repeat": _repeat,
    "split": _split,
}


def examine(composition: Composition, seed: int = 0) -> str | None:
    """What `check_bijector` says in double precision where it finds fault, or None."""
    keys = jax.random.split(jax.random.key(seed), 4)
    with jax.enable_x64(True):

        def draw(key, n, shape):
            return 0.5 + jax.random.normal(key, (n, *shape), jnp.float64)

        b, _, shape, c_shape = composition
        pairs = ((keys[0], MANY), (keys[1], BATCH))
        many, x = (draw(key, n, shape) for key, n in pairs)
        many_c, c = (c_shape and draw(key, n, c_shape) for key, n in pairs)
        params = jax.jit(b.init)(keys[2], many, many_c)
        report = check_bijector(b, params, x, c, tolerance=1e-7)
    return None if report.ok else f"{composition.text}\n{report}"
