"""What the statistics of a run say against it: one check each, that yields sentences with what can be done about it."""

from __future__ import annotations

import numpy as np

from ...density.abstract import narrowest
from ..result_fields import BoundFields, RunFields, TemperedFields
from ..weights import HEAVY

#: Shares of the population below which weights are called collapsed.
LEAST_ESS, LEAST_CONDITIONAL_ESS = 0.05, 0.2
#: Standard error of log evidence (nats) above which too few founding chains survive.
MOST_EVIDENCE_ERROR = 0.5
#: Nats missed beyond the largest weights, or by corrections, that are worth a report.
MOST_TAIL = 0.1
#: Acceptance at the last level below which nothing moves there.
STILL = 0.02


def closer_levels(run: RunFields) -> str:
    """How to put levels closer, given how they were asked for."""
    return f"more levels than {len(run.levels)}" if run.levels_given else "level_ess closer to 1 (more levels)"


def shorter_steps(run: RunFields) -> str:
    """How to take shorter steps, given how they were asked for."""
    if isinstance(steps := getattr(run.kernel, "step_size", ()), tuple):
        return closer_levels(run)
    if steps is None:
        return "steps shorter than the tuned ones: step_size=0.5 * run.stats['step_size'] with levels=run.levels"
    if np.ndim(steps):
        return f"smaller step sizes than {np.min(steps):.3g} to {np.max(steps):.3g}"
    return f"a step_size smaller than {float(steps):.3g}, or one per level (levels=...) that falls with the noise"


def least(share) -> float:
    """The least of shares, NaN counting as none."""
    return float(np.nan_to_num(share, nan=0.0).min())


def escaped(run: RunFields):
    """Chains that left the scale of every factor."""
    if not np.any(count := np.asarray(run.stats.get("escaped", 0))):
        return
    chains, first = len(run.samples), int(np.argmax(count > 0))
    what = f"{int(count.max())} of {chains} chains left the scale of every factor"
    where = f"first at level {first + 1} (t = {run.levels[first]:.3g})"
    if not run.kernel.is_adjusted:
        if not run.is_complete and 2 * count[-1] > chains:
            where += f"; the run stopped after level {len(count)} (t = {run.levels[-1]:.3g}), its samples mean nothing"
        yield f"{what}, {where}. {type(run.kernel).__name__} takes steps that are too long: use {shorter_steps(run)}."
    elif 2 * count[-1] > chains:
        yield (
            f"{what}, {where}. Metropolis steps do not go there by chance: the density may have no bounds, the mean "
            "and covariance given for one may be wrong, or data and prior be in conflict. Plot density.log_prob there."
        )


def above_the_data(run: RunFields):
    """A last level that still has noise to speak of: more than a tenth of the density's least standard deviation."""
    t = float(run.levels[-1])
    if t == 0 or not run.is_complete:
        return
    r = float(run.density.schedule.noise_to_signal(t))
    if r > max(run.density.resolution, 0.1 * narrowest(run.density)):
        yield (
            f"the levels end at t = {t:.3g}: samples and log evidence are of the density at that noise level (of "
            f"noise-to-signal ratio {r:.3g}), not of the data's. Let the levels end at 0."
        )


def non_finite(run: RunFields):
    """Samples, evidences and weights that are not finite."""
    samples = np.asarray(run.samples)
    bad = int(np.sum(~np.isfinite(samples.reshape(len(samples), -1)).all(axis=1)))
    if bad:
        steps = f", or use {shorter_steps(run)}" if run.stats else ""
        yield (
            f"{bad} of {len(samples)} samples are not finite. Check the density with density.log_prob and .score "
            f"near its data{steps}."
        )
    # Where replicas exchange nothing there is no evidence either, which `exchange` tells.
    if run.is_weighted and not (np.isfinite(run.log_evidence) or isinstance(run, TemperedFields)):
        yield (
            f"log evidence is {run.log_evidence}: no chain kept a positive weight. The density is zero, infinite or "
            f"NaN wherever the chains went; check density.log_prob there, and anneal with {closer_levels(run)}."
        )
    dead = float(np.mean(np.isneginf(np.asarray(run.log_weights))))
    if 0.05 < dead < 1:
        yield (
            f"{dead:.0%} of the chains have weight zero: the density vanishes or is NaN there. "
            f"Use {closer_levels(run)}, or resample (resample_threshold > 0)."
        )


def alone(run: RunFields):
    """An evidence of one chain, whose error no one knows."""
    if run.is_weighted and len(run.samples) == 1 and not isinstance(run, TemperedFields):
        yield "log evidence has no standard error, which one chain cannot tell. Use more num_chains."


def collapsed_weights(run: RunFields):
    """Few chains, or few families of chains, that hold the weight."""
    if not run.stats or not run.is_weighted:
        return
    remedy = f"Use {closer_levels(run)}, more num_steps, more num_chains."
    ess, cess = np.asarray(run.stats["ess"]), np.asarray(run.stats["conditional_ess"])
    # Written so that a NaN share counts as collapsed.
    collapsed = ~(ess >= LEAST_ESS) | ~(cess >= LEAST_CONDITIONAL_ESS)
    if collapsed.any() and len(run.samples) > 1:
        yield (
            f"weights collapse at {collapsed.sum()} of {len(ess)} levels, first at t = {run.levels[collapsed][0]:.3g}: "
            f"the ESS falls to {least(ess):.1%} of the chains, between two levels to {least(cess):.1%}. {remedy}"
        )
    elif run.log_evidence_error > MOST_EVIDENCE_ERROR and not _missed(run):
        yield (
            "few founding chains survive resampling: the standard error of log evidence is "
            f"{run.log_evidence_error:.2f} nats, above {MOST_EVIDENCE_ERROR}, and modes may be lost. {remedy}"
        )


def foretold(run: RunFields):
    """A pilot that expected the run to fail."""
    if run.verdict is not None and run.verdict.verdict == "bad":
        yield (
            f"the pilot expected this run to fail (chance {run.verdict.score:.0%}): its log evidence to be off by more "
            "than 0.3 nats, or its samples to be far from the truth. Nothing else speaks against it. Use "
            f"{closer_levels(run)}, more num_chains, and compare the two runs."
        )


def _missed(run) -> float:
    """Nats that the evidence misses beyond its largest weights, or by corrections; 0 where not worth a report."""
    tail, gap = float(run.stats["tail"][-1]), abs(float(run.stats["correction"][-1]))
    # The error is the gap itself where that is the larger part.
    gap = gap if gap >= 0.999 * run.log_evidence_error else 0.0
    return max((nats for nats in (tail, gap) if nats > MOST_TAIL), default=0.0)


def heavy_tails(run: RunFields):
    """Weights of which a few, seen or not, make up the mean."""
    if not run.stats or not run.is_weighted or not (missed := _missed(run)):
        return
    shapes = np.asarray(run.stats["pareto_k"], dtype=float)
    worst = int(np.nanargmax(shapes)) if np.any(np.isfinite(shapes)) else len(shapes) - 1
    share = f"about {missed:.2f} nats of log evidence" if np.isfinite(missed) else "an unknown part of the evidence"
    # What weights miss of their sum, expectations miss of the mass.
    nats = f"{share}, and as large a share of the mass that expectations count,"
    if run.kernel.is_adjusted:
        remedy = f"Use {closer_levels(run)}, more num_steps, more num_chains"
        if run.density.has_log_density:
            # Narrow places that a population loses, such as small values of an unknown scale, replicas visit again.
            remedy += ", or engine='tempering'"
    elif not run.density.has_increments:
        remedy = f"Use {closer_levels(run)}, more num_chains"
    else:
        remedy = f"Use nd.HMC or nd.MALA, which need no such weights, or {shorter_steps(run)}"
    yield (
        f"importance weights have a heavy tail, of Pareto k {shapes[worst]:.2f} at t = {run.levels[worst]:.3g} (from "
        f"{HEAVY:g} on they have no variance, from 1 on no mean): {nats} may lie beyond the largest of them, as the "
        f"error of {run.log_evidence_error:.2f} says. {remedy}."
    )


def acceptance(run: RunFields):
    """Acceptance far from what it should be, where there is one."""
    if not run.has_acceptance:
        return
    rate, kernel = np.asarray(run.stats["acceptance_rate"]), run.kernel
    name, target = type(kernel).__name__, kernel.target_acceptance
    if kernel.step_size is None:
        # No less than three standard errors of a share of few proposals.
        far = ~(np.abs(rate - target) <= max(0.2, 1.5 / np.sqrt(max(run.num_proposals, 1))))
        # On a Gaussian the longest step there is accepts more than it should.
        is_longest = np.asarray(run.stats["step_size"]) > 0.99 * (kernel.longest_step or np.inf)
        far &= ~(is_longest & (rate > target) & (rate < 0.98))
        if rate[-1] < STILL and not far.mean() > 0.25:
            yield (
                f"acceptance of {name} is {rate[-1]:.3f} at the last level, t = {run.levels[-1]:.3g}, and "
                f"{_mean(rate[:-1]):.2f} before: chains stand still where samples are taken. The density may be "
                "another one there than just above, as of a network that is wrong at its last step: let the levels "
                "end before it, or look at density.score there."
            )
        if far.mean() > 0.25:
            yield (
                f"acceptance is more than 0.2 from the target {target:.2f} of {name} at {far.sum()} of {len(rate)} "
                f"levels (mean there {_mean(rate[far]):.2f}): the pilot's step sizes do not fit the run. "
                f"Use {closer_levels(run)}, a larger num_pilot_chains, or give the kernel its step_size, one per level "
                "(levels=run.levels) if need be."
            )
    elif (low := ~(rate >= 0.3)).mean() > 0.5:
        effect = "chains hardly move" if kernel.is_adjusted else "an unadjusted kernel is strongly biased"
        yield (
            f"acceptance is below 0.3 at {low.sum()} of {len(rate)} levels: {effect}. Use {shorter_steps(run)}, or "
            f"leave step_size out to tune it to {target:.2f}."
        )
    elif kernel.is_adjusted and (high := rate > 0.98).mean() > 0.5:
        steps = f"{np.min(kernel.step_size):.3g}"
        yield (
            f"acceptance is above 0.98 at {high.sum()} of {len(rate)} levels: steps are too small to explore. Use a "
            f"step_size larger than {steps}, or leave it out to tune it to {target:.2f}."
        )


def _mean(values) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def divergences(run: RunFields):
    """Proposals of NaN or hopeless energy."""
    if not run.stats or not run.num_steps:
        return
    # Where the noise is small against the density's width walls are hard, and proposals across them rightly rejected.
    width = narrowest(run.density)
    noisy = run.density.schedule.ratios(run.levels) > 0.1 * width
    share = np.asarray(run.stats["divergences"]) / run.num_proposals
    if noisy.any() and (mean := share[noisy].mean()) > 0.02:
        worst = np.argmax(np.where(noisy, share, -1.0))
        what = "density.log_prob" if run.density.has_log_density else "density.score"
        yield (
            f"{mean:.0%} of the proposals at noisy levels diverge (NaN, infinite or hopeless energies), most at "
            f"t = {run.levels[worst]:.3g}. Use {shorter_steps(run)}, and check {what} for NaN there."
        )


def heavy_bounds(bound: BoundFields):
    """A side of a bound whose weights have a heavy tail, or whose error is unknown."""
    sides = {"lower": ("forward", "points"), "upper": ("reverse",)}
    for side, names in sides.items():
        error = getattr(bound, f"{side}_error")
        shapes = [bound.pareto_k[name] for name in names if name in bound.pareto_k]
        if not shapes or not (error > MOST_TAIL) or not shapes[0] > HEAVY:
            continue
        yield (
            f"the weights of the {side} bound have a heavy tail, of Pareto k {shapes[0]:.2f} (from {HEAVY:g} on they "
            f"have no variance, from 1 on no mean): its error of {error:.2f} nats is a guess at what lies beyond the "
            "largest of them. Use more levels, more num_steps, or shorter steps of an unadjusted kernel."
        )
