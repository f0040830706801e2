"""A base reshaped by learned acceptance: resampling (LARS).

Bauer & Mnih 2019, section 3, https://arxiv.org/abs/1810.11428; as the base of a flow:
Stimper et al. 2022, section 3, https://arxiv.org/abs/2110.15828
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jflow.base import Base, check_latents
from jflow.bijector import Array, Params


def resampled(
    base: Base,
    net: Callable[[int], Any],
    truncation: int = 100,
    draws: int = 2048,
    seed: int = 0,
) -> Base:
    """Draws of `base` are accepted with probability `a(z) = sigmoid(net(z))`; the
    `truncation`-th is taken in any case.

    `p(z) = base(z) ((1 - r) a(z) / Z + r)`, `Z = E_base[a]`, `r = (1 - Z)^(T - 1)` the
    probability that draw T is reached. So islands and holes that a bijector
    can only stretch into being belong to the base. The net's last layer starts at zero,
    so the base starts as it was.

    Z is the mean of a over `draws` fixed draws of `base`, so `log_prob` is
    deterministic, and normalised for these draws. Its true integral is
    `(1 - r) Z_true / Z + r`, which is 1 within `(1 - r) sd(a) / (Z sqrt(draws))`, and
    log-densities are too high by about half the square of that. A flexible net can
    learn the draws by heart, which held-out data show only if Z is measured anew:
    the same `params` evaluate under `resampled(..., draws=many, seed=another)`.

    `params` is `{"base": ..., "net": ...}`. The temperature is that of `base`, and Z
    that of its draws at that temperature. Samples have no reverse-mode gradient: JAX
    raises an error there.

    Args:
        base: a distribution that needs no condition; it gets none.
        net: `out_features -> module` such as `jflow.nets.mlp(64)`; it sees latents
            flattened, `(N, features)`.
        truncation: T, the most draws per sample.
        draws: how many estimate Z; `log_prob` costs a pass of the net over them.
        seed: of these draws.

    Raises:
        TypeError: `base` is no Base.
        ValueError: `truncation` < 2 or `draws` < 1.

    Example:
        >>> import jflow
        >>> base = resampled(jflow.normal((2,)), jflow.nets.mlp(8))
        >>> params = base.init(jax.random.key(0), jnp.zeros((4, 2)))
        >>> base.sample(params, jax.random.key(1), 3).shape
        (3, 2)
    """
    if not isinstance(base, Base):
        raise TypeError(
            f"resampled: base is {base!r}, not a Base such as normal((2,))."
        )
    if truncation < 2 or draws < 1:
        raise ValueError(
            "resampled: truncation must be at least 2 and draws at least 1, got "
            f"{truncation} and {draws}."
        )
    module = net(1)

    def init(key, z, condition=None):
        check_latents("resampled", z, base.shape)
        base_key, net_key = jax.random.split(key)
        rows = z.reshape(z.shape[0], -1)
        return {"base": base.init(base_key, z), "net": module.init(net_key, rows)}

    def logit(params: Params, z: Array) -> Array:
        return module.apply(params["net"], z.reshape(z.shape[0], -1))[:, 0]

    def log_means(params, dtype, temperature):
        """log Z and log(1 - Z), neither by way of the other."""
        z = base.sample(
            params["base"], jax.random.key(seed), draws, temperature=temperature
        )
        at_draws = logit(params, z.astype(dtype))
        signed = jnp.stack([at_draws, -at_draws])
        return jax.nn.logsumexp(jax.nn.log_sigmoid(signed), axis=1) - math.log(draws)

    def log_prob(params, z, condition=None, temperature=1.0):
        log_z, log_rest = log_means(params, z.dtype, temperature)
        # Never 0: where no draw is rejected, log(1 - r) would have no gradient.
        small = jnp.finfo(log_rest.dtype).tiny
        log_reach = jnp.minimum((truncation - 1) * log_rest, -small)
        log_accepted = jnp.log(-jnp.expm1(log_reach)) - log_z
        log_a = jax.nn.log_sigmoid(logit(params, z))
        factor = jnp.logaddexp(log_accepted + log_a, log_reach)
        return base.log_prob(params["base"], z, temperature=temperature) + factor

    def sample(params, key, n, condition=None, temperature=1.0):
        def attempt(i):
            draw_key, accept_key = jax.random.split(jax.random.fold_in(key, i))
            new = base.sample(params["base"], draw_key, n, temperature=temperature)
            threshold = jax.random.logistic(accept_key, (n,))
            return new, threshold <= logit(params, new)

        def step(state):
            i, z, done = state
            new, kept = attempt(i)
            open_ = jnp.expand_dims(~done, range(1, z.ndim))
            return i + 1, jnp.where(open_, new, z), done | kept

        return jax.lax.while_loop(
            lambda state: (state[0] < truncation) & ~state[2].all(),
            step,
            (1, *attempt(0)),
        )[1]

    return Base(init, log_prob, sample, base.shape)
