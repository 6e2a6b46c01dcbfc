"""The result of an annealed run, and bounds of its evidence: what they hold, and what to make of it."""

from __future__ import annotations

import numpy as np

from .findings import warn_of
from .result_fields import BoundFields, ResultFields, RunFields, TemperedFields
from .summary import short, summary


class _Result(ResultFields):
    """What can be made of a run as of a bound."""

    def to_datatree(self):
        """ArviZ DataTree; see `datatree.to_datatree` for its groups."""
        from .datatree import to_datatree  # xarray is slow to import

        return to_datatree(self)

    def print_summary(self) -> None:
        """Print evidence or bounds with their errors, and what speaks against them."""
        print(summary(self))

    def warn(self) -> None:
        """Issue a DiagnosticWarning for each of the `findings`."""
        warn_of(self)


class AnnealedRun(_Result, RunFields):
    """Samples of a density with their weights, evidence and statistics by noise level.

    Attributes:
        samples: [N, *event_shape] at the last level; equally weighted unless resampling was switched off.
        log_weights: [N], relative to `log_evidence`'s own folded-in part; all zero after resampling.
        log_evidence: Estimate of log of the density's integral, in nats; NaN where weights are not defined.
        log_evidence_error: Its standard error, by families of related chains and by the weights' tail; see `evidence`.
            It may be infinite, and is NaN for a single chain.
        levels: [K] decreasing times.
        stats: Arrays [K] by name: acceptance_rate, step_size, ess and conditional_ess (shares of N),
            log_weight_increment (population mean) and its sd, log_evidence and its error, resampled, divergences,
            pareto_k (shape of the weights' tail), tail and correction (nats that the error counts for them), escaped
            (chains that left every scale). NaN where there is none: acceptance rates without a log density, and all of
            weights where they are not defined.
        history: Arrays [K, N] by name if kept, NumPy's or, where they were streamed to disk, Zarr's; else None.
        density, kernel: What was run.
        is_weighted: Whether weights are defined: not for plain reverse diffusion, predictors, and by default not for
            score-only densities from 256 dimensions on.
        num_steps: Kernel steps per level.
        evaluations_per_chain: Evaluations of value and gradient, without the pilot's, `pilot_evaluations`.
        ancestors: [N] founding chain of each; chains of one ancestor are related.
        scale: [d, d] preconditioner of the last level's moves, or None.
        is_complete: False if the run ended before its last level: interrupted, or because most chains had left.
        levels_given: Whether `levels` were asked for; else the pilot placed them.
        remarks: What whoever made the run has to say against it; among its findings.
        island_log_evidences: [J] log evidence of each of several islands, or None.
        verdict: What the pilot expected of the run, a `Verdict`; None without one.
    """

    def __repr__(self):
        return short(self)


class TemperedRun(AnnealedRun, TemperedFields):
    """Draws of a density by replica exchange over noise levels, with its evidence and statistics by level.

    As an `AnnealedRun`, but for:

    Attributes:
        samples: [num_groups * draws, *event_shape], group after group, in the order they were drawn. All weigh alike.
        log_evidence_error: By batch means over pieces of the groups' sweeps, see `annealing.tempering.bridge`.
        stats: Arrays [K] by name: acceptance_rate, step_size, swap_rate (how often a level and the one before it, or
            the start, exchange replicas when it is their turn), log_evidence and its error, divergences.
        evaluations_per_chain: Evaluations of value and gradient per *group*, all of its replicas together, without
            `pilot_evaluations`: those of the pilot and of the anneal that places the rungs, spread over the groups.
        ancestors: [num_groups * draws] numbers of the fresh draws of the start that draws descend from.
        num_groups: Ladders of replicas that run side by side and never meet.
        thinning: Sweeps between two draws.
        num_sweeps: Sweeps of every group, those that warmed the ladder up excluded. Pairs have their turn in every
            other one.
        tours: [num_groups] replicas that came all the way from a fresh draw of the start to t = 0.
        barrier, round_trip_rate: Properties: the sum of refusal rates over the ladder; tours per sweep and group.
    """


class Bound(_Result, BoundFields):
    """A stochastic bound in nats.

    Attributes:
        kind: "ais", "raise" or "bdmc".
        lower, lower_error: Lower bound in expectation, and its standard error; infinite where the weights have no mean
            to speak of, NaN for a single chain or point.
        upper, upper_error: Upper bound in expectation ("bdmc"), else NaN.
        log_weights: "ais" {"forward": [N]}, "bdmc" {"forward": [N], "reverse": [N]}, "raise" {"points": [n, repeats]}.
        levels: [K] decreasing times.
        pareto_k: Shape of the tail of the forward and reverse weights, see `weights`; a mean over points has none.
    """

    def __repr__(self):
        return f"Bound({self}, {len(self.levels)} levels)"

    def __str__(self):
        upper = "" if np.isnan(self.upper) else f", upper {self.upper:.4f} +- {self.upper_error:.4f}"
        return f"{self.kind}: lower {self.lower:.4f} +- {self.lower_error:.4f}{upper}"
