"""What to do with a flow's latents: interpolate, edit, walk on manifolds, inpaint.

Pure functions over arrays. Latents are batches `(N, *event)`, as `flow.encode` gives
them and `flow.decode` takes them.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jflow.bijector import Array, Params, draw
from jflow.flow import Flow


def interpolate(z0: Array, z1: Array, n: int, kind: str = "linear") -> Array:
    """`n` latents on the way from each row of `z0` to the same row of `z1`.

    With `t` from 0 to 1, both ends included,

    * `"linear"`: `(1 - t) z0 + t z1`. Between two independent draws of a standard
      normal it passes points of too small a norm: half-way, those of temperature 0.71.
    * `"spherical"`: `(sin((1 - t) w) z0 + sin(t w) z1) / sin(w)`, `w` the angle between
      the flattened rows (Shoemake 1985, section 3.3). Ends of equal norm have a
      path of that norm. Where no arc is defined (a row of zeros, ends that are
      parallel or opposite) the path is linear.

    Args:
        z0: the starts, `(N, *event)`.
        z1: the ends, of the same shape.
        n: how many points, at least 2.
        kind: `"linear"` or `"spherical"`.

    Returns:
        `(N, n, *event)`: flattened over the first two axes, a batch for `flow.decode`.

    Raises:
        ValueError: the shapes differ, `n` < 2 or an unknown `kind`.

    Example:
        >>> interpolate(jnp.zeros((1, 2)), jnp.ones((1, 2)), 3)[0, 1]
        Array([0.5, 0.5], dtype=float32)
    """
    z0, z1 = jnp.asarray(z0), jnp.asarray(z1)
    if z0.shape != z1.shape or z0.ndim < 2:
        raise ValueError(
            f"interpolate: z0 and z1 must be batches (N, *event) of one shape, got "
            f"{z0.shape} and {z1.shape}; add the batch axis with z[None]."
        )
    if n < 2:
        raise ValueError(f"interpolate: n counts both ends, got {n}; use n >= 2.")
    if kind not in ("linear", "spherical"):
        raise ValueError(
            f"interpolate: kind must be 'linear' or 'spherical', got {kind!r}."
        )
    dtype = jnp.result_type(z0, z1, jnp.float32)
    z0, z1 = z0.astype(dtype), z1.astype(dtype)
    shape = (z0.shape[0], n) + (1,) * (z0.ndim - 1)
    t = jnp.broadcast_to(jnp.linspace(0.0, 1.0, n, dtype=dtype), shape[:2])
    weights = (1 - t, t)
    if kind == "spherical":
        angle, defined = _angle(z0, z1)
        # 1 where there is no arc: both branches of the `where` stay finite, and so do
        # their gradients.
        angle = jnp.where(defined, angle, 1.0)[:, None]
        arc = jnp.sin((1 - t) * angle), jnp.sin(t * angle)
        weights = [
            jnp.where(defined[:, None], a / jnp.sin(angle), w)
            for a, w in zip(arc, weights, strict=True)
        ]
    start, end = (w.reshape(shape) for w in weights)
    return start * z0[:, None] + end * z1[:, None]


def attribute_direction(z: Array, has_attribute: Array) -> Array:
    """From the mean latent without an attribute to the mean latent with it.

    Kingma & Dhariwal 2018, section 6, https://arxiv.org/abs/1807.03039

    Args:
        z: latents `(N, *event)`, of many examples.
        has_attribute: booleans `(N,)`.

    Returns:
        The direction, of shape `event`; see `manipulate`. Under `jit`, NaN where one
        of the two groups is empty.

    Raises:
        ValueError: the shapes do not match or, outside of `jit`, a group is empty.

    Example:
        >>> z = jnp.array([[0.0, 0.0], [3.0, 1.0], [0.0, 2.0]])
        >>> attribute_direction(z, jnp.array([False, True, False]))
        Array([3., 0.], dtype=float32)
    """
    has_attribute = jnp.asarray(has_attribute).astype(bool)
    if z.ndim < 2 or has_attribute.shape != z.shape[:1]:
        raise ValueError(
            "attribute_direction: has_attribute must have one entry for each of the "
            f"latents (N, *event), got {has_attribute.shape} for {z.shape}."
        )
    if not isinstance(has_attribute, jax.core.Tracer):
        found = int(has_attribute.sum())
        if found in (0, len(z)):
            raise ValueError(
                f"attribute_direction: {found} of {len(z)} examples have the "
                "attribute; both groups need at least one."
            )
    column = has_attribute.reshape(-1, *(1,) * (z.ndim - 1))
    return jnp.mean(z, axis=0, where=column) - jnp.mean(z, axis=0, where=~column)


def manipulate(
    flow: Flow,
    params: Params,
    x: Array,
    direction: Array,
    amounts: Sequence[float],
    condition: Any = None,
    key: Array | None = None,
) -> Array:
    """Each example with `amount * direction` added to its latent, for every amount.

    Glow's figures use amounts from -1 to 1 along 1.6 times the direction that
    `attribute_direction` gives.

    Args:
        flow: encodes and decodes.
        params: the flow's.
        x: data `(N, *event)`.
        direction: of the latents' event shape.
        amounts: the multiples, `(A,)`; 0 is the reconstruction.
        condition: the flow's, kept for all amounts.
        key: for flows with stochastic layers (dequantization).

    Returns:
        `(N, A, *event)`.

    Raises:
        ValueError: `direction` or `amounts` have another shape.

    Example:
        >>> import jflow
        >>> flow = jflow.flow(jflow.actnorm(), jflow.normal((2,)))
        >>> x = jax.random.normal(jax.random.key(0), (4, 2))
        >>> params = flow.init(jax.random.key(1), x)
        >>> manipulate(flow, params, x, jnp.ones(2), [-1.0, 0.0, 1.0]).shape
        (4, 3, 2)
    """
    encode_key, decode_key = (None, None) if key is None else jax.random.split(key)
    z = flow.encode(params, x, condition, encode_key)
    direction, amounts = jnp.asarray(direction), jnp.asarray(amounts)
    if direction.shape != z.shape[1:]:
        raise ValueError(
            f"manipulate: direction must have the latents' event shape {z.shape[1:]}, "
            f"got {direction.shape}."
        )
    if amounts.ndim != 1 or not amounts.size:
        raise ValueError(
            "manipulate: amounts must be a sequence of numbers, got shape "
            f"{amounts.shape}; put one amount in brackets."
        )
    n, count = z.shape[0], amounts.size
    steps = amounts.reshape(-1, *(1,) * direction.ndim) * direction
    moved = (z[:, None] + steps).reshape(-1, *z.shape[1:])

    def for_all_amounts(leaf):
        leaf = jnp.asarray(leaf)
        return jnp.repeat(jnp.broadcast_to(leaf, (n, *leaf.shape[1:])), count, axis=0)

    condition = jax.tree.map(for_all_amounts, condition)
    decoded = flow.decode(params, moved, condition, decode_key)
    return decoded.reshape(n, count, *decoded.shape[1:])


def manifold(z1: Array, z2: Array, z3: Array, z4: Array, n: int) -> Array:
    """The two-dimensional manifold through four latents, on an `n` by `n` grid.

    `z = cos f (cos f' z1 + sin f' z2) + sin f (cos f' z3 + sin f' z4)`, both angles at
    `n` equal steps over the full circle (Dinh et al. 2017, section 4.2 and appendix,
    https://arxiv.org/abs/1605.08803). Independent normal latents stay normal
    everywhere on it. With `n` a multiple of 4 the four latents are grid points.

    Args:
        z1: one latent, of shape `event`; found at `[0, 0]`.
        z2: the same; at `[0, n / 4]`.
        z3: the same; at `[n / 4, 0]`.
        z4: the same; at `[n / 4, n / 4]`.
        n: steps per angle; the paper's figures have 8.

    Returns:
        `(n, n, *event)`, the rows along `f`, the columns along `f'`.

    Raises:
        ValueError: the shapes differ or `n` < 1.

    Example:
        >>> manifold(*jnp.eye(4), n=8).shape
        (8, 8, 4)
    """
    latents = [jnp.asarray(z) for z in (z1, z2, z3, z4)]
    if len({z.shape for z in latents}) > 1:
        raise ValueError(
            "manifold: the four latents must have one shape, got "
            f"{[z.shape for z in latents]}."
        )
    _check_grid("manifold", n)
    angle = 2 * math.pi * jnp.arange(n) / n
    circle = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    corners = jnp.stack(latents).reshape(2, 2, *latents[0].shape)
    return jnp.einsum("ia,jb,ab...->ij...", circle, circle, corners)


def sphere(
    key: Array, shape: tuple[int, ...], n: int, radius: float | None = None
) -> Array:
    """A randomly turned two-sphere in latent space, as an `n` by `n` grid.

    NICE's manifold picture (Dinh et al. 2015, https://arxiv.org/abs/1410.8516): three
    random orthonormal directions, the rows from pole to pole (poles left out), the
    columns once around.

    Args:
        key: turns the sphere.
        shape: the latents' event shape, of at least 3 numbers.
        n: steps per angle.
        radius: that of a typical standard-normal latent, `sqrt(D)`, by default.

    Returns:
        `(n, n, *shape)`.

    Raises:
        ValueError: fewer than 3 dimensions, or `n` < 1.

    Example:
        >>> sphere(jax.random.key(0), (28, 28, 1), n=10).shape
        (10, 10, 28, 28, 1)
    """
    size = math.prod(shape)
    if size < 3:
        raise ValueError(f"sphere: shape {shape} has fewer than 3 dimensions.")
    _check_grid("sphere", n)
    axes, _ = jnp.linalg.qr(jax.random.normal(key, (size, 3)))
    polar = math.pi * (jnp.arange(n) + 0.5)[:, None] / n
    around = 2 * math.pi * jnp.arange(n)[None, :] / n
    points = jnp.stack(
        [
            jnp.sin(polar) * jnp.cos(around),
            jnp.sin(polar) * jnp.sin(around),
            jnp.broadcast_to(jnp.cos(polar), (n, n)),
        ],
        axis=-1,
    )
    radius = math.sqrt(size) if radius is None else radius
    flat = radius * jnp.einsum("ijk,dk->ijd", points, axes, precision="highest")
    return flat.reshape(n, n, *shape)


def scale_spectrum(log_scale: Array) -> Array:
    """NICE's spectrum: `sigma_d = exp(-log_scale_d)`, the largest first.

    The last layer's `z_d = exp(log_scale_d) h_d` is a base with standard deviation
    `sigma_d` on `h_d`: large ones belong to directions in which the data vary, those
    near 0 to directions that the model has given up (Dinh et al. 2015, section 3.3).

    Example:
        >>> scale_spectrum(jnp.log(jnp.array([1.0, 4.0, 2.0])))
        Array([1.  , 0.5 , 0.25], dtype=float32)
    """
    return jnp.sort(jnp.exp(-jnp.ravel(log_scale)), descending=True)


def nice_step_size(i: Array) -> Array:
    """`10 / (100 + i)`, the step size of NICE's inpainting."""
    return 10.0 / (100.0 + i)


def inpaint(
    log_prob: Callable[[Array], Array],
    x: Array,
    hidden: Array,
    key: Array,
    *,
    steps: int = 1_000,
    step_size: Callable[[Array], Array] = nice_step_size,
    clip: tuple[float, float] | None = None,
) -> Array:
    """Fill in hidden coordinates by noisy ascent on the log-density.

    `x_H <- x_H + a_i (d log p(x) / d x_H + eps)`, `eps ~ N(0, I)`, `a_i = 10/(100+i)`
    (Dinh et al. 2015, section 5.2, https://arxiv.org/abs/1410.8516). Noise and steps
    shrink together, so it settles near a mode of the density given the observed
    coordinates; it does not sample that density. The paper's own script runs 111,895
    steps.

    The density must have a gradient: take one over continuous data. A model over
    integer pixels begins with dequantization, which is none of its own, so use the
    model over continuous data (image models: `bits=None`) and pixels in its units.

    Args:
        log_prob: the log-density in nats, `(N, *event) -> (N,)`, such as
            `lambda x: flow.log_prob(params, x)`.
        x: floating-point data `(N, *event)`; its hidden coordinates are the start.
        hidden: booleans, True where `x` is to be filled in; `(N, *event)`, or
            `event` for one mask for all.
        key: for the noise.
        steps: how many, all under one `lax.scan`.
        step_size: the size of step `i`, an integer from 0. The paper's is meant for
            data in [0, 1] and a density as flat as NICE's: sharper ones need less.
        clip: the range, if any, that hidden coordinates are kept in.

    Returns:
        A copy of `x`; observed coordinates are the same bit for bit.

    Raises:
        ValueError: `x` is not floating point, `hidden` is not boolean or has another
            shape, `steps` < 1, or `clip` is not (low, high).

    Example:
        >>> def log_prob(x):  # the second coordinate follows the first
        ...     return -x[:, 0] ** 2 / 2 - (x[:, 1] - x[:, 0]) ** 2 / 2
        >>> x, hidden = jnp.array([[2.0, 0.0]]), jnp.array([False, True])
        >>> filled = inpaint(log_prob, x, hidden, jax.random.key(0))
        >>> bool(abs(filled[0, 1] - 2.0) < 0.5)
        True
    """
    x, hidden = jnp.asarray(x), jnp.asarray(hidden)
    if x.ndim < 2 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"inpaint: x must be a floating-point batch (N, *event), got {x.dtype}"
            f"{x.shape}; convert pixels with x.astype(float) and use a continuous flow."
        )
    if hidden.dtype != bool or hidden.shape not in (x.shape, x.shape[1:]):
        raise ValueError(
            f"inpaint: hidden must be booleans of shape {x.shape} or {x.shape[1:]}, "
            f"got {hidden.dtype}{hidden.shape}."
        )
    if steps < 1:
        raise ValueError(f"inpaint: steps must be at least 1, got {steps}.")
    if clip is not None and not clip[0] < clip[1]:
        raise ValueError(f"inpaint: clip must be (low, high), got {clip}.")
    gradient = jax.grad(lambda x: log_prob(x).sum())

    def body(current, i):
        noise = draw(jax.random.normal, jax.random.fold_in(key, i), x.shape, x.dtype)
        moved = current + step_size(i) * (gradient(current) + noise)
        if clip is not None:
            moved = jnp.clip(moved, *clip)
        return jnp.where(hidden, moved, x).astype(x.dtype), None

    return jax.lax.scan(body, x, jnp.arange(steps))[0]


def _angle(z0, z1):
    """The angle between rows and whether an arc at that angle is defined, `(N,)`."""
    rows = [z.reshape(z.shape[0], -1) for z in (z0, z1)]
    norms = [_norm(row) for row in rows]
    tiny = jnp.finfo(z0.dtype).tiny
    units = [
        row / jnp.maximum(norm, tiny)[:, None]
        for row, norm in zip(rows, norms, strict=True)
    ]
    # Kahan's formula: unlike the arc cosine of the product, exact for small angles.
    angle = 2 * jnp.arctan2(_norm(units[0] - units[1]), _norm(units[0] + units[1]))
    margin = jnp.sqrt(jnp.finfo(z0.dtype).eps)
    defined = (norms[0] > 0) & (norms[1] > 0) & (jnp.sin(angle) > margin)
    return angle, defined


def _norm(rows):
    """The norm of each row, with gradient 0 rather than NaN at rows of zeros."""
    squares = jnp.sum(rows**2, axis=-1)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)


def _check_grid(owner, n):
    if n < 1:
        raise ValueError(f"{owner}: n must be at least 1, got {n}.")
