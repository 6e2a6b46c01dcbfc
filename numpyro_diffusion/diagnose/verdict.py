r"""A verdict before the run: what a pilot, a small run of n chains, tells of one of N chains by the same plan.

The pilot's log evidence has a standard error e by its genealogy, which sees what a sum over levels of the variances of
increments, :math:`V = \sum_k (1 / c_k - 1)` with c the conditional ESS, does not: chains that stay in their modes. Both
fall as one over the square root of the chains, :math:`e_N = e \sqrt{n / N}` (with more levels further, see
`annealing.effort`). Weights cost the samples as much only where relatives, of one founding chain, stay alike: with the
correlation :math:`\rho` of relatives these are worth

.. math:: N_\text{eff} = \frac{N}{1 + \rho N e_N^2}

independent draws.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from .findings import findings, is_hopeless
from .islands import effective_families
from .result_fields import RunFields
from .weights import normalised

#: Nats by which a log evidence may be off, and distances of exact draws by which samples may lie from the truth.
MOST_NATS, MOST_DISTANCE = 0.3, 2.0
#: Worth of samples, as a share of their number, at which half of all runs lie further, and how steeply that changes;
#: and the chances of failure that each finding in the pilot adds, a tail of the weights, and samples of no meaning.
HALF_FAR, STEEPNESS, OF_A_FINDING, OF_A_TAIL, HOPELESS = 0.15, 3, 0.15, 0.35, 0.95
#: Families as many as which it is taken for granted that relatives are alike.
PRIOR_FAMILIES = 4.0
#: Times another error from which on one is much more.
MUCH_MORE = 1.5
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


def judged(
    pilot: RunFields, num_chains: int, error: float, scatter: float, pilot_evaluations: float, asked: float | None
) -> Verdict:
    """The verdict on a run of `num_chains`.

    The pilot predicts its standard error of log Z, and how much of that is `scatter` between families, without what
    tails of weights may hold; and one may have been `asked`.
    """
    reasons = findings(dataclasses.replace(pilot, log_evidence_error=error))
    kin = kinship(pilot)
    effective = 1.0 if math.isinf(error) else max(num_chains / (1 + num_chains * kin * error**2), 1.0)
    share = 1 / (1 + num_chains * kin * scatter**2)
    failing = _chance(scatter, share) if pilot.is_weighted else 0.0
    if error > MUCH_MORE * scatter:
        failing = 1 - (1 - failing) * (1 - OF_A_TAIL)
    if is_hopeless(pilot):
        failing = max(failing, HOPELESS)
    score = 1 - (1 - failing) * (1 - OF_A_FINDING) ** len(reasons)
    verdict = "good" if score <= GOOD else "doubtful" if score <= DOUBTFUL else "bad"
    if asked is not None and MUCH_MORE * asked < error < math.inf:
        needed = math.ceil(num_chains * (error / asked) ** 2)
        reasons.append(
            f"levels alone do not bring the standard error of log evidence below {error:.2g} nats, where "
            f"{asked:.2g} is asked: modes part early. Use num_chains={needed}, or ask for less with accuracy."
        )
    return Verdict(verdict, score, error, effective, num_chains, pilot_evaluations, tuple(reasons))


def kinship(run: RunFields) -> float:
    """Correlation of samples of one founding chain, over all coordinates: 1 where relatives stay in one mode, 0 where
    they have forgotten each other; 1 where there are none."""
    x = np.asarray(run.samples, dtype=float).reshape(len(run.samples), -1)
    weight = normalised(run.log_weights)
    fine = np.isfinite(x).all(axis=1) & (weight > 0)
    if not fine.any():
        return 1.0
    x, weight = x[fine] - np.average(x[fine], axis=0, weights=weight[fine]), weight[fine]
    _, family = np.unique(np.asarray(run.ancestors)[fine], return_inverse=True)

    def of_relatives(values):
        """Sum over ordered pairs of relatives of the products of values [n, k], by their weights."""
        whole, own = np.zeros((family.max() + 1, values.shape[1])), weight[:, None] * values
        np.add.at(whole, family, own)
        return np.sum(whole**2) - np.sum(own**2)

    pairs, spread = of_relatives(np.ones((len(x), 1))), np.sum(weight[:, None] * x**2)
    if pairs <= 1e-12 or not spread > 0:
        return 1.0
    found = np.clip(of_relatives(x) / pairs / spread, 0.0, 1.0)
    # Centred, the only family there is seems to have forgotten itself.
    families = effective_families(family)
    return float((families * found + PRIOR_FAMILIES) / (families + PRIOR_FAMILIES))


def _chance(error: float, share: float) -> float:
    """That a log evidence of that error is off by too much, or samples worth that share of their number are."""
    if math.isnan(error) or math.isinf(error):
        return 1.0  # no chain of the pilot is alive, or there was but one
    off = math.erfc(MOST_NATS / (math.sqrt(2) * error)) if error > 0 else 0.0
    far = 1 / (1 + (share / HALF_FAR) ** STEEPNESS)
    return float(np.clip(1 - (1 - off) * (1 - far), 0.0, 1.0))
