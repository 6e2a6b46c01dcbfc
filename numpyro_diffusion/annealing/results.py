"""A population at the end of its levels as a run: the run itself, or its pilot."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from ..diagnose.result import AnnealedRun
from .advance import LevelStats
from .plan import Plan
from .population import Population
from .settings import Settings


def run_of(
    population: Population, plan: Plan, stats: tuple[LevelStats, ...], settings: Settings, /, **known
) -> AnnealedRun:
    """The run of a population with as many levels of a plan behind it as it has reports of.

    `known` are the fields that a population does not know, and what is to stand in the place of those it does.
    """
    # What follows the last report, a resampling at most, leaves the evidence and its error as they are in it.
    done, weighted, last = len(stats), settings.weighted, stats[-1]
    fields: dict[str, Any] = {
        "log_weights": population.log_weights() if weighted else jnp.zeros(population.log_weight.size),
        "log_evidence": float(last.log_evidence) if weighted else float("nan"),
        "log_evidence_error": float(last.log_evidence_error) if weighted else float("nan"),
        "levels": plan.levels[:done],
        "stats": {k: np.stack([np.asarray(getattr(s, k)) for s in stats]) for k in LevelStats._fields},
        "history": None,
        "is_weighted": weighted,
        "num_steps": settings.num_steps,
        "ancestors": population.founders(),
        "scale": plan.at(done - 1).scale,
        "is_complete": done == len(plan.levels),
    }
    return AnnealedRun(**fields | known)
