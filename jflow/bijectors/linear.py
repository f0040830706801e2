"""Invertible linear maps of the last axis: 1x1 convolutions on images.

Glow, Kingma & Dhariwal 2018, section 3.2, https://arxiv.org/abs/1807.03039.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jflow.bijector import (
    Bijector,
    check_positive,
    expand_log_det,
    positions,
    zero_log_det,
)
from jflow.bijectors.amortised import amortised
from jflow.bijectors.matrices import KINDS
from jflow.bijectors.rank_one import constrain, undo, update
from jflow.mixing import matmul, mixing
from jflow.scalars.scales import scale_map


def invertible_linear(
    kind: str = "lu", *, offset: bool = False, net: Any = None
) -> Bijector:
    """`z = x W + b` over the last axis; log-det = positions * log|det W|.

    Starts at a random rotation and without an offset. Products run at
    `precision="highest"`, and W or its inverse is computed once per call.

    | kind | W | log abs det W |
    | --- | --- | --- |
    | `"lu"` | `P L (U + diag(sign * exp(log_s)))`, P and the signs fixed | sum(log_s) |
    | `"dense"` | itself | by `slogdet` |
    | `"qr"` | `Q (U + diag(exp(log_s)))`, Q of reflections | sum(log_s) |
    | `"svd"` | `Q_1 diag(exp(log_s)) Q_2^T`, both Q of reflections | sum(log_s) |
    | `"expm"` | the matrix exponential `exp(A)`, W^-1 = exp(-A) | trace(A) |
    | `"rotation"` | a fixed random rotation | 0 |
    | `"cayley"` | `(I + A)^-1 (I - A)`, A antisymmetric | 0 |
    | `"skew_expm"` | `exp(A)`, A antisymmetric | 0 |
    | `"householder"` | a product of n reflections | 0 |

    All but `"dense"` keep W regular whatever the parameters; the last three are learned
    orthogonal matrices. LU: Glow, section 3.2. QR: Hoogeboom et al. 2019,
    https://arxiv.org/abs/1901.11137. Exponential: Xiao & Liu 2020,
    https://arxiv.org/abs/2007.09651. Reflections: Tomczak & Welling 2016, section 3,
    https://arxiv.org/abs/1611.09630.

    Args:
        kind: how W is parametrised.
        offset: learn b, one number per channel.
        net: b also moves with the condition: `out_features -> module` with
            `init(key, condition)` and `apply(params, condition)`, `jflow.nets.mlp(64)`
            for instance; the condition is then `(N, c)`, or absent altogether.

    Raises:
        TypeError: `net` is no such function.
        ValueError: an unknown kind.

    Example:
        >>> b = invertible_linear()
        >>> x = jax.random.normal(jax.random.key(0), (2, 4, 4, 6))
        >>> z, log_det = b.forward(b.init(jax.random.key(1), x), x)
    """
    if kind not in KINDS:
        raise ValueError(
            f"invertible_linear: kind must be one of {tuple(KINDS)}, got {kind!r}."
        )
    w = KINDS[kind]
    shift = _offset("invertible_linear", net) if offset or net is not None else None

    def init(key, x, condition=None):
        params = w.start(key, x.shape[-1], x.dtype)
        return params if shift is None else params | shift.init(key, x, condition)

    def log_det(params, x):
        if w.log_abs_det is None:
            return zero_log_det(x)
        return expand_log_det(positions(x) * w.log_abs_det(params), x)

    def forward(params, x, condition=None, key=None):
        z = matmul(x, w.matrix(params))
        if shift is not None:
            z = z + shift.values(params, x, condition)
        return z, log_det(params, x)

    def inverse(params, z, condition=None, key=None):
        moved = z if shift is None else z - shift.values(params, z, condition)
        return matmul(moved, w.inverse(params)), -log_det(params, z)

    kind = "matrix" if shift is None else None
    return Bijector(init, mixing(kind, forward), mixing(kind, inverse))


def low_rank_linear(rank: int, *, net: Any = None) -> Bijector:
    """`z = (x A) * s + b`, A the identity plus a matrix of the given rank.

    `A = (I + w_1 u_1^T) ... (I + w_r u_r^T)`, each `u_k . w_k > -1`, so A is regular
    whatever the parameters. It is applied and undone by Woodbury's identity, with
    triangular systems of the size of the rank, at `2 r D` multiplications a row. By the
    determinant lemma log-det is positions times the sum of all `log s` and
    `log(1 + u_k . w_k)`.
    Starts near the identity; the scales s stay between 1/1000 and 1000.

    Args:
        rank: how many updates.
        net: b also moves with the condition, see `invertible_linear`.

    Raises:
        TypeError: `net` is no function.
        ValueError: `rank` is no positive integer.

    Example:
        >>> b = low_rank_linear(2)
        >>> x = jax.random.normal(jax.random.key(0), (8, 100))
        >>> z, log_det = b.forward(b.init(jax.random.key(1), x), x)
    """
    check_positive("low_rank_linear", rank=rank)
    shift = _offset("low_rank_linear", net)
    log_scale, _ = scale_map("soft_clip")

    def init(key, x, condition=None):
        n = x.shape[-1]
        u_key, w_key, net_key = jax.random.split(key, 3)
        return {
            "raw_scale": jnp.zeros((n,), x.dtype),
            "u": 0.01 * jax.random.normal(u_key, (rank, n), x.dtype),
            "w": jax.random.normal(w_key, (rank, n), x.dtype) / n**0.5,
            **shift.init(net_key, x, condition),
        }

    def parts(params, x):
        u, products = constrain(params["u"], params["w"])
        log_s = log_scale(params["raw_scale"])
        one = log_s.sum() + jnp.log1p(products).sum()
        return u[None], params["w"][None], products[None], log_s, positions(x) * one

    def forward(params, x, condition=None, key=None):
        u, w, _, log_s, log_det = parts(params, x)
        z = update(x.reshape(-1, x.shape[-1]), u, w).reshape(x.shape)
        z = z * jnp.exp(log_s) + shift.values(params, x, condition)
        return z.astype(x.dtype), expand_log_det(log_det, x)

    def inverse(params, z, condition=None, key=None):
        u, w, products, log_s, log_det = parts(params, z)
        x = (z - shift.values(params, z, condition)) * jnp.exp(-log_s)
        x = undo(x.reshape(-1, z.shape[-1]), u, w, products).reshape(z.shape)
        return x.astype(z.dtype), expand_log_det(-log_det, z)

    return Bijector(init, forward, inverse)


def _offset(owner, net):
    """Numbers per channel that start at zero, and move with the condition."""
    source = amortised(owner, net)

    def init(key, x, condition):
        return {"offset": source.init(key, jnp.zeros(x.shape[-1:], x.dtype), condition)}

    def values(params, x, condition):
        raw = source.values(params["offset"], condition, len(x))
        return raw.reshape(len(raw), *(1,) * (x.ndim - 2), -1).astype(x.dtype)

    return source._replace(init=init, values=values)
