"""What a pilot leaves beside its plan: a small run of its own, whose statistics tell what the run will be worth."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ..density.density import Density
from ..density.path import LEVEL_NODES, divergence_evaluations
from ..diagnose.result import AnnealedRun
from . import population as populations
from .advance import LevelStats
from .evidence import evidence_error
from .kernels import Kernel
from .plan import Plan
from .population import Population
from .results import run_of
from .settings import Settings


class Piloted(NamedTuple):
    """A pilot's plan, its population at the last level, its reports by level, its settings, and what it took: sweeps
    of steps, and evaluations of the log density to place levels."""

    plan: Plan
    population: Population
    stats: tuple[LevelStats, ...]
    settings: Settings
    num_sweeps: int
    num_looks: int

    @property
    def num_chains(self) -> int:
        return self.population.log_weight.size

    def as_run(self, density: Density, kernel: Kernel, *, levels_given: bool) -> AnnealedRun:
        """The pilot as the run that it is, of few chains."""
        count = len(self.stats)
        t = float(self.plan.levels[count - 1])
        run = run_of(
            self.population, self.plan, self.stats, self.settings, density=density, kernel=kernel,
            samples=populations.points(density, self.population, t, frame_kind=self.settings.frame),
            evaluations_per_chain=round(self.evaluations(density, kernel)), levels_given=levels_given,
        )  # fmt: skip
        if kernel.step_size is None:
            # While steps are being tuned their acceptance says nothing of the run.
            run.stats["acceptance_rate"] = np.full(count, np.nan)
        return run

    def error(self, *, tails: bool = True) -> float:
        """Standard error of its log evidence; without `tails` by families alone."""
        if tails:
            return float(self.stats[-1].log_evidence_error)
        population = self.population
        account = population.account._replace(tail_nats=jnp.zeros(()), correction=jnp.zeros(()))
        return float(evidence_error(account, population.log_weight, population.ancestor, jnp.zeros(())))

    @property
    def is_complete(self) -> bool:
        """Whether it reached the last level."""
        return len(self.stats) == len(self.plan.levels)

    def evaluations(self, density: Density, kernel: Kernel) -> float:
        """Evaluations of value and gradient of one of its chains; a value alone counts a third."""
        between = (
            0 if density.has_log_density else LEVEL_NODES * (1 + divergence_evaluations(math.prod(density.event_shape)))
        )
        sweeps = self.num_sweeps * (1 + self.settings.num_steps * kernel.evaluations_per_step)
        looks = self.num_looks * (between if between else 1 / 3)
        return sweeps + len(self.stats) * between * self.settings.weighted + looks
