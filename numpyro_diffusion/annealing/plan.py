"""A run's plan, its noise levels and what moves take at each; and levels as the user gives them, how many or which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..density.abstract import narrowest
from ..density.density import Density
from ..errors import ScheduleError


class PlannedLevel(NamedTuple):
    """What a plan says of one level.

    Its time, step size and scale; the level before, None where no level of the plan is reached by a reverse diffusion
    step, and whether such a `step` leads here from there; the time of that level, 1 at the first, in any case; and the
    density's `information`, for a step on from here.
    """

    t: Any
    step_size: Any = None
    scale: Any = None
    before: PlannedLevel | None = None
    previous: Any = None
    information: Any = None
    step: Any = False


class Plan(NamedTuple):
    """Decreasing `levels` [K] from 1 to 0, a `step_sizes` entry for each, and `scales` [K, d, d] of moves or None.

    `denoised` [K] says to which levels but the first a reverse diffusion step leads, with the `information` [K, d, d]
    of the level before, if there is any; to others, or to all if it is None, chains are carried along.
    """

    levels: np.ndarray
    step_sizes: np.ndarray
    scales: np.ndarray | None = None
    denoised: np.ndarray | None = None
    information: np.ndarray | None = None

    @classmethod
    def of(cls, levels: Sequence[PlannedLevel]) -> Plan:
        """The plan of such levels."""

        def stacked(name):
            values = [getattr(level, name) for level in levels]
            return None if values[0] is None else np.stack(values)

        denoised = np.array([bool(level.step) for level in levels])
        return cls(stacked("t"), stacked("step_size"), stacked("scale"), denoised, stacked("information"))  # pyright: ignore

    def at(self, i: int) -> PlannedLevel:
        """Level i, counted from the end below 0."""
        i = range(len(self.levels))[i]
        level, before = self._alone(i), self._alone(max(i - 1, 0))
        denoised = np.zeros(len(self.levels), bool) if self.denoised is None else self.denoised
        # One structure, and so one program, for all levels of a plan: the first has itself before it.
        level = level._replace(before=before if denoised[1:].any() else None, step=bool(i and denoised[i]))
        # What is known of a level serves the step on from there.
        return level._replace(previous=before.t if i else 1.0, information=None)

    def _alone(self, i: int) -> PlannedLevel:
        scale, information = (None if a is None else a[i] for a in (self.scales, self.information))
        return PlannedLevel(float(self.levels[i]), float(self.step_sizes[i]), scale, information=information)


def smallest_ratio(density: Density) -> float:
    """The finest noise-to-signal ratio worth a level: 1/500 of the narrowest direction, or the density's resolution."""
    return max(narrowest(density) / 500, density.resolution, 1e-6)


def check_levels(levels: Any) -> np.ndarray:
    """Levels as an array; ScheduleError if they do not decrease, leave [0, 1], or are fewer than two."""
    try:
        if np.asarray(levels).dtype == bool:
            raise TypeError("booleans are neither times nor numbers of levels")
        levels = np.asarray(levels, dtype=float)
    except (TypeError, ValueError) as error:
        raise ScheduleError(f"levels must be None, a number of levels, or a list of times; got {levels!r}.") from error
    if levels.ndim != 1 or len(levels) < 2:
        raise ScheduleError(f"levels must be a list of at least two times; got shape {levels.shape}.")
    if not np.all((levels >= 0) & (levels <= 1)):
        raise ScheduleError(f"levels must lie in [0, 1]; got {levels.min()} to {levels.max()}.")
    if len(wrong := np.flatnonzero(np.diff(levels) >= 0)):
        i = wrong[0]
        raise ScheduleError(
            f"levels must decrease; got {levels[i]:.6g} before {levels[i + 1]:.6g}. Reverse or sort them."
        )
    return levels


def geometric_levels(density: Density, count: int) -> np.ndarray:
    """Levels [count] from 1 to 0, geometric in the noise-to-signal ratio down to the finest worth a level."""
    return density.schedule.levels(count, smallest=smallest_ratio(density))


def given_levels(levels, geometric: Callable[[int], np.ndarray]) -> np.ndarray:
    """Levels as an array where they are given, checked: times, or a number of `geometric` ones."""
    is_number = isinstance(levels, int | np.integer) and not isinstance(levels, bool)
    return check_levels(geometric(int(levels)) if is_number else levels)
