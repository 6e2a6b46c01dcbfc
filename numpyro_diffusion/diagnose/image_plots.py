"""Pictures of images: many of them in one grid, and what a posterior of one image knows of each pixel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checks.numbers import array_of
from ..checks.text import shown
from ..errors import ParameterError, ShapeError, check_integer, check_number
from .plot_style import ORANGE, axes_or_new, pyplot, set_title
from .result import AnnealedRun
from .weights import evenly, normalised

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def image_grid(
    images: AnnealedRun | Any,
    *,
    columns: int | None = None,
    max_images: int = 64,
    limits: tuple[float, float] = (-1.0, 1.0),
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Images side by side, row by row, a white pixel apart.

    Args:
        images: A run, or images [N, height, width] in grey, or [N, height, width, 1 or 3] in grey or colours. Of a run
            with unequal weights, draws in proportion to them.
        columns: Images of a row; by default as many as there are rows.
        max_images: Images drawn at most: evenly picked, since relatives lie side by side.
        limits: Values that are black and white; what is beyond is drawn as these, what is not finite orange.
        ax: Axes to draw on; new ones by default.
        title: Title of the axes.

    Returns:
        The axes.

    Raises:
        ShapeError: if there are no images, or they have another shape.
        ParameterError: for limits that are not in order, and counts that are no integers >= 1.
        ImportError: without matplotlib.
    """
    max_images = check_integer("max_images", max_images)
    x = _draws(images)
    low, high = _limits(limits)
    x = x[np.linspace(0, len(x), min(max_images, len(x)), endpoint=False).astype(int)].astype(float)
    x = x[..., None] if x.ndim == 3 else x
    columns = math.ceil(math.sqrt(len(x))) if columns is None else check_integer("columns", columns)
    rows = -(-len(x) // columns)
    ax = axes_or_new(ax, figsize=(0.9 * columns, 0.9 * rows + (0.3 if title else 0.0)))
    seen = np.where(np.isfinite(x), np.clip((x - low) / (high - low), 0, 1), np.nan)
    ax.imshow(_tiled(seen, columns), interpolation="nearest")
    set_title(ax, title)
    ax.set_axis_off()
    return ax


def posterior_images(
    images: AnnealedRun | Any,
    *,
    probability: float = 0.9,
    references: Mapping[str, Any] | None = None,
    limits: tuple[float, float] = (-1.0, 1.0),
    title: str | None = None,
) -> Figure:
    """What draws of one image say of each pixel: mean, ends of the central interval, and its width.

    Args:
        images: A run, or equally weighted draws, as of `image_grid`.
        probability: p of the interval of each pixel, from the quantile (1 - p) / 2 of the draws to (1 + p) / 2.
        references: Images of the same shape that are drawn before these, by title: the measurement, the truth.
        limits: Values that are black and white. The width is black at 0 and white at their distance.
        title: Title of the figure.

    Returns:
        The figure, with a row of panels.

    Raises:
        ShapeError: if images or references have another shape.
        ParameterError: for limits that are not in order, and a probability outside (0, 1).
        ImportError: without matplotlib.
    """
    plt = pyplot()
    check_number("probability", probability, 0, 1, "0.9 is usual.", ends="()")
    x, (black, white) = _draws(images).astype(float), _limits(limits)
    low, high = np.quantile(x, [(1 - probability) / 2, (1 + probability) / 2], axis=0)
    panels = {}
    for name, image in (references or {}).items():
        panels[name] = array_of(name, image, f"an image {x.shape[1:]}")
        if panels[name].shape != x.shape[1:]:
            raise ShapeError(f"{name} must have the draws' shape {x.shape[1:]}; got {panels[name].shape}. Reshape it.")
    percent = f"{100 * probability:g} %"
    panels |= {"mean": x.mean(0), f"low end, {percent}": low, f"high end, {percent}": high}
    panels["width"] = black + high - low
    figure, axes = plt.subplots(
        1, len(panels), figsize=(1.7 * len(panels), 2.1 + 0.3 * bool(title)), layout="constrained"
    )
    for ax, (name, image) in zip(axes, panels.items(), strict=True):
        image_grid(np.asarray(image)[None], limits=(black, white), ax=ax, title=name)
    set_title(figure, title)
    return figure


def _draws(images) -> np.ndarray:
    """Equally weighted images [N, height, width] or [N, height, width, 1 or 3]."""
    given = images.samples if isinstance(images, AnnealedRun) else images
    x = np.asarray(given)
    if isinstance(images, AnnealedRun):
        x = x[evenly(normalised(images.log_weights))]
    if x.dtype.kind not in "fiub" or x.ndim not in (3, 4) or x.size == 0 or (x.ndim == 4 and x.shape[3] not in (1, 3)):
        got = f"{x.dtype} {x.shape}" if x.dtype.kind in "fiubc" else shown(given)
        raise ShapeError(
            f"images must be real numbers [N, height, width], or [N, height, width, 1 or 3], N >= 1; got {got}. "
            "Reshape flat ones: x.reshape(-1, height, width)."
        )
    return x


def _limits(limits) -> tuple[float, float]:
    what = "two numbers (black, white), in order"
    array = array_of("limits", limits, what, ParameterError)
    if array.shape != (2,) or not np.all(np.isfinite(array)) or not array[0] < array[1]:
        raise ParameterError(f"limits must be {what}; got {shown(limits)}. (-1, 1) is usual.")
    return float(array[0]), float(array[1])


def _tiled(x: np.ndarray, columns: int) -> np.ndarray:
    """One image in colours, of images [n, height, width, 1 or 3] in [0, 1], NaN for what is lost."""
    n, height, width, channels = x.shape
    rows = -(-n // columns)
    tiles = np.ones((rows * columns, height + 1, width + 1, 3))
    lost = np.isnan(x).any(axis=-1, keepdims=True)
    orange = np.array([*bytes.fromhex(ORANGE[1:])]) / 255
    tiles[:n, :height, :width] = np.where(lost, orange, x)
    return tiles.reshape(rows, columns, height + 1, width + 1, 3).swapaxes(1, 2).reshape(
        rows * (height + 1), columns * (width + 1), 3
    )[:-1, :-1]  # fmt: skip
