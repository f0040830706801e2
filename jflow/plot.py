"""Pictures of samples, densities and training.

Every function returns a Matplotlib `Figure` of its own, outside of pyplot's state:
nothing is shown, nothing has to be closed, and `figure.savefig(path)` works without a
display. Matplotlib is imported by the first call (`pip install "jflow[plot]"`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jflow.bijector import Array, Params
from jflow.flow import Flow
from jflow.latent import scale_spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Range = tuple[float, float]


def image_grid(
    images: Array,
    columns: int | None = None,
    value_range: Range | None = None,
    title: str | None = None,
) -> "Figure":
    """Images side by side, row by row.

    Args:
        images: grey `(N, H, W)` or `(N, H, W, 1)`, RGB `(N, H, W, 3)`, or flat square
            images `(N, D)`.
        columns: images per row; by default about as many as there are rows.
        value_range: the values drawn black and white, such as (0, 255); by default the
            least and the greatest there are. What lies outside is clipped.
        title: written above.

    Raises:
        ValueError: another shape, `columns` < 1 or an empty `value_range`.

    Example:
        >>> figure = image_grid(np.zeros((6, 8, 8)), columns=3, value_range=(0, 15))
    """
    mosaic = _mosaic(*_as_images(images, "image_grid"), columns, value_range)
    figure, axes = _mosaic_figure(mosaic)
    if title is not None:
        axes.set_title(title)
    return figure


def temperature_sweep(
    flow: Flow,
    params: Params,
    key: Array,
    temperatures: Sequence[float],
    n: int,
    condition: Any = None,
    value_range: Range | None = None,
) -> "Figure":
    """Image samples at several temperatures, one row each.

    Every row uses the same key, so a column is one latent at growing distances from
    the base's centre.

    Args:
        flow: over images, of a shape that `image_grid` takes.
        params: the flow's.
        key: for the samples.
        temperatures: one row each, from the top.
        n: samples per temperature.
        condition: the flow's, for `n` samples.
        value_range: as in `image_grid`.

    Raises:
        ValueError: no temperatures, or samples of another shape.

    Example:
        >>> import jax, jflow
        >>> flow = jflow.flow(jflow.actnorm(), jflow.normal((8, 8, 1)))
        >>> params = flow.init(jax.random.key(0), np.zeros((4, 8, 8, 1)))
        >>> figure = temperature_sweep(flow, params, jax.random.key(1), [0.5, 1.0], 4)
    """
    temperatures = [float(t) for t in temperatures]
    if not temperatures:
        raise ValueError("temperature_sweep: temperatures is empty; give at least one.")
    rows = [
        np.asarray(flow.sample(params, key, n, condition, temperature))
        for temperature in temperatures
    ]
    images = _as_images(np.concatenate(rows), "temperature_sweep")
    figure, axes = _mosaic_figure(_mosaic(*images, n, value_range))
    height = images[0].shape[1] + 1
    axes.set_axis_on()
    axes.set_xticks([])
    axes.set_yticks(
        [(i + 0.5) * height for i in range(len(temperatures))],
        [f"{t:g}" for t in temperatures],
    )
    axes.tick_params(length=0)
    axes.set_ylabel("temperature")
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def density_2d(
    log_prob: Callable[[Array], Array],
    limits: tuple[Range, Range],
    resolution: int = 200,
    title: str | None = None,
) -> "Figure":
    """A density over the plane, as a picture of `exp(log_prob)`.

    Args:
        log_prob: the log-density in nats, `(N, 2) -> (N,)`, such as
            `lambda x: flow.log_prob(params, x)`.
        limits: `((x_low, x_high), (y_low, y_high))`.
        resolution: points per axis, each at the middle of its cell.
        title: written above.

    Raises:
        ValueError: unusable `limits` or `resolution`, or a `log_prob` that does not
            return one number per point.

    Example:
        >>> figure = density_2d(lambda x: -(x**2).sum(1) / 2, ((-3, 3), (-3, 3)), 50)
    """
    (left, right), (bottom, top) = limits
    if not (left < right and bottom < top):
        raise ValueError(f"density_2d: limits must be (low, high) twice, got {limits}.")
    if resolution < 1:
        raise ValueError(f"density_2d: resolution must be >= 1, got {resolution}.")
    middles = (np.arange(resolution, dtype=np.float32) + 0.5) / resolution
    x, y = np.meshgrid(
        left + (right - left) * middles, bottom + (top - bottom) * middles
    )
    values = np.asarray(log_prob(np.stack([x.ravel(), y.ravel()], axis=-1)))
    if values.shape != (resolution**2,):
        raise ValueError(
            f"density_2d: log_prob must map (N, 2) to (N,), got {values.shape} for "
            f"N = {resolution**2}."
        )
    # Relative to the peak: the picture is the same, and nothing overflows.
    finite = values[np.isfinite(values)]
    peak = finite.max() if finite.size else 0.0
    density = np.exp(np.minimum(values - peak, 0.0)).reshape(resolution, resolution)
    figure, (axes,) = _figure(1, 4.0, 4.0)
    axes.imshow(density, origin="lower", extent=(left, right, bottom, top))
    if title is not None:
        axes.set_title(title)
    return figure


def samples_2d(samples: Array, data: Array | None = None) -> "Figure":
    """Points in the plane; with `data`, both side by side on the same axes' range.

    Args:
        samples: `(N, 2)`.
        data: what they should look like, `(M, 2)`.

    Raises:
        ValueError: another shape.

    Example:
        >>> figure = samples_2d(np.zeros((5, 2)), data=np.ones((5, 2)))
    """
    named = {"samples": samples} if data is None else {"data": data, "samples": samples}
    panels = {name: np.asarray(points) for name, points in named.items()}
    for name, points in panels.items():
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(
                f"samples_2d: {name} must be points (N, 2), got {points.shape}; pick "
                "two columns."
            )
    figure, all_axes = _figure(len(panels), 4.0 * len(panels), 4.0, share=True)
    for axes, (name, points) in zip(all_axes, panels.items(), strict=True):
        axes.scatter(*points.T, s=4.0, alpha=min(1.0, 30.0 / len(points) ** 0.5), lw=0)
        axes.set_title(name)
        axes.set_aspect("equal")
    return figure


def training_curves(history: Mapping[str, Sequence[float]]) -> "Figure":
    """What `fit` recorded: the losses together, every other series below.

    Series named `validation_...` are drawn over `validation_step`, all others over
    `step`; series of another length than their steps are left out.

    Args:
        history: as `jflow.train.fit` returns it.

    Raises:
        ValueError: there is nothing to draw.

    Example:
        >>> figure = training_curves({"step": [1, 2], "loss": [3.0, 2.5]})
    """
    series = {}
    for name, values in history.items():
        steps = "validation_step" if name.startswith("validation_") else "step"
        if name in ("step", "validation_step") or steps not in history:
            continue
        if np.ndim(values) == 1 and len(values) == len(history[steps]):
            series[name] = (history[steps], values)
    if not series:
        raise ValueError(
            f"training_curves: history {sorted(history)} holds no series as long as "
            "its 'step' or 'validation_step'; pass what fit returns."
        )
    groups = [[name for name in series if name in ("loss", "validation_loss")]]
    groups += [[name] for name in series if name not in groups[0]]
    groups = [group for group in groups if group]
    figure, all_axes = _figure(len(groups), 6.0, 2.5 * len(groups) + 1, stacked=True)
    for axes, group in zip(all_axes, groups, strict=True):
        for name in group:
            steps, values = (np.asarray(a) for a in series[name])
            marker = "." if len(steps) < 50 else None
            axes.plot(steps, values, label=name.replace("_", " "), marker=marker)
        axes.legend()
        axes.grid(alpha=0.3)
    all_axes[-1].set_xlabel("step")
    return figure


def spectrum(log_scale: Array) -> "Figure":
    """NICE's spectrum as bars: `exp(-log_scale)`, the largest first.

    See `jflow.latent.scale_spectrum`.

    Args:
        log_scale: the last layer's, of any shape.

    Example:
        >>> figure = spectrum(np.linspace(-1.0, 3.0, 20))
    """
    sigma = np.asarray(scale_spectrum(np.asarray(log_scale)))
    figure, (axes,) = _figure(1, 6.0, 3.0)
    axes.bar(np.arange(sigma.size), sigma, width=1.0)
    axes.set_xlabel("dimension, sorted")
    axes.set_ylabel("sigma")
    return figure


def _as_images(images, owner):
    """Images `(N, H, W, 1 or 3)` as float arrays, and whether they are in colour."""
    images = np.asarray(images).astype(float)
    shape = images.shape
    if images.ndim == 2 and math.isqrt(shape[1]) ** 2 == shape[1]:
        images = images.reshape(-1, math.isqrt(shape[1]), math.isqrt(shape[1]), 1)
    elif images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
        raise ValueError(
            f"{owner}: images must be (N, H, W), (N, H, W, 1), (N, H, W, 3) or flat "
            f"squares (N, D), and at least one; got {shape}."
        )
    return images, images.shape[-1] == 3


def _mosaic(images, colour, columns, value_range):
    """One picture with values in [0, 1]: the images, a line of white around each."""
    count, height, width, channels = images.shape
    if columns is None:
        columns = math.ceil(math.sqrt(count))
    if columns < 1:
        raise ValueError(f"image_grid: columns must be at least 1, got {columns}.")
    if value_range is None:
        finite = images[np.isfinite(images)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
        high = high if high > low else low + 1.0
    else:
        low, high = value_range
        if not low < high:
            raise ValueError(
                f"image_grid: value_range must be (low, high), got {value_range}."
            )
    # Diverged samples are drawn black rather than failing at the end of a long run.
    scaled = np.nan_to_num((images - low) / (high - low), nan=0.0).clip(0.0, 1.0)
    rows = math.ceil(count / columns)
    cell = height + 1, width + 1
    mosaic = np.ones((rows * cell[0] + 1, columns * cell[1] + 1, channels))
    for i, image in enumerate(scaled):
        top, left = (i // columns) * cell[0] + 1, (i % columns) * cell[1] + 1
        mosaic[top : top + height, left : left + width] = image
    return mosaic if colour else mosaic[..., 0]


def _mosaic_figure(mosaic):
    height, width = mosaic.shape[:2]
    scale = 6.0 / max(height, width)
    figure, (axes,) = _figure(1, max(1.0, width * scale), max(1.0, height * scale))
    axes.imshow(mosaic, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    axes.set_axis_off()
    return figure, axes


def _figure(count, width, height, share=False, stacked=False):
    """A Figure without pyplot, and its axes in a list."""
    figure = empty_figure(width, height)
    rows, columns = (count, 1) if stacked else (1, count)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)
    return figure, list(axes.ravel())


def empty_figure(width: float, height: float) -> "Figure":
    """A Figure without pyplot and without axes, its size in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'jflow.plot needs Matplotlib: pip install "jflow[plot]".'
        ) from error
    return Figure(figsize=(width, height), layout="constrained")
