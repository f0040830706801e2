"""k-means, started by k-means++, with a fixed number of sweeps.

Arthur & Vassilvitskii 2007, section 2.2,
https://theory.stanford.edu/~sergei/papers/kMeansPP-soda.pdf
"""

import jax
import jax.numpy as jnp

from jflow.bijector import Array


def k_means(
    key: Array, points: Array, clusters: int, sweeps: int = 20
) -> tuple[Array, Array]:
    """Centres of clusters and the cluster of each point; works under `jit`.

    k-means++ draws each first centre from the points with probability proportional to
    the squared distance to the nearest one drawn; Lloyd's sweeps follow. A cluster that
    loses all its points keeps its centre.

    Args:
        key: the same key gives the same clusters.
        points: `(N, D)`.
        clusters: how many; more than N leaves some empty.
        sweeps: of Lloyd's algorithm.

    Returns:
        `(clusters, D)` centres and `(N,)` integers.

    Example:
        >>> points = jnp.array([[0.0], [0.1], [5.0], [5.1]])
        >>> _, nearest = k_means(jax.random.key(0), points, 2)
        >>> bool(nearest[0] == nearest[1]), bool(nearest[1] == nearest[2])
        (True, False)
    """
    # Squares of distances by |x|^2 - 2 x.c + |c|^2 lose digits far from the origin.
    middle = points.mean(0)
    points = points - middle
    centres = _spread_out(key, points, clusters)

    def sweep(_, centres):
        members = jax.nn.one_hot(
            _nearest(points, centres), clusters, dtype=points.dtype
        )
        count = members.sum(0)[:, None]
        total = jnp.matmul(members.T, points, precision="highest")
        return jnp.where(count > 0, total / jnp.maximum(count, 1.0), centres)

    centres = jax.lax.fori_loop(0, sweeps, sweep, centres)
    return centres + middle, _nearest(points, centres)


def _spread_out(key, points, clusters):
    """The k-means++ draw of the first centres."""
    keys = jax.random.split(key, clusters)
    first = points[jax.random.randint(keys[0], (), 0, len(points))]

    def draw(square, key):
        # Where all points are centres already, any of them.
        log_weight = jnp.log(jnp.maximum(square, jnp.finfo(square.dtype).tiny))
        centre = points[jax.random.categorical(key, log_weight)]
        return jnp.minimum(square, ((points - centre) ** 2).sum(1)), centre

    square = ((points - first) ** 2).sum(1)
    _, others = jax.lax.scan(draw, square, keys[1:])
    return jnp.concatenate([first[None], others])


def _nearest(points, centres):
    cross = jnp.matmul(points, centres.T, precision="highest")
    return ((centres**2).sum(1) - 2.0 * cross).argmin(1)
