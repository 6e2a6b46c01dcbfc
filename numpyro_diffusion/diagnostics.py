"""When to trust a run: what speaks against it, in words, and as a printed summary.

Nothing here changes a result. `findings` reads the statistics that a run carries anyway; the one thing it evaluates
anew is each factor of a product at a few hundred of the samples, because factors that do not overlap leave no trace in
acceptance rates. `datatree` holds the same numbers for ArviZ.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from .bounds import Bound
from .density import Density, narrowest
from .errors import DiagnosticWarning
from .expression import Expression
from .overlap import disjoint_factors
from .run import AnnealedRun, kernel_text
from .untypical import off_evidence, untypical

__all__ = ["findings", "summary", "warn"]

#: Shares of the population below which weights are called collapsed.
LEAST_ESS, LEAST_CONDITIONAL_ESS = 0.05, 0.2
#: Standard error of log evidence (nats) above which too few founding chains survive.
MOST_EVIDENCE_ERROR = 0.5


def findings(run: AnnealedRun) -> list[str]:
    """What speaks against a run, each with its remedy; empty if nothing does.

    Args:
        run: Result of `nd.anneal`.

    Returns:
        Sentences, the gravest first.

    Cost: one evaluation of every factor of a product at up to 256 samples.
    """
    return _run_findings(run) + _mixture_findings(run.density)


def warn(run: AnnealedRun) -> None:
    """Issue a DiagnosticWarning per finding, located at the caller's line outside this package.

    An uncalibrated density in a mixture is left out: building the mixture has warned of it already.
    """
    package = str(Path(__file__).parent)
    for finding in _run_findings(run):
        warnings.warn(finding, DiagnosticWarning, skip_file_prefixes=(package,))


def _run_findings(run):
    # Factors that do not overlap are the cause of whatever else is wrong, and no other remedy helps.
    checks = (_disjoint, _non_finite, _untypical, _collapsed_weights, off_evidence, _acceptance, _divergences)
    found: list[str] = []
    for check in checks:
        found += check(run)
        # Nor can overlap be judged by a handful of chains that hold all the weight.
        if check is _disjoint and found and run.ess > LEAST_ESS * len(run.samples):
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


def _non_finite(run):
    samples = np.asarray(run.samples)
    bad = int(np.sum(~np.isfinite(samples.reshape(len(samples), -1)).all(axis=1)))
    if bad:
        yield (
            f"{bad} of {len(samples)} samples are not finite. Check the density with density.log_prob and .score "
            "near its data, or use smaller steps."
        )
    if run.is_weighted and not np.isfinite(run.log_evidence):
        yield (
            f"log evidence is {run.log_evidence}: no chain kept a positive weight. The density is zero, infinite or "
            "NaN wherever the chains went; check density.log_prob there, and anneal with more levels."
        )
    dead = float(np.mean(np.isneginf(np.asarray(run.log_weights))))
    if 0.05 < dead < 1:
        yield (
            f"{dead:.0%} of the chains have weight zero: the density vanishes or is NaN there. "
            "Use more levels (level_ess closer to 1), or resample (resample_threshold > 0)."
        )


def _collapsed_weights(run):
    if not run.stats or not run.is_weighted:
        return
    remedy = (
        "Use smaller steps between levels (level_ess closer to 1, or more levels), more num_steps, more num_chains."
    )
    ess, cess = np.asarray(run.stats["ess"]), np.asarray(run.stats["conditional_ess"])
    # Written so that a NaN share counts as collapsed.
    collapsed = ~(ess >= LEAST_ESS) | ~(cess >= LEAST_CONDITIONAL_ESS)
    if collapsed.any():
        yield (
            f"weights collapse at {collapsed.sum()} of {len(ess)} levels, first at t = {run.levels[collapsed][0]:.3g}: "
            f"the ESS falls to {_least(ess):.1%} of the chains, between two levels to {_least(cess):.1%}. {remedy}"
        )
    elif run.log_evidence_error > MOST_EVIDENCE_ERROR:
        yield (
            "few founding chains survive resampling: the standard error of log evidence is "
            f"{run.log_evidence_error:.2f} nats, above {MOST_EVIDENCE_ERROR}, and modes may be lost. {remedy}"
        )


def _least(share) -> float:
    return float(np.nan_to_num(share, nan=0.0).min())


def _acceptance(run):
    if not run.stats:
        return
    rate, kernel = np.asarray(run.stats["acceptance_rate"]), run.kernel
    name, target = type(kernel).__name__, kernel.target_acceptance
    if kernel.step_size is None:
        far = ~(np.abs(rate - target) <= 0.2)
        if far.mean() > 0.25:
            yield (
                f"acceptance is more than 0.2 from the target {target:.2f} of {name} at {far.sum()} of {len(rate)} "
                f"levels (mean there {np.nanmean(rate[far]):.2f}): the pilot's step sizes do not fit the run. "
                "Use more levels (level_ess closer to 1), or give step_size, one per level if need be."
            )
    elif (low := ~(rate >= 0.3)).mean() > 0.5:
        effect = "chains hardly move" if kernel.is_adjusted else "an unadjusted kernel is strongly biased"
        yield (
            f"acceptance is below 0.3 at {low.sum()} of {len(rate)} levels: {effect}. Use a smaller step_size, one per "
            f"level (smaller at low noise), or leave it out to tune it to {target:.2f}."
        )
    elif kernel.is_adjusted and (high := rate > 0.98).mean() > 0.5:
        yield (
            f"acceptance is above 0.98 at {high.sum()} of {len(rate)} levels: steps are too small to explore. Use a "
            f"larger step_size, or leave it out to tune it to {target:.2f}."
        )


def _divergences(run):
    if not run.stats:
        return
    # Where the noise is small against the density's width walls are hard, and proposals across them rightly rejected.
    width = narrowest(run.density)
    noisy = np.asarray(run.density.schedule.noise_to_signal(run.levels)) > 0.1 * width
    proposals = len(run.samples) * run.num_steps
    share = np.asarray(run.stats["divergences"]) / proposals
    if noisy.any() and (mean := share[noisy].mean()) > 0.02:
        worst = np.argmax(np.where(noisy, share, -1.0))
        yield (
            f"{mean:.0%} of the proposals at noisy levels diverge (NaN, infinite or hopeless energies), most at "
            f"t = {run.levels[worst]:.3g}. Use a smaller step_size, and check density.log_prob for NaN there."
        )


def _uncalibrated(density: Density) -> list[str]:
    leaves = density.leaves if isinstance(density, Expression) else (density,)
    return [repr(leaf) for leaf in leaves if not leaf.is_calibrated]


def _mixture_findings(density):
    if not isinstance(density, Expression):
        return []
    names: list[str] = []

    def walk(node, inside):
        if node[0] == "leaf":
            leaf = density.leaves[node[1]]
            if inside and not leaf.is_calibrated and repr(leaf) not in names:
                names.append(repr(leaf))
            return
        for child, _ in node[1]:
            walk(child, inside or (node[0] == "mixture" and len(node[1]) > 1))

    walk(density.formula, False)
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
    if isinstance(result, Bound):
        return _table(_bound_rows(result))
    if isinstance(result, AnnealedRun):
        found = findings(result)
        rows = [*_run_rows(result), ("findings", "none" if not found else str(len(found)))]
        return "\n".join([_table(rows), *(f"  - {finding}" for finding in found)])
    raise TypeError(f"summary takes the result of nd.anneal or of a bound; got {type(result).__name__}.")


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
        ess, cess = _least(run.stats["ess"]), _least(run.stats["conditional_ess"])
        # Without a single live chain the ESS is 0 / 0.
        final = run.ess if np.any(np.isfinite(np.asarray(run.log_weights))) else 0.0
        yield "ESS", f"{final:.0f} of {count} at the end; least on the way {ess:.0%}, between two levels {cess:.0%}"
        yield "resampled", f"{int(np.sum(run.stats['resampled']))} times"
    if run.stats:
        rate = np.asarray(run.stats["acceptance_rate"])
        aim = f", tuned to {run.kernel.target_acceptance:.2f}" if run.kernel.step_size is None else ""
        yield "acceptance", f"{np.nanmin(rate):.2f} to {np.nanmax(rate):.2f}, mean {np.nanmean(rate):.2f}{aim}"


def _bound_rows(bound):
    yield "bound", f"{bound.kind.upper()}, {len(bound.levels)} levels"
    yield "lower", f"{bound.lower:.3f} +- {bound.lower_error:.3f} nats"
    if np.isfinite(bound.upper):
        yield "upper", f"{bound.upper:.3f} +- {bound.upper_error:.3f} nats"
        yield "gap", f"{bound.upper - bound.lower:.3f} nats"
    shapes = (f"{name} {' x '.join(map(str, np.shape(w)))}" for name, w in bound.log_weights.items())
    yield "log weights", ", ".join(shapes)
