"""A flow: a bijector joined to a base distribution, as pure functions again."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jflow.arguments import (
    as_batch,
    as_count,
    broadcast_condition,
    check_finite,
    check_key,
    parameter_check,
)
from jflow.base import Base
from jflow.bijector import (
    Array,
    Bijector,
    Params,
    check_bijector_type,
    init_with_output,
    run,
)
from jflow.compilation import Effort, jit_whole, worth


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

    def make_params(key, x, condition):
        bijector_key, base_key = jax.random.split(key)
        params, z = init_with_output(bijector, bijector_key, x, condition)
        return {"bijector": params, "base": base.init(base_key, z, condition)}

    make_params, check_params = parameter_check(make_params)

    def init(key, x, condition=None):
        x = as_batch("init", "x", x)
        condition = broadcast_condition("init", condition, x.shape[0])
        return make_params(key, x, condition)

    def encode_with_log_det(owner, params, x, condition, key):
        x = as_batch(owner, "x", x)
        condition = broadcast_condition(owner, condition, x.shape[0])
        check_params(owner, params, x, condition)
        z, log_det = run(
            "encode", bijector.forward, params["bijector"], x, condition, key
        )
        _check_latents(owner, "the latents of x", z, base)
        return z, log_det, condition

    def log_prob(params, x, condition=None, key=None):
        z, log_det, condition = encode_with_log_det(
            "log_prob", params, x, condition, key
        )
        return base.log_prob(params["base"], z, condition) + log_det

    def encode(params, x, condition=None, key=None):
        return encode_with_log_det("encode", params, x, condition, key)[0]

    def decode(params, z, condition=None, key=None):
        z = as_batch("decode", "z", z)
        condition = broadcast_condition("decode", condition, z.shape[0])
        _check_latents("decode", "z", z, base)
        return generate("decode", params, z, condition, key)[0]

    def generate(owner, params, z, condition, key):
        x, log_det = run(
            "decode", bijector.inverse, params["bijector"], z, condition, key
        )
        check_params(owner, params, x, condition)
        return x, log_det

    def sample_and_log_prob(
        params, key, n, condition=None, temperature=1.0, chunk=None
    ):
        condition = broadcast_condition("sample", condition, n)
        base_key, noise_key = jax.random.split(key)
        z = base.sample(params["base"], base_key, n, condition, temperature)
        log_prob_z = base.log_prob(params["base"], z, condition, temperature)

        def decoded(z, condition, key):
            return generate("sample", params, z, condition, key)

        x, log_det = _in_chunks(decoded, z, condition, noise_key, chunk)
        return x, log_prob_z - log_det

    def sample(params, key, n, condition=None, temperature=1.0, chunk=None):
        return sample_and_log_prob(params, key, n, condition, temperature, chunk)[0]

    # Loops over few channels want the most of it, vectors' loops run faster without.
    effort = Effort.MOST if len(base.shape) > 1 else Effort.FULL
    jit = functools.partial(jit_whole, effort_of=lambda *_, **__: effort)
    return Flow(
        _checked_init(init),
        jit(log_prob),
        _checked_sample("sample", sample, jit),
        _checked_sample("sample_and_log_prob", sample_and_log_prob, jit),
        jit(encode),
        jit(decode),
        bijector,
        base,
    )


def _checked_init(init):
    """Checks of what jit would not let through, and of values."""

    def effort(key, x, condition):
        params = jax.eval_shape(init, key, x, condition)
        return min(worth(params, x.shape[0]), Effort.QUICK)

    run = jit_whole(init, effort)

    @functools.wraps(init)
    def checked(key, x, condition=None):
        check_key("init", key)
        x = x if hasattr(x, "dtype") else as_batch("init", "x", x)
        check_finite("init", x=x, condition=condition)
        return run(key, x, condition)

    return checked


def _checked_sample(owner, sample, jit):
    run = jit(sample, static_argnames=("n", "chunk"))

    @functools.wraps(run)
    def checked(params, key, n, condition=None, temperature=1.0, chunk=None):
        check_key(owner, key)
        n = as_count(owner, "n", n)
        chunk = None if chunk is None else as_count(owner, "chunk", chunk)
        return run(params, key, n, condition, temperature, chunk)

    return checked


def _check_latents(owner, name, z, base):
    if z.shape[1:] != base.shape:
        raise ValueError(
            f"{owner}: {name} are events {z.shape[1:]}, and the base is over "
            f"{base.shape}; pass events of the shape that init had."
        )


def _in_chunks(generate, z, condition, key, chunk):
    """Apply `generate` to `chunk` examples at a time, the last chunk padded."""
    n = z.shape[0]
    if chunk is None:
        return generate(z, condition, key)
    count = -(-n // chunk)

    def pieces(a):
        padded = jnp.concatenate([a, jnp.repeat(a[-1:], count * chunk - n, axis=0)])
        return padded.reshape(count, chunk, *a.shape[1:])

    keys = jax.random.split(key, count)
    stacked = jax.tree.map(pieces, (z, condition))
    outputs = jax.lax.map(lambda piece: generate(*piece[0], piece[1]), (stacked, keys))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], outputs)
