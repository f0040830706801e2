"""Is a posterior calibrated? Ranks of the truth, their ECDF and bands, coverage.

Given pairs (parameters, observation) drawn from prior and simulator, the true
parameters rank uniformly among draws of the exact posterior. All checks here are about
those ranks: `posterior_ranks` takes them from a flow, `rank_statistics` from any
samples. `jflow.plot_calibration` draws them.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jflow.bijector import Array, Condition, Params
from jflow.flow import Flow

# The ECDF is looked at in so many steps at most: finer ones are all but the same test.
STEPS = 100
# For the simultaneous band: the coverage's own standard error is then 0.002.
SIMULATIONS = 10_000


class Ranks(NamedTuple):
    """Ranks of the truth among S posterior samples, each within 0 .. S.

    Attributes:
        parameters: per parameter, `(N, *event)`: how many samples lie below it.
        log_prob: `(N,)`: how many samples have a lower posterior density.
    """

    parameters: Array
    log_prob: Array


def rank_statistics(samples: Array, truth: Array) -> Array:
    """How many posterior samples lie below the truth: `sum_s 1[samples_s < truth]`.

    Simulation-based calibration, Talts et al. 2018, section 4.1,
    https://arxiv.org/abs/1804.06788. If the posterior is exact and the samples are
    independent, ranks are uniform on 0 .. S. Ranks that pile up at both ends mean a
    posterior that is too narrow, in the middle too wide, at one end biased.

    Args:
        samples: `(S, N, *event)`, S samples for each of N observations.
        truth: `(N, *event)`, the parameters that made the observations. Any function
            of both can be ranked as well, the log-density `(S, N)` and `(N,)` for one.

    Returns:
        `(N, *event)`, integers.

    Raises:
        ValueError: the shapes do not agree, or there are no samples.

    Example:
        >>> samples = jnp.arange(4.0)[:, None, None] * jnp.ones((4, 2, 1))
        >>> rank_statistics(samples, jnp.array([[-1.0], [1.5]])).tolist()
        [[0], [2]]
    """
    samples, truth = jnp.asarray(samples), jnp.asarray(truth)
    if samples.ndim < 2 or not samples.shape[0] or samples.shape[1:] != truth.shape:
        raise ValueError(
            f"rank_statistics: samples must be (S, *truth.shape), got {samples.shape} "
            f"for truth {truth.shape}; the samples' axis comes first."
        )
    return (samples < truth).sum(axis=0)


def posterior_ranks(
    flow: Flow,
    params: Params,
    key: Array,
    truth: Array,
    condition: Condition,
    samples: int = 1_000,
) -> Ranks:
    """Rank the truth among a conditional flow's own samples, and its density, too.

    Samples are counted as they are drawn, one for all N observations at a time, so
    memory does not grow with their number.

    Args:
        flow: over parameters, conditioned on observations.
        params: the flow's.
        key: for the samples.
        truth: parameters drawn from the prior, `(N, *event)`.
        condition: the observations simulated with them, as the flow takes them.
        samples: S, per observation; S + 1 with many divisors bins well.

    Raises:
        ValueError: `samples` < 1.

    Example:
        >>> import jflow
        >>> flow = jflow.flow(jflow.identity(), jflow.normal((2,)))
        >>> truth = jax.random.normal(jax.random.key(0), (8, 2))
        >>> params = flow.init(jax.random.key(1), truth)
        >>> ranks = posterior_ranks(flow, params, jax.random.key(2), truth, None, 99)
        >>> ranks.parameters.shape, ranks.log_prob.shape
        ((8, 2), (8,))
    """
    _check_samples("posterior_ranks", samples)
    return _posterior_ranks(flow, params, key, jnp.asarray(truth), condition, samples)


@functools.partial(jax.jit, static_argnames=("flow", "samples"))
def _posterior_ranks(flow, params, key, truth, condition, samples):
    density = flow.log_prob(params, truth, condition)

    def count(ranks, key):
        drawn = flow.sample_and_log_prob(params, key, truth.shape[0], condition)
        below = Ranks(drawn[0] < truth, drawn[1] < density)
        return jax.tree.map(jnp.add, ranks, below), None

    # Of the comparisons, not of shapes: inside shard_map the counts vary with the data.
    start = Ranks(truth < truth, density < density)
    start = jax.tree.map(lambda never: never.astype(jnp.int32), start)
    return jax.lax.scan(count, start, jax.random.split(key, samples))[0]


def rank_ecdf(ranks: Array, samples: int) -> tuple[Array, Array]:
    """The ranks' empirical distribution, `F(j / (S + 1)) = mean_n 1[rank_n < j]`.

    For a calibrated posterior its expectation at each level is the level, exactly.

    Args:
        ranks: `(N, ...)`, from `rank_statistics` or `posterior_ranks`.
        samples: S, among how many samples they were taken.

    Returns:
        The levels `(K,)`, from 0 to 1 in 100 steps at most, and the ECDF `(K, ...)`.

    Raises:
        ValueError: `samples` < 1, or `ranks` without a first axis.

    Example:
        >>> levels, ecdf = rank_ecdf(jnp.array([0, 1, 1, 3]), 3)
        >>> levels.tolist(), ecdf.tolist()
        ([0.0, 0.25, 0.5, 0.75, 1.0], [0.0, 0.25, 0.75, 0.75, 1.0])
    """
    _check_samples("rank_ecdf", samples)
    ranks = jnp.asarray(ranks)
    if not ranks.ndim or not ranks.shape[0]:
        raise ValueError(
            f"rank_ecdf: ranks must be (N, ...), N >= 1, got {ranks.shape}."
        )
    steps = min(samples + 1, STEPS)
    below = np.round(np.linspace(0, samples + 1, steps + 1)).astype(int)
    ecdf = jax.lax.map(lambda j: (ranks < j).mean(axis=0), jnp.asarray(below))
    return jnp.asarray(below / (samples + 1)), ecdf


def expected_coverage(log_prob_ranks: Array, samples: int) -> tuple[Array, Array]:
    """How often the highest-density region of each level holds the truth.

    The level at which a region reaches the truth is the share of samples whose density
    is not lower. A curve below the diagonal is overconfident, one above it
    conservative. Hermans et al. 2022, section 2, https://arxiv.org/abs/2110.06581.

    Calibration alone is not quality: the prior, for every observation, is calibrated.

    Args:
        log_prob_ranks: `(N,)`, the `log_prob` of `posterior_ranks`; or
            `rank_statistics(log_prob of samples (S, N), log_prob of truth (N,))`.
        samples: S, among how many samples they were taken.

    Returns:
        The nominal levels `(K,)`, from 0 to 1, and the coverage `(K,)`. For a
        calibrated posterior `ecdf_band(N, levels)` holds it.

    Raises:
        ValueError: as `rank_ecdf`.

    Example:
        >>> levels, coverage = expected_coverage(jnp.array([3, 3, 2, 0]), 3)
        >>> coverage.tolist()
        [0.0, 0.5, 0.75, 0.75, 1.0]
    """
    return rank_ecdf(samples - jnp.asarray(log_prob_ranks), samples)


def ecdf_band(
    n: int, levels: Array, confidence: float = 0.95, simultaneous: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Where the ECDF of n calibrated ranks lies, with the given probability.

    At each level z, `n F(z)` is binomial (n, z), and the band is between its quantiles
    `gamma / 2` and `1 - gamma / 2`. Pointwise, `gamma` is `1 - confidence`;
    simultaneous, it is such that a whole ECDF stays within with probability
    `confidence`, found by simulation (Säilynoja et al. 2022, section 2,
    https://arxiv.org/abs/2103.10522).

    A test of D parameters at once wants `1 - (1 - confidence) / D`. For a histogram of
    B bins, the pointwise band of the one level 1 / B is that of a bin's share.

    Args:
        n: how many ranks.
        levels: increasing, within [0, 1], `(K,)`; those of `rank_ecdf`.
        confidence: the probability, within (0, 1).
        simultaneous: for the whole curve, rather than for each level by itself.

    Returns:
        Lower and upper limits, `(K,)` each, both still inside. The same arguments give
        the same band.

    Raises:
        ValueError: an argument out of its range.

    Example:
        >>> lower, upper = ecdf_band(100, np.linspace(0, 1, 11), simultaneous=False)
        >>> float(lower[5]), float(upper[5])
        (0.4, 0.6)
    """
    levels = np.asarray(levels, np.float64)
    ordered = levels.ndim == 1 and levels.size and (np.diff(levels) >= 0).all()
    if not ordered or levels[0] < 0 or levels[-1] > 1:
        raise ValueError(
            "ecdf_band: levels must be an increasing (K,) within [0, 1]; use those "
            f"that rank_ecdf returns, got shape {levels.shape}."
        )
    if not (isinstance(n, int) and n >= 1):
        raise ValueError(f"ecdf_band: n must be an integer of at least 1, got {n!r}.")
    if not 0 < confidence < 1:
        raise ValueError(
            f"ecdf_band: confidence must be within (0, 1), got {confidence}."
        )
    # P(count <= k) and P(count >= k) for every count k and level.
    at_most = _binomial_cdf(n, levels)
    at_least = 1.0 - np.vstack([np.zeros(levels.size), at_most[:-1]])
    tail = (1.0 - confidence) / 2
    if simultaneous:
        tail = _simultaneous_tail(n, levels, np.minimum(at_most, at_least), tail)
    lower = (at_most >= tail).argmax(axis=0)
    upper = n - (at_least >= tail)[::-1].argmax(axis=0)
    return lower / n, upper / n


def _simultaneous_tail(n, levels, tails, pointwise):
    """The tail probability that all levels of an ECDF exceed together."""
    gaps = np.diff(levels, prepend=0.0, append=1.0)
    draw = np.random.default_rng(0).multinomial(n, gaps, size=SIMULATIONS)
    counts = draw[:, :-1].cumsum(axis=1)
    rarest = tails[counts, np.arange(levels.size)].min(axis=1)
    return np.quantile(rarest, 2 * pointwise, method="lower")


def _binomial_cdf(n, p):
    """`P(count <= k)` for k = 0 .. n down the rows."""
    k = np.arange(n + 1)
    log_factorial = np.concatenate([[0.0], np.log(k[1:]).cumsum()])
    log_choose = log_factorial[-1] - log_factorial - log_factorial[::-1]
    # Of 0, the logarithm of something so small that only its 0th power counts.
    log_p, log_q = np.log(np.maximum([p, 1.0 - p], 1e-300))
    pmf = np.exp(log_choose[:, None] + np.outer(k, log_p) + np.outer(n - k, log_q))
    return np.minimum(pmf.cumsum(axis=0), 1.0)


def _check_samples(owner, samples):
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise ValueError(
            f"{owner}: samples must be an integer of at least 1, got {samples!r}."
        )
