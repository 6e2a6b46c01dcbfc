r"""A verdict before the run: what a pilot, a small run of n chains, tells of one of N chains by the same plan.

The pilot's log evidence has a standard error e by its genealogy, which sees what a sum over levels of the variances of
increments, :math:`V = \sum_k (1 / c_k - 1)` with c the conditional ESS, does not: chains that stay in their modes. Both
fall as one over the square root of the chains, so that

.. math:: e_N = e \sqrt{n / N}, \qquad N_\text{eff} = N / (1 + N e_N^2)

are the error of the run's log evidence, and how many independent draws its samples are worth.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from .findings import findings
from .result_fields import RunFields

#: Nats by which a log evidence may be off, and distances of exact draws by which samples may lie away from the truth.
MOST_NATS, MOST_DISTANCE = 0.3, 2.0
#: Scores up to which a run is called good, and doubtful.
GOOD, DOUBTFUL = 0.25, 0.6


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is to be expected of a run, from its pilot alone.

    Attributes:
        verdict: "good", "doubtful" or "bad".
        score: Chance in [0, 1] that the run fails: that its log evidence is off by more than 0.3 nats, or its samples
            lie more than twice as far from the truth as exact draws do.
        log_evidence_error: Predicted standard error of the run's log evidence, in nats; NaN without weights.
        effective_chains: Independent draws that the run's samples will be worth; NaN without weights.
        num_chains: Chains of the run it is about.
        pilot_evaluations: What the pilot cost, in evaluations of value and gradient for each chain of the run.
        reasons: What speaks against it, each with its remedy, the gravest first.
    """

    verdict: str
    score: float
    log_evidence_error: float
    effective_chains: float
    num_chains: int
    pilot_evaluations: float
    reasons: tuple[str, ...] = ()

    @classmethod
    def of(cls, facts: dict | None) -> Verdict | None:
        """A verdict of its fields, as files hold them."""
        return None if facts is None else cls(**{**facts, "reasons": tuple(facts["reasons"])})

    def __str__(self):
        known = math.isfinite(self.effective_chains)
        text = f"verdict before the run: {self.verdict} (chance of failure {self.score:.0%})"
        if known:
            text += (
                f", log evidence to +- {self.log_evidence_error:.2g} nats, samples worth about "
                f"{self.effective_chains:.0f} of {self.num_chains} draws"
            )
        return "\n".join([text, *(f"  - {reason}" for reason in self.reasons)])


def judged(pilot: RunFields, num_chains: int, error: float, pilot_evaluations: float) -> Verdict:
    """The verdict on a run of `num_chains` of which a pilot predicts the standard error of log Z."""
    reasons = tuple(findings(dataclasses.replace(pilot, log_evidence_error=error)))
    effective = num_chains / (1 + num_chains * error**2) if not math.isinf(error) else 1.0
    score = 1 - (1 - _chance(error, effective / num_chains)) * 0.5 ** len(reasons)
    verdict = "good" if score <= GOOD else "doubtful" if score <= DOUBTFUL else "bad"
    return Verdict(verdict, score, error, effective, num_chains, pilot_evaluations, reasons)


def _chance(error: float, share: float) -> float:
    """That a log evidence of that error is off by too much, or samples worth that share of their number are."""
    if math.isnan(error):
        return 0.0
    off = math.erfc(MOST_NATS / (math.sqrt(2) * error)) if error > 0 else 0.0
    far = 1 / (1 + (share * MOST_DISTANCE**2) ** 3)
    return float(np.clip(1 - (1 - off) * (1 - far), 0.0, 1.0))
