"""Runs and bounds in words, for people: evidence, effective sample sizes, acceptance, and what speaks against them."""

from __future__ import annotations

import numpy as np

from ..checks.text import columns
from ..errors import ArgumentTypeError
from .findings import curl_of, findings, uncalibrated
from .findings.statistics import least
from .result_fields import BoundFields, ResultFields, RunFields, TemperedFields


def summary(result: ResultFields) -> str:
    """A short text about a run or a bound, evidence in nats; TypeError for anything else."""
    if not isinstance(result, RunFields | BoundFields):
        raise ArgumentTypeError(f"summary takes the result of nd.anneal or of a bound; got {type(result).__name__}.")
    rows = _run_rows(result) if isinstance(result, RunFields) else _bound_rows(result)
    found = findings(result)
    return "\n".join([columns([*rows, ("findings", str(len(found) or "none"))], num_left=2, least=12), *listed(found)])


def short(run: RunFields) -> str:
    """A run in a few lines."""
    rate = _acceptance(run)
    if run.is_complete:
        count = len(findings(run))
        state = f"findings: {count}, see print_summary()" if count else "findings: none"
    else:
        state = f"incomplete: {_ended(run)}"
    lines = [
        f"{type(run).__name__} of {run.title}",
        f"{_count(run)}, {len(run.levels)} levels" + (f", acceptance {rate}" if rate else ""),
        f"log evidence {evidence(run)}" if run.is_weighted else "no log evidence",
        state,
    ]
    return "\n  ".join(lines)


def evidence(run: RunFields) -> str:
    """Log evidence of a run with its error, if it has one."""
    if not run.is_weighted:
        return "undefined: no importance weights for this kernel and density"
    return _nats(run.log_evidence, run.log_evidence_error)


def listed(found: list[str]) -> list[str]:
    """Findings as lines."""
    return [f"  - {finding}" for finding in found]


def _nats(value, error) -> str:
    return f"{value:.3f} +- {error:.3f} nats"


def _acceptance(run) -> str:
    """Range of the acceptance rates, empty where there are none."""
    rate = np.asarray(run.stats["acceptance_rate"] if run.stats else [], dtype=float)
    rate = rate[np.isfinite(rate)]
    return f"{rate.min():.2f} to {rate.max():.2f}, mean {rate.mean():.2f}" if len(rate) else ""


def _count(run) -> str:
    if isinstance(run, TemperedFields):
        return f"{run.num_groups} groups of {len(run.samples) // run.num_groups} draws"
    return f"{len(run.samples)} chains"


def _ended(run) -> str:
    if isinstance(run, TemperedFields):
        return f"interrupted after {_count(run)}"
    return f"ended at t = {run.levels[-1]:.3g}, before its last level"


def _run_rows(run):
    schedule, count, is_tempered = run.density.schedule, len(run.samples), isinstance(run, TemperedFields)
    first, last = (f"{float(schedule.noise_to_signal(t)):.3g}" for t in (run.levels[0], run.levels[-1]))
    yield "density", repr(run.density)
    yield "kernel", repr(run.kernel)
    yield "groups" if is_tempered else "chains", _count(run) if is_tempered else f"{count}"
    yield "levels", f"{len(run.levels)}, noise-to-signal ratio {first} to {last}"
    each = "group of replicas" if is_tempered else "chain"
    yield "evaluations", f"{run.evaluations_per_chain} per {each}, and {run.pilot_evaluations:.0f} for the pilot"
    unknown = uncalibrated(run.density) if run.is_weighted else []
    note = f", up to the unknown constant of {', '.join(unknown)} (not calibrated)" if unknown else ""
    yield "log evidence", evidence(run) + note
    if run.verdict is not None:
        yield "expected", str(run.verdict).partition("\n")[0]
    if is_tempered:
        rate = np.asarray(run.stats["swap_rate"], dtype=float)
        yield "exchanges", f"{rate.min():.2f} to {rate.max():.2f}, mean {rate.mean():.2f}; barrier {run.barrier:.2f}"
        trips = f"{int(np.sum(run.tours))} in {run.num_sweeps} sweeps, {run.round_trip_rate:.3f} per sweep and group"
        yield "round trips", trips
    elif run.is_weighted:
        ess, cess = least(run.stats["ess"]), least(run.stats["conditional_ess"])
        # Without a single live chain the ESS is 0 / 0.
        final = np.nan_to_num(run.ess, nan=0.0)
        yield "ESS", f"{final:.0f} of {count} at the end; least on the way {ess:.0%}, between two levels {cess:.0%}"
        families = run.particles.num_effective
        yield "families", f"effectively {families:.0f} founding chains"
        if run.island_log_evidences is not None:
            each = ", ".join(f"{value:.3f}" for value in run.island_log_evidences)
            yield "islands", f"{run.num_islands}, of log evidence {each}"
        yield "resampled", f"{int(np.sum(run.stats['resampled']))} times"
        shapes = np.asarray(run.stats["pareto_k"], dtype=float)
        if np.any(np.isfinite(shapes)):
            yield "Pareto k", f"{np.nanmax(shapes):.2f} at most (from 0.5 on the tail of the weights is heavy)"
    if run.stats and not run.has_acceptance:
        yield "acceptance", "none: there are no Metropolis ratios of these steps"
    elif rate := _acceptance(run):
        aim = f", tuned to {run.kernel.target_acceptance:.2f}" if run.kernel.step_size is None else ""
        yield "acceptance", rate + aim
    if curls := curl_of(run):
        nodes = f"{run.kernel.num_nodes} nodes a step, " if run.kernel.num_nodes else ""
        yield "by the score", f"line integrals, {nodes}curl {', '.join(f'{n} {c:.0%}' for n, c in curls.items())}"
    if not run.is_complete:
        yield "incomplete", _ended(run)


def _bound_rows(bound):
    yield "bound", f"{bound.kind.upper()}, {len(bound.levels)} levels"
    yield "lower", _nats(bound.lower, bound.lower_error)
    if np.isfinite(bound.upper):
        yield "upper", _nats(bound.upper, bound.upper_error)
        yield "gap", f"{bound.gap:.3f} nats"
    shapes = (f"{name} {' x '.join(map(str, np.shape(w)))}" for name, w in bound.log_weights.items())
    yield "log weights", ", ".join(shapes)
    if bound.pareto_k:
        yield "Pareto k", ", ".join(f"{name} {k:.2f}" for name, k in bound.pareto_k.items())
