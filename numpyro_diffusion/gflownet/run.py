"""The result of `nd.gflownet.sample`: what it holds, what speaks against it, and as ArviZ data."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.text import columns
from ..diagnose.findings.statistics import LEAST_CONDITIONAL_ESS, LEAST_ESS, MOST_EVIDENCE_ERROR
from ..diagnose.result_fields import ParticleFields
from ..diagnose.weights import HEAVY, Tail, effective_sample_size, pareto_tail, tail_size
from ..errors import NotKnownError, warn
from .environment import State
from .flow import AnyFlow

#: Paths below which their scatter tells no error.
FEWEST = 5


@dataclasses.dataclass(repr=False)
class FlowRun(ParticleFields):
    """Weighted objects of a composition of flows.

    Attributes:
        samples: Objects, a pytree of arrays [N, ...].
        log_weights: [N]; equal where the population has been resampled after the last stop.
        log_evidence: Estimate of log of the sum over all objects, in nats: unbiased for the sum itself.
        log_evidence_error: Its standard error, as of `nd.AnnealedRun`; infinite of fewer than five paths.
        flow: What was sampled.
        proposal: What paths went by, see `nd.gflownet.sample`.
        stats: Arrays by action of the longest path: ess and conditional_ess (shares of N), pareto_k, resampled, going
            (share of paths that have not stopped), log_evidence.
        ancestors: [N] founding path of each.
        island_log_evidences: [J] log evidence of each of several islands, or None.
        visited: [S] estimated mass of every state, where states can be listed, else None: see `probabilities`.
    """

    samples: State
    log_weights: jax.Array
    log_evidence: float
    log_evidence_error: float
    flow: AnyFlow
    proposal: str
    stats: dict[str, np.ndarray]
    ancestors: jax.Array
    island_log_evidences: np.ndarray | None = None
    visited: np.ndarray | None = None

    @property
    def is_exact(self) -> bool:
        """Whether reaching probabilities are exact, so that weights are right for any flows."""
        # Where every state has one parent, what a path has accumulated is its reaching probability.
        return self.visited is not None or self.flow.environment.num_backward_actions == 1

    @property
    def ess(self) -> float:
        """Effective sample size of `log_weights`, in paths."""
        return float(effective_sample_size(self.log_weights))

    @property
    def pareto_k(self) -> float:
        """Shape of the tail of the weights; NaN where they are few, or few different ones."""
        return float(tail_of(self.log_weights).pareto_k)

    def probabilities(self) -> np.ndarray:
        """Estimated probabilities [S] of every state that can be listed, which sum to one.

        Every path counts in each state on its way by its chance to stop there: many times less noise than the weighted
        objects themselves, which agree with it in the mean.

        Raises:
            NotKnownError: where states cannot be listed.
        """
        if self.visited is None:
            raise NotKnownError(
                "probabilities of every state need states that can be listed. Take nd.expectation(run, fn)."
            )
        return self.visited / self.visited.sum()

    def findings(self) -> list[str]:
        """What speaks against the run, each with its remedy; empty if nothing does."""
        return list(_findings(self))

    def warn(self) -> None:
        """Issue a DiagnosticWarning for each of the `findings`."""
        for finding in self.findings():
            warn(f"{self.flow!r}: {finding}")

    def print_summary(self) -> None:
        """Print the log sum with its error, effective sample sizes, and what speaks against them."""
        found = self.findings()
        rows = [*_rows(self), ("findings", str(len(found) or "none"))]
        print("\n".join([columns(rows, num_left=2, least=12), *(f"  - {finding}" for finding in found)]))

    def to_datatree(self):
        """ArviZ DataTree: posterior (objects), sample_stats (log_weight, weight, ancestor), paths (`stats`)."""
        from .datatree import to_datatree  # xarray is slow to import

        return to_datatree(self)

    def __repr__(self):
        count = len(self.findings())
        return (
            f"FlowRun of {self.flow!r}\n  {len(self.log_weights)} paths, ESS {self.ess:.0f}\n  log evidence "
            f"{self.log_evidence:.3f} +- {self.log_evidence_error:.3f} nats\n  findings: {count or 'none'}"
        )


def tail_of(log_weights) -> Tail:
    """The tail of weights [N], see `diagnose.weights`; NaN and 0 where half of it repeats others.

    Paths to one object weigh alike, or take few different weights, and no smooth law goes through those.
    """
    size = tail_size(len(log_weights))
    largest = np.sort(np.asarray(log_weights, dtype=np.float64))[::-1][: size + 1]
    different = 1 + np.sum(-np.diff(largest) > 1e-5) if len(largest) else 0
    return pareto_tail(log_weights) if different > size / 2 else Tail(jnp.full((), jnp.nan), jnp.zeros(()))


def _rows(run: FlowRun):
    yield "flow", repr(run.flow)
    yield "environment", repr(run.flow.environment)
    yield "paths", f"{len(run.log_weights)} of at most {len(run.stats['ess'])} actions"
    yield "proposal", run.proposal
    yield "log evidence", f"{run.log_evidence:.3f} +- {run.log_evidence_error:.3f} nats"
    yield "ESS", f"{run.ess:.0f} at the end; least on the way {_least(run, 'ess'):.0%}"
    yield "families", f"effectively {run.particles.num_effective:.0f} founding paths"
    yield "resampled", f"{int(np.sum(run.stats['resampled']))} times"
    if np.isfinite(run.pareto_k):
        yield "Pareto k", f"{run.pareto_k:.2f} (from {HEAVY:g} on the tail of the weights is heavy)"
    yield "reaching", "exact" if run.is_exact else "along each path, right as far as the flows balance"


def _least(run: FlowRun, name: str) -> float:
    return float(np.nan_to_num(run.stats[name], nan=0.0).min())


def _findings(run: FlowRun):
    remedy = "Use more num_samples, or a composition whose flows overlap more."
    if not np.isfinite(run.log_evidence):
        yield (
            f"log evidence is {run.log_evidence}: no path kept a positive weight, so that samples mean nothing. The "
            "flows of the formula build no object in common."
        )
        return
    if _least(run, "ess") < LEAST_ESS or _least(run, "conditional_ess") < LEAST_CONDITIONAL_ESS:
        yield (
            f"weights collapse: the ESS falls to {_least(run, 'ess'):.1%} of the paths, between two actions to "
            f"{_least(run, 'conditional_ess'):.1%}. {remedy}"
        )
    if run.pareto_k > HEAVY:
        yield (
            f"importance weights have a heavy tail, of Pareto k {run.pareto_k:.2f} (from {HEAVY:g} on they have no "
            f"variance, from 1 on no mean). {remedy}"
        )
    if len(run.log_weights) < FEWEST:
        yield f"{len(run.log_weights)} paths tell no error, as their scatter is not known. Use more num_samples."
    elif not run.log_evidence_error <= MOST_EVIDENCE_ERROR:
        yield (
            f"the standard error of log evidence is {run.log_evidence_error:.2f} nats, above {MOST_EVIDENCE_ERROR}: "
            f"few founding paths survive resampling, or a few hold the weight. {remedy}"
        )
