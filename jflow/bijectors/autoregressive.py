"""Autoregressive structure: every dimension's scalar depends on earlier dimensions.

MAF, Papamakarios et al. 2017, section 3, https://arxiv.org/abs/1705.07057; by `invert`
IAF, Kingma et al. 2016, https://arxiv.org/abs/1606.04934.
"""

from collections.abc import Callable
from contextvars import ContextVar

import jax
import jax.numpy as jnp
import numpy as np

from jflow.bijector import Array, Bijector, sum_event
from jflow.bijectors.elementwise import check_scalar, learned_raw
from jflow.nets.made import Made
from jflow.scalars.scalar import Scalar

STRATEGIES = ("incremental", "jacobi", "sequential")
# `jflow.diagnostics.jacobi_sweeps` listens here.
sweep_listener: ContextVar[Callable | None] = ContextVar("sweep_listener", default=None)


def autoregressive(
    scalar: Scalar,
    net: Callable[[int, int], Made],
    *,
    inverse: str = "incremental",
    tolerance: float | None = None,
) -> Bijector:
    """`z_i = f(x_i; net(x_{<i}, condition))` for vectors `(N, D)`.

    The Jacobian is triangular, so the log-det is the sum of the scalars'
    log-derivatives. `forward` is one pass of the network. `inverse` finds the
    dimensions one after the other; its derivatives are those of the implicit function,
    whatever the strategy, and its log-det costs a pass more where it is asked for.

    Args:
        scalar: the law, `jflow.scalars.affine()` for instance.
        net: `(dimensions, size) -> Made`, see `jflow.nets.made`.
        inverse: how to undo it. `"incremental"`: each hidden unit is computed once, as
            soon as what it sees is known: one pass's arithmetic in all. `"jacobi"`:
            sweeps of the whole network over all dimensions at once, until what is left
            to go, as their moves shrink, is no more than `tolerance`; exact after as
            many as the longest path of dependence, where it ends at the latest (Song et
            al. 2021, https://arxiv.org/abs/2002.03629). `"sequential"`: a full pass for
            each step on that path, the plain reference.
        tolerance: of `"jacobi"`, relative to `1 + |x|`; by default 16 epsilons of the
            data's precision.

    Raises:
        TypeError: `scalar` or `net` is of another kind.
        ValueError: an unknown strategy, a tolerance that is not positive or has no use,
            or, at trace time, an event that is not a vector.

    Example:
        >>> import jflow
        >>> b = autoregressive(jflow.scalars.affine(), jflow.nets.made(32))
        >>> x = jax.random.normal(jax.random.key(0), (8, 3))
        >>> z, log_det = b.forward(b.init(jax.random.key(1), x), x)
    """
    check_scalar("autoregressive", scalar)
    if not callable(net):
        raise TypeError(f"autoregressive: net must build a Made, got {net!r}.")
    if inverse not in STRATEGIES:
        raise ValueError(
            f"autoregressive: inverse must be one of {STRATEGIES}, got {inverse!r}."
        )
    if tolerance is not None and (inverse != "jacobi" or tolerance <= 0):
        raise ValueError(
            f"autoregressive: tolerance={tolerance} must be positive, and is for "
            f'inverse="jacobi" alone; inverse is "{inverse}".'
        )
    predicted = scalar.size - len(scalar.learned)

    def network(x) -> Made:
        if x.ndim != 2:
            raise ValueError(
                f"autoregressive: events are vectors, got {x.shape[1:]}; put "
                "jflow.flatten before it."
            )
        built = net(x.shape[1], predicted)
        if not isinstance(built, Made):
            raise TypeError(f"autoregressive: net built {built!r}, not a Made.")
        return built

    def with_learned(params, raw, places=None):
        if not scalar.learned:
            return raw
        learned = params["learned"]
        if places is not None:
            learned = learned.at[places].get(mode="fill", fill_value=0)
        shape = (*raw.shape[:-1], len(scalar.learned))
        return jnp.concatenate([raw, jnp.broadcast_to(learned, shape)], axis=-1)

    def init(key, x, condition=None):
        params = {"net": network(x).init(key, x, condition)}
        if scalar.learned:
            raw = learned_raw(scalar, x.shape[1:], x.dtype)
            params["learned"] = raw[..., predicted:]
        return params

    def forward(params, x, condition=None, key=None):
        raw = network(x).apply(params["net"], x, condition)
        z, log_derivative = scalar.forward(with_learned(params, raw), x)
        return z, sum_event(log_derivative)

    def inverse_pass(params, z, condition=None, key=None):
        made = network(z)

        def sweep(x):
            """Every dimension from the others as they are; the solution stays."""
            raw = made.apply(params["net"], x, condition)
            return scalar.inverse(with_learned(params, raw), z)[0]

        def solve(_, start):
            if inverse == "incremental":
                return _incremental(scalar, with_learned, made, params, z, condition)
            if inverse == "jacobi":
                # Without a condition the network says of zeros the same to everyone.
                first = sweep(start[:1] if condition is None else start)
                return _jacobi(sweep, first, made.order.depth, tolerance)
            return _sequential(sweep, start, made.order)

        start = jnp.zeros_like(z)
        x = triangular_root(lambda x: x - sweep(x), start, solve, made.order.depth)
        return x, -forward(params, x, condition)[1]

    return Bijector(init, forward, inverse_pass)


def triangular_root(
    residual: Callable, start: Array, solve: Callable, depth: int
) -> Array:
    """The root of a residual whose Jacobian there is the identity and a nilpotent part.

    Derivatives, of any order and in both modes, are those of the implicit function.

    Args:
        residual: of `x`; it may close over what is differentiated.
        start: handed on to `solve`.
        solve: `(residual, start) -> x`, not differentiated.
        depth: the power at which the nilpotent part vanishes.
    """

    def tangent_solve(linear, rhs):
        def undo(apply, b):
            return _neumann(apply, b, depth)

        return jax.lax.custom_linear_solve(linear, rhs, undo, undo)

    return jax.lax.custom_root(residual, start, solve, tangent_solve)


def _incremental(scalar, with_learned, made, params, z, condition) -> Array:
    everywhere = scalar.take is None

    def solve(raw, z, places):
        if everywhere:
            return scalar.inverse(with_learned(params, raw, places), z)[0]
        # The law depends on the dimension: it is asked for all, and these are taken.
        wide = jnp.zeros((len(z), dimensions, raw.shape[-1]), raw.dtype)
        wide = wide.at[:, places].set(raw, mode="drop")
        full = (
            jnp.zeros((len(z), dimensions), z.dtype).at[:, places].set(z, mode="drop")
        )
        x = scalar.inverse(with_learned(params, wide), full)[0]
        return x.at[:, places].get(mode="fill", fill_value=0)

    dimensions = z.shape[1]
    return made.unroll(params["net"], solve, z, condition)


def _sequential(sweep, start, order) -> Array:
    # Of 32 bits whatever the mode: JAX may keep a constant that both modes share.
    level = np.asarray(order.level, np.int32)

    def step(i, x):
        return jnp.where(level == i, sweep(x), x)

    return jax.lax.fori_loop(0, order.depth, step, start)


def _jacobi(sweep, first, depth, tolerance) -> Array:
    """Sweeps from the first one's result on."""
    if tolerance is None:
        tolerance = 16 * float(jnp.finfo(first.dtype).eps)

    def finite(found, i):
        # What overflowed depends on what is not yet right: it starts anew.
        return jnp.where(jnp.isfinite(found) | (i == depth), found, 0)

    def moving(state):
        i, _, _, error = state
        return (i < depth) & ~(error <= tolerance)

    def step(state):
        i, x, before, _ = state
        found = sweep(x)
        moved = (jnp.abs(found - x) / (1 + jnp.abs(x))).max()
        # Moves that shrink by the same factor again and again would add up to this.
        left = moved**2 / jnp.maximum(before - moved, jnp.finfo(x.dtype).tiny)
        error = jnp.where(moved < before, left, moved)
        return i + 1, finite(found, i + 1), moved, error

    none = jnp.zeros_like(first, shape=())
    state = (1, finite(first, 1), none, none + jnp.inf)
    sweeps, x, _, _ = jax.lax.while_loop(moving, step, state)
    if (listen := sweep_listener.get()) is not None:
        jax.debug.callback(listen, sweeps)
    return x


def _neumann(apply, b, depth) -> Array:
    """Solve `apply(w) = b`, `apply` the identity and a nilpotent part: `depth` sweeps
    are exact, and it stops when what is left is rounding.
    """
    epsilon = float(jnp.finfo(b.dtype).eps)

    def moving(state):
        i, w, residual = state
        left = jnp.abs(residual).max() > epsilon * jnp.abs(w).max()
        return (i < depth) & left

    def step(state):
        i, w, residual = state
        w = w + residual
        return i + 1, w, b - apply(w)

    _, w, _ = jax.lax.while_loop(moving, step, (0, b, b - apply(b)))
    return w
