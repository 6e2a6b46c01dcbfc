"""What may be the terms of a formula."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ArgumentTypeError, ParameterError, ScheduleError, ShapeError
from .abstract import AbstractDensity
from .schedule import NoiseSchedule


def check_densities(what: str, densities: Sequence[Any]) -> None:
    """Raise unless these can be terms of one formula: at least one density, on one event shape, under one schedule."""
    if not densities:
        raise ParameterError(f"{what} needs at least one density; got none.")
    for density in densities:
        if not isinstance(density, AbstractDensity):
            raise ArgumentTypeError(
                f"{what} takes densities; got {type(density).__name__}. Give numbers by keyword, and wrap functions "
                "in nd.as_density."
            )
    first = densities[0]
    for density in densities[1:]:
        if density.event_shape != first.event_shape:
            raise ShapeError(
                f"{what} needs one event shape; got {first.event_shape} and {density.event_shape}. "
                "Compose densities of the same kind of points."
            )
        if density.schedule != first.schedule:
            _check_overlap(what, first.schedule, density.schedule)
            raise ScheduleError(
                f"{what} needs one schedule; got {first.schedule} and {density.schedule}. "
                "Convert one with density.with_schedule(...), which is exact."
            )


def _check_overlap(what: str, *schedules: NoiseSchedule) -> None:
    """Raise ScheduleError where two schedules have no noise-to-signal ratio in common."""
    (low, high), (other_low, other_high) = (schedule.noise_range for schedule in schedules)
    if high < other_low or other_high < low:
        raise ScheduleError(
            f"{what} needs one schedule, and these do not overlap: noise-to-signal ratios from {low:.4g} to {high:.4g} "
            f"and from {other_low:.4g} to {other_high:.4g}. Convert the density that is known at the other's ratios, "
            "as closed forms are, with density.with_schedule(...)."
        )
