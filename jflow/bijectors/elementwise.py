"""A scalar for every coordinate, with parameters of its own."""

import jax.numpy as jnp

from jflow.bijector import Bijector, sum_event
from jflow.scalars.affine import multiplicative
from jflow.scalars.scalar import Scalar


def learned_raw(scalar: Scalar, shape: tuple[int, ...], dtype) -> jnp.ndarray:
    """Raw parameters `(*shape, size)`: zeros, then the scalar's learned values."""
    free = jnp.zeros((*shape, scalar.size - len(scalar.learned)), dtype)
    given = [
        jnp.broadcast_to(jnp.asarray(value, dtype), shape)[..., None]
        for value in scalar.learned
    ]
    return jnp.concatenate([free, *given], axis=-1)


def elementwise(scalar: Scalar) -> Bijector:
    """`z_i = f(x_i; theta_i)`, the parameters of every coordinate learned directly.

    The log-det is the sum of the scalars' log-derivatives. Starts as the identity where
    zero raw parameters give it.

    Raises:
        TypeError: `scalar` is not a Scalar.

    Example:
        >>> import jax, jflow
        >>> b = elementwise(jflow.scalars.affine())
        >>> params = b.init(jax.random.key(0), jnp.ones((4, 3)))
        >>> params["raw"].shape
        (3, 2)
    """
    check_scalar("elementwise", scalar)

    def init(key, x, condition=None):
        return {"raw": learned_raw(scalar, x.shape[1:], x.dtype)}

    def forward(params, x, condition=None, key=None):
        z, log_derivative = scalar.forward(params["raw"], x)
        return z, sum_event(log_derivative)

    def inverse(params, z, condition=None, key=None):
        x, log_derivative = scalar.inverse(params["raw"], z)
        return x, sum_event(log_derivative)

    return Bijector(init, forward, inverse)


def diagonal_scale(scale: str = "exp", *, deviation: float | None = None) -> Bijector:
    """`z_i = s_i x_i`, NICE's last layer (section 3.3).

    With the `"exp"` map `params["raw"][..., 0]` is `log s`; the prior's standard
    deviation along coordinate i is then `1 / s_i` (`jflow.latent.scale_spectrum`).

    Args:
        scale: the scale map, see `jflow.scalars.scales`.
        deviation: `init` sets the scales so that every coordinate of its batch comes
            out with this standard deviation, constant ones excepted. None: start as
            the identity.

    Raises:
        ValueError: no such scale map; a deviation that is not positive, or comes with
            another map than `"exp"`.
    """
    plain = elementwise(multiplicative(scale))
    if deviation is None:
        return plain
    if scale != "exp" or deviation <= 0:
        raise ValueError(
            f'diagonal_scale: deviation={deviation} must be positive and wants "exp", '
            f"the scale is {scale!r}."
        )

    def init(key, x, condition=None):
        found = x.std(axis=0)
        log_s = jnp.log(deviation / jnp.where(found > 1e-6, found, deviation))
        return {"raw": log_s[..., None].astype(x.dtype)}

    return plain._replace(init=init)


def check_scalar(owner: str, scalar: Scalar) -> None:
    """Raise TypeError where `scalar` is not a Scalar."""
    if not isinstance(scalar, Scalar):
        raise TypeError(
            f"{owner}: scalar is {scalar!r}, not a Scalar such as "
            "jflow.scalars.affine()."
        )
