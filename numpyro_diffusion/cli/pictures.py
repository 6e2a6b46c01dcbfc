"""The pictures that the command line draws, as PNG. They raise ImportError where matplotlib is missing."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ..datasets.targets import Target
from ..density.density import Density
from ..disk.densities import load_pretrained


def compositions(problems: Sequence[Target], samples: Sequence[Sequence[np.ndarray]]) -> bytes:
    """PNG with a row per problem: the trained components, draws of the truth, of reverse diffusion, of annealing."""
    from matplotlib.colors import LinearSegmentedColormap

    shade = LinearSegmentedColormap.from_list("density", ["white", "#c9d9ec", "#4a7ab5", "#14315c"])
    edge, size = 1.08, 217
    axis = np.linspace(-edge, edge, size)
    grid = jnp.asarray(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2), dtype=float)
    figure = _figure(11, 2.3 * len(problems) + 0.3)
    axes = figure.subplots(len(problems), 5, squeeze=False)
    for row, (problem, drawn) in enumerate(zip(problems, samples, strict=True)):
        for column, factor in enumerate(problem.factors):
            height = np.asarray(_density_at(load_pretrained(factor), grid)).reshape(size, size)
            axes[row, column].imshow(
                height, origin="lower", extent=(-edge, edge, -edge, edge), cmap=shade, vmax=np.quantile(height, 0.999)
            )
            axes[row, column].set_title(factor.replace("_", " "), fontsize=9, color="#444444")
        for column, (label, x) in enumerate(zip(("truth", "reverse diffusion", "annealed HMC"), drawn, strict=True), 2):
            colour = "#777777" if column == 2 else "#c0562f" if column == 3 else "#14315c"
            axes[row, column].scatter(*x[:2000].T, s=2.5, alpha=0.35, linewidths=0, color=colour)
            axes[row, column].set_title(label, fontsize=9, color=colour)
        axes[row, 0].set_ylabel(problem.name, fontsize=11)
    for ax in axes.flat:
        ax.set(xlim=(-edge, edge), ylim=(-edge, edge), xticks=[], yticks=[], aspect="equal")
        ax.spines[:].set_color("#cccccc")
    return png(figure)


def heat_maps(rows: Sequence[tuple[str, Sequence[str], Sequence[np.ndarray]]]) -> bytes:
    """PNG with a row per (name, titles, maps [h, w]), all of a row in the shades of its first map."""
    figure = _figure(2.4 * len(rows[0][1]) + 0.3, 2.5 * len(rows) + 0.2)
    axes = figure.subplots(len(rows), len(rows[0][1]), squeeze=False)
    for line, (name, titles, maps) in zip(axes, rows, strict=True):
        for ax, title, values in zip(line, titles, maps, strict=True):
            ax.imshow(values, origin="lower", cmap="Blues", vmin=0, vmax=np.max(maps[0]))
            ax.set_title(title, fontsize=9, color="#444444")
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=10)
    return png(figure)


def digits(drawn, real, count: int = 10) -> bytes:
    """PNG of two blocks of 8x8 digits [n, 64], side by side: drawn ones and real ones, evenly picked.

    Resampling puts the copies of a chain next to each other, so the first of many would be a poor selection.
    """
    figure = _figure(9.4, 4.8)
    figure.get_layout_engine().set(wspace=0.08)  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
    for ax, images, title in zip(figure.subplots(1, 2), (drawn, real), ("drawn", "real"), strict=True):
        tiles = np.full((count * count, 9, 9), np.nan)
        picked = np.linspace(0, len(images), min(count**2, len(images)), endpoint=False).astype(int)
        chosen = np.random.default_rng(0).permutation(np.asarray(images)[picked]).reshape(-1, 8, 8)
        tiles[: len(chosen), :8, :8] = chosen
        block = tiles.reshape(count, count, 9, 9).transpose(0, 2, 1, 3).reshape(9 * count, 9 * count)
        ax.imshow(block[:-1, :-1], cmap="gray_r", vmin=-1, vmax=1, interpolation="nearest")
        ax.set_title(title, fontsize=11)
        ax.set_axis_off()
    return png(figure)


def cubes(places, runs, shares) -> bytes:
    """PNG of the images, a row for each sampler, with a ring around every place that was asked for."""
    figure, axes = _rows_of_images(runs, shares)
    size = next(iter(runs.values())).samples.shape[1]
    for ax in axes.flat:
        ax.scatter(*(size * np.asarray(places)).T, s=180, facecolors="none", edgecolors="white", linewidths=0.8)
    return png(figure, dpi=120)


def scenes(prompt: str, runs, shares) -> bytes:
    """PNG of the images, a row for each sampler, under the prompt; `shares` of those judged right may be missing."""
    figure, _ = _rows_of_images(runs, shares)
    # A character of this size takes a twelfth of an inch.
    lines = textwrap.wrap(prompt, int(12 * figure.get_figwidth()) - 1)
    figure.suptitle("\n".join(lines), fontsize=10, family="monospace")
    return png(figure, dpi=120)


def _rows_of_images(runs, shares):
    count = len(next(iter(runs.values())).samples)
    figure = _figure(1.5 * max(count, 2), 1.75 * len(runs) + 0.2)
    axes = figure.subplots(len(runs), count, squeeze=False)
    for row, (name, result) in zip(axes, runs.items(), strict=True):
        for ax, image in zip(row, np.asarray(result.samples), strict=True):
            size = len(image)
            ax.imshow(np.clip((image + 1) / 2, 0, 1), interpolation="nearest", extent=(0, size, size, 0))
            ax.set(xticks=[], yticks=[])
        share = f": {shares[name]:.0%} right" if name in shares else ""
        row[0].set_title(f"{name}{share}", loc="left", fontsize=9)
    return figure, axes


@jax.jit
def _density_at(density: Density, x):
    return jnp.exp(jax.vmap(lambda point: density.log_density(point, jnp.zeros(())))(x))


def _figure(width: float, height: float):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def png(figure, dpi: int = 130) -> bytes:
    """A figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi)
    return buffer.getvalue()
