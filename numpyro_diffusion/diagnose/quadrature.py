r"""Integrals in one or two dimensions that measure their own error: adaptive cubature in the log domain.

The domain is a box, halved along the axis in need wherever that changes the integral. Each cell is measured by two
rules at once, Kronrod's of seven nodes an axis and Gauss' of three among them, and the integral by

1. two resolutions: the sum of the differences of the two rules, and what a split of all cells with mass changes;
2. two extents: the mass between the box and the box of half its size. The box doubles until it holds next to nothing.

Relative to the largest cell nothing underflows, so that cells are refined uphill towards a mode that none of them has
seen; what no cell has seen at all must come in as a seed, a place with a size that cells there may not exceed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

from ..errors import ParameterError

#: Kronrod's nodes and weights on [-1, 1], exact to degree 11, and Gauss' weights of three nodes, to degree 5.
NODES = np.array([0.960491268708020283, 0.774596669241483377, 0.434243749346802558, 0.0])
NODES = np.concatenate([-NODES, NODES[-2::-1]])
KRONROD = np.array([0.104656226026467265, 0.268488089868333440, 0.401397414775962222, 0.450916538658474142])
KRONROD = np.concatenate([KRONROD, KRONROD[-2::-1]])
GAUSS = np.array([0.0, 5 / 9, 0.0, 8 / 9, 0.0, 5 / 9, 0.0])
#: Half-size of the box, in spreads; a mass in its outer half above `MOST_OUTSIDE` doubles it, at most so often.
BOX, MOST_OUTSIDE, MOST_DOUBLINGS = 64.0, 1e-5, 40
#: Share of the integral above which a cell is split once more to verify it; most ratio of the sizes of neighbours;
#: cells split in one round; deepest cells.
VERIFIED, MOST_RATIO, ROUND, DEEPEST = 1e-3, 4.0, 512, 48
#: Share of the integral below which a cell is no seed.
LEAST_SHARE = 1e-6

#: log sum exp; of nothing -inf.
logsumexp = np.logaddexp.reduce


class Cells(NamedTuple):
    """Boxes with centres and half-sizes [n, d], and what was measured in them.

    Attributes:
        values: Log density at the nodes [n, 7^d].
        fine, coarse: Log integral by Kronrod's and by Gauss' rule [n].
        axis: The axis along which the two differ most [n].
    """

    centre: np.ndarray
    half: np.ndarray
    values: np.ndarray
    fine: np.ndarray
    coarse: np.ndarray
    axis: np.ndarray


class Seeds(NamedTuple):
    """Places [n, d], and the half-sizes [n, d] that cells there may not exceed."""

    at: np.ndarray
    size: np.ndarray

    def joined(self, other: Seeds) -> Seeds:
        return Seeds(np.concatenate([self.at, other.at]), np.concatenate([self.size, other.size]))


class Integral(NamedTuple):
    """log of an integral, its error in nats, the cells, and seeds that lead to the same again, without verification."""

    log_z: float
    error: float
    cells: Cells
    seeds: Seeds

    def nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """Points [n, d] and their shares of the mass [n]."""
        cells, weights = self.cells, _rule(*[KRONROD] * self.cells.centre.shape[1])
        mass = np.exp(cells.values + weights + np.sum(np.log(cells.half), axis=1)[:, None] - self.log_z)
        return _points(cells.centre, cells.half).reshape(-1, cells.centre.shape[1]), mass.ravel()


def integrate(
    log_density: Callable[[np.ndarray], np.ndarray],
    centre: np.ndarray,
    spread: np.ndarray,
    seeds: Seeds,
    *,
    tolerance: float,
    most: int,
    spacing: Callable[[np.ndarray], np.ndarray],
) -> Integral:
    """The integral of a density over all space.

    Args:
        log_density: Points [n, d] to log densities [n]; -inf where there is nothing, never NaN.
        centre, spread: Where to look first, [d]; right or not. With `seeds` where more is known.
        tolerance, most: Error of log Z to end with, and evaluations to end with all the same.
        spacing: Least half-size [n] of cells around points [n, d], that of the numbers that can be told apart there.

    Raises:
        ParameterError: if the density is zero wherever looked at, or the mass grows with the box for ever.
    """
    half, d = BOX * spread, len(centre)
    # Cells of size `spread` around the centre: what lies farther is seen by ever larger ones.
    grid = centre + lattice(np.arange(-7, 8, 2.0), d) * spread
    seeds = seeds.joined(Seeds(grid, np.broadcast_to(spread, grid.shape)))
    for _ in range(MOST_DOUBLINGS):
        reach = np.max(np.abs(seeds.at - centre) / half)
        half = half * 2.0 ** np.ceil(np.log2(max(4 * reach, 1.0)))
        while len((boxes := _partition(centre, half, seeds))[0]) * len(NODES) ** d > most / 2:
            seeds = seeds._replace(size=2 * seeds.size)
        cells = _measured(log_density, *boxes)
        if not np.any(np.isfinite(cells.fine)):
            raise ParameterError("no mass was found")
        if _outside(cells, centre, half) < 0.3:
            found = _refined(log_density, cells, tolerance, most, spacing)
            outside = _outside(found.cells, centre, half)
            if outside < MOST_OUTSIDE:
                return found._replace(error=found.error + outside)
        half = 2 * half
    raise ParameterError(
        "its mass keeps growing with the box: the integral is infinite, or too heavy-tailed to measure"
    )


def lattice(steps: np.ndarray, d: int) -> np.ndarray:
    """Points [n^d, d] with all combinations of the steps [n] as coordinates."""
    return np.stack(np.meshgrid(*[steps] * d, indexing="ij"), -1).reshape(-1, d)


def _outside(cells: Cells, centre, half) -> float:
    """Share of the mass in the outer half of the box."""
    outer = np.max(np.abs(cells.centre - centre) / half, axis=1) > 0.5
    return float(np.exp(logsumexp(cells.fine[outer]) - logsumexp(cells.fine))) if outer.any() else 0.0


def _partition(centre, half, seeds: Seeds):
    """Cells (centres [n, d], half-sizes [n, d]) that fill the box, none larger than a seed in it allows."""
    centres, halves = centre[None], half[None]
    owner = np.zeros(len(seeds.at), int)
    for _ in range(DEEPEST * len(centre)):
        allowed = np.full(centres.shape, np.inf)
        np.minimum.at(allowed, owner, seeds.size)
        excess = halves / allowed
        axis, which = np.argmax(excess, axis=1), np.max(excess, axis=1) > 1
        if not which.any():
            break
        along = axis[owner]
        is_upper = which[owner] & (np.take_along_axis(seeds.at - centres[owner], along[:, None], axis=1)[:, 0] > 0)
        # The lower halves come after the cells left whole, the upper ones after those.
        place = np.where(which, np.sum(~which) + np.cumsum(which), np.cumsum(~which)) - 1
        owner = place[owner] + is_upper * np.sum(which)
        parts = _halved(centres[which], halves[which], axis[which])
        centres, halves = (np.concatenate([a[~which], b]) for a, b in zip((centres, halves), parts, strict=True))
    return centres, halves


def _halved(centre, half, axis):
    """Centres and half-sizes [2 n, d] of the lower and then the upper halves of cells, along one axis each [n]."""
    along = np.arange(centre.shape[1]) == axis[:, None]
    half = np.where(along, half / 2, half)
    return np.concatenate([centre - along * half, centre + along * half]), np.concatenate([half, half])


def _points(centre, half):
    return centre[:, None] + half[:, None] * lattice(NODES, centre.shape[1])


def _rule(*weights):
    """Log weights [7^d] of the product of rules, one for each axis."""
    with np.errstate(divide="ignore"):
        return np.log(weights[0]) if len(weights) == 1 else np.add.outer(*map(np.log, weights)).ravel()


def _measured(log_density, centre, half) -> Cells:
    d = centre.shape[1]
    values = log_density(_points(centre, half).reshape(-1, d)).reshape(len(centre), -1)
    volume = np.sum(np.log(half), axis=1)
    rules = [_rule(*[KRONROD] * d), _rule(*[GAUSS] * d)]
    # One axis coarse, the others fine: which of them needs to be halved.
    rules += [_rule(*(GAUSS if i == axis else KRONROD for i in range(d))) for axis in range(d)]
    fine, coarse, *by_axis = (logsumexp(values + rule, axis=1) + volume for rule in rules)
    with np.errstate(invalid="ignore"):
        difference = np.nan_to_num(np.abs(np.expm1(np.stack(by_axis) - fine)))
    # Where the rules agree by accident, the longest side.
    axis = np.where(difference.max(axis=0) > 0, np.argmax(difference, axis=0), np.argmax(half, axis=1))
    return Cells(centre, half, values, fine, coarse, axis)


def _split(log_density, cells: Cells, which, everywhere: bool) -> Cells:
    """Cells, with those in `which` [n] halved along the axis in need, or along every axis."""
    centre, half, axis = cells.centre[which], cells.half[which], cells.axis[which]
    for i in range(centre.shape[1] if everywhere else 1):
        centre, half = _halved(centre, half, np.full(len(centre), i) if everywhere else axis)
    new = _measured(log_density, centre, half)
    return Cells(*(np.concatenate([a[~which], b]) for a, b in zip(cells, new, strict=True)))


def _refined(log_density, cells: Cells, tolerance, most, spacing) -> Integral:
    evaluations, verified, seeds = cells.values.size, np.inf, Seeds(cells.centre, cells.half)
    while True:
        log_z = float(logsumexp(cells.fine))
        share = np.exp(cells.fine - log_z)
        error = np.abs(share - np.exp(cells.coarse - log_z))
        can = np.take_along_axis(cells.half, cells.axis[:, None], axis=1)[:, 0] > spacing(cells.centre)
        total = float(error.sum())
        is_fine = total <= tolerance
        if not is_fine or verified == np.inf:
            keep = share > LEAST_SHARE
            seeds = Seeds(cells.centre[keep], cells.half[keep])
        if not is_fine:
            which = _worst(error * can, total - tolerance / 2)
        else:
            # What both rules overlook: detail within cells, and in the corners of larger cells beside them.
            which = can & (_beside(cells, share > VERIFIED / 10) | (share > VERIFIED) & (verified > tolerance))
        if not which.any() or evaluations >= most:
            both = np.array([total, 0.0 if verified == np.inf else verified])
            return Integral(log_z, float(both.max() if both.max() <= tolerance else both.sum()), cells, seeds)
        before = len(cells.fine)
        cells = _split(log_density, cells, which, everywhere=is_fine)
        evaluations += (len(cells.fine) - before + which.sum()) * cells.values.shape[1]
        verified = abs(float(logsumexp(cells.fine)) - log_z) if is_fine else np.inf


def _beside(cells: Cells, which):
    """Cells [n] that touch a much smaller one among those in `which` [n]."""
    around = lattice(np.arange(-1.0, 2.0), cells.half.shape[1])
    small = np.repeat(cells.half[which], len(around), axis=0)
    beside = np.repeat(cells.centre[which], len(around), axis=0) + 1.5 * small * np.tile(around, (which.sum(), 1))
    found = np.zeros(len(which), bool)
    sizes, size = np.unique(cells.half, axis=0, return_inverse=True)
    for i, half in enumerate(sizes):
        near, own = beside[np.any(half > MOST_RATIO * small, axis=1)], size.ravel() == i
        # In units of their half-size, cells of one size hold what lies within one of their centres.
        tree = KDTree(near / half, balanced_tree=False, compact_nodes=False)
        found[own] = tree.query(cells.centre[own] / half, p=np.inf, distance_upper_bound=1.0)[0] < np.inf
    return found


def _worst(error, enough: float):
    """Cells [n] with the largest errors that together are `enough`, at most a round of them."""
    order = np.argsort(-error)[:ROUND]
    order = order[: int(np.searchsorted(np.cumsum(error[order]), enough)) + 1]
    which = np.zeros(len(error), bool)
    which[order] = error[order] > 0
    return which
