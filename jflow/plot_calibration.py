"""Pictures of posteriors: rank ECDFs, coverage curves, and pairs of parameters.

Every function returns a Matplotlib `Figure`, as those of `jflow.plot` do.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jflow.bijector import Array
from jflow.calibration import ecdf_band, expected_coverage, rank_ecdf
from jflow.plot import empty_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def rank_ecdfs(
    ranks: Array,
    samples: int,
    names: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> "Figure":
    """The ranks' ECDF minus the diagonal, a line per parameter, and the band.

    The band holds all lines of a calibrated posterior together with probability
    `confidence` or more: each has `1 - (1 - confidence) / D`.

    Args:
        ranks: `(N, D)`, from `jflow.calibration`; `(N,)` is one parameter.
        samples: S, among how many samples they were taken.
        names: the parameters', for a legend.
        confidence: of the band.

    Raises:
        ValueError: another shape, or a wrong number of names.

    Example:
        >>> ranks = np.random.default_rng(0).integers(0, 100, (50, 2))
        >>> figure = rank_ecdfs(ranks, 99, names=["mean", "scale"])
    """
    ranks = np.asarray(ranks)
    ranks = ranks[:, None] if ranks.ndim == 1 else ranks
    if ranks.ndim != 2:
        raise ValueError(f"rank_ecdfs: ranks must be (N, D), got {ranks.shape}.")
    n, size = ranks.shape
    labels = _names("rank_ecdfs", names, size)
    levels, ecdf = (np.asarray(a) for a in rank_ecdf(ranks, samples))
    band = ecdf_band(n, levels, 1 - (1 - confidence) / size)
    figure, axes = _banded(levels, *(limit - levels for limit in band))
    for i in range(size):
        axes.plot(levels, ecdf[:, i] - levels, label=labels[i])
    axes.axhline(0.0, color="black", lw=0.5)
    axes.set_xlabel("rank / (samples + 1)")
    axes.set_ylabel("ECDF minus its expectation")
    if names is not None:
        axes.legend()
    return figure


def coverage_curve(
    log_prob_ranks: Array, samples: int, confidence: float = 0.95
) -> "Figure":
    """Expected coverage against the nominal level, with its simultaneous band.

    Args:
        log_prob_ranks: `(N,)`, as `jflow.calibration.expected_coverage` takes them.
        samples: S, among how many samples they were taken.
        confidence: of the band.

    Raises:
        ValueError: another shape.

    Example:
        >>> ranks = np.random.default_rng(0).integers(0, 100, 50)
        >>> figure = coverage_curve(ranks, 99)
    """
    if np.ndim(log_prob_ranks) != 1:
        raise ValueError(
            f"coverage_curve: log_prob_ranks must be (N,), got "
            f"{np.shape(log_prob_ranks)}."
        )
    levels, coverage = expected_coverage(log_prob_ranks, samples)
    band = ecdf_band(len(log_prob_ranks), levels, confidence)
    figure, axes = _banded(levels, *band)
    axes.plot(levels, levels, color="black", lw=0.5)
    axes.plot(levels, coverage)
    axes.set_xlabel("nominal level")
    axes.set_ylabel("expected coverage")
    axes.set_aspect("equal")
    return figure


def posterior_pairs(
    samples: Array,
    truth: Array | None = None,
    names: Sequence[str] | None = None,
    bins: int = 50,
) -> "Figure":
    """Samples of one posterior: each parameter's histogram, and each pair's below.

    Args:
        samples: `(S, D)`; rows that are not finite are left out.
        truth: `(D,)`, drawn as lines.
        names: the parameters'.
        bins: of the histograms, per axis.

    Raises:
        ValueError: another shape, no finite samples, or a wrong number of names.

    Example:
        >>> samples = np.random.default_rng(0).normal(size=(500, 3))
        >>> figure = posterior_pairs(samples, truth=np.zeros(3), bins=20)
    """
    samples = np.asarray(samples)
    if samples.ndim != 2 or not samples.shape[1]:
        raise ValueError(
            f"posterior_pairs: samples must be (S, D), got {samples.shape}."
        )
    samples = samples[np.isfinite(samples).all(axis=1)]
    if not len(samples):
        raise ValueError("posterior_pairs: samples holds no row that is finite.")
    size = samples.shape[1]
    names = _names("posterior_pairs", names, size)
    if truth is not None and np.shape(truth) != (size,):
        raise ValueError(
            f"posterior_pairs: truth must be ({size},) as the samples are, got "
            f"{np.shape(truth)}."
        )
    figure = empty_figure(1.8 * size + 0.6, 1.8 * size + 0.6)
    grid = figure.subplots(size, size, squeeze=False, sharex="col")
    for (row, column), axes in np.ndenumerate(grid):
        if column > row:
            axes.remove()
            continue
        _panel(axes, samples[:, [column, row]], row == column, bins)
        if truth is not None:
            axes.axvline(truth[column], color="tab:red", lw=1.0)
        if truth is not None and row != column:
            axes.axhline(truth[row], color="tab:red", lw=1.0)
        if row == size - 1:
            axes.set_xlabel(names[column])
        if column == 0 and row > 0:
            axes.set_ylabel(names[row])
    return figure


def _panel(axes, pair, diagonal, bins):
    if diagonal:
        axes.hist(pair[:, 0], bins, density=True, histtype="stepfilled", alpha=0.7)
        axes.set_yticks([])
    else:
        axes.hist2d(*pair.T, bins, cmap="Blues")


def _banded(levels, lower, upper):
    figure = empty_figure(4.5, 4.5)
    axes = figure.subplots()
    axes.fill_between(levels, lower, upper, color="black", alpha=0.15, lw=0)
    axes.grid(alpha=0.3)
    return figure, axes


def _names(owner, names, size):
    names = [f"parameter {i}" for i in range(size)] if names is None else list(names)
    if len(names) != size:
        raise ValueError(f"{owner}: names must be {size}, one each; got {names}.")
    return names
