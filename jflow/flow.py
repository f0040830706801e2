"""A flow: a bijector joined to a base distribution, as pure functions again."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jflow.base import Base
from jflow.bijector import (
    Array,
    Bijector,
    Params,
    check_bijector_type,
    init_with_output,
    run,
)


class Flow(NamedTuple):
    """A density over data `(N, *event)`, as pure functions; each is jitted already.

    Attributes:
        init: `(key, x, condition=None) -> params`, fitted to the batch `x`. `params` is
            `{"bijector": ..., "base": ...}`.
        log_prob: `(params, x, condition=None, key=None) -> (N,)`, in nats.
        sample: `(params, key, n, condition=None, temperature=1.0, chunk=None)`
            `-> (n, *event)`.
        sample_and_log_prob: the same arguments `-> (samples, (n,))`; the log-density is
            that of what was sampled, temperature included.
        encode: `(params, x, condition=None, key=None) -> z`, data to latent.
        decode: `(params, z, condition=None, key=None) -> x`, latent to data.
        bijector: what it is made of.
        base: what it is made of.

    `key` feeds stochastic layers (dequantization) and no other. Every array of the
    condition has the batch as axis 0, or a 1 there that is broadcast. With `chunk`,
    the same latents are decoded `chunk` at a time, so that the networks' activations
    fit where those of `n` samples would not.
    """

    init: Callable[..., Params]
    log_prob: Callable[..., Array]
    sample: Callable[..., Array]
    sample_and_log_prob: Callable[..., tuple[Array, Array]]
    encode: Callable[..., Array]
    decode: Callable[..., Array]
    bijector: Bijector
    base: Base


def flow(bijector: Bijector, base: Base) -> Flow:
    """Join a bijector to a base: `log p(x) = log p_base(forward(x)) + log_det`.

    Args:
        bijector: maps data to latents.
        base: a distribution over events of the latents' shape.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: at `init`, if the latents do not have the base's shape; at trace
            time, if a condition's batch axis fits neither the data nor 1.

    Example:
        >>> import jflow
        >>> f = flow(jflow.actnorm(), jflow.normal((2,)))
        >>> x = jax.random.normal(jax.random.key(0), (8, 2))
        >>> params = f.init(jax.random.key(1), x)
        >>> f.log_prob(params, x).shape, f.sample(params, jax.random.key(2), 5).shape
        ((8,), (5, 2))
    """
    check_bijector_type("flow", bijector)
    if not isinstance(base, Base):
        raise TypeError(f"flow: base is {base!r}, not a Base such as normal((2,)).")

    def init(key, x, condition=None):
        x = _batch(x)
        condition = _broadcast(condition, x.shape[0])
        bijector_key, base_key = jax.random.split(key)
        params, z = init_with_output(bijector, bijector_key, x, condition)
        return {"bijector": params, "base": base.init(base_key, z, condition)}

    def encode_with_log_det(params, x, condition, key):
        x = _batch(x)
        condition = _broadcast(condition, x.shape[0])
        z, log_det = run(
            "encode", bijector.forward, params["bijector"], x, condition, key
        )
        return z, log_det, condition

    def log_prob(params, x, condition=None, key=None):
        z, log_det, condition = encode_with_log_det(params, x, condition, key)
        return base.log_prob(params["base"], z, condition) + log_det

    def encode(params, x, condition=None, key=None):
        return encode_with_log_det(params, x, condition, key)[0]

    def decode(params, z, condition=None, key=None):
        condition = _broadcast(condition, z.shape[0])
        return run("decode", bijector.inverse, params["bijector"], z, condition, key)[0]

    def sample_and_log_prob(
        params, key, n, condition=None, temperature=1.0, chunk=None
    ):
        condition = _broadcast(condition, n)
        base_key, noise_key = jax.random.split(key)
        z = base.sample(params["base"], base_key, n, condition, temperature)
        log_prob_z = base.log_prob(params["base"], z, condition, temperature)

        def generate(z, condition, key):
            return run(
                "decode", bijector.inverse, params["bijector"], z, condition, key
            )

        x, log_det = _in_chunks(generate, z, condition, noise_key, chunk)
        return x, log_prob_z - log_det

    def sample(params, key, n, condition=None, temperature=1.0, chunk=None):
        return sample_and_log_prob(params, key, n, condition, temperature, chunk)[0]

    static = ("n", "chunk")
    return Flow(
        jax.jit(init),
        jax.jit(log_prob),
        jax.jit(sample, static_argnames=static),
        jax.jit(sample_and_log_prob, static_argnames=static),
        jax.jit(encode),
        jax.jit(decode),
        bijector,
        base,
    )


def _batch(x: Any) -> Array:
    x = jnp.asarray(x)
    if x.ndim < 2 or x.shape[0] == 0:
        raise ValueError(
            f"x: expected a batch (N, *event) with N >= 1, got shape {x.shape}; "
            "add the batch axis with x[None], and an event axis with x[:, None]."
        )
    return x


def _broadcast(condition: Any, n: int) -> Any:
    def leaf(c):
        c = jnp.asarray(c)
        if c.ndim == 0 or c.shape[0] not in (1, n):
            raise ValueError(
                f"condition: axis 0 of every array must be the batch of {n} (or 1, "
                f"which is broadcast), got shape {c.shape}."
            )
        return jnp.broadcast_to(c, (n, *c.shape[1:]))

    return jax.tree.map(leaf, condition)


def _in_chunks(generate, z, condition, key, chunk):
    """Apply `generate` to `chunk` examples at a time, the last chunk padded."""
    n = z.shape[0]
    if chunk is None:
        return generate(z, condition, key)
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}.")
    count = -(-n // chunk)

    def pieces(a):
        padded = jnp.concatenate([a, jnp.repeat(a[-1:], count * chunk - n, axis=0)])
        return padded.reshape(count, chunk, *a.shape[1:])

    keys = jax.random.split(key, count)
    stacked = jax.tree.map(pieces, (z, condition))
    outputs = jax.lax.map(lambda piece: generate(*piece[0], piece[1]), (stacked, keys))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], outputs)
