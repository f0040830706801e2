"""`jflow.plot_calibration`: the figures hold what they were given."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure

from jflow import plot_calibration
from jflow.calibration import ecdf_band, rank_ecdf

RANKS = np.random.default_rng(0).integers(0, 20, (40, 2))


def rendered(figure):
    assert isinstance(figure, Figure)
    figure.savefig(io.BytesIO(), dpi=40)
    return figure.axes


def band_of(axes):
    vertices = axes.collections[0].get_paths()[0].vertices
    return vertices[:, 1].min(), vertices[:, 1].max()


def test_rank_ecdfs_are_shown_against_their_expectation():
    (axes,) = rendered(plot_calibration.rank_ecdfs(RANKS, 19, names=["a", "b"]))
    levels, ecdf = rank_ecdf(RANKS, 19)
    for i, line in enumerate(axes.lines[:2]):
        np.testing.assert_allclose(line.get_xdata(), levels)
        np.testing.assert_allclose(line.get_ydata(), ecdf[:, i] - levels, atol=1e-6)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    lower, upper = ecdf_band(40, levels, 0.975)
    low, high = band_of(axes)
    np.testing.assert_allclose(low, (lower - np.asarray(levels)).min(), atol=1e-6)
    np.testing.assert_allclose(high, (upper - np.asarray(levels)).max(), atol=1e-6)
    (one,) = rendered(plot_calibration.rank_ecdfs(RANKS[:, 0], 19))
    assert one.get_legend() is None


def test_coverage_is_drawn_over_the_diagonal():
    (axes,) = rendered(plot_calibration.coverage_curve(np.full(40, 19), 19))
    diagonal, curve = axes.lines
    np.testing.assert_allclose(diagonal.get_xdata(), diagonal.get_ydata())
    # Truths that are always the densest point lie in every region but the empty one.
    np.testing.assert_allclose(curve.get_ydata(), [0] + [1] * 20)


def test_pairs_are_a_lower_triangle_with_the_truth():
    samples = np.random.default_rng(1).normal(size=(200, 3))
    samples[3, 1] = np.nan
    axes = rendered(plot_calibration.posterior_pairs(samples, np.arange(3.0), "abc", 8))
    assert len(axes) == 6
    assert [len(a.lines) for a in axes] == [1, 2, 1, 2, 2, 1]
    assert [a.get_xlabel() for a in axes[3:]] == ["a", "b", "c"]
    # The panel of (a, b), counted whole but for the row that was not a number.
    assert axes[1].collections[0].get_array().sum() == 199
    assert axes[1].lines[0].get_xdata()[0] == 0 and axes[1].lines[1].get_ydata()[0] == 1
    (one,) = rendered(plot_calibration.posterior_pairs(samples[:, :1]))
    assert one.get_xlabel() == "parameter 0"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.rank_ecdfs(np.zeros((2, 2, 2)), 5), "rank_ecdfs: ranks"),
        (lambda p: p.rank_ecdfs(RANKS, 19, names=["a"]), "rank_ecdfs: names"),
        (lambda p: p.coverage_curve(RANKS, 19), "log_prob_ranks"),
        (lambda p: p.posterior_pairs(np.zeros(3)), "samples must be"),
        (lambda p: p.posterior_pairs(np.full((2, 2), np.nan)), "finite"),
        (lambda p: p.posterior_pairs(np.zeros((2, 2)), np.zeros(3)), "truth"),
    ],
)
def test_what_cannot_be_drawn_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(plot_calibration)
