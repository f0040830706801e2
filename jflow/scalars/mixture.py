"""Distribution functions of mixtures, carried to the real line.

Flow++, Ho et al. 2019, https://arxiv.org/abs/1902.00275; Gaussianization Flows, Meng et
al. 2020, https://arxiv.org/abs/2003.01941.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jflow.bijector import Array, check_positive
from jflow.scalars.distributions import LOGISTIC, NORMAL, Distribution
from jflow.scalars.scalar import Scalar, promote
from jflow.scalars.scales import SOFT_CLIP_LIMIT, scale_map
from jflow.scalars.solve import numerical_inverse
from jflow.scalars.tails import with_linear_tails

KINDS = {"logistic": LOGISTIC, "normal": NORMAL}
# In widths of the components: from here on the map is continued along its tangent.
REACH = 100.0
# Of a component that starts in a cell between quantiles, in widths of the cell.
WIDTH = 0.5


def mixture_cdf(components: int, kind: str = "logistic") -> Scalar:
    """`y = e^a logit(F(x)) + b`, F the distribution function of a mixture.

    `F(x) = sum_k pi_k G((x - mu_k) / s_k)`, G the logistic or the normal distribution
    function: Flow++'s coupling law, section 3.2, https://arxiv.org/abs/1902.00275. It
    has `3 components + 2` raw parameters: logits of pi, means, log-scales, b and a.
    Scales, `e^a` too, lie between 1/1000 and 1000. More than 100 widths outside of
    all components the map goes on along its tangent.

    At zero raw parameters all components agree, and with `"logistic"` the map is the
    identity. So that they part, the k-th mean and log-scale are raw numbers times
    factors that differ from component to component. The inverse is numerical, with
    exact gradients.

    Args:
        components: how many components.
        kind: what G is, `"logistic"` or `"normal"`.

    Raises:
        ValueError: `components` is no positive integer, or no such kind.

    Example:
        >>> import jax.numpy as jnp
        >>> scalar = mixture_cdf(4)
        >>> y, log_derivative = scalar.forward(jnp.zeros((3, 14)), jnp.ones(3))
        >>> x, _ = scalar.inverse(jnp.zeros((3, 14)), y)
    """
    source = _check("mixture_cdf", components, kind)
    quantile, bracket_inner = _mixture(components, source, LOGISTIC)
    log_scale, _ = scale_map("soft_clip")

    def forward(raw, x):
        wide_raw, wide_x = promote(raw, x)
        log_a = log_scale(wide_raw[..., -1])
        y, log_derivative = quantile(wide_raw[..., :-2], wide_x)
        y = y * jnp.exp(log_a) + wide_raw[..., -2]
        return y.astype(x.dtype), log_derivative + log_a

    def bracket(raw, y):
        y = (y - raw[..., -2]) * jnp.exp(-log_scale(raw[..., -1]))
        return bracket_inner(raw[..., :-2], y)

    return Scalar(3 * components + 2, forward, numerical_inverse(forward, bracket))


def gaussianization(components: int, kind: str = "normal") -> Scalar:
    """`y = Phi^{-1}(F(x))`, F the distribution function of a mixture.

    Data distributed like the mixture come out standard normal: Gaussianization Flows,
    Meng et al. 2020, https://arxiv.org/abs/2003.01941. The mixture is that
    of `mixture_cdf`, with `3 components` raw parameters; zeros give the identity with
    `"normal"`. Between rotations (`jflow.invertible_linear("rotation")`) such layers
    are a whole model.

    Args:
        components: how many components.
        kind: what they are, `"normal"` or `"logistic"`.

    Raises:
        ValueError: `components` is no positive integer, or no such kind.

    Example:
        >>> import jflow
        >>> b = jflow.elementwise(gaussianization(8))
    """
    source = _check("gaussianization", components, kind)
    quantile, bracket = _mixture(components, source, NORMAL)

    def forward(raw, x):
        y, log_derivative = quantile(*promote(raw, x))
        return y.astype(x.dtype), log_derivative

    return Scalar(3 * components, forward, numerical_inverse(forward, bracket))


def mixture_of(x: Array, components: int) -> Array:
    """Raw parameters of `gaussianization` whose mixture is like each column of `x`.

    The columns are cut at quantiles into cells of equal mass; each component is as wide
    as its cell and sits at its median.

    Args:
        x: `(N, ...)`, a batch.
        components: how many components.

    Returns:
        `(..., 3 components)`.
    """
    at = jnp.arange(2 * components + 1, dtype=x.dtype) / (2 * components)
    quantiles = jnp.moveaxis(jnp.quantile(x, at, axis=0), 0, -1)
    edges, centres = quantiles[..., ::2], quantiles[..., 1::2]
    deviation = x.std(axis=0)[..., None]
    deviation = jnp.where(deviation > 1e-6, deviation, 1.0)
    width = jnp.maximum(WIDTH * jnp.diff(edges), deviation / (4 * components))
    # The width of a batch without any spread is 1.
    width = jnp.where(edges[..., -1:] > edges[..., :1], width, deviation)
    log_s = jnp.clip(jnp.log(width), -5.0, 5.0)
    scales = log_s / (1.0 - jnp.abs(log_s) / SOFT_CLIP_LIMIT)
    gain = gains(components, x.dtype)
    return jnp.concatenate(
        [jnp.zeros_like(centres), centres / gain, scales / gain[::-1]], axis=-1
    )


def gains(size: int, dtype: jnp.dtype) -> Array:
    """Factors between 1/2 and 3/2 by which equal pieces learn at different speeds."""
    return jnp.asarray((np.arange(size) + 0.5) / size + 0.5, dtype)


def transport(
    source: Distribution,
    target: Distribution,
    log_weight: Array,
    log_slope: Array,
    u: Array,
) -> tuple[Array, Array]:
    """`H^{-1}(sum_k w_k G(u_k))` for source G and target H, and its log-derivative.

    Computed in the smaller of the two tails, with masses `w_k P(U > u_k)`: the slope is
    the masses' mean hazard over the target's hazard, a quotient without overflow.

    Args:
        log_weight: log w, normalised over the last axis.
        log_slope: log du_k/dx.
        u: the standardised variable, components along the last axis.
    """
    above = log_weight + source.log_survival(u)
    below = log_weight + source.log_survival(-u)
    above_mass, below_mass = (jax.nn.logsumexp(a, axis=-1) for a in (above, below))
    upper = above_mass < below_mass
    side = jnp.where(upper, 1.0, -1.0).astype(u.dtype)
    masses = jnp.where(upper[..., None], above, below)
    hazards = source.log_hazard(side[..., None] * u) + log_slope
    log_hazard = jax.nn.logsumexp(jax.nn.log_softmax(masses) + hazards, axis=-1)
    y = target.upper_quantile(jnp.where(upper, above_mass, below_mass))
    return side * y, log_hazard - target.log_hazard(y)


def _mixture(components, source, target):
    """The map and, for its inverse, a bracket: the components' outermost quantiles."""
    log_scale, _ = scale_map("soft_clip")

    def parts(raw):
        logits, means, scales = (
            raw[..., i * components : (i + 1) * components] for i in range(3)
        )
        gain = gains(components, raw.dtype)
        return logits, means * gain, log_scale(scales * gain[::-1])

    def forward(raw, x):
        logits, mean, log_s = parts(raw)
        log_weight = jax.nn.log_softmax(logits)

        def inside(x):
            # Narrow components seen from a wide one's tail: nothing, but no overflow.
            u = (x[..., None] - mean) * jnp.exp(-log_s)
            u = jnp.clip(u, -10 * REACH, 10 * REACH)
            return transport(source, target, log_weight, -log_s, u)

        reach = REACH * jnp.exp(log_s)
        return with_linear_tails(
            inside, x, -_largest(reach - mean), _largest(mean + reach)
        )

    def bracket(raw, y):
        _, mean, log_s = parts(raw)
        mass = target.log_survival(jnp.clip(jnp.abs(y), 0.0, REACH))
        quantile = jnp.sign(y) * source.upper_quantile(mass)
        ends = mean + jnp.exp(log_s) * quantile[..., None]
        return ends.min(-1), ends.max(-1)

    return forward, bracket


def _largest(values):
    """The largest along the last axis.

    Not `max`: its gradient divides by the number of entries equal to it, and XLA may
    find none where it computes the values twice, once with fused multiply-adds.
    """
    places = jnp.arange(values.shape[-1])
    chosen = places == jnp.argmax(values, axis=-1, keepdims=True)
    return jnp.where(chosen, values, 0.0).sum(-1)


def _check(owner, components, kind):
    check_positive(owner, components=components)
    if kind not in KINDS:
        raise ValueError(f"{owner}: kind must be one of {sorted(KINDS)}, got {kind!r}.")
    return KINDS[kind]
