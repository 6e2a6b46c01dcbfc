r"""Which levels become rungs, and where their replicas begin: from one anneal of a few chains.

Between two close levels exchanges are refused at the rate :math:`E \tanh(|w - w'| / 2)`, w and w' being the log weight
increments of two independent points. Summed over levels that is the *communication barrier* :math:`\Lambda`, to which
a ladder's round trips are tied: at rate 1 / (2 + 2 sum r / (1 - r)) per sweep, r being a pair's rate of refusals. Rungs
lie at equal parts of it (Syed et al. 2022, arXiv:1905.02939, section 5).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import numpy as np

from ...density.density import Density
from .. import advance as onward
from ..kernels import Kernel
from ..plan import Plan
from ..population import start
from ..settings import Settings

#: Chains of that anneal and of the pilot before it: a tenth of a population.
PILOT_CHAINS = 96
#: Part of the barrier between two rungs: so many refusals if rates added up, of which about 2/3 are left. At a given
#: number of evaluations round trips hardly depend on it; they are most frequent at a rate of 1/2 (Syed et al. 2022).
REFUSALS = 0.5


class Placed(NamedTuple):
    """Rungs: their plan, points u [K, G, d] to begin from, their log evidence [K] by the anneal, and the evaluations of
    value and gradient that all of its chains took."""

    plan: Plan
    points: np.ndarray
    log_evidence: np.ndarray
    evaluations: int


def placed(density: Density, kernel: Kernel, plan: Plan, rng_key, settings: Settings, *, all_levels: bool) -> Placed:
    """Rungs among the levels of a plan, or `all_levels` of it, for a density and a kernel without a step size."""
    start_key, level_key = jax.random.split(rng_key)
    # As many as in the pilot, whose start is compiled.
    num_chains = max(settings.num_pilot_chains or PILOT_CHAINS, settings.num_chains)
    settings = settings.in_pieces(density, num_chains)
    population = start(density, start_key, num_chains=num_chains, frame_kind=settings.frame)
    points, evidence, refusals = [], [], []
    chosen = np.linspace(0, num_chains - 1, settings.num_chains).astype(int)
    for i in range(len(plan.levels)):
        key = jax.random.fold_in(level_key, i)
        # Always resampled: what is kept of a level then weighs alike.
        population, _, chains = onward.advance(density, kernel, population, key, plan.at(i), 2.0, settings)
        points.append(np.asarray(population.state.position[chosen]))
        evidence.append(float(population.evidence()))
        refusals.append(_refusals(np.asarray(chains.log_weight_increment, dtype=float)))
    barrier = np.cumsum(refusals)
    rows = np.arange(len(barrier)) if all_levels else _equal_parts(barrier)
    scales = None if plan.scales is None else plan.scales[rows]
    evaluations = num_chains * len(plan.levels) * (1 + settings.num_steps * kernel.evaluations_per_step)
    rungs = Plan(plan.levels[rows], plan.step_sizes[rows], scales)
    return Placed(rungs, np.stack(points)[rows], np.asarray(evidence)[rows], evaluations)


def _refusals(increment) -> float:
    """The rate of refusals between two levels, from increments [N]; 1 where fewer than two are finite."""
    w = increment[np.isfinite(increment)]
    return float(np.tanh(np.abs(w[:, None] - w) / 2).sum()) / (len(w) * (len(w) - 1)) if len(w) > 1 else 1.0


def _equal_parts(barrier) -> np.ndarray:
    """Indices of the levels nearest to equal parts of a barrier [P] that grows along them; the last is one of them."""
    count = max(2, math.ceil(barrier[-1] / REFUSALS))
    # Few different numbers: other data, with about as many rungs, then compile nothing anew.
    count += -count % (2 if count <= 8 else 4)
    parts = barrier[-1] * np.arange(1, count) / count
    return np.unique([*np.abs(barrier[:, None] - parts).argmin(0), len(barrier) - 1])
