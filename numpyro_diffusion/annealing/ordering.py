r"""Chains in an order in which neighbours in space stand together, for systematic resampling.

Systematic resampling gives any *run* of chains, in the order it takes them, the number of offspring that their weights
sum to, give or take one. Where the chains of a mode stand together it leaves the modes' masses as the weights have
them. In any other order it rounds chain by chain, and what that adds to the masses, once modes have parted, stays
(Gerber, Chopin and Whiteley 2019, arXiv:1708.01831, who order along a Hilbert curve; a tree takes any number of
coordinates). The order does not depend on the draw that resamples, so that evidences stay unbiased.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from .devices import gathered
from .population import Population, sharded

#: Times that chains are halved at most, and how many of them stay together at least.
MOST_HALVINGS, LEAST_TOGETHER = 8, 4
#: Chains are ordered where the effective sample size is expected below this many times the one that resamples.
NEAR = 1.2


def resamples_soon(stats, threshold: float) -> bool:
    """Whether the level after those of `stats` (of `advance.LevelStats`) may resample below a `threshold`: where the
    weights fall as they did last, or are resampled whatever they are."""
    if not stats or threshold == 0:
        return False
    last = stats[-1]
    before = 1.0 if bool(last.resampled) else float(last.ess)
    return threshold >= 1 or before * float(last.conditional_ess) < NEAR * threshold


def ordered(population: Population, x, mesh: Mesh | None = None) -> Population:
    """The population with its chains, at x [N, *event_shape], by neighbourhood within each island.

    In x itself modes lie further apart than anything else; in coordinates of unit covariance, where moves are, they do
    not, and in many dimensions such an order is as good as none.
    """
    points = np.asarray(gathered(x, mesh)).reshape(len(x), -1)
    size = len(points) if population.log_evidence.ndim == 0 else population.island_size
    starts = range(0, len(points), size)
    order = np.concatenate([start + by_neighbourhood(points[start : start + size]) for start in starts])
    return _taken(population, jnp.asarray(order), mesh=mesh)


@partial(jax.jit, static_argnames="mesh")
def _taken(population: Population, order, mesh: Mesh | None) -> Population:
    state, log_weight, ancestor = jax.tree.map(
        lambda a: a[order], (population.state, population.log_weight, population.ancestor)
    )
    return sharded(population._replace(state=state, log_weight=log_weight, ancestor=ancestor), mesh)


@np.errstate(over="ignore", invalid="ignore")
def by_neighbourhood(points: np.ndarray) -> np.ndarray:
    """The order [N] of points [N, d] along a k-d tree: halved along the coordinate of most variance, and so on.

    What is not finite counts as zero; what is too large to be squared stands anywhere.
    """
    size = len(points)
    points = np.where(np.isfinite(points), points, 0.0)
    order = np.arange(size)
    for halving in range(min(MOST_HALVINGS, int(math.log2(max(size / LEAST_TOGETHER, 1))))):
        starts = np.arange(2**halving) * size // 2**halving
        counts = np.diff(starts, append=size)
        part, placed = np.repeat(np.arange(2**halving), counts), points[order]
        mean = np.add.reduceat(placed, starts) / counts[:, None]
        axis = np.add.reduceat((placed - mean[part]) ** 2, starts).argmax(1)
        order = order[np.lexsort((placed[np.arange(size), axis[part]], part))]
    return order
