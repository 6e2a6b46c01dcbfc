"""What a pilot leaves beside its plan: a small run of its own, whose statistics tell what the run will be worth."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from ..density.density import Density
from ..diagnose.result import AnnealedRun
from ..diagnose.verdict import Verdict, judged
from . import population as populations
from .advance import LevelStats
from .kernels import Kernel
from .plan import Plan
from .population import Population
from .settings import Settings


class Piloted(NamedTuple):
    """A pilot's plan, its population at the last level, its reports by level, and its settings."""

    plan: Plan
    population: Population
    stats: tuple[LevelStats, ...]
    settings: Settings

    def as_run(self, density: Density, kernel: Kernel, *, levels_given: bool) -> AnnealedRun:
        """The pilot as the run that it is, of few chains."""
        population, weighted, count = self.population, self.settings.weighted, len(self.stats)
        t = float(self.plan.levels[count - 1])
        return AnnealedRun(
            samples=populations.points(density, population, t, frame_kind=self.settings.frame),
            log_weights=population.log_weight,
            log_evidence=float(population.evidence()) if weighted else float("nan"),
            log_evidence_error=float(population.evidence_error()) if weighted else float("nan"),
            levels=self.plan.levels[:count],
            stats={k: np.stack([np.asarray(getattr(s, k)) for s in self.stats]) for k in LevelStats._fields},
            history=None,
            density=density,
            kernel=kernel,
            is_weighted=weighted,
            num_steps=self.settings.num_steps,
            evaluations_per_chain=self.evaluations(kernel),
            ancestors=population.ancestor,
            scale=self.plan.at(count - 1).scale,
            is_complete=t == self.plan.levels[-1],
            levels_given=levels_given,
        )

    def evaluations(self, kernel: Kernel) -> int:
        """Evaluations of value and gradient of one of its chains."""
        return len(self.stats) * (1 + self.settings.num_steps * kernel.evaluations_per_step)

    def verdict(self, density: Density, kernel: Kernel, num_chains: int, *, levels_given: bool) -> Verdict:
        """What is to be expected of a run of `num_chains` by this plan."""
        return judged(self.as_run(density, kernel, levels_given=levels_given), num_chains)
