"""Independent bases side by side along the last axis."""

import jax.numpy as jnp
import numpy as np

from jflow.base import Base, check_latents
from jflow.bijector import split_key


def joint(*bases: Base) -> Base:
    """`log p(z) = sum_i log p_i(z_i)`, `z` cut along the last axis into their events.

    `params` is the tuple of theirs; condition and temperature go to all of them.

    Args:
        *bases: over events that differ in their last size alone.

    Raises:
        TypeError: an argument that is no Base.
        ValueError: no argument, or events that differ before the last axis.

    Example:
        >>> import jax
        >>> from jflow.base import logistic, normal
        >>> base = joint(normal((2,)), logistic((1,)))
        >>> base.shape, base.sample(((), ()), jax.random.key(0), 5).shape
        ((3,), (5, 3))
    """
    for i, base in enumerate(bases):
        if not isinstance(base, Base):
            raise TypeError(
                f"joint: argument {i} is {base!r}, not a Base such as normal((2,))."
            )
    shapes = [base.shape for base in bases]
    if len({shape[:-1] for shape in shapes}) != 1:
        raise ValueError(
            "joint: takes one base or more, whose events agree but for their last axis; "
            f"got events {shapes}."
        )
    sizes = [shape[-1] for shape in shapes]
    shape = (*shapes[0][:-1], sum(sizes))
    cuts = [int(cut) for cut in np.cumsum(sizes)[:-1]]

    def init(key, z, condition=None):
        check_latents("joint", z, shape)
        keys, parts = split_key(key, len(bases)), jnp.split(z, cuts, axis=-1)
        return tuple(
            base.init(k, part, condition)
            for base, k, part in zip(bases, keys, parts, strict=True)
        )

    def log_prob(params, z, condition=None, temperature=1.0):
        parts = jnp.split(z, cuts, axis=-1)
        return sum(
            base.log_prob(p, part, condition, temperature)
            for base, p, part in zip(bases, params, parts, strict=True)
        )

    def sample(params, key, n, condition=None, temperature=1.0):
        parts = [
            base.sample(p, k, n, condition, temperature)
            for base, p, k in zip(
                bases, params, split_key(key, len(bases)), strict=True
            )
        ]
        return jnp.concatenate(parts, axis=-1)

    return Base(init, log_prob, sample, shape)
