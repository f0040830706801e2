"""The inverse of a monotone map that has none in closed form.

Newton's method inside a bracket that only ever shrinks; bisection where Newton leaves
the bracket or stalls. Gradients are those of the implicit function theorem, so no step
of the search is differentiated or stored.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jflow.bijector import Array
from jflow.scalars.scalar import promote


def numerical_inverse(forward: Callable, bracket: Callable | None = None) -> Callable:
    """The inverse pass of a scalar whose forward pass is increasing and onto.

    `dx = (dy - F_theta dtheta) / F_x` at the solution of `F(x; theta) = y`, to any
    order and in both modes; the log-derivative is `-log F_x` there.

    Args:
        forward: `(raw, x) -> (y, log_derivative)`, increasing in x.
        bracket: `(raw, y) -> (lower, upper)`, between which the solution is expected;
            where it is not, or without a bracket, the whole line is searched.

    Returns:
        `(raw, y) -> (x, log_derivative)`, to the accuracy of `forward`.
    """

    def inverse(raw, y):
        wide_raw, wide_y = promote(raw, y)

        def residual(x):
            return forward(wide_raw, x)[0] - wide_y

        def solve(_, start):
            ends = None if bracket is None else bracket(wide_raw, wide_y)
            return search(lambda x: forward(wide_raw, x), wide_y, start, ends)

        start = jax.lax.stop_gradient(wide_y)
        x = jax.lax.custom_root(residual, start, solve, _divide)
        return x.astype(y.dtype), -forward(wide_raw, x)[1]

    return inverse


def _divide(linear, b):
    """Solve `linear(a) = b` for an elementwise linear map of positive slope."""
    slope = linear(jnp.ones_like(b))
    return b / jnp.maximum(slope, jnp.finfo(slope.dtype).tiny)


def search(
    evaluate: Callable,
    y: Array,
    start: Array,
    ends: tuple[Array, Array] | None = None,
) -> Array:
    """Solve `evaluate(x)[0] = y`, every element on its own, until all have stopped.

    Args:
        evaluate: `x -> (y, log_derivative)`, increasing and onto.
        y: what is to be reached, float32 or better.
        start: where Newton's method starts, without `ends`.
        ends: two points between which the solution is expected.
    """
    info = jnp.finfo(y.dtype)
    # Typed like what `evaluate` returns: shard_map tells what differs between devices.
    zero = jnp.zeros_like(evaluate(start)[1])
    lower, upper = zero - _end(info), zero + _end(info)
    x = jnp.clip(start, lower, upper)
    if ends is not None:
        low, high = (jnp.clip(end, lower, upper) for end in ends)
        x = low + (high - low) / 2.0
        at_low, at_high = evaluate(jnp.stack([low, high]))[0]
        lower = jnp.where(at_low <= y, low, lower)
        upper = jnp.where(at_high >= y, high, upper)

    def step(state):
        i, x, lower, upper, last, done = state
        value, log_derivative = evaluate(x)
        lower = jnp.where(value <= y, x, lower)
        upper = jnp.where(value >= y, x, upper)
        newton = x - (value - y) * jnp.exp(-log_derivative)
        move = jnp.abs(newton - x)
        unit = jnp.maximum(jnp.abs(x), 1.0)
        inside = (newton >= lower) & (newton <= upper)
        shrinks = move <= 0.5 * last
        # So near, a step that does not shrink is rounding: a bisection would leap away.
        near = move <= info.eps**0.5 * unit
        accept = inside & (shrinks | near)
        new = jnp.where(accept, newton, _middle(lower, upper))
        stop = (accept & near & ~shrinks) | (jnp.abs(new - x) <= 2 * info.eps * unit)
        state = x, lower, upper, last, done
        moved = new, lower, upper, jnp.abs(new - x), done | stop
        kept = [jnp.where(done, a, b) for a, b in zip(state, moved, strict=True)]
        return (i + 1, *kept)

    # At worst every other step halves the bracket, in the digits of asinh(x).
    limit = 2 * info.nmant + 24
    lost = jnp.isnan(y + zero)
    state = 0, x, lower, upper, zero + jnp.inf, lost
    state = jax.lax.while_loop(
        lambda state: (state[0] < limit) & ~state[-1].all(), step, state
    )
    return jnp.where(lost, jnp.nan, state[1])


def _end(info):
    """How far out a solution is sought: short of where slopes overflow."""
    return 1e34 if info.bits <= 32 else 1e200


def _middle(lower, upper):
    """Half-way in asinh(x): decades far out, plain halves within -1 .. 1."""
    middle = jnp.sinh((jnp.arcsinh(lower) + jnp.arcsinh(upper)) / 2.0)
    return jnp.clip(middle, lower, upper)
