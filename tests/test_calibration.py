"""`jflow.calibration` on a conjugate Gaussian model, whose posterior is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jflow.base import normal
from jflow.bijector import Bijector, expand_log_det
from jflow.calibration import (
    ecdf_band,
    expected_coverage,
    posterior_ranks,
    rank_ecdf,
    rank_statistics,
)
from jflow.flow import flow

N, S = 1_000, 199


def _posterior():
    """`theta ~ N(0, 1)`, `x ~ N(theta, 1)`: `theta | x ~ N(x / 2, 1 / 2)`.

    The parameters are the posterior's standard deviation as a multiple of the right
    one, and a shift of its mean.
    """

    def init(key, x, condition=None):
        return {"width": jnp.ones(()), "shift": jnp.zeros(())}

    def law(params, condition):
        return condition / 2 + params["shift"], params["width"] * 0.5**0.5

    def log_det(params, x):
        return expand_log_det(2 * jnp.log(law(params, x)[1]), x)

    def forward(params, x, condition=None, key=None):
        mean, deviation = law(params, condition)
        return (x - mean) / deviation, -log_det(params, x)

    def inverse(params, z, condition=None, key=None):
        mean, deviation = law(params, condition)
        return mean + deviation * z, log_det(params, z)

    return flow(Bijector(init, forward, inverse), normal((2,)))


POSTERIOR = _posterior()
TRUTH_KEY, NOISE_KEY, KEY = jax.random.split(jax.random.key(0), 3)
TRUTH = jax.random.normal(TRUTH_KEY, (N, 2))
OBSERVED = TRUTH + jax.random.normal(NOISE_KEY, (N, 2))


def ranks_of(width=1.0, shift=0.0):
    params = {"width": jnp.asarray(width), "shift": jnp.asarray(shift)}
    params = {"bijector": params, "base": ()}
    return posterior_ranks(POSTERIOR, params, KEY, TRUTH, OBSERVED, S)


def outside(ranks, confidence=0.99):
    """Whether an ECDF leaves its band, per column."""
    levels, ecdf = rank_ecdf(ranks, S)
    lower, upper = (limit[:, None] for limit in ecdf_band(N, levels, confidence))
    ecdf = np.asarray(ecdf).reshape(len(levels), -1)
    return ((ecdf < lower - 1e-6) | (ecdf > upper + 1e-6)).any(axis=0)


def test_the_exact_posterior_is_calibrated():
    ranks = ranks_of()
    assert ranks.parameters.shape == (N, 2) and ranks.log_prob.shape == (N,)
    assert 0 <= int(ranks.parameters.min()) and int(ranks.parameters.max()) <= S
    assert not outside(ranks.parameters).any()
    assert not outside(ranks.log_prob).any()
    histogram = np.bincount(np.asarray(ranks.parameters).ravel() // 20, minlength=10)
    assert scipy.stats.chisquare(histogram).pvalue > 0.01


@pytest.mark.parametrize("width", [0.8, 1.25])
def test_wrong_widths_are_detected_and_covered_as_they_should_be(width):
    ranks = ranks_of(width)
    assert outside(ranks.parameters).all() and outside(ranks.log_prob).all()
    levels, coverage = (np.asarray(a) for a in expected_coverage(ranks.log_prob, S))
    # In two dimensions r^2 / 2 is exponential, so a region of nominal mass z covers:
    expected = 1 - (1 - levels) ** (width**2)
    assert np.abs(coverage - expected).max() < 4 * np.sqrt(0.25 / N)
    middle = len(levels) // 2
    assert (coverage[middle] < levels[middle]) == (width < 1)


def test_a_bias_is_detected_with_its_sign():
    ranks = ranks_of(shift=0.2).parameters
    assert outside(ranks).all()
    # Samples too high, so the truth lies low.
    assert float(ranks.mean()) < S / 2 - 5


def test_ranks_of_given_samples_and_of_the_flow_follow_one_law():
    noise = jax.random.normal(jax.random.key(5), (S, N, 2))
    samples = OBSERVED / 2 + 0.5**0.5 * noise
    ranks = jax.jit(rank_statistics)(samples, TRUTH)
    assert not outside(ranks).any()
    # Two draws of ranks of the same truths: their errors are binomial.
    gap = np.asarray(ranks - ranks_of().parameters) / S
    assert 0.02 < gap.std() < np.sqrt(2 * 0.25 / S)
    p = scipy.stats.norm.cdf(np.asarray(TRUTH - OBSERVED / 2) / 0.5**0.5)
    error = (np.asarray(ranks) / S - p) / np.sqrt(p * (1 - p) / S + 1e-4)
    assert abs(error.std() - 1) < 0.1
    by_density = rank_statistics(
        -(noise**2).sum(-1), -2 * ((TRUTH - OBSERVED / 2) ** 2).sum(-1)
    )
    assert not outside(by_density).any()


def test_the_ecdfs_expectation_is_the_level():
    """Averaged over every rank that there is, for any number of samples."""
    for samples in (1, 7, 99, 100, 256):
        levels, ecdf = rank_ecdf(jnp.arange(samples + 1), samples)
        np.testing.assert_allclose(ecdf, levels, atol=1e-6)
        levels, coverage = expected_coverage(jnp.arange(samples + 1), samples)
        np.testing.assert_allclose(coverage, levels, atol=1e-6)
        assert len(levels) <= 101


def stays_inside(n, levels, lower, upper):
    """The exact probability, carried from level to level by binomial steps."""
    counts = np.arange(n + 1)
    weights, before = (counts == 0).astype(float), 0.0
    for level, low, high in zip(levels, lower * n, upper * n, strict=True):
        step = (level - before) / (1 - before) if before < 1 else 0.0
        more = counts[None, :] - counts[:, None]
        left = (n - counts)[:, None]
        move = scipy.stats.binom.pmf(more, left, min(step, 1.0))
        weights = (weights @ move) * (counts >= low - 0.5) * (counts <= high + 0.5)
        before = level
    return weights.sum()


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_a_simultaneous_band_holds_whole_curves_as_often_as_it_says(confidence):
    levels = np.linspace(0, 1, 21)
    found = stays_inside(60, levels, *ecdf_band(60, levels, confidence))
    # Counts are integers, so a little more; the simulation's own error is 0.004.
    assert confidence - 0.01 < found < confidence + 0.03
    pointwise = ecdf_band(60, levels, confidence, simultaneous=False)
    assert stays_inside(60, levels, *pointwise) < confidence - 0.15


@pytest.mark.parametrize("n", [1, 37, 2_000])
def test_a_pointwise_band_is_binomial(n):
    levels = np.array([0.0, 0.01, 0.3, 0.5, 0.99, 1.0])
    lower, upper = ecdf_band(n, levels, 0.9, simultaneous=False)
    inside = slice(1, -1)
    for limit, tail in ((lower, 0.05), (upper, 0.95)):
        expected = scipy.stats.binom.ppf(tail, n, levels[inside]) / n
        np.testing.assert_allclose(limit[inside], expected)
    assert (lower[0], upper[0], lower[-1], upper[-1]) == (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rank_statistics(np.ones((3, 2)), np.ones((2, 1))), "comes first"),
        (lambda: rank_statistics(np.ones((0, 2)), np.ones(2)), "samples must be"),
        (lambda: posterior_ranks(POSTERIOR, {}, KEY, TRUTH, None, 0), "at least 1"),
        (lambda: rank_ecdf(np.zeros(3), 0), "samples must be"),
        (lambda: rank_ecdf(np.zeros((0, 2)), 5), "N >= 1"),
        (lambda: ecdf_band(5, [0.5, 0.1]), "levels"),
        (lambda: ecdf_band(5, [0.5, 1.1]), "levels"),
        (lambda: ecdf_band(0, [0.5]), "n must be"),
        (lambda: ecdf_band(5, [0.5], 1.0), "confidence"),
    ],
)
def test_unusable_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
