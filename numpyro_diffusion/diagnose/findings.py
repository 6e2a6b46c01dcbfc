"""When to trust a run: what speaks against it, in words, and as a printed summary.

Nothing here changes a result. `findings` reads the statistics that a run carries anyway; the one thing it evaluates
anew is each factor of a product at a few hundred of the samples, because factors that do not overlap leave no trace in
acceptance rates. `datatree` holds the same numbers for ArviZ.
"""

from __future__ import annotations

import numpy as np

from ..density.density import Density, Expression
from ..errors import ArgumentTypeError, warn
from . import statistics as checks
from .outweighed import outweighed
from .overlap import disjoint_factors
from .result import AnnealedRun, Bound, kernel_text
from .statistics import LEAST_ESS
from .untypical import off_evidence, untypical

__all__ = ["findings", "short", "summary", "warn_of"]


def findings(run: AnnealedRun | Bound) -> list[str]:
    """What speaks against a run or a bound, each with its remedy; empty if nothing does.

    Args:
        run: Result of `nd.anneal` or of a bound, or `annealed` of an `nd.AnnealedMCMC`.

    Returns:
        Sentences, the gravest first.

    Cost: one evaluation of every factor of a product at up to 256 samples.
    """
    if isinstance(run, Bound):
        return list(checks.heavy_bounds(run))
    return _run_findings(run) + _mixture_findings(run.density)


def warn_of(run: AnnealedRun | Bound) -> None:
    """Issue a DiagnosticWarning per finding, located at the caller's line outside this package.

    An uncalibrated density in a mixture is left out: building the mixture has warned of it already.
    """
    found = findings(run) if isinstance(run, Bound) else _run_findings(run)
    for finding in found:
        warn(finding)


def _run_findings(run):
    # What is wrong with the formula, and chains that are lost, are the cause of whatever else is wrong.
    found: list[str] = []
    for check in (
        _outweighed, checks.escaped, _disjoint, checks.non_finite, _untypical, checks.heavy_tails,
        checks.collapsed_weights, off_evidence, checks.acceptance, checks.divergences,
    ):  # fmt: skip
        new = list(check(run))
        found += new
        if new and (check is _outweighed or (check is checks.escaped and not run.is_complete)):
            break
        # Nor can overlap be judged by a handful of chains that hold all the weight.
        if new and check is _disjoint and not run.ess <= LEAST_ESS * len(run.samples):
            break
    return found


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


def _uncalibrated(density: Density) -> list[str]:
    leaves = density.leaves if isinstance(density, Expression) else (density,)
    return [repr(leaf) for leaf in leaves if not leaf.is_calibrated]


def _uncalibrated_in_mixtures(density) -> list[str]:
    if not isinstance(density, Expression):
        return []
    if density.formula.kind == "mixture" and len(density.terms) > 1:
        return _uncalibrated(density)
    return [name for term, _ in density.terms for name in _uncalibrated_in_mixtures(term)]


def _mixture_findings(density):
    names = list(dict.fromkeys(_uncalibrated_in_mixtures(density)))
    if not names:
        return []
    return [
        f"{', '.join(names)} in a mixture is not calibrated, so its share of the mixture is arbitrary. Train with "
        "nd.fit(..., calibrated=True), or measure its normaliser with nd.recalibrate."
    ]


def summary(result: AnnealedRun | Bound) -> str:
    """A short text about a run or a bound, for people.

    Args:
        result: Result of `nd.anneal`, or of `nd.ais_bound`, `nd.raise_bound`, `nd.bdmc`.

    Returns:
        Lines without a final newline. Evidence in nats.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(result, AnnealedRun | Bound):
        found, known = findings(result), _run_rows if isinstance(result, AnnealedRun) else _bound_rows
        rows = [*known(result), ("findings", "none" if not found else str(len(found)))]
        return "\n".join([_table(rows), *(f"  - {finding}" for finding in found)])
    raise ArgumentTypeError(f"summary takes the result of nd.anneal or of a bound; got {type(result).__name__}.")


def short(run: AnnealedRun) -> str:
    """A run in a few lines."""
    rate = _acceptance_text(run)
    evidence = f"log evidence {run.log_evidence:.3f} +- {run.log_evidence_error:.3f} nats" if run.is_weighted else (
        "no log evidence"
    )  # fmt: skip
    state = _state(run)
    lines = [
        f"AnnealedRun of {run.density!r} by {kernel_text(run.kernel)}",
        f"{len(run.samples)} chains, {len(run.levels)} levels" + (f", acceptance {rate}" if rate else ""),
        evidence,
        state,
    ]
    return "\n  ".join(lines)


def _state(run):
    if not run.is_complete:
        return f"incomplete: ended at t = {run.levels[-1]:.3g}"
    count = len(findings(run))
    return "findings: none" if not count else f"findings: {count}, see print_summary()"


def _acceptance_text(run) -> str:
    """Range of the acceptance rates, empty where there are none."""
    rate = np.asarray(run.stats["acceptance_rate"] if run.stats else [], dtype=float)
    rate = rate[np.isfinite(rate)]
    return f"{rate.min():.2f} to {rate.max():.2f}, mean {rate.mean():.2f}" if len(rate) else ""


def _table(rows) -> str:
    return "\n".join(f"{name:<14}{text}" for name, text in rows)


def _run_rows(run):
    schedule, count = run.density.schedule, len(run.samples)
    first, last = (f"{float(schedule.noise_to_signal(t)):.3g}" for t in (run.levels[0], run.levels[-1]))
    yield "density", repr(run.density)
    yield "kernel", kernel_text(run.kernel)
    yield "chains", f"{count}"
    yield "levels", f"{len(run.levels)}, noise-to-signal ratio {first} to {last}"
    yield "evaluations", f"{run.evaluations_per_chain} per chain, pilot excluded"
    if not run.is_weighted:
        yield "log evidence", "undefined: no importance weights for this kernel and density"
    else:
        unknown = _uncalibrated(run.density)
        note = f", up to the unknown constant of {', '.join(unknown)} (not calibrated)" if unknown else ""
        yield "log evidence", f"{run.log_evidence:.3f} +- {run.log_evidence_error:.3f} nats{note}"
        ess, cess = checks.least(run.stats["ess"]), checks.least(run.stats["conditional_ess"])
        # Without a single live chain the ESS is 0 / 0.
        final = np.nan_to_num(run.ess, nan=0.0)
        yield "ESS", f"{final:.0f} of {count} at the end; least on the way {ess:.0%}, between two levels {cess:.0%}"
        yield "resampled", f"{int(np.sum(run.stats['resampled']))} times"
        shapes = np.asarray(run.stats["pareto_k"], dtype=float)
        if np.any(np.isfinite(shapes)):
            yield "Pareto k", f"{np.nanmax(shapes):.2f} at most (from 0.5 on the tail of the weights is heavy)"
    if run.stats and not run.density.has_log_density:
        yield "acceptance", "none: the density has only a score"
    elif rate := _acceptance_text(run):
        aim = f", tuned to {run.kernel.target_acceptance:.2f}" if run.kernel.step_size is None else ""
        yield "acceptance", rate + aim
    if not run.is_complete:
        yield "incomplete", f"ended at t = {run.levels[-1]:.3g}, before its last level"


def _bound_rows(bound):
    yield "bound", f"{bound.kind.upper()}, {len(bound.levels)} levels"
    yield "lower", f"{bound.lower:.3f} +- {bound.lower_error:.3f} nats"
    if np.isfinite(bound.upper):
        yield "upper", f"{bound.upper:.3f} +- {bound.upper_error:.3f} nats"
        yield "gap", f"{bound.upper - bound.lower:.3f} nats"
    shapes = (f"{name} {' x '.join(map(str, np.shape(w)))}" for name, w in bound.log_weights.items())
    yield "log weights", ", ".join(shapes)
    if bound.pareto_k:
        yield "Pareto k", ", ".join(f"{name} {k:.2f}" for name, k in bound.pareto_k.items())
