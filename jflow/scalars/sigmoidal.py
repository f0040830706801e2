"""Deep sigmoidal flow: monotone networks of logistic units.

Neural Autoregressive Flows, Huang et al. 2018, https://arxiv.org/abs/1804.00779.
"""

import jax
import jax.numpy as jnp

from jflow.bijector import check_positive
from jflow.scalars.distributions import LOGISTIC
from jflow.scalars.mixture import gains, transport
from jflow.scalars.scalar import Scalar, promote
from jflow.scalars.scales import scale_map
from jflow.scalars.solve import numerical_inverse


def deep_sigmoidal(units: int, layers: int = 1) -> Scalar:
    """`y = logit(sum_k w_k sigmoid(a_k x + b_k))`, `layers` of them in a row.

    NAF's deep sigmoidal flow, section 3.1, https://arxiv.org/abs/1804.00779: weights w
    are positive and sum to 1, slopes a are positive, so every layer is increasing and
    onto the real line. A layer takes `3 units` raw parameters: logits of w, offsets b,
    log-slopes (soft-clipped, a lies between 1/1000 and 1000).

    Zero raw parameters give the identity. So that equal units part, their offsets and
    log-slopes are raw numbers times factors that differ from unit to unit. The inverse
    is numerical, with exact gradients.

    Args:
        units: logistic units of a layer.
        layers: how many layers, at most 3.

    Raises:
        ValueError: `units` or `layers` is no positive integer, or more than 3 layers.

    Example:
        >>> import jax.numpy as jnp
        >>> scalar = deep_sigmoidal(8, layers=2)
        >>> y, log_derivative = scalar.forward(jnp.zeros((3, scalar.size)), jnp.ones(3))
    """
    check_positive("deep_sigmoidal", units=units, layers=layers)
    if layers > 3:  # three slopes of 1000 are all that float32 holds far outside
        raise ValueError(
            f"deep_sigmoidal: layers must be at most 3, got {layers}; "
            "use more units, or several couplings."
        )
    log_scale, _ = scale_map("soft_clip")

    def layer(raw, x):
        gain = gains(units, raw.dtype)
        logits, offsets, slopes = jnp.split(raw, 3, axis=-1)
        log_slope = log_scale(slopes * gain[::-1])
        u = x[..., None] * jnp.exp(log_slope) + offsets * gain
        log_weight = jax.nn.log_softmax(logits)
        return transport(LOGISTIC, LOGISTIC, log_weight, log_slope, u)

    def forward(raw, x):
        wide_raw, y = promote(raw, x)
        log_derivative = 0.0
        for part in jnp.split(wide_raw, layers, axis=-1):
            y, log_slope = layer(part, y)
            log_derivative = log_derivative + log_slope
        return y.astype(x.dtype), log_derivative

    return Scalar(3 * units * layers, forward, numerical_inverse(forward))
