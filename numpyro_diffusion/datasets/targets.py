r"""The compositions of Du et al. (2023) in two dimensions, with everything about them that is known exactly.

    product    ring * bar
    mixture    0.5 * left_column + 0.5 * right_column
    negation   large_box / (0.99 * small_box + 0.01 * large_box) ** 0.5

The truth at t = 0 is computed, not quoted: evidence, moments and the mean log density of the truth's own draws come
from a midpoint rule aligned with the hard walls.

The paper's negation, large_box / small_box ** 0.5, has no density at t = 0: outside the small box its denominator
vanishes. The truth here has the floor of `compose.negation`, large / (0.99 small + 0.01 large) ** 0.5. Uncalibrated and
score-only factors, for which a floor has no meaning, are composed as in the paper.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache, partial

import numpy as np
from scipy.special import logsumexp

from ..checks.text import shown
from ..compose.operators import negation
from ..density.density import Density
from ..errors import ShapeError, UnknownNameError, check_integer
from .planar import BOXES, MODES, STD

NAMES = ("product", "mixture", "negation")
#: Share of a hard box's mass that log densities spread over [-FLOOR_EDGE, FLOOR_EDGE]^2, to stay finite outside.
FLOOR_MASS, FLOOR_EDGE = 0.01, 1.1
#: A mixture has no walls: farther than this many standard deviations from every mode is outside.
FAR = 5.0
#: Strength of the negation, and its floor.
ALPHA, FLOOR = 0.5, 0.01


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """A composition, its truth at t = 0, and the names of the densities it is made of.

    Attributes:
        name: One of `NAMES`.
        factors: Names of the planar densities in the formula, in order.
        compose: The formula, from the factors' densities to the composed one.
        log_prob: Normalised log density [n] of points [n, 2]; hard boxes have a floor, see `FLOOR_MASS`.
        is_outside: Whether points [n, 2] are where the truth has no mass, [n].
        draw: `(generator, num_samples) -> [num_samples, 2]`, exact.
        modes, weights, covariances: [K, 2], [K], [K, 2, 2] of the truth's modes; K = 0 if it has none.
        log_evidence: Log integral of the formula at t = 0; NaN where it does not exist.
        mean_log_prob: Mean log density of the truth's own draws, the value no honest sampler exceeds.
    """

    name: str
    factors: tuple[str, ...]
    compose: Callable[..., Density]
    log_prob: Callable[[np.ndarray], np.ndarray]
    is_outside: Callable[[np.ndarray], np.ndarray]
    draw: Callable[[np.random.Generator, int], np.ndarray]
    modes: np.ndarray
    weights: np.ndarray
    covariances: np.ndarray
    log_evidence: float
    mean_log_prob: float

    def density(self, load: Callable[[str], Density]) -> Density:
        """The composed density; `load` gives a factor by name (`nd.load_pretrained`, `planar.exact`)."""
        return self.compose(*(load(name) for name in self.factors))

    def sample(self, num_samples: int, seed: int = 0) -> np.ndarray:
        """Exact draws [num_samples, 2] of the truth."""
        seed, num_samples = check_integer("seed", seed, 0), check_integer("num_samples", num_samples)
        return self.draw(np.random.default_rng(seed), num_samples)

    def __repr__(self) -> str:
        return f"Target({self.name!r} of {', '.join(self.factors)})"


def target(name: str) -> Target:
    """The composition of that name, one of `NAMES`, else UnknownNameError."""
    if not isinstance(name, str) or name not in NAMES:
        raise UnknownNameError(f"no planar target is called {shown(name)}. There are {', '.join(NAMES)}.")
    return _target(name)


@cache
def _target(name: str) -> Target:
    return {"product": _product, "mixture": _mixture, "negation": _negation}[name]()


def _squared(x, modes):
    """Squared distances [n, K] of points [n, 2] to modes [K, 2]."""
    return np.sum((np.asarray(x, dtype=float)[:, None] - modes) ** 2, axis=-1)


def _gaussians(x, modes):
    """Log density [n] of the equally weighted mixture of N(mode, STD^2 I)."""
    return logsumexp(-_squared(x, modes) / (2 * STD**2), axis=-1) - np.log(len(modes) * 2 * np.pi * STD**2)


def _draw_gaussians(generator, num_samples, modes):
    x = modes[generator.integers(len(modes), size=num_samples)]
    return x + STD * generator.standard_normal(x.shape)


def _draw_accepted(num_samples, propose, is_accepted):
    """The first of proposals that are accepted, [num_samples, 2]."""
    found = np.empty((0, 2))
    while len(found) < num_samples:
        x = propose()
        found = np.concatenate([found, x[is_accepted(x)]])
    return found[:num_samples]


def _inside(x, half):
    return np.all(np.abs(np.asarray(x, dtype=float)) <= half, axis=-1)


def _floored(x, inside, log_density):
    """Log of (1 - FLOOR_MASS) density + floor: beyond its edge a Gaussian skirt as narrow as the modes takes over."""
    beyond = np.maximum(np.abs(np.asarray(x, dtype=float)) - FLOOR_EDGE, 0.0)
    floor = np.log(FLOOR_MASS / (2 * FLOOR_EDGE) ** 2) - np.sum(beyond**2, axis=-1) / (2 * STD**2)
    return np.logaddexp(np.where(inside, np.log1p(-FLOOR_MASS) + log_density, -np.inf), floor)


def _grid(half, spacing=0.002):
    """Midpoints [n, 2] of a grid that fills the box exactly, and the area of a cell."""
    counts = [round(2 * h / spacing) for h in half]
    axes = [(np.arange(count) + 0.5) / count * 2 * h - h for h, count in zip(half, counts, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    return points, 4 * half[0] * half[1] / len(points)


def _product() -> Target:
    modes, half = MODES["ring"], np.array(BOXES["bar"])
    bar_height = 1 / np.prod(2 * half)
    points, cell = _grid(half)
    log_ring = _gaussians(points, modes)
    mass = np.exp(log_ring) * bar_height * cell
    evidence = float(mass.sum())
    share = mass / evidence
    # The floor reaches the ring's other modes too; its mass under the ring is its height, as the ring lies within.
    floored_evidence = (1 - FLOOR_MASS) * evidence + FLOOR_MASS / (2 * FLOOR_EDGE) ** 2
    nearest = np.argmin(_squared(points, modes), axis=1)
    weights = np.bincount(nearest, share, len(modes))
    kept = np.flatnonzero(weights > 1e-6)
    means = np.stack([np.average(points[nearest == k], axis=0, weights=share[nearest == k]) for k in kept])
    spread = np.stack([np.cov(points[nearest == k].T, aweights=share[nearest == k], ddof=0) for k in kept])

    def draw(generator, num_samples):
        propose = partial(_draw_gaussians, generator, 8 * num_samples, modes)
        return _draw_accepted(num_samples, propose, lambda x: _inside(x, half))

    return Target(
        name="product",
        factors=("ring", "bar"),
        compose=lambda ring, bar: ring * bar,
        log_prob=lambda x: (
            _gaussians(x, modes) + _floored(x, _inside(x, half), np.log(bar_height)) - np.log(floored_evidence)
        ),
        is_outside=lambda x: ~_inside(x, half),
        draw=draw,
        modes=means,
        weights=weights[kept] / weights[kept].sum(),
        covariances=spread,
        log_evidence=float(np.log(evidence)),
        mean_log_prob=float(share @ (log_ring + np.log(bar_height / evidence))),
    )


def _mixture() -> Target:
    modes = np.concatenate([MODES["left_column"], MODES["right_column"]])
    points, cell = _grid((0.6, 0.8))
    log_prob = _gaussians(points, modes)
    return Target(
        name="mixture",
        factors=("left_column", "right_column"),
        compose=lambda left, right: 0.5 * left + 0.5 * right,
        log_prob=lambda x: _gaussians(x, modes),
        is_outside=lambda x: np.min(_squared(x, modes), axis=1) > (FAR * STD) ** 2,
        draw=lambda generator, num_samples: _draw_gaussians(generator, num_samples, modes),
        modes=modes,
        weights=np.full(len(modes), 1 / len(modes)),
        covariances=np.tile(STD**2 * np.eye(2), (len(modes), 1, 1)),
        log_evidence=0.0,
        mean_log_prob=float(np.exp(log_prob) @ log_prob * cell),
    )


def _negation() -> Target:
    large, small = np.array(BOXES["large_box"]), np.array(BOXES["small_box"])
    area, hole = np.prod(2 * large), np.prod(2 * small)
    p, q = 1 / area, 1 / hole
    height = p / np.array([FLOOR * p, (1 - FLOOR) * q + FLOOR * p]) ** ALPHA  # around the hole, in it
    evidence = height @ np.array([area - hole, hole])
    shares = height * np.array([area - hole, hole]) / evidence
    log_height = np.log(height / evidence)

    def log_prob(x):
        return _floored(x, _inside(x, large), np.where(_inside(x, small), log_height[1], log_height[0]))

    def draw(generator, num_samples):
        propose = lambda: large * generator.uniform(-1, 1, (2 * num_samples, 2))
        found = _draw_accepted(num_samples, propose, lambda x: ~_inside(x, small))
        within = generator.random(num_samples) < shares[1]
        return np.where(within[:, None], small * generator.uniform(-1, 1, (num_samples, 2)), found)

    return Target(
        name="negation",
        factors=("large_box", "small_box"),
        compose=lambda large, small: negation(large, small, ALPHA, floor=FLOOR if large.is_calibrated else 0.0),
        log_prob=log_prob,
        is_outside=lambda x: ~_inside(x, large),
        draw=draw,
        modes=np.empty((0, 2)),
        weights=np.empty(0),
        covariances=np.empty((0, 2, 2)),
        log_evidence=float(np.log(evidence)),
        mean_log_prob=float(shares @ log_height),
    )


def hole_fraction(samples) -> float:
    """Share of points [n, 2] that lie in the small box, which the negation is to avoid."""
    points = np.asarray(samples)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise ShapeError(f"samples must have shape [n, 2] with n >= 1; got {points.shape}.")
    return float(np.mean(_inside(points, np.array(BOXES["small_box"]))))
