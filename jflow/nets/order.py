"""Who may depend on whom: the masks of an autoregressive network.

MADE, Germain et al. 2015, section 4, https://arxiv.org/abs/1502.03509, in the general
form for any directed acyclic graph. Dimensions with the same parents make a group; a
hidden unit is of one group's type, and sees what lies within that group's parents. For
the natural order the groups are MADE's degrees.
"""

import functools
from typing import Any, NamedTuple

import numpy as np


class Order(NamedTuple):
    """A directed acyclic graph over the dimensions, its groups in an order to undo it.

    Attributes:
        parents: `(groups, dimensions)`, True where a group depends on a dimension.
        group: each dimension's group.
        within: `(groups, groups)`, True where the row's parents are among the column's.
        depth: how many groups lie on the longest path: passes that undo suffice.
        level: each dimension's place on such a path, 0 for those without parents.
    """

    parents: np.ndarray
    group: np.ndarray
    within: np.ndarray
    depth: int
    level: np.ndarray

    def types(self, width: int, condition: bool) -> np.ndarray:
        """The group of each of `width` hidden units, in turn, sorted.

        Without a condition nothing can be said to a group that has no parents, so it
        gets no units; every other has one at least.
        """
        useful = np.flatnonzero(self.parents.any(axis=1) | condition)
        if not len(useful):
            useful = np.zeros(1, int)
        return np.sort(useful[np.arange(max(width, len(useful))) % len(useful)])

    def mask_in(self, types: np.ndarray) -> np.ndarray:
        """`(dimensions, units)`: which units a dimension reaches."""
        return self.parents[types].T

    def mask(self, types: np.ndarray, following: np.ndarray) -> np.ndarray:
        """`(units, units)`: which units of the following layer a unit reaches."""
        return self.within[types[:, None], following[None, :]]


def adjacency_of(
    owner: str, dimensions: int, order: Any, passes: int | None, adjacency: Any
) -> np.ndarray:
    """`(D, D)` booleans: row i is True where dimension i depends on dimension j.

    Raises:
        ValueError: an argument that does not fit the dimensions.
    """
    if adjacency is not None:
        graph = np.asarray(adjacency, bool)
        if graph.shape != (dimensions, dimensions):
            raise ValueError(
                f"{owner}: adjacency is {graph.shape}, and the event has {dimensions} "
                f"dimensions; give ({dimensions}, {dimensions}) booleans, True at "
                "[i, j] where dimension i depends on dimension j."
            )
        return graph
    if isinstance(order, str):
        natural = np.arange(dimensions)
        places = natural if order == "natural" else natural[::-1]
    else:
        if isinstance(order, int):
            order = np.random.default_rng(order).permutation(dimensions)
        if sorted(order) != list(range(dimensions)):
            raise ValueError(
                f"{owner}: order {order!r} is no permutation of the event's "
                f"{dimensions} dimensions."
            )
        places = np.argsort(order)
    if passes is not None:
        places = places * min(passes, dimensions) // dimensions
    return places[:, None] > places[None, :]


def order_of(owner: str, adjacency: np.ndarray) -> Order:
    """The groups of a graph, sorted so that parents come first.

    Raises:
        ValueError: the graph has a cycle.
    """
    adjacency = np.ascontiguousarray(adjacency, bool)
    return _order(owner, adjacency.tobytes(), len(adjacency))


@functools.lru_cache(maxsize=64)
def _order(owner: str, graph: bytes, dimensions: int) -> Order:
    adjacency = np.frombuffer(graph, bool).reshape(dimensions, dimensions)
    level = np.full(dimensions, -1)
    depth = 0
    while (level < 0).any():
        ready = (level < 0) & ~(adjacency & (level < 0)).any(axis=1)
        if not ready.any():
            cycle = np.flatnonzero(level < 0).tolist()
            raise ValueError(
                f"{owner}: adjacency has a cycle among the dimensions {cycle}; an "
                "autoregressive map needs a directed graph without one."
            )
        level[ready] = depth
        depth += 1
    parents, group = np.unique(adjacency, axis=0, return_inverse=True)
    group = group.reshape(-1)
    first = np.array([level[group == g].min() for g in range(len(parents))])
    # Parents within parents come first also where they are on the same level.
    places = np.lexsort((parents.sum(axis=1), first))
    parents = parents[places]
    counts = parents.astype(np.float32)
    within = counts @ (1 - counts).T == 0
    return Order(parents, np.argsort(places)[group], within, depth, level)
