"""Optimisers as the flow papers use them, built from Optax.

The same arguments give the same object again, so `adam(1e-3)` written in two calls of
`fit` compiles once.
"""

import jax.numpy as jnp
import optax

from jflow.arguments import cached


@cached
def adam(
    learning_rate: float | optax.Schedule = 1e-3,
    *,
    warmup: int = 0,
    clip: float | None = None,
    decay_steps: int | None = None,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015, https://arxiv.org/abs/1412.6980), warmed up and clipped.

    Args:
        learning_rate: the step size after warm-up, or a schedule `step -> step size`.
        warmup: over how many steps the step size rises linearly from near 0.
        clip: gradients with a larger global norm are scaled down to this norm.
        decay_steps: the step size falls to 0 along half a cosine that ends at this
            step, warm-up included (Durkan et al. 2019, appendix B,
            https://arxiv.org/abs/1906.04032).
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the second moment's root.

    Raises:
        ValueError: a number is out of its range, or a schedule comes with
            `decay_steps`.

    Example:
        >>> optimizer = adam(5e-4, warmup=1_000, clip=5.0, decay_steps=100_000)
    """
    schedule = _schedule("adam", learning_rate, warmup, decay_steps)
    return _clipped("adam", clip, optax.adam(schedule, b1, b2, eps))


@cached
def adamax(
    learning_rate: float | optax.Schedule = 1e-3,
    *,
    warmup: int = 0,
    clip: float | None = None,
    decay_steps: int | None = None,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """AdaMax, section 7.1 of Adam's paper and what Glow's code trains with.

    The same arguments as `adam`; `b2` is the decay of the infinity norm.

    Example:
        >>> optimizer = adamax(1e-3, warmup=10_000, clip=100.0)
    """
    schedule = _schedule("adamax", learning_rate, warmup, decay_steps)
    return _clipped("adamax", clip, optax.adamax(schedule, b1, b2, eps))


def _schedule(owner, learning_rate, warmup, decay_steps):
    given = callable(learning_rate)
    if not given and not learning_rate > 0:
        raise ValueError(
            f"{owner}: learning_rate must be positive, got {learning_rate}."
        )
    if not isinstance(warmup, int) or warmup < 0:
        raise ValueError(f"{owner}: warmup must be an integer >= 0, got {warmup!r}.")
    if decay_steps is not None and given:
        raise ValueError(f"{owner}: give a schedule or decay_steps, not both.")
    if decay_steps is not None and decay_steps <= warmup:
        raise ValueError(
            f"{owner}: decay_steps={decay_steps} counts the warm-up and must be larger "
            f"than warmup={warmup}."
        )
    if given:
        after = learning_rate
    elif decay_steps is None:
        after = optax.constant_schedule(learning_rate)
    else:
        cosine = optax.cosine_decay_schedule(learning_rate, decay_steps - warmup)

        def after(step):
            return cosine(jnp.maximum(step - warmup, 0))

    if not warmup:
        return after
    return lambda step: after(step) * jnp.minimum((step + 1) / warmup, 1.0)


def _clipped(owner, clip, optimizer):
    if clip is None:
        return optimizer
    if not clip > 0:
        raise ValueError(f"{owner}: clip must be positive or None, got {clip}.")
    return optax.chain(optax.clip_by_global_norm(clip), optimizer)
