"""Noise levels as the user gives them: how many, or which."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..density.abstract import narrowest
from ..density.density import Density
from ..errors import ScheduleError


def smallest_ratio(density: Density) -> float:
    """The finest noise-to-signal ratio worth a level: 1/500 of the narrowest direction, or the density's resolution."""
    return max(narrowest(density) / 500, density.resolution, 1e-6)


def check_levels(levels: Any) -> np.ndarray:
    """Levels as a decreasing array in [0, 1].

    Raises:
        ScheduleError: if they do not decrease, leave [0, 1], or are fewer than two.
    """
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
    wrong = np.flatnonzero(np.diff(levels) >= 0)
    if len(wrong):
        i = wrong[0]
        raise ScheduleError(
            f"levels must decrease; got {levels[i]:.6g} before {levels[i + 1]:.6g}. Reverse or sort them."
        )
    return levels


def given_levels(levels, density: Density, count: int | None = None) -> np.ndarray | None:
    """Levels as an array where they are given: times, or a number of geometric levels, for which `count` may stand.

    Raises:
        ParameterError, ScheduleError: as `NoiseSchedule.levels` and `check_levels`.
    """
    levels = count if levels is None else levels
    if levels is None:
        return None
    if isinstance(levels, int | np.integer) and not isinstance(levels, bool):
        return check_levels(density.schedule.levels(int(levels), smallest=smallest_ratio(density)))
    return check_levels(levels)
