"""Block autoregressive layers: one masked network whose output is the latent itself.

Block Neural Autoregressive Flow, De Cao, Titov & Aziz 2019,
https://arxiv.org/abs/1904.04676.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jflow.bijector import Array, Bijector, check_positive, sum_event
from jflow.bijectors.autoregressive import triangular_root
from jflow.nets.layers import fit_condition, head_dtype
from jflow.scalars.scales import scale_map
from jflow.scalars.solve import search

# Slope of a hidden unit far outside: tanh alone would not be onto the line.
LEAK = 0.01


def block_autoregressive(*hidden: int, residual: bool = True) -> Bijector:
    """`z_i = f_i(x_i; x_{<i}, condition)`, f one network, increasing in x_i.

    Every dimension has `hidden` units of its own in each hidden layer (section 3.1).
    Weights from a dimension to itself are exponentials, those to later ones are free,
    to earlier ones zero; each unit's weights are normalised and have a learned length.
    Units are `0.99 tanh(u) + 0.01 u`, so that every f_i is onto the line with linear
    tails. With `residual`, `z = g f(x) + (1 - g) x`, g a learned gate between 0 and 1
    for every dimension (section 5, there one for all).

    The derivatives `dz_i / dx_i` are products of the blocks on the diagonal and the
    units' slopes, accumulated as logarithms; their sum is the log-det. The inverse
    finds dimension after dimension by safeguarded Newton steps in a bracket, each
    hidden unit of earlier dimensions computed once; its derivatives are those of the
    implicit function, and its log-det costs a pass more where it is asked for.

    Starts as a smooth map near `z = x`, though not at it: put `jflow.actnorm()` after.

    Args:
        *hidden: each hidden layer's units per dimension; the paper has 1 or 2 layers.
        residual: the gated residual connection.

    Raises:
        ValueError: `hidden` is empty or has other than positive integers; at trace
            time, an event that is no vector, a condition that is not `(N, c)`, or one
            in one of init and a pass only.

    Example:
        >>> b = block_autoregressive(8)
        >>> x = jax.random.normal(jax.random.key(0), (16, 3))
        >>> z, log_det = b.forward(b.init(jax.random.key(1), x), x)
    """
    if not hidden:
        raise ValueError(
            "block_autoregressive: hidden is empty, and the map would be linear; "
            "block_autoregressive(8) for instance."
        )
    for width in hidden:
        check_positive("block_autoregressive", hidden=width)
    widths = (1, *hidden, 1)

    def init(key, x, condition=None):
        _check_vectors(x)
        *keys, last = jax.random.split(key, len(widths))
        wide = head_dtype(x)
        layers = [
            _start(keys[i], x.shape[1], widths[i], widths[i + 1], i, wide)
            for i in range(len(hidden))
        ]
        key, last = jax.random.split(last)
        layers.append(_start(last, x.shape[1], widths[-2], 1, None, wide))
        params = {"layers": layers}
        if condition is not None:
            size = fit_condition(condition, x).shape[-1], x.shape[1] * hidden[0]
            params["condition"] = jax.random.normal(key, size, wide) / size[0] ** 0.5
        if residual:
            params["gate"] = jnp.zeros(x.shape[1:], wide)
        return params

    def gated(gate, x, y, log_slope):
        if gate is None:
            return y, log_slope
        log_open, log_shut = jax.nn.log_sigmoid(gate), jax.nn.log_sigmoid(-gate)
        y = jnp.exp(log_open) * y + jnp.exp(log_shut) * x
        return y, jnp.logaddexp(log_open + log_slope, log_shut)

    def elements(params, x, condition):
        """Latents and the log-derivative of each by its own dimension, `(N, D)`."""
        free, blocks = zip(*map(_weights, params["layers"]), strict=True)
        bias = _biases(params, x, condition)

        def context(i, h):
            return _product("nja,ibja->nib", h, free[i]) + bias[i]

        y, log_slope, _ = _through(blocks, context, x)
        return gated(params.get("gate"), x, y, log_slope)

    def forward(params, x, condition=None, key=None):
        _check_vectors(x)
        z, log_slope = elements(params, x.astype(head_dtype(x)), condition)
        return z.astype(x.dtype), sum_event(log_slope)

    def inverse(params, z, condition=None, key=None):
        _check_vectors(z)
        wide = z.astype(head_dtype(z))

        def solve(_, start):
            return _dimension_by_dimension(params, gated, wide, condition)

        def residue(x):
            y, log_slope = elements(params, x, condition)
            # Over its diagonal the Jacobian is the identity and a nilpotent part.
            return (y - wide) * jnp.exp(-jax.lax.stop_gradient(log_slope))

        x = triangular_root(residue, jnp.zeros_like(wide), solve, z.shape[1])
        x = x.astype(z.dtype)
        return x, -forward(params, x, condition)[1]

    return Bijector(init, forward, inverse)


def _start(key, dimensions, n_in, n_out, place, dtype):
    """A layer's parameters; `place` is None for the last one."""
    kernel_key, bias_key = jax.random.split(key)
    shape = dimensions, n_out, dimensions, n_in
    kernel = jax.random.normal(kernel_key, shape, dtype) / (dimensions * n_in) ** 0.5
    # Units that differ in where they bend.
    spread = 0.0 if place is None else 1.0
    return {
        "kernel": kernel,
        "raw_gain": jnp.zeros((dimensions, n_out), dtype),
        "bias": spread * jax.random.normal(bias_key, (dimensions, n_out), dtype),
    }


def _weights(layer) -> tuple[Array, Array]:
    """Weights between dimensions, `(D, out, D, in)`, and the logarithms of those within
    a dimension, `(D, out, in)`, both normalised for each unit.
    """
    kernel = layer["kernel"]
    each = np.arange(len(kernel))
    log_block = kernel[each, :, each, :]
    free = (
        kernel
        * np.tril(np.ones((len(kernel),) * 2, kernel.dtype), -1)[:, None, :, None]
    )
    # In units of the largest entry, so that no square over- or underflows.
    tiny = jnp.finfo(kernel.dtype).tiny
    largest = jnp.log(jnp.maximum(jnp.abs(free).max((2, 3)), tiny))
    largest = jax.lax.stop_gradient(jnp.maximum(largest, log_block.max(-1)))
    inner = jnp.exp(2.0 * (log_block - largest[..., None])).sum(-1)
    outer = jnp.square(free * jnp.exp(-largest)[..., None, None]).sum((2, 3))
    log_gain = scale_map("soft_clip").log_scale(layer["raw_gain"])
    log_gain = log_gain - 0.5 * np.log(kernel.shape[-1])
    log_scale = log_gain - largest - 0.5 * jnp.log(inner + outer)
    return free * jnp.exp(log_scale)[..., None, None], log_block + log_scale[..., None]


def _biases(params, x, condition) -> list[Array]:
    """Each layer's, `(N or 1, D, units)`; the condition moves the first one."""
    if ("condition" in params) != (condition is not None):
        given = "without" if "condition" in params else "with"
        raise ValueError(
            f"block_autoregressive: called {given} a condition, but initialised the "
            "other way; pass condition= to both or to neither."
        )
    biases = [layer["bias"][None] for layer in params["layers"]]
    if condition is not None:
        condition = fit_condition(condition, x).astype(params["condition"].dtype)
        moved = jnp.matmul(condition, params["condition"], precision="highest")
        biases[0] = biases[0] + moved.reshape(len(condition), *biases[0].shape[1:])
    return biases


def _through(blocks, context: Callable, x: Array) -> tuple[Array, Array, list[Array]]:
    """The network over `x` `(N, k)`: values, log-derivatives, and each layer's input.

    `context(i, h)` is what reaches layer i from elsewhere: earlier dimensions, biases.
    """
    h, log_slope, inputs = x[..., None], jnp.zeros_like(x)[..., None], []
    for i, log_block in enumerate(blocks):
        inputs.append(h)
        u = _product("nia,iba->nib", h, jnp.exp(log_block)) + context(i, h)
        log_slope = _log_product(log_slope, log_block)
        if i < len(blocks) - 1:
            h = (1.0 - LEAK) * jnp.tanh(u) + LEAK * u
            log_slope = log_slope + _log_unit_slope(u)
    return u[..., 0], log_slope[..., 0], inputs


def _log_unit_slope(u):
    e = jnp.exp(-2.0 * jnp.abs(u))
    return jnp.log((1.0 - LEAK) * 4.0 * e / (1.0 + e) ** 2 + LEAK)


def _log_product(log_vector: Array, log_matrix: Array) -> Array:
    """`log(exp(log_matrix) exp(log_vector))`, of which nothing over- or underflows."""
    scale = jax.lax.stop_gradient(log_vector.max(-1, keepdims=True))
    row = jax.lax.stop_gradient(log_matrix.max(-1))
    total = _product(
        "nia,iba->nib",
        jnp.exp(log_vector - scale),
        jnp.exp(log_matrix - row[..., None]),
    )
    return jnp.log(jnp.maximum(total, jnp.finfo(total.dtype).tiny)) + scale + row


def _dimension_by_dimension(params, gated, z, condition) -> Array:
    """The inverse, each dimension's root given those before it."""
    free, blocks = zip(*map(_weights, params["layers"]), strict=True)
    bias = _biases(params, z, condition)
    steps = {
        "place": np.arange(z.shape[1]),
        "z": z.T,
        "free": free,
        "blocks": blocks,
        "bias": [jnp.moveaxis(b, 1, 0) for b in bias],
        "gate": params.get("gate"),
    }

    def step(known, now):
        given = [
            (_product("nja,bja->nb", h, w) + b)[:, None]
            for h, w, b in zip(known, now["free"], now["bias"], strict=True)
        ]

        def through(x):
            return _through(
                [b[None] for b in now["blocks"]], lambda i, h: given[i], x[:, None]
            )

        def evaluate(x):
            y, log_slope, _ = through(x)
            return gated(now["gate"], x, y[:, 0], log_slope[:, 0])

        x = search(evaluate, now["z"], now["z"])
        known = [
            jax.lax.dynamic_update_slice(all_of, h, (0, now["place"], 0))
            for all_of, h in zip(known, through(x)[2], strict=True)
        ]
        return known, x

    nothing = [jnp.zeros_like(z, shape=(*z.shape, b.shape[-1])) for b in blocks]
    return jax.lax.scan(step, nothing, steps)[1].T


def _product(axes: str, a: Array, b: Array) -> Array:
    return jnp.einsum(axes, a, b, precision="highest")


def _check_vectors(x):
    if x.ndim != 2:
        raise ValueError(
            f"block_autoregressive: events are vectors, got {x.shape[1:]}; put "
            "jflow.flatten before it."
        )
