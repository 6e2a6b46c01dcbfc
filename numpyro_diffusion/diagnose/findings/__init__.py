"""When to trust a run: what speaks against it, in words.

Nothing here changes a result. `findings` reads the statistics that a run carries anyway; the one thing it evaluates
anew is each factor of a product at a few hundred of the samples, because factors that do not overlap leave no trace in
acceptance rates.
"""

from __future__ import annotations

import numpy as np

from ...checks.text import uncalibrated_shares
from ...density.density import Density, Expression
from ...errors import warn
from ..result_fields import BoundFields, ResultFields, RunFields, TemperedFields
from . import exchange, statistics
from .disagreeing import disagreeing
from .integrable import curl_of, rotating
from .outweighed import outweighed
from .overlap import disjoint_factors
from .statistics import LEAST_ESS
from .untypical import off_evidence, untypical

__all__ = ["curl_of", "findings", "is_hopeless", "uncalibrated", "warn_of"]


def findings(run: ResultFields) -> list[str]:
    """What speaks against a run or a bound, each with its remedy; empty if nothing does.

    Args:
        run: Result of `nd.anneal` or of a bound, or `annealed` of an `nd.AnnealedMCMC`.

    Returns:
        Sentences, the gravest first.

    Cost: one evaluation of every factor of a product at up to 256 samples.
    """
    if not isinstance(run, RunFields):
        return _own_findings(run)
    return [*run.remarks, *_own_findings(run), *_mixture_findings(run.density)]


def is_hopeless(run: RunFields) -> bool:
    """Whether a finding says that samples mean nothing: no finite integral, chains that left, or are not finite."""
    return any(next(iter(check(run)), None) for check in (_outweighed, statistics.escaped, statistics.non_finite))


def warn_of(run: ResultFields) -> None:
    """Issue a DiagnosticWarning per finding, which names the run, located at the caller's line outside this package.

    An uncalibrated density in a mixture is left out: building the mixture has warned of it already.
    """
    for finding in _own_findings(run):
        warn(f"{run.title}: {finding}")


def _own_findings(run):
    if isinstance(run, BoundFields):
        return list(statistics.heavy_bounds(run))
    is_tempered = isinstance(run, TemperedFields)
    weights = (exchange.stuck,) if is_tempered else (statistics.heavy_tails, statistics.collapsed_weights)
    # What is wrong with the formula, and chains that are lost, are the cause of whatever else is wrong.
    found: list[str] = []
    for check in (
        _outweighed, statistics.escaped, _disjoint, statistics.non_finite, statistics.above_the_data, _untypical,
        statistics.alone, *weights, disagreeing, off_evidence, statistics.acceptance, statistics.divergences, rotating,
    ):  # fmt: skip
        new = list(check(run))
        found += new
        if new and (check is _outweighed or (check is statistics.escaped and not run.is_complete)):
            break
        # Nor can overlap be judged by a handful of chains that hold all the weight.
        if new and check is _disjoint and not run.ess <= LEAST_ESS * len(run.samples):
            break
    # The pilot's word stands where the run has none of its own.
    return found or list(statistics.foretold(run))


def _disjoint(run):
    names = disjoint_factors(run.density, np.asarray(run.samples), float(run.levels[-1]))
    if names:
        yield (
            f"the factors do not overlap: samples are improbable under {' and '.join(names)}. A product of disjoint "
            "densities has no meaningful samples; temper the factors (exponents below 1) or use a mixture "
            "(0.5 * p + 0.5 * q)."
        )


def _untypical(run):
    return untypical(run.density, run.samples, float(run.levels[-1]))


def _outweighed(run):
    for text, ratio in outweighed(run.density, float(run.levels[-1])):
        yield (
            f"{text} seems to grow without bound in some direction: there its denominator falls off faster than its "
            f"numerator ({ratio:.2g} to 1, by Gaussian approximations). Its integral is then infinite, and neither "
            "samples nor log evidence mean anything. Lower the denominator's exponent, or give the denominator a floor "
            "with nd.negation(..., floor=0.01)."
        )


def _mixture_findings(density) -> list[str]:
    nodes = density.nodes if isinstance(density, Expression) else []
    sums = [node for node in nodes if node.formula.kind == "mixture" and len(node.terms) > 1]
    names = list(dict.fromkeys(name for node in sums for name in uncalibrated(node)))
    return [uncalibrated_shares(names)] if names else []


def uncalibrated(density: Density) -> list[str]:
    """Names of the leaves of a density with log densities that are not calibrated; scores are tracked from noise on."""
    leaves = density.leaves if isinstance(density, Expression) else (density,)
    return [repr(leaf) for leaf in leaves if leaf.has_log_density and not leaf.is_calibrated]
