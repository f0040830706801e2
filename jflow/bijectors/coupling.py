"""Coupling: one part of the event sets the parameters of the other's scalars.

NICE, Dinh et al. 2015, section 3.2, https://arxiv.org/abs/1410.8516; RealNVP, Dinh et
al. 2017, sections 3.1 to 3.4, https://arxiv.org/abs/1605.08803.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jflow.bijector import Bijector, sum_event
from jflow.bijectors.elementwise import check_scalar, learned_raw
from jflow.bijectors.masks import check_mask, partition
from jflow.scalars.scalar import Scalar, restricted


def coupling(
    scalar: Scalar,
    net: Callable[[int], Any],
    mask: Any = "half",
    *,
    swap: bool = False,
    passive: Scalar | None = None,
) -> Bijector:
    """`z_passive = x_passive`, `z_active = f(x_active; net(x_passive, condition))`.

    The Jacobian is block triangular, so the log-det is the sum of the active scalars'
    log-derivatives. The network's outputs are only those that the active part needs.

    Args:
        scalar: the law of the active part, `jflow.scalars.affine()` for instance.
        net: `out_features -> module` with `init(key, x, condition) -> params` and
            `apply(params, x, condition) -> (..., out_features)`; `jflow.nets` has some.
        mask: which places are passive. `"half"`: the first half of the last axis
            (vectors: dimensions, images: channels; the smaller half where the size is
            odd). `"interleaved"`: the even places of the last axis. `"checkerboard"`:
            where row + column is odd. Or a boolean array that broadcasts to the event,
            True where passive; for events of more than one axis the network then sees
            the whole event, zero at active places.
        swap: exchange the two parts (the other half, the other parity).
        passive: a scalar with directly learned parameters for the passive part, applied
            after the network has read it.

    Raises:
        TypeError: `scalar`, `passive` or `net` is of another kind.
        ValueError: an unknown mask, or, at trace time, one that does not fit the event;
            a network whose output has another size.

    Example:
        >>> import jax, jflow
        >>> b = coupling(jflow.scalars.affine(), jflow.nets.mlp(16))
        >>> x = jax.random.normal(jax.random.key(0), (8, 6))
        >>> z, log_det = b.forward(b.init(jax.random.key(1), x), x)
    """
    check_scalar("coupling", scalar)
    if passive is not None:
        check_scalar("coupling, passive", passive)
    if not callable(net):
        raise TypeError(
            f"coupling: net must map out_features to a module, got {net!r}."
        )
    check_mask(mask)

    def part(x):
        """The partition, and the laws of its passive and its active places."""
        found = partition(mask, swap, x.shape[1:])
        own = None if passive is None else restricted(passive, found.places[0])
        return found, own, restricted(scalar, found.places[1])

    def module(law, active):
        return net((law.size - len(law.learned)) * active.shape[-1])

    def raw_parameters(law, params, kept, active, condition):
        """The network's output as `(*active.shape, size)`, learned values appended."""
        predicted = law.size - len(law.learned)
        out = module(law, active).apply(params["net"], kept, condition)
        expected = (*active.shape[:-1], predicted * active.shape[-1])
        if out.shape != expected:
            raise ValueError(
                f"coupling: the network returned {out.shape}, expected {expected}; "
                "build its last layer with the out_features it is given."
            )
        # Else XLA computes the cotangents of one active place twice, in two shapes.
        out = jax.lax.optimization_barrier(out)
        rows = out.reshape(*active.shape[:-1], predicted, active.shape[-1])
        if law.learned:
            learned = jnp.swapaxes(params["learned"], -1, -2)
            shape = *active.shape[:-1], *learned.shape[-2:]
            learned = jnp.broadcast_to(learned, shape)
            rows = jnp.concatenate([rows, learned], axis=-2)
        return jnp.swapaxes(rows, -1, -2)

    def init(key, x, condition=None):
        parts, own, law = part(x)
        kept, active = parts.split(x)
        params = {"net": module(law, active).init(key, kept, condition)}
        if law.learned:
            raw = learned_raw(law, active.shape[-1:], x.dtype)
            params["learned"] = raw[..., law.size - len(law.learned) :]
        if own is not None:
            params["passive"] = learned_raw(own, kept.shape[1:], x.dtype)
        return params

    def forward(params, x, condition=None, key=None):
        parts, own, law = part(x)
        kept, active = parts.split(x)
        raw = raw_parameters(law, params, kept, active, condition)
        active, log_derivative = law.forward(raw, active)
        log_det = sum_event(parts.zero_passive(log_derivative))
        if own is not None:
            kept, log_derivative = own.forward(params["passive"], kept)
            log_det = log_det + sum_event(parts.zero_active(log_derivative))
        return parts.merge(kept, active), log_det

    def inverse(params, z, condition=None, key=None):
        parts, own, law = part(z)
        kept, active = parts.split(z)
        log_det = jnp.zeros(())
        if own is not None:
            kept, log_derivative = own.inverse(params["passive"], kept)
            kept, log_derivative = map(parts.zero_active, (kept, log_derivative))
            log_det = sum_event(log_derivative)
        raw = raw_parameters(law, params, kept, active, condition)
        active, log_derivative = law.inverse(raw, active)
        log_det = log_det + sum_event(parts.zero_passive(log_derivative))
        return parts.merge(kept, active), log_det

    return Bijector(init, forward, inverse)
