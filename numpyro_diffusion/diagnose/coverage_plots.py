"""Pictures of calibration: distribution functions of ranks, and coverage by nominal level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..checks.text import shown
from ..errors import ParameterError
from .coverage import Coverage
from .plot_style import BLUE, GREEN, GREY, INK, ORANGE, axes_or_new, legend, pyplot, set_title, style
from .sbc_result import SBCResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Lines of a panel at most; of what has more numbers, as many that are spread evenly.
MOST_LINES = 16
COLORS = (BLUE, ORANGE, GREEN, INK)


def plot_sbc(result: SBCResult, var_names: list[str] | None = None, *, prob: float = 0.95) -> Figure:
    """Distribution functions of ranks less the uniform one, a panel for each quantity, with simultaneous bands.

    A line that leaves the bands (of Saeilynoja et al. 2022, as ArviZ computes them) speaks against the posteriors: they
    are biased where it lies to one side, too narrow where it rises before the middle and falls below after it.

    Args:
        result: Result of `nd.sbc`.
        var_names: Quantities to draw; all by default.
        prob: Probability that all of a line lies within the bands, if posteriors are right.

    Raises:
        ParameterError: for anything but such a result, or unknown names.
        ImportError: without matplotlib.
    """
    plt = pyplot()
    if not isinstance(result, SBCResult):
        raise ParameterError(f"plot_sbc draws what nd.sbc returns; got {shown(result)}.")
    names = list(result.ranks) if var_names is None else list(var_names)
    if unknown := [name for name in names if name not in result.ranks]:
        raise ParameterError(f"var_names must be among {list(result.ranks)}; got {unknown[0]!r}.")
    if result.num_simulations < 2:
        raise ParameterError(f"plot_sbc needs at least two simulations; got {result.num_simulations}.")
    from arviz_stats.ecdf_utils import ecdf_pit  # slow to import

    across = min(len(names), 3)
    down = -(-len(names) // across)
    figure, axes = plt.subplots(
        down, across, figsize=(4.0 * across, 3.0 * down), squeeze=False, sharex=True, layout="constrained"
    )
    for ax, name in zip(axes.flat, names, strict=False):
        lines = result.ranks[name].reshape(result.num_simulations, -1)
        lines = lines[:, np.linspace(0, lines.shape[1] - 1, min(lines.shape[1], MOST_LINES)).astype(int)]
        for i, ranks in enumerate(lines.T):
            at, ecdf, low, high = ecdf_pit(ranks, prob, 1000)
            if i == 0:
                ax.fill_between(at, low - at, high - at, color=GREY, alpha=0.2, linewidth=0, step="mid")
            ax.step(at, ecdf - at, where="mid", color=BLUE, linewidth=1.2, alpha=1.0 if lines.shape[1] == 1 else 0.5)
        ax.axhline(0, color=GREY, linewidth=0.8)
        set_title(ax, name, 10.5)
        style(ax)
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    figure.supxlabel("rank of the truth", fontsize=10, color=INK)
    figure.supylabel("ECDF less uniform", fontsize=10, color=INK)
    return figure


def plot_coverage(found: Coverage | Mapping[str, Coverage], *, ax: Axes | None = None) -> Axes:
    """Coverage less the nominal level, by nominal level, with binomial bands of 95 % for each level.

    Args:
        found: What `nd.coverage` returns, or several by name, which should be of as many simulations.
        ax: Axes to draw on; new ones by default.

    Raises:
        ParameterError: for anything else.
        ImportError: without matplotlib.
    """
    several = {"": found} if isinstance(found, Coverage) else dict(found) if isinstance(found, Mapping) else {}
    if not several or not all(isinstance(one, Coverage) for one in several.values()):
        raise ParameterError(f"plot_coverage draws what nd.coverage returns; got {shown(found)}.")
    ax = axes_or_new(ax, figsize=(5.2, 3.6))
    first = next(iter(several.values()))
    levels = first.levels
    ax.fill_between(levels, first.lower - levels, first.upper - levels, color=GREY, alpha=0.2, linewidth=0)
    ax.axhline(0, color=GREY, linewidth=0.8)
    lines = [
        (" ".join(filter(None, (label, name if len(one.covered) > 1 or not label else ""))), one.levels, share)
        for label, one in several.items()
        for name, share in one.covered.items()
    ]
    for i, (label, at, share) in enumerate(lines):
        ax.plot(at, share - at, color=COLORS[i % len(COLORS)], alpha=1 / (1 + i // len(COLORS)), label=label)
    ax.set(xlabel="nominal level", ylabel="covered less nominal")
    style(ax)
    legend(ax, loc="best")
    return ax
