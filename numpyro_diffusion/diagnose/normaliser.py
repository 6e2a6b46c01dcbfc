r"""log Z(t) of a density in one or two dimensions at many noise levels, from large noise to small.

In units y = x / alpha a density at noise-to-signal ratio r is the density at r' < r blurred by noise of variance
r^2 - r'^2. So what is narrow at small noise announces itself at large noise: levels are passed in falling order, with
levels between them so that no ratio falls by more than `FALL`, and each starts from cells as fine as the mass of the
one before asked for. A function that ignores its noise level announces nothing: therefore every level asked for is
also scanned, on grids one beyond the other, and every peak of the log density climbed until its width is known.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from ..density.abstract import batch_log_prob
from ..density.density import Density
from ..errors import ParameterError
from .quadrature import Integral, Seeds, integrate, lattice

#: Largest fall of the noise from one level to the next, and the mean change of log p at which one may go further.
FALL, LITTLE = 2.5, 0.1
#: Error of log Z to end with and evaluations at most, at the levels asked for and at those between.
ASKED_FOR, BETWEEN = {"tolerance": 1e-3, "most": 1_000_000}, {"tolerance": 2e-3, "most": 200_000}
#: Points of a scan along an axis by dimension, in a box of eight spreads; boxes twice as large each, fewer where the
#: density has moments; peaks climbed in each.
SCAN, SCANS, SCANS_OF_KNOWN, MOST_PEAKS = {1: 8192, 2: 48}, 10, 5, 32
#: Nats of mass below the largest at which a peak counts for nothing.
NEGLIGIBLE = 30.0
#: Points evaluated at once: one compiled program serves all.
BATCH = 4096


class Level(NamedTuple):
    """One noise level: time, ratio, alpha, integral over y, and where log p was no number.

    `inherited` is the largest error of the levels before: what one of them has lost, those after it do not find.
    """

    t: float
    ratio: float
    alpha: float
    integral: Integral
    strange: np.ndarray
    inherited: float

    @property
    def log_z(self) -> float:
        return self.integral.log_z

    @property
    def error(self) -> float:
        """Of log Z in nats; infinite if log p is no number where there is mass."""
        nodes, mass = self.integral.nodes()
        there = nodes[mass > 1e-6]
        low, high = there.min(axis=0), there.max(axis=0)
        # Where it is no number right beside the mass, there may be more of it.
        inside = np.all(np.abs(self.strange - (low + high) / 2) <= (high - low), axis=1)
        if inside.any():
            return np.inf
        # A log density of a hundred million nats is known to the nearest eight.
        cells = self.integral.cells
        rounding = float(np.spacing(np.abs(cells.values[np.argmax(cells.fine)]).max().astype(jnp.result_type(float))))
        return max(self.integral.error, self.inherited) + rounding


class _LogDensity:
    """Points y [n, d] to log densities [n] in units of y; NaN and +inf count as no density, and are remembered."""

    def __init__(self, density: Density, t: float, alpha: float):
        self.density, self.t, self.alpha, self.strange = density, t, alpha, []

    def __call__(self, y):
        x = (self.alpha * y).astype(jnp.result_type(float))
        padded = np.concatenate([x, np.zeros((-len(x) % BATCH, x.shape[1]), x.dtype)])
        padded = padded.reshape(-1, *self.density.event_shape)
        parts = [batch_log_prob(self.density, padded[i : i + BATCH], self.t) for i in range(0, len(padded), BATCH)]
        values = np.concatenate([np.asarray(part, dtype=np.float64) for part in parts])[: len(x)]
        strange = np.isnan(values) | np.isposinf(values)
        self.strange += list(y[strange])
        return np.where(strange, -np.inf, values + x.shape[1] * np.log(self.alpha))

    def spacing(self, y):
        """Half-size [n] of a cell that holds but a few of the numbers that stand for y."""
        return 2 * np.max(np.spacing(np.abs(self.alpha * y).astype(jnp.result_type(float))), axis=1) / self.alpha


def levels_of(density: Density, times: np.ndarray) -> list[Level]:
    """The density's integral at each of the times, in their order; ParameterError for no mass or an infinite one."""
    found: dict[float, Level] = {}
    previous = None
    for t in sorted({float(t) for t in times}, reverse=True):
        previous = previous or _level(density, 1.0, None, BETWEEN if t < 1 else ASKED_FOR)
        while (between := _between(density, previous, t)) is not None:
            previous = _level(density, between, previous, BETWEEN)
        previous = found[t] = _level(density, t, previous, ASKED_FOR)
    return [found[float(t)] for t in times]


def _between(density: Density, previous: Level, t: float) -> float | None:
    """A time on the way from the level before to t, or None if that is near enough."""
    points = _typical(previous.integral)
    # Noise that the numbers themselves cannot tell from none has nothing left to announce.
    least = 1e-7 * float(np.abs(points).max())
    ratio = max(float(density.schedule.noise_to_signal(t)), density.resolution, least)
    if previous.ratio <= FALL * ratio:
        return None
    if _change(density, previous, t, float(density.schedule.alpha(t)), 1.0) < LITTLE:
        return None
    return float(density.schedule.time(previous.ratio / FALL))


def _typical(integral: Integral) -> np.ndarray:
    """Points [n, d] spread over the mass, equally weighted."""
    nodes, mass = integral.nodes()
    total = np.cumsum(mass)
    places = (np.arange(BATCH // 4) + 0.5) / (BATCH // 4) * total[-1]
    return nodes[np.minimum(np.searchsorted(total, places), len(nodes) - 1)]


def _change(density: Density, previous: Level, t: float, alpha: float, scale: float) -> float:
    """Mean change (nats) of the shape of log p from the level before to t, between y there and `scale` y here."""
    points = _typical(previous.integral)
    before, now = _LogDensity(density, previous.t, previous.alpha), _LogDensity(density, t, alpha)
    change = np.maximum(now(scale * points), -1e9) - before(points)
    return float(np.mean(np.abs(change - np.median(change))))


def _level(density: Density, t: float, previous: Level | None, effort: dict) -> Level:
    """The integral at one level, from what the level before hands on; scanned where it is asked for."""
    schedule = density.schedule
    ratio, alpha = max(float(schedule.noise_to_signal(t)), density.resolution), float(schedule.alpha(t))
    log_density = _LogDensity(density, t, alpha)
    centre, spread, num_scans = _first_look(density, t, ratio, alpha)
    none = np.empty((0, len(centre)))
    seeds = Seeds(none, none) if previous is None else _handed_on(density, previous, t, ratio, alpha)
    if effort is ASKED_FOR:
        seeds = seeds.joined(_peaks(log_density, centre, spread, seeds, num_scans))
    try:
        integral = integrate(log_density, centre, spread, seeds, spacing=log_density.spacing, **effort)
    except ParameterError as error:
        raise ParameterError(
            f"the normaliser of {density!r} cannot be measured at t = {t:.4g}: {error}. Check density.log_prob at this "
            "t near the data, and levels above it; method='anneal' measures without a grid."
        ) from error
    inherited = 0.0 if previous is None else max(previous.inherited, previous.integral.error)
    return Level(t, ratio, alpha, integral, np.reshape(log_density.strange, (-1, len(centre))), inherited)


def _first_look(density: Density, t: float, ratio: float, alpha: float):
    """Centre and spread [d] of y as far as they are known, and how many scans that calls for."""
    gaussian = density.gaussian(t)
    if gaussian is None:
        size = int(np.prod(density.event_shape, initial=1))
        return np.zeros(size), np.full(size, np.hypot(1.0, ratio)), SCANS
    variance = np.diag(np.asarray(gaussian.covariance, dtype=np.float64))
    return np.asarray(gaussian.mean, dtype=np.float64) / alpha, np.sqrt(variance) / alpha, SCANS_OF_KNOWN


def _handed_on(density: Density, previous: Level, t: float, ratio: float, alpha: float) -> Seeds:
    """Where the level before had its mass, and how fine cells must be there at this one."""
    centre, half = previous.integral.seeds
    # Halves of other boxes are up to half as large as allowed: in the mean none shall become smaller.
    size = 2**0.5 * half
    # A function that ignores its noise level stands still in x, not in y.
    scale = previous.alpha / alpha
    if _change(density, previous, t, alpha, scale) < min(_change(density, previous, t, alpha, 1.0), 1.0):
        return Seeds(scale * centre, scale * size)
    # Cells that the noise ruled may be finer now. Wider ones hold still, or those of no use would be halved for ever.
    return Seeds(centre, np.where(half <= 3 * previous.ratio, np.maximum(6 * ratio, half / FALL), size))


def _peaks(log_density, centre, spread, seeds: Seeds, num_scans: int) -> Seeds:
    """Peaks of the log density on grids twice as wide each, climbed from there, and the widths of what they are."""
    d = len(centre)
    # Not symmetric: what is, has its singular points in the middle.
    steps = (np.arange(SCAN[d]) + 0.4817) / SCAN[d] * 2 - 1
    scales = spread * 2.0 ** np.arange(num_scans)[:, None]
    points = centre + 8 * lattice(steps, d) * scales[:, None]
    values = log_density(points.reshape(-1, d)).reshape(num_scans, *[SCAN[d]] * d)
    window = {"size": (1, *[3] * d), "mode": "nearest"}
    is_peak = (ndimage.maximum_filter(values, **window) == values) & (ndimage.minimum_filter(values, **window) < values)
    heights = np.where(is_peak, values, -np.inf).reshape(num_scans, -1)
    highest = np.argsort(-heights, axis=1)[:, :MOST_PEAKS]
    height = np.take_along_axis(heights, highest, axis=1)
    scan, place = np.nonzero(np.isfinite(height))
    at, size, height = points[scan, highest[scan, place]], 16 * scales[scan] / SCAN[d], height[scan, place]
    known = _are_known(at, size, seeds)
    expected = (height + np.sum(np.log(size), axis=1))[known]
    climbed, height = _climbed(log_density, at[~known], size[~known])
    found = height + np.sum(np.log(climbed.size), axis=1)
    counts = found > np.max(np.append(expected, found), initial=-np.inf) - NEGLIGIBLE
    return Seeds(climbed.at[counts], climbed.size[counts])


def _are_known(at, size, seeds: Seeds):
    """Whether a place [n] lies in a cell that is already to be finer than the grid it was seen on."""
    if not len(seeds.at) or not len(at):
        return np.zeros(len(at), bool)
    gap = np.abs(at[:, None] - seeds.at)
    return np.any(np.all((gap < 2 * seeds.size) & (seeds.size < 4 * size[:, None]), axis=-1), axis=1)


def _climbed(log_density, at, size):
    """Compass search uphill: larger steps while it moves, smaller ones until log p changes little: (seeds, heights)."""
    d = at.shape[1]
    compass = lattice(np.arange(-1.0, 2.0), d)
    active, height = np.ones(len(at), bool), np.full(len(at), -np.inf)
    for _ in range(200):
        if not active.any():
            break
        points = at[active, None] + size[active, None] * compass
        values = log_density(points.reshape(-1, d)).reshape(len(points), -1)
        best, stay = np.argmax(values, axis=1), len(compass) // 2
        height[active] = values.max(axis=1)
        has_moved = height[active] > values[:, stay]
        at[active] = np.take_along_axis(points, np.where(has_moved, best, stay)[:, None, None], axis=1)[:, 0]
        is_resolved = ~has_moved & (height[active] - values.min(axis=1) < 2.0)
        size[active] *= np.where(has_moved, 1.6, np.where(is_resolved, 1.0, 0.4))[:, None]
        active[active] = ~is_resolved & (size[active].max(axis=1) > log_density.spacing(at[active]))
    return Seeds(at, size), height
