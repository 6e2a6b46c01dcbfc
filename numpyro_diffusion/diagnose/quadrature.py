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
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from ..errors import ParameterError

#: Kronrod's nodes and weights on [-1, 1], exact to degree 11, and Gauss' weights of three nodes, to degree 5.
_HALF_NODES = (0.960491268708020283, 0.774596669241483377, 0.434243749346802558, 0.0)
_HALF_WEIGHTS = (0.104656226026467265, 0.268488089868333440, 0.401397414775962222, 0.450916538658474142)
NODES = np.array([-x for x in _HALF_NODES[:3]] + list(_HALF_NODES[::-1]))
KRONROD = np.array(list(_HALF_WEIGHTS[:3]) + list(_HALF_WEIGHTS[::-1]))
GAUSS = np.array([0.0, 5 / 9, 0.0, 8 / 9, 0.0, 5 / 9, 0.0])
#: Half-size of the box, in spreads; a mass in its outer half above `MOST_OUTSIDE` doubles it, at most so often.
BOX, MOST_OUTSIDE, MOST_DOUBLINGS = 64.0, 1e-5, 40
#: Share of the integral above which a cell is split once more to verify it; most ratio of the sizes of neighbours;
#: cells split in one round; deepest cells.
VERIFIED, MOST_RATIO, ROUND, DEEPEST = 1e-3, 4.0, 512, 48
#: Share of the integral below which a cell is no seed.
LEAST_SHARE = 1e-6


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


class Integral(NamedTuple):
    """log of an integral, its error in nats, the cells, and seeds that lead to the same again, without verification."""

    log_z: float
    error: float
    cells: Cells
    seeds: Seeds

    @property
    def share(self) -> np.ndarray:
        """Share of the integral in each cell [n]."""
        return np.exp(self.cells.fine - self.log_z)

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
        centre, spread: Where to look first, [d]; right or not.
        seeds: Where more is known.
        tolerance: Error of log Z to end with.
        most: Evaluations to end with all the same.
        spacing: Least half-size [n] of cells around points [n, d], that of the numbers that can be told apart there.

    Raises:
        ParameterError: if the density is zero wherever looked at, or the mass grows with the box for ever.
    """
    half = BOX * spread
    for _ in range(MOST_DOUBLINGS):
        reach = np.max(np.abs(seeds.at - centre) / half, initial=0.0)
        half = half * 2.0 ** np.ceil(np.log2(max(4 * reach, 1.0)))
        boxes = _partition(centre, half, _with_grid(seeds, centre, spread))
        while len(boxes[0]) * len(NODES) ** len(centre) > most / 2:
            seeds = seeds._replace(size=2 * seeds.size)
            boxes = _partition(centre, half, _with_grid(seeds, centre, spread))
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


def logsumexp(values, axis=None) -> Any:
    """log sum exp; typed as what it is without `return_sign`."""
    return special.logsumexp(values, axis=axis)


def _outside(cells: Cells, centre, half) -> float:
    """Share of the mass in the outer half of the box."""
    outer = np.max(np.abs(cells.centre - centre) / half, axis=1) > 0.5
    return float(np.exp(logsumexp(cells.fine[outer]) - logsumexp(cells.fine))) if outer.any() else 0.0


def _with_grid(seeds: Seeds, centre, spread) -> Seeds:
    """Seeds, and cells of size `spread` around the centre: what lies farther is seen by ever larger ones."""
    d = len(centre)
    grid = np.stack(np.meshgrid(*[np.arange(-7, 8, 2.0)] * d, indexing="ij"), -1).reshape(-1, d)
    size = np.broadcast_to(spread, grid.shape)
    return Seeds(np.concatenate([seeds.at, centre + grid * spread]), np.concatenate([seeds.size, size]))


def _partition(centre, half, seeds: Seeds):
    """Cells (centres [n, d], half-sizes [n, d]) that fill the box, none larger than a seed in it allows."""
    centres, halves = centre[None], half[None]
    owner = np.zeros(len(seeds.at), int)
    for _ in range(DEEPEST * len(centre)):
        allowed = np.full(centres.shape, np.inf)
        np.minimum.at(allowed, owner, seeds.size)
        excess = halves / allowed
        which = np.max(excess, axis=1) > 1
        if not which.any():
            break
        axis = np.argmax(excess, axis=1)
        whole, place = ~which, np.cumsum(which) - 1
        # The lower halves come after the cells left whole, the upper ones after those.
        at = seeds.at[np.arange(len(owner)), axis[owner]]
        is_upper = at > centres[owner, axis[owner]]
        moved = whole.sum() + place[owner] + is_upper * which.sum()
        owner = np.where(which[owner], moved, (np.cumsum(whole) - 1)[owner])
        lower_upper = _halved(centres[which], halves[which], axis[which])
        centres, halves = (np.concatenate([a[whole], b]) for a, b in zip((centres, halves), lower_upper, strict=True))
    return centres, halves


def _halved(centre, half, axis):
    """Centres and half-sizes [2 n, d] of the lower and then the upper halves of cells, along one axis each [n]."""
    along = np.arange(centre.shape[1]) == axis[:, None]
    half = np.where(along, half / 2, half)
    return np.concatenate([centre - along * half, centre + along * half]), np.concatenate([half, half])


def _points(centre, half):
    d = centre.shape[1]
    nodes = np.stack(np.meshgrid(*[NODES] * d, indexing="ij"), -1).reshape(-1, d)
    return centre[:, None] + half[:, None] * nodes


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
    there = np.isfinite(fine)
    difference = np.stack([np.abs(np.exp(one - np.where(there, fine, 0.0)) - 1) * there for one in by_axis])
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
            which = can & _beside(cells, share > VERIFIED / 10)
            if verified > tolerance:
                which |= can & (share > VERIFIED)
            elif not which.any():
                return Integral(log_z, max(total, verified), cells, seeds)
        if not which.any() or evaluations >= most:
            verified = 0.0 if verified == np.inf else verified
            return Integral(log_z, total + verified, cells, seeds)
        before = len(cells.fine)
        cells = _split(log_density, cells, which, everywhere=is_fine)
        evaluations += (len(cells.fine) - before + which.sum()) * cells.values.shape[1]
        verified = abs(float(logsumexp(cells.fine)) - log_z) if is_fine else np.inf


def _beside(cells: Cells, which):
    """Cells [n] that touch a much smaller one among those in `which` [n]."""
    d = cells.centre.shape[1]
    around = np.stack(np.meshgrid(*[np.arange(-1.0, 2.0)] * d, indexing="ij"), -1).reshape(-1, d)
    centre, half = cells.centre[which], cells.half[which]
    beside = _holding(cells, (centre[:, None] + 1.5 * half[:, None] * around).reshape(-1, d))
    small = np.repeat(half, len(around), axis=0)
    is_large = np.any(cells.half[beside] > MOST_RATIO * small, axis=1)
    found = np.zeros(len(which), bool)
    found[beside[is_large & (beside >= 0)]] = True
    return found


def _holding(cells: Cells, points):
    """Index [n] of the cell that holds each point [n, d]; -1 outside of all.

    Cells are dyadic parts of one box: for each pair of depths that occurs, a point's cell is known by its number.
    """
    low, high = (cells.centre - cells.half).min(axis=0), (cells.centre + cells.half).max(axis=0)
    depths = np.round(np.log2((high - low) / 2 / cells.half)).astype(np.int64)
    kinds, kind = np.unique(depths, axis=0, return_inverse=True)
    found = np.full(len(points), -1)
    mixer = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], dtype=np.uint64)[: points.shape[1]]

    def numbers(at, depth):
        index = np.floor((at - low) / (high - low) * 2.0**depth).astype(np.int64).astype(np.uint64)
        return (index * mixer).sum(axis=1, dtype=np.uint64)

    for j, depth in enumerate(kinds):
        own = np.flatnonzero(kind.ravel() == j)
        number = numbers(cells.centre[own], depth)
        order = np.argsort(number)
        wanted = numbers(points, depth)
        place = np.minimum(np.searchsorted(number[order], wanted), len(own) - 1)
        hit = number[order][place] == wanted
        found[hit] = own[order][place[hit]]
    return found


def _worst(error, enough: float):
    """Cells [n] with the largest errors that together are `enough`, at most a round of them."""
    order = np.argsort(-error)[:ROUND]
    order = order[: int(np.searchsorted(np.cumsum(error[order]), enough)) + 1]
    which = np.zeros(len(error), bool)
    which[order] = error[order] > 0
    return which
