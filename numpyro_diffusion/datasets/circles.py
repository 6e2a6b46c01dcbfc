r"""Three overlapping discs in the plane, to be sculpted: what compositions hold is read off their eight regions.

Each disc is a mixture of N(m, s^2 I) with equal weights, whose means m fill it evenly: closed forms at every noise
level, all but constant inside. A region says which discs a point is in.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ..density.density import Density
from ..density.exact import GaussianMixture
from ..density.schedule import NoiseSchedule
from ..errors import ShapeError, check_integer

COUNT, RADIUS = 3, 0.55
_ANGLES = np.pi / 2 + 2 * np.pi * np.arange(COUNT) / COUNT
CENTRES = 0.38 * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], -1)
#: Rings of components in a disc, and the standard deviation of each component.
RINGS, STD = 3, 0.085


def exact(which: int, schedule: NoiseSchedule | None = None) -> GaussianMixture:
    """Closed form of disc 1, 2 or 3, else ParameterError."""
    centre = CENTRES[check_integer("which", which, 1, COUNT, "The discs are 1, 2 and 3.") - 1]
    means = centre + _points()
    return GaussianMixture(means, np.tile(STD**2 * np.eye(2), (len(means), 1, 1)), schedule=schedule, name=f"p{which}")


def densities(schedule: NoiseSchedule | None = None) -> list[Density]:
    """All three, as `nd.sculpt` takes them."""
    return [exact(which, schedule) for which in range(1, COUNT + 1)]


def region(x) -> np.ndarray:
    """Which discs points [n, 2] lie in, [n]: the sum of 1 for the first, 2 for the second and 4 for the third."""
    points = np.asarray(x)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ShapeError(f"points must have shape [n, 2]; got {points.shape}.")
    distances = np.linalg.norm(points[:, None] - CENTRES, axis=-1)
    return (distances < RADIUS) @ 2 ** np.arange(COUNT)


@cache
def _points() -> np.ndarray:
    """Points [37, 2] in a disc around zero: its centre, and rings of six times their number."""
    rings = [(k / RINGS * (RADIUS - STD), 6 * k) for k in range(1, RINGS + 1)]
    angles = np.concatenate([2 * np.pi * np.arange(count) / count for _, count in rings])
    radii = np.concatenate([np.full(count, radius) for radius, count in rings])
    return np.vstack([np.zeros(2), radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], -1)])
