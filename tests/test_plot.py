"""`jflow.plot`: the figures hold what they were given."""

import io
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from jflow import plot
from jflow.base import normal
from jflow.combinators import identity
from jflow.flow import flow


def drawn(figure, axes=1):
    """The figure's axes, after it was rendered once."""
    assert isinstance(figure, Figure)
    figure.savefig(io.BytesIO(), dpi=50)
    assert len(figure.axes) == axes
    return figure.axes


def picture(figure):
    return np.asarray(drawn(figure)[0].images[0].get_array())


def test_a_grid_holds_every_image_in_its_cell():
    images = np.arange(5 * 3 * 4).reshape(5, 3, 4)
    mosaic = picture(plot.image_grid(images, columns=2, value_range=(0, 59)))
    assert mosaic.shape == (3 * 4 + 1, 2 * 5 + 1)
    np.testing.assert_allclose(mosaic[1:4, 1:5], images[0] / 59)
    np.testing.assert_allclose(mosaic[5:8, 6:10], images[3] / 59)
    np.testing.assert_allclose(mosaic[9:, 6:], 1.0)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 3, 3), (9, 9)),
        ((4, 3, 3, 1), (9, 9)),
        ((4, 3, 3, 3), (9, 9, 3)),
        ((4, 9), (9, 9)),
    ],
)
def test_a_grid_takes_grey_colour_and_flat_images(shape, expected):
    assert picture(plot.image_grid(jnp.ones(shape))).shape == expected


def test_a_grids_range_is_the_images_or_the_given_one():
    images = np.array([[[2.0, 6.0], [4.0, np.nan]]])
    mosaic = picture(plot.image_grid(images))
    np.testing.assert_allclose(mosaic[1:3, 1:3], [[0, 1], [0.5, 0]])
    mosaic = picture(plot.image_grid(images, value_range=(0, 4)))
    np.testing.assert_allclose(mosaic[1:3, 1:3], [[0.5, 1], [1, 0]])


def test_a_grids_title_is_written():
    assert plot.image_grid(np.ones((1, 2, 2)), title="T").axes[0].get_title() == "T"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 7)),), "flat squares"),
        ((np.zeros((2, 3, 3, 2)),), "flat squares"),
        ((np.zeros((0, 3, 3)),), "at least one"),
        ((np.zeros((2, 3, 3)), 0), "columns"),
        ((np.zeros((2, 3, 3)), 2, (1, 1)), "value_range"),
    ],
)
def test_a_grid_names_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        plot.image_grid(*arguments)


def test_a_sweep_has_the_same_noise_in_every_row():
    model = flow(identity(), normal((2, 2, 1)))
    params, key = {"bijector": (), "base": ()}, jax.random.key(0)
    figure = plot.temperature_sweep(
        model, params, key, [0.5, 1.0], 3, value_range=(-4, 4)
    )
    mosaic = picture(figure)
    assert mosaic.shape == (2 * 3 + 1, 3 * 3 + 1)
    half, full = (8 * mosaic[1:3] - 4), (8 * mosaic[4:6] - 4)
    inside = np.arange(10) % 3 != 0
    np.testing.assert_allclose(2 * half[:, inside], full[:, inside], atol=1e-5)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["0.5", "1"]
    with pytest.raises(ValueError, match="temperatures"):
        plot.temperature_sweep(model, params, key, [], 3)


def test_a_density_peaks_where_it_should():
    centre = np.array([1.0, -0.5])

    def log_prob(x):
        inside = -50.0 * jnp.sum((x - centre) ** 2, axis=1) + 500.0
        return jnp.where(x[:, 0] > 1.5, -jnp.inf, inside)

    figure = plot.density_2d(log_prob, ((-2, 2), (-1, 1)), 80, title="T")
    density = picture(figure)
    row, column = np.unravel_index(density.argmax(), density.shape)
    assert abs(-2 + 4 * (column + 0.5) / 80 - 1.0) < 0.05
    assert abs(-1 + 2 * (row + 0.5) / 80 + 0.5) < 0.05
    assert figure.axes[0].images[0].get_extent() == [-2, 2, -1, 1]
    assert figure.axes[0].get_title() == "T"
    assert density.min() == 0.0 and density.max() == 1.0


def test_a_density_names_what_is_wrong():
    with pytest.raises(ValueError, match="limits"):
        plot.density_2d(lambda x: x[:, 0], ((1, 1), (0, 1)))
    with pytest.raises(ValueError, match="resolution"):
        plot.density_2d(lambda x: x[:, 0], ((0, 1), (0, 1)), 0)
    with pytest.raises(ValueError, match="log_prob"):
        plot.density_2d(lambda x: x, ((0, 1), (0, 1)), 4)


def test_samples_are_scattered_beside_the_data():
    samples, data = np.random.default_rng(0).normal(size=(2, 30, 2))
    (only,) = drawn(plot.samples_2d(samples))
    np.testing.assert_allclose(only.collections[0].get_offsets(), samples)
    first, second = drawn(plot.samples_2d(samples, data), 2)
    assert (first.get_title(), second.get_title()) == ("data", "samples")
    np.testing.assert_allclose(first.collections[0].get_offsets(), data)
    assert first.get_xlim() == second.get_xlim()
    with pytest.raises(ValueError, match="data must be points"):
        plot.samples_2d(samples, np.zeros((3, 3)))


def test_curves_show_what_is_there():
    history = {
        "step": [1, 2, 3],
        "loss": [3.0, 2.0, 1.5],
        "gradient_norm": [1.0, 1.0, 0.5],
        "validation_step": [2],
        "validation_loss": [2.5],
        "best_step": 2,
        "seconds": [1.0],
    }
    losses, norms = drawn(plot.training_curves(history), 2)
    assert [line.get_label() for line in losses.lines] == ["loss", "validation loss"]
    np.testing.assert_array_equal(losses.lines[0].get_ydata(), history["loss"])
    np.testing.assert_array_equal(losses.lines[1].get_xdata(), [2])
    assert [line.get_label() for line in norms.lines] == ["gradient norm"]
    (alone,) = drawn(plot.training_curves({"step": [1], "loss": [0.0]}))
    assert len(alone.lines) == 1
    with pytest.raises(ValueError, match="no series"):
        plot.training_curves({"loss": [1.0]})


def test_the_spectrum_is_sorted_bars():
    log_scale = np.array([[0.0, 2.0], [-1.0, 1.0]])
    (axes,) = drawn(plot.spectrum(log_scale))
    heights = [bar.get_height() for bar in axes.patches]
    np.testing.assert_allclose(heights, np.exp([1.0, 0.0, -1.0, -2.0]), rtol=1e-6)


def test_matplotlib_is_imported_by_the_first_figure_only():
    code = (
        "import sys, jflow.plot\n"
        "assert 'matplotlib' not in sys.modules\n"
        "jflow.plot.spectrum([0.0])\n"
        "assert 'matplotlib.figure' in sys.modules\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
