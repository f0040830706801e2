"""MADE: a masked network whose output for a dimension sees only earlier dimensions.

Germain et al. 2015, https://arxiv.org/abs/1502.03509; residual blocks as in Durkan et
al. 2019, appendix B.1, https://arxiv.org/abs/1906.04032.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import zeros

from jflow.bijector import Array, Params, check_positive
from jflow.nets.layers import (
    fit_condition,
    he_weights,
    head_dtype,
    relu,
    spread_biases,
)
from jflow.nets.order import Order, adjacency_of, order_of
from jflow.nets.periodic import periodic_features


class Made(NamedTuple):
    """An autoregressive network over vectors, for `jflow.autoregressive`.

    Attributes:
        init: `(key, x, condition=None) -> params`.
        apply: `(params, x, condition=None) -> (N, D, size)`: output i depends on the
            parents of dimension i alone.
        unroll: `(params, solve, z, condition=None) -> x` with
            `x_i = solve(output_i, z_i, places)`: group by group, each hidden unit
            computed once, when all that it sees is known. `solve` gets raw parameters
            `(N, k, size)`, latents `(N, k)` and the k dimensions' numbers; numbers
            past the last dimension stand for nothing.
        order: the graph.
    """

    init: Callable[..., Params]
    apply: Callable[..., Array]
    unroll: Callable[..., Array]
    order: Order


def made(
    *hidden: int,
    order: str | int | Sequence[int] = "natural",
    passes: int | None = None,
    adjacency: Any = None,
    residual: bool = False,
    activation: Callable = relu,
    periodic: Any = None,
    zero_last: bool = True,
    dtype: Any = None,
) -> Callable[[int, int], Made]:
    """A masked autoregressive network with the given hidden widths.

    A condition enters the first layer, where units of degree 0 see nothing else, so the
    first dimension depends on it too. Weights and biases start as those of `mlp`.

    Args:
        *hidden: the hidden layers' widths, raised where a layer would have fewer units
            than there are degrees.
        order: `"natural"`, `"reversed"`, the dimensions in the order in which they
            depend on one another, or an integer: the seed of a random order.
        passes: cut the order into so many groups, independent within: undoing takes so
            many passes. 2 is a coupling.
        adjacency: `(D, D)` booleans instead of an order, True at [i, j] where dimension
            i depends on dimension j; any directed graph without cycles.
        residual: the first layer is linear, and each further width, all being equal, is
            a residual block of two layers.
        activation: between layers.
        periodic: a (lower, upper) pair, or one for each dimension with None for those
            that do not wrap: the network sees sine and cosine of these dimensions.
        zero_last: the last layer's weights start at zero, so a flow starts as the
            identity.
        dtype: of the hidden layers; the last layer and all parameters are float32, or
            better where the data are.

    Returns:
        A function `(dimensions, size) -> Made`.

    Raises:
        ValueError: an argument that cannot be used, named.

    Example:
        >>> net = made(32, 32)(3, 2)
        >>> params = net.init(jax.random.key(0), jnp.ones((8, 3)))
        >>> net.apply(params, jnp.ones((8, 3))).shape
        (8, 3, 2)
    """
    _check(hidden, order, passes, adjacency, residual)

    def build(dimensions: int, size: int) -> Made:
        graph = order_of(
            "made", adjacency_of("made", dimensions, order, passes, adjacency)
        )
        features = periodic_features("made", dimensions, periodic)
        if residual:
            widths = hidden[:1] + tuple(w for w in hidden[1:] for _ in range(2))
        else:
            widths = hidden

        def structure(condition):
            return _structure(graph, widths, size, features.count, condition)

        def trunk(dense, x, bias):
            """The network, given what a dense layer is."""
            h = dense(0, x)
            h = h if bias is None else h + bias
            last = len(widths)
            if residual:
                for i in range(1, last, 2):
                    h = h + dense(i + 1, activation(dense(i, activation(h))))
            else:
                for i in range(1, last):
                    h = dense(i, activation(h))
            return dense(last, activation(h))

        def cast(i, *arrays):
            """Hidden layers in `dtype`, the last one in float32 or better."""
            to = dtype if i < len(widths) else head_dtype(arrays[-1])
            return arrays if to is None else [a.astype(to) for a in arrays]

        def condition_bias(params, condition, x):
            if condition is None:
                return None
            condition = fit_condition(condition, x).astype(params["condition"].dtype)
            return jnp.dot(*cast(0, condition, params["condition"]))

        def init(key, x, condition=None):
            sizes = [u.types.size * u.each for u in structure(condition is not None)]
            keys = jax.random.split(key, len(sizes))
            wide = head_dtype(x)
            layers = []
            for i, (n_in, n_out) in enumerate(pairwise(sizes)):
                last = i == len(widths)
                weights = zeros if last and zero_last else he_weights
                biases = zeros if last else spread_biases(n_in)
                kernel_key, bias_key = jax.random.split(keys[i])
                kernel = weights(kernel_key, (n_in, n_out), wide)
                bias = biases(bias_key, (n_out,), wide)
                layers.append({"kernel": kernel, "bias": bias})
            params = {"layers": layers}
            if condition is not None:
                width = fit_condition(condition, x).shape[-1]
                params["condition"] = he_weights(keys[-1], (width, sizes[1]), wide)
            return params

        def apply(params, x, condition=None):
            units = structure(condition is not None)

            def dense(i, values):
                layer = params["layers"][i]
                kernel = layer["kernel"] * units[i].mask(graph, units[i + 1])
                values, kernel, bias = cast(i, values, kernel, layer["bias"])
                return values @ kernel + bias

            bias = condition_bias(params, condition, x)
            out = trunk(dense, features.apply(x, np.arange(dimensions)), bias)
            return jnp.swapaxes(out.reshape(*x.shape[:-1], size, dimensions), -1, -2)

        def one_group(solve, inner, now):
            """What is known within a block, and a group more."""
            inner = list(inner)

            def write(i, values):
                start = (0, now["group"] * values.shape[1])
                values = cast(i, values)[0]
                inner[i] = jax.lax.dynamic_update_slice(inner[i], values, start)

            def dense(i, values):
                if i > 0:
                    write(i, values)
                values, kernel = cast(i, inner[i], now["within"][i])
                return now["before"][i] + values @ kernel

            raw = trunk(dense, None, now.get("bias"))
            z, places = now["z"], now["places"]
            x = solve(raw.reshape(*z.shape, size), z, places).astype(z.dtype)
            x = jnp.where(places < dimensions, x, 0)
            write(0, features.apply(x, places))
            return inner, x

        def one_block(solve, outer, now):
            """What is known, and a block more."""
            each = len(now["places"])

            def seen(i):
                layer = (now["before"][i], now["offsets"][i])
                values, kernel, offset = cast(i, outer[i], *layer)
                found = (values @ kernel + offset).reshape(len(values), each, -1)
                return jnp.moveaxis(found, 1, 0)

            here = {k: now[k] for k in now if k not in ("offsets", "block")}
            here["before"] = [seen(i) for i in range(len(outer))]
            here["group"] = np.arange(each)
            pairs = zip(outer, now["within"], strict=True)
            nothing = [jnp.zeros_like(o[:, : w.shape[1]]) for o, w in pairs]
            inner, x = jax.lax.scan(partial(one_group, solve), nothing, here)
            outer = [
                jax.lax.dynamic_update_slice(o, i, (0, now["block"] * i.shape[1]))
                for o, i in zip(outer, inner, strict=True)
            ]
            return outer, x

        def unroll(params, solve, z, condition=None):
            units = structure(condition is not None)
            # As many groups to a block as there are blocks: what a block sees of those
            # before it is one product, what its groups see of one another are small.
            each = math.isqrt(len(graph.parents) - 1) + 1
            blocks = [u.blocks(graph, each) for u in units]
            places = units[-1].dimensions(graph, each)
            steps = _arrange(params["layers"], units, blocks, graph)
            steps |= {"z": _columns(z, places), "places": places}
            steps["block"] = np.arange(len(places))
            bias = condition_bias(params, condition, z)
            if bias is not None:
                steps["bias"] = _columns(bias, blocks[1])
            nothing = [
                jnp.zeros_like(z, shape=(len(z), b.size), dtype=cast(i, z)[0].dtype)
                for i, b in enumerate(blocks[:-1])
            ]
            _, x = jax.lax.scan(partial(one_block, solve), nothing, steps)
            x = jnp.moveaxis(x.reshape(-1, *x.shape[2:]), 0, 1).reshape(len(z), -1)
            return x[:, np.argsort(places.reshape(-1), kind="stable")[:dimensions]]

        return Made(init, apply, unroll, graph)

    return build


def _check(hidden, order, passes, adjacency, residual):
    if not hidden:
        raise ValueError("made: no hidden widths; give one for each hidden layer.")
    for width in hidden:
        check_positive("made", hidden=width)
    if isinstance(order, str) and order not in ("natural", "reversed"):
        raise ValueError(
            'made: order must be "natural", "reversed", a permutation, or the integer '
            f"seed of a random one; got {order!r}."
        )
    if passes is not None:
        check_positive("made", passes=passes)
    if adjacency is not None and (passes is not None or order != "natural"):
        raise ValueError("made: adjacency= takes the place of order= and passes=.")
    if residual and len(set(hidden)) > 1:
        raise ValueError(f"made: residual blocks are of one width, got {hidden}.")


# --- what a layer's units are ---------------------------------------------------------


class _Units(NamedTuple):
    """A layer's units: dimensions (inputs, outputs) or hidden, each of a group.

    `each` is how many features one unit has: inputs may have two, side by side, outputs
    `size`. Of outputs first all units' first features come, then all second ones: so
    scalars read shifts and log-scales in one piece.
    """

    kind: str
    types: np.ndarray
    each: int

    def mask(self, graph: Order, following: "_Units") -> np.ndarray:
        """`(features, features)`: what reaches what."""
        if self.kind == "input":
            seen = graph.mask_in(following.types)
        else:
            seen = graph.mask(self.types, following.types)
        return seen[np.ix_(self.units, following.units)]

    def dimensions(self, graph: Order, each: int) -> np.ndarray:
        """`(blocks, each, k)`: the units of each group, `each` groups to a block; where
        there are fewer, a number too large.
        """
        count = -(-len(graph.parents) // each) * each
        groups = [np.flatnonzero(self.types == g) for g in range(count)]
        return _filled(groups, len(self.types)).reshape(-1, each, max(map(len, groups)))

    def blocks(self, graph: Order, each: int) -> np.ndarray:
        """`(blocks, each, k * features)`: what is written at each group's turn."""
        table = self.dimensions(graph, each)
        features = np.argsort(self.units, kind="stable").reshape(-1, self.each)
        nothing = np.full((1, self.each), self.size)
        return np.concatenate([features, nothing])[table].reshape(*table.shape[:2], -1)

    @property
    def size(self) -> int:
        return len(self.types) * self.each

    @property
    def units(self) -> np.ndarray:
        """`(features,)`: the unit that each is of."""
        units = np.arange(len(self.types))
        if self.kind == "output":
            return np.tile(units, self.each)
        return units.repeat(self.each)


def _structure(graph, widths, size, features, condition) -> list[_Units]:
    hidden = [_Units("hidden", graph.types(w, condition), 1) for w in widths]
    first = _Units("input", graph.group, features)
    return [first, *hidden, _Units("output", graph.group, size)]


def _filled(groups: list[np.ndarray], number: int) -> np.ndarray:
    """Index lists of different lengths as a table, filled up with `number`."""
    table = np.full((len(groups), max(map(len, groups))), number)
    for row, members in zip(table, groups, strict=True):
        row[: len(members)] = members
    return table


def _columns(values: Array, table: np.ndarray) -> Array:
    """`(N, n)` as `(*blocks, N, k)` by a table of columns; zero where there is none."""
    padded = jnp.pad(values, ((0, 0), (0, 1)))
    return jnp.moveaxis(padded[:, table], 0, -2)


def _arrange(layers, units, blocks, graph) -> dict[str, list[Array]]:
    """Each layer's kernel from all blocks to a block, from a block to each of its own
    groups, and its bias for a block.
    """
    arranged = {"before": [], "within": [], "offsets": []}
    for i, layer in enumerate(layers):
        rows, table = blocks[i], blocks[i + 1]
        kernel = layer["kernel"] * units[i].mask(graph, units[i + 1])
        kernel = jnp.pad(kernel, ((0, 1), (0, 0)))[rows.reshape(-1)]
        arranged["before"].append(_columns(kernel, table.reshape(len(table), -1)))
        to_groups = _columns(kernel, table)
        own = to_groups.reshape(*table.shape[:2], len(rows), -1, table.shape[2])
        here = np.arange(len(rows))
        arranged["within"].append(own[here, :, here])
        bias = jnp.pad(layer["bias"], (0, 1))
        arranged["offsets"].append(bias[table.reshape(len(table), -1)])
    return arranged
