"""What a run or a bound has found, as plain data: what findings, summaries and ArviZ data are made from."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import jax
import numpy as np

from ..density.density import Density
from .expectations import Particles, particles_of
from .weights import effective_sample_size


class ResultFields(abc.ABC):
    """A run or a bound."""

    @property
    @abc.abstractmethod
    def title(self) -> str:
        """What was run, for summaries and warnings."""


class ParticleFields:
    """What any population of weighted particles, in islands or not, says of itself."""

    samples: Any
    log_weights: Any
    ancestors: Any
    island_log_evidences: Any

    @property
    def num_islands(self) -> int:
        """Populations that ran side by side."""
        return 1 if self.island_log_evidences is None else len(self.island_log_evidences)

    @property
    def particles(self) -> Particles:
        """The samples with their weights and families, as `nd.expectation` takes them."""
        return particles_of(self.samples, self.log_weights, self.ancestors, self.num_islands)


@dataclasses.dataclass(repr=False)
class RunFields(ParticleFields, ResultFields):
    """The fields of an annealed run; `result.AnnealedRun` says what they are."""

    samples: jax.Array
    log_weights: jax.Array
    log_evidence: float
    log_evidence_error: float
    levels: np.ndarray
    stats: dict[str, np.ndarray]
    history: dict[str, Any] | None
    density: Density
    kernel: Any
    is_weighted: bool
    num_steps: int
    evaluations_per_chain: int
    ancestors: jax.Array | None = None
    scale: np.ndarray | None = None
    is_complete: bool = True
    levels_given: bool = False
    remarks: tuple[str, ...] = ()
    island_log_evidences: np.ndarray | None = None
    verdict: Any = None

    @property
    def title(self) -> str:
        return f"{self.density!r} by {self.kernel!r}"

    @property
    def pilot_evaluations(self) -> float:
        """Evaluations of value and gradient that the pilot's chains took, spread over the run's; 0 without a pilot."""
        return 0.0 if self.verdict is None else self.verdict.pilot_evaluations

    @property
    def has_acceptance(self) -> bool:
        """Whether acceptance is known: by log densities, or by line integrals of the score."""
        return bool(self.stats) and bool(np.any(np.isfinite(np.asarray(self.stats["acceptance_rate"], dtype=float))))

    @property
    def num_proposals(self) -> int:
        """Steps of all chains at one level."""
        return len(self.samples) * self.num_steps

    @property
    def ess(self) -> float:
        """Effective sample size of `log_weights`, in chains; NaN where weights are not defined, or all are zero."""
        return float(effective_sample_size(self.log_weights)) if self.is_weighted else float("nan")


@dataclasses.dataclass(repr=False)
class TemperedFields(RunFields):
    """The fields of a run by replica exchange; `result.TemperedRun` says what they are."""

    num_groups: int = 1
    thinning: int = 1
    num_sweeps: int = 0
    tours: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(1, int))
    placing_evaluations: float = 0.0

    @property
    def pilot_evaluations(self) -> float:
        """Evaluations of the pilot and of the anneal that placed the rungs, spread over the groups."""
        return self.placing_evaluations

    @property
    def num_proposals(self) -> int:
        return self.num_sweeps * self.num_groups * self.num_steps

    @property
    def barrier(self) -> float:
        """Communication barrier: the sum over pairs of neighbours of how often an exchange is refused."""
        return float(np.sum(1 - self.stats["swap_rate"]))

    @property
    def round_trip_rate(self) -> float:
        """Round trips per sweep and group."""
        return float(np.mean(self.tours) / max(self.num_sweeps, 1))


@dataclasses.dataclass(repr=False)
class BoundFields(ResultFields):
    """The fields of a stochastic bound; `result.Bound` says what they are."""

    kind: str
    lower: float
    lower_error: float
    upper: float
    upper_error: float
    log_weights: dict[str, np.ndarray]
    levels: np.ndarray
    pareto_k: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.kind} of {len(self.levels)} levels"

    @property
    def gap(self) -> float:
        """upper - lower."""
        return self.upper - self.lower
