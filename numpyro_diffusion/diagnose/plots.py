"""Pictures of samples and images, of annealed runs by noise level, and of bounds. Needs the extra `plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from ..checks.numbers import array_of
from ..checks.text import shown
from ..density.abstract import batch_log_prob
from ..density.density import Density
from ..errors import ParameterError, ShapeError, check_integer, check_number
from .coverage_plots import plot_coverage as plot_coverage
from .coverage_plots import plot_sbc as plot_sbc
from .image_plots import image_grid as image_grid
from .image_plots import posterior_images as posterior_images
from .plot_style import BLUE, FILLS, GREEN, GREY, INK, MASSES, ORANGE, axes_or_new, legend, pyplot, set_title, style
from .result import AnnealedRun, Bound
from .weights import evenly, normalised

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_samples(
    samples: AnnealedRun | Any,
    density: Density | None = None,
    t: float | None = None,
    *,
    ax: Axes | None = None,
    contours: bool = True,
    limits: Sequence[tuple[float, float]] | None = None,
    max_points: int = 2000,
    grid_size: int = 160,
    title: str | None = None,
) -> Axes:
    """Two-dimensional samples over their density, whose contours enclose 40, 70, 90 and 99 % of the mass.

    Args:
        samples: A run, or points [N, 2]. Of a run with unequal weights, draws in proportion to them.
        density: Density of the contours; a run's own by default, none for bare points.
        t: Noise level of the contours; by default the run's last level, else 0.
        ax: Axes to draw on; new ones by default.
        contours: Whether to draw contours. A score-only density has none.
        limits: ((x_low, x_high), (y_low, y_high)); from the samples by default.
        max_points: Points drawn at most.
        grid_size: Grid points per axis for the contours.
        title: Title of the axes.

    Returns:
        The axes.

    Raises:
        ShapeError: if the points are not [N, 2].
        ParameterError: if no sample is finite.
        ImportError: without matplotlib.

    Cost: `grid_size` ** 2 log densities.
    """
    max_points, grid_size = check_integer("max_points", max_points), check_integer("grid_size", grid_size, 2)
    if density is not None and not hasattr(density, "event_shape"):
        raise ParameterError(f"density must be a density, for the contours; got {shown(density)}.")
    if t is not None:
        check_number("t", t, 0.0, 1.0, "0 is the data, 1 the noise.")
    if isinstance(samples, AnnealedRun):
        density = samples.density if density is None else density
        t = float(samples.levels[-1]) if t is None else t
        points = np.asarray(samples.samples)[evenly(normalised(samples.log_weights))]
    else:
        points = np.asarray(samples)
    if points.dtype.kind not in "fiub":
        raise ShapeError(f"plot_samples draws points [N, 2] of real numbers; got {shown(samples)}.")
    if points.ndim != 2 or points.shape[1] != 2:
        remedy = "Choose two of the coordinates."
        if points.ndim == 1 or points.shape[1:] == (1,):
            remedy = "Of one coordinate draw a histogram, as by plt.hist(points.ravel(), density=True)."
        raise ShapeError(f"plot_samples draws points [N, 2]; got shape {points.shape}. {remedy}")
    if density is not None and density.event_shape != (2,):
        raise ShapeError(f"plot_samples draws densities of event shape (2,); got {density.event_shape}.")
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        raise ParameterError("plot_samples needs finite samples; got none. See run.print_summary().")
    limits = _limits(points) if limits is None else _checked_limits(limits)
    ax = axes_or_new(ax, figsize=(4.4, 4.4))
    if density is not None and density.has_log_density and contours:
        _contours(ax, density, 0.0 if t is None else t, limits, grid_size)
    drawn = points[:: -(-len(points) // max_points)]
    size = float(np.clip(2500 / len(drawn), 2.5, 14.0))
    ax.scatter(*drawn.T, s=size, color=BLUE, alpha=0.55, linewidths=0, zorder=3)
    ax.set(xlim=limits[0], ylim=limits[1], aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    ax.locator_params(nbins=5)
    style(ax, grid=False)
    set_title(ax, title)
    return ax


def _checked_limits(limits):
    what = "((x_low, x_high), (y_low, y_high)), in order"
    array = array_of("limits", limits, what, ParameterError)
    if array.shape != (2, 2) or not np.all(np.isfinite(array)) or not np.all(array[:, 0] < array[:, 1]):
        raise ParameterError(f"limits must be {what}; got {shown(limits)}.")
    return tuple(map(tuple, array))


def _limits(points):
    """A square around all but the farthest 0.2 % of the points on each side."""
    low, high = np.quantile(points, (0.002, 0.998), axis=0)
    middle, half = (low + high) / 2, 0.62 * max(float(np.max(high - low)), 1e-6)
    return tuple((m - half, m + half) for m in middle)


def _contours(ax, density, t, limits, grid_size):
    axes = [np.linspace(low, high, grid_size) for low, high in limits]
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    log_p = np.asarray(batch_log_prob(density, jnp.asarray(grid, dtype=float), t), dtype=float)
    log_p = np.where(np.isnan(log_p), -np.inf, log_p)
    if not np.isfinite(log_p.max()):
        return
    p = np.exp(log_p - log_p.max()).reshape(grid_size, grid_size)
    descending = np.sort(p.ravel())[::-1]
    mass = np.cumsum(descending) / descending.sum()
    levels = descending[np.searchsorted(mass, MASSES)]
    # On a plateau all levels coincide: keep the outermost that differ, just below it.
    keep = np.append(np.diff(levels) > 1e-3 * levels[-1], True)
    levels = levels[keep] * (1 - 1e-3)
    fills = FILLS[: len(levels)]
    ax.contourf(*axes, p, levels=[*levels, np.inf], colors=fills, zorder=1)
    ax.contour(*axes, p, levels=levels, colors="#A58B63", linewidths=0.6, zorder=2)


def plot_annealing(run: AnnealedRun, *, figsize: tuple[float, float] = (9.0, 5.6)) -> Figure:
    """Four panels by noise-to-signal ratio: acceptance, step size, ESS and log-weight increments.

    Of replicas the last two show exchanges and log evidence by level.

    Args:
        run: Result of `nd.anneal` with a kernel. With history kept, acceptance shows the middle 80 % of the chains.
        figsize: Inches.

    Returns:
        The figure; the ratio zero (t = 0) stands at the right end of the logarithmic axis, after a gap.

    Raises:
        ParameterError: for reverse diffusion, which keeps no statistics, and runs with t = 0 alone, as refreshed ones.
        ImportError: without matplotlib.
    """
    plt = pyplot()
    if not isinstance(run, AnnealedRun):
        raise ParameterError(f"plot_annealing draws an AnnealedRun, what nd.anneal returns; got {shown(run)}.")
    if not run.stats:
        raise ParameterError(
            "plot_annealing needs statistics by level, and reverse diffusion has none. Use an MCMC kernel."
        )
    if not np.any(np.asarray(run.levels)):
        raise ParameterError(
            "plot_annealing shows levels, and a refreshed run has t = 0 alone. Plot the run before it."
        )
    from matplotlib.ticker import LogLocator, NullFormatter

    stats = {name: np.asarray(value) for name, value in run.stats.items()}
    x = run.density.schedule.ratios(run.levels)
    figure, panels = plt.subplots(2, 2, figsize=figsize, sharex=True, layout="constrained")
    acceptance, step = panels[0]

    if run.history is not None:
        low, high = np.nanquantile(np.asarray(run.history["acceptance_rate"]), (0.1, 0.9), axis=1)
        acceptance.fill_between(x, low, high, color=BLUE, alpha=0.15, linewidth=0, label="80 % of chains")
    _line(acceptance, x, stats["acceptance_rate"], BLUE, "mean")
    if run.kernel.step_size is None:
        target = run.kernel.target_acceptance
        acceptance.axhline(target, color=INK, linewidth=1, linestyle=(0, (4, 3)), label=f"target {target:.2f}")
    acceptance.set(ylim=(0, 1.03), title="Acceptance rate")
    legend(acceptance, loc="lower left")

    _line(step, x, stats["step_size"], BLUE, None)
    step.set(yscale="log", title="Step size")
    low, high = step.get_ylim()
    step.set_ylim(min(low, high / 3), max(high, 3 * low))  # Constant step sizes have ticks beside them, too.
    step.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7) if high < 20 * low else (1,)))
    step.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    step.yaxis.set_minor_formatter(NullFormatter())

    draw = _exchange_panels if "swap_rate" in stats else _weight_panels
    draw(panels[1], x, stats)

    for panel in panels.flat:
        panel.title.set(fontsize=10.5, color=INK)
        style(panel)
        _ratio_axis(panel, x)
    figure.supxlabel("noise-to-signal ratio $\\sigma_t / \\alpha_t$, noise to data", fontsize=10, color=INK)
    return figure


def _weight_panels(panels, x, stats):
    """Effective sample sizes and increments of weights, of a population."""
    ess, weight = panels
    _line(ess, x, stats["ess"], BLUE, "ESS")
    _line(ess, x, stats["conditional_ess"], ORANGE, "conditional ESS")
    when = stats["resampled"].astype(bool)
    if when.any():
        at = np.full(when.sum(), 0.02)
        ess.scatter(x[when], at, marker="^", s=26, color=GREY, linewidths=0, label="resampled", zorder=3)
    ess.set(ylim=(0, 1.03), title="Effective sample size, share of chains")
    legend(ess, loc="best")

    mean, sd = stats["log_weight_increment"], stats["log_weight_increment_sd"]
    weight.fill_between(x, mean - sd, mean + sd, color=GREEN, alpha=0.2, linewidth=0, label="one sd over chains")
    _line(weight, x, mean, GREEN, "mean")
    weight.axhline(0, color=GREY, linewidth=0.8)
    if np.max(np.abs(mean) + sd) > 30:  # A hard wall moves a few chains by hundreds of nats.
        weight.set_yscale("symlog", linthresh=1.0)
    weight.set_title("Log-weight increment, nats")
    legend(weight, loc="best")


def _exchange_panels(panels, x, stats):
    """Exchanges with the level before, and log evidence of every level, of replicas."""
    swaps, evidence = panels
    _line(swaps, x, stats["swap_rate"], BLUE, None)
    swaps.set(ylim=(0, 1.03), title="Exchanges with the level before")
    mean, error = stats["log_evidence"], stats["log_evidence_error"]
    evidence.fill_between(x, mean - error, mean + error, color=GREEN, alpha=0.2, linewidth=0)
    _line(evidence, x, mean, GREEN, None)
    evidence.set_title("Log evidence, nats")


def _line(ax, x, y, color, label):
    ax.plot(x, y, color=color, linewidth=1.5, marker="o", markersize=3, markeredgewidth=0, label=label)


def _ratio_axis(ax, ratio):
    """Logarithmic and falling, with a ratio of zero a good third of a decade beyond the smallest."""
    smallest, has_zero = ratio[ratio > 0].min(), ratio.min() == 0
    ax.set_xscale("symlog", linthresh=smallest, linscale=0.35)
    # A decade's label needs room beside that of zero.
    decades = 10 ** np.arange(np.ceil(np.log10(1.5 * smallest)), np.log10(1.001 * ratio.max()))
    ax.set_xticks([0, *decades] if has_zero else decades)
    ax.set_xlim(1.2 * ratio.max(), -0.2 * smallest if has_zero else smallest / 1.2)
    if has_zero:
        ax.axvline(smallest / 2, color=GREY, linewidth=0.9, linestyle=(0, (1, 2)))


def plot_bounds(
    bounds: Bound | Sequence[Bound] | Mapping[str, Bound], truth: float | None = None, *, ax: Axes | None = None
) -> Axes:
    """The sandwich: lower and upper bounds in nats with two standard errors, one row per bound.

    Args:
        bounds: One or several bounds; a mapping gives their labels, else kind and number of levels do.
        truth: True value, drawn as a line.
        ax: Axes to draw on; new ones by default.

    Returns:
        The axes.

    Raises:
        ParameterError: without a bound.
        ImportError: without matplotlib.
    """
    several = bounds if isinstance(bounds, Sequence | Mapping) else [bounds]
    rows = list(several.items()) if isinstance(several, Mapping) else [("", bound) for bound in several]
    for _, bound in rows:
        if not isinstance(bound, Bound):
            raise ParameterError(f"plot_bounds draws bounds, such as nd.ais_bound returns; got {shown(bound)}.")
    rows = [(label or f"{bound.kind.upper()}\n{len(bound.levels)} levels", bound) for label, bound in rows]
    if truth is not None:
        check_number("truth", truth, -1e300, 1e300, "Leave out what is not known.")
    if not rows:
        raise ParameterError("plot_bounds needs at least one bound; got none.")
    # Above axes of its own; over others there may be a panel.
    beside = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 3} if ax is None else {"loc": "best"}
    ax = axes_or_new(ax, figsize=(6.4, 1.5 + 0.55 * len(rows)))
    if truth is not None:
        ax.axvline(truth, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), label="truth", zorder=2)
    y = np.arange(len(rows))
    ends = np.array([(b.lower, b.lower_error, b.upper, b.upper_error) for _, b in rows], dtype=float).T
    ends[2:, ~np.isfinite(ends[2])] = np.nan
    marks: dict[str, Any] = {"linestyle": "none", "markersize": 6, "markeredgewidth": 0, "elinewidth": 1.4, "zorder": 3}
    # Side by side, so that the error bars of a tight sandwich can be told apart.
    ax.errorbar(ends[0], y + 0.08, xerr=2 * ends[1], color=BLUE, marker=">", label="lower bound", **marks)
    if not np.all(np.isnan(ends[2])):
        ax.errorbar(ends[2], y - 0.08, xerr=2 * ends[3], color=ORANGE, marker="<", label="upper bound", **marks)
        ax.hlines(y, ends[0], ends[2], color="#E4E7EA", linewidth=14, zorder=1)
    ax.set_yticks(y, [label for label, _ in rows])
    ax.set(ylim=(len(rows) - 0.5, -0.5), xlabel="nats (bars: two standard errors)")
    style(ax)
    ax.grid(visible=False, axis="y")
    legend(ax, **beside)
    return ax
