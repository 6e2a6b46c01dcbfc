"""What `check_model` has found, by noise level and in words."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from ..checks.text import columns
from ..diagnose.plot_style import BLUE, GREEN, GREY, INK, ORANGE, legend, pyplot, style

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ModelReport:
    r"""How well a model predicts the noise in data; made by `nd.check_model`. Arrays are by noise level [L].

    Attributes:
        name: The model's.
        levels: Times t, decreasing, and `ratios`, noise-to-signal ratios there.
        error: :math:`E|\hat\varepsilon - \varepsilon|^2 / d` of the model's noise; NaN where it returns none.
        reference: The least error of what can be said of the noise without a model, from the data: the best possible
            error is at most this (and at most the model's own). `floor` is what it is at least, on average over data.
        excess: (error - reference) / min(reference, 1 - reference), and `excess_error`, its standard error: 0 is as
            good as the reference, below 0 better, 1 as wrong as one can be without being worse than no prediction.
        curl: Relative curl of the score over the points, 0 to 1; 0 where there is a log density.
        drift: Mean brightness of the denoised points less that of the data, in standard deviations of the data's
            brightness, and `drift_error`, its standard error.
        is_trusted: Whether nothing speaks against the level.
        findings: Sentences, the gravest first, each with its remedy; empty where nothing speaks against the model.
        num_points: Noised points per level.
    """

    name: str
    levels: np.ndarray
    ratios: np.ndarray
    error: np.ndarray
    reference: np.ndarray
    floor: np.ndarray
    excess: np.ndarray
    excess_error: np.ndarray
    curl: np.ndarray
    drift: np.ndarray
    drift_error: np.ndarray
    is_trusted: np.ndarray
    findings: list[str]
    num_points: int

    @property
    def trusted(self) -> tuple[float, float] | None:
        """Lowest and highest noise-to-signal ratio of the longest run of levels that can be trusted, or None."""
        best: tuple[int, int] | None = None
        for end in np.flatnonzero(self.is_trusted):
            before = np.flatnonzero(~self.is_trusted[:end])
            start = int(before[-1]) + 1 if len(before) else 0
            if best is None or end - start > best[1] - best[0]:
                best = start, int(end)
        return None if best is None else (float(self.ratios[best[1]]), float(self.ratios[best[0]]))

    def print_summary(self) -> None:
        """Print the report: a table by level, and findings."""
        print(self)

    def __str__(self) -> str:
        head = ("noise / signal", "error", "best possible", "excess", "curl", "drift", "")
        rows = [
            (
                f"{self.ratios[i]:.3g}", f"{self.error[i]:.3g}", self._best(i),
                f"{self.excess[i]:.2f} +- {self.excess_error[i]:.2f}", f"{self.curl[i]:.2g}",
                f"{self.drift[i]:.2f} +- {self.drift_error[i]:.2f}", "" if self.is_trusted[i] else "not trusted",
            )
            for i in range(len(self.ratios))
        ]  # fmt: skip
        span = "at no level" if self.trusted is None else "from {:.3g} to {:.3g}".format(*self.trusted)
        lines = [
            f"{self.name} on data with noise, {self.num_points} points a level", "", columns([head, *rows]), "",
            f"trusted   {span}", f"findings  {len(self.findings) or 'none'}",
        ]  # fmt: skip
        return "\n".join([*lines, *(f"  - {finding}" for finding in self.findings)])

    def _best(self, i: int) -> str:
        floor = min(self.floor[i], self.reference[i])
        return f"{floor if floor > 1e-4 * self.reference[i] else 0:.3g} to {self.reference[i]:.3g}"

    def __repr__(self) -> str:
        return f"ModelReport({self.name}: {len(self.findings) or 'no'} findings)"

    def to_datatree(self) -> xr.DataTree:
        """An xarray DataTree with the group `check`: what the report holds, by noise_level [L]."""
        import xarray as xr  # slow to import

        names = ("error", "reference", "floor", "excess", "excess_error", "curl", "drift", "drift_error", "is_trusted")
        values = {name: (("noise_level",), np.asarray(getattr(self, name))) for name in names}
        coords = {"t": ("noise_level", self.levels), "noise_to_signal": ("noise_level", self.ratios)}
        attrs = {"model": self.name, "findings": "\n".join(self.findings), "num_points": self.num_points}
        return xr.DataTree.from_dict({"check": xr.Dataset(values, coords, attrs)})

    def plot(self, *, figsize: tuple[float, float] = (9.0, 5.6)) -> Figure:
        """Four panels by noise-to-signal ratio: error and best possible, excess, curl, drift.

        Raises:
            ImportError: without matplotlib.
        """
        figure, panels = pyplot().subplots(2, 2, figsize=figsize, sharex=True, layout="constrained")
        error, excess, curl, drift = panels.flat
        low = np.minimum(self.floor, self.reference)
        error.fill_between(self.ratios, low, self.reference, color=GREY, alpha=0.25, linewidth=0, label="best possible")
        self._line(error, self.error, None, BLUE, "model")
        error.set(yscale="log", title="Mean squared error of the noise")
        self._line(excess, self.excess, self.excess_error, ORANGE, None)
        excess.set_title("Excess over the reference")
        # A level at which the reference is poor has a model far below it.
        excess.set_ylim(bottom=max(-1.0, float(np.nanmin(self.excess, initial=0.0)) - 0.1))
        self._line(curl, self.curl, None, GREEN, None)
        curl.set(ylim=(-0.02, max(0.2, 1.1 * float(np.nanmax(self.curl, initial=0.0)))), title="Relative curl")
        self._line(drift, self.drift, self.drift_error, BLUE, None)
        drift.set_title("Drift of the brightness, sd of the data's")
        for panel in panels.flat:
            panel.set_xscale("log")
            panel.set_xlim(1.2 * self.ratios.max(), self.ratios.min() / 1.2)
            panel.title.set(fontsize=10.5, color=INK)
            style(panel)
            if panel in (excess, drift):
                panel.axhline(0, color=GREY, linewidth=0.8)
            if self.trusted is not None:
                panel.axvspan(*self.trusted, color=GREEN, alpha=0.07, linewidth=0, label="trusted")
        legend(error, loc="best")
        figure.supxlabel("noise-to-signal ratio $\\sigma_t / \\alpha_t$, noise to data", fontsize=10, color=INK)
        return figure

    def _line(self, ax, values, errors, color, label):
        if errors is not None:
            ax.fill_between(self.ratios, values - errors, values + errors, color=color, alpha=0.2, linewidth=0)
        ax.plot(self.ratios, values, color=color, linewidth=1.5, marker="o", markersize=3, label=label)
