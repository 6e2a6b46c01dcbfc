"""The result of an annealed run: arrays, statistics by level, and what to make of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from ..density.density import Density


@dataclasses.dataclass(repr=False)
class AnnealedRun:
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
        is_weighted: Whether weights are defined: not for reverse diffusion, predictors and score-only densities.
        num_steps: Kernel steps per level.
        evaluations_per_chain: Evaluations of value and gradient, pilot excluded.
        ancestors: [N] founding chain of each; chains of one ancestor are related.
        scale: [d, d] preconditioner of the last level's moves, or None.
        is_complete: False if the run ended before its last level: interrupted, or because most chains had left.
        levels_given: Whether `levels` were asked for; else the pilot placed them.
    """

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

    @property
    def ess(self) -> float:
        """Effective sample size of `log_weights`, in chains; NaN where weights are not defined, or all are zero."""
        if not self.is_weighted or not np.any(np.isfinite(np.asarray(self.log_weights))):
            return float("nan")
        w = np.asarray(self.log_weights, dtype=float)
        w = np.exp(w - w.max())
        return float(w.sum() ** 2 / (w**2).sum())

    def __repr__(self):
        from .findings import short

        return short(self)

    def to_datatree(self):
        """ArviZ DataTree with groups posterior, sample_stats and annealing; see `datatree.to_datatree`."""
        from .datatree import to_datatree  # xarray is slow to import

        return to_datatree(self)

    def print_summary(self) -> None:
        """Print evidence, ESS, acceptance and warnings."""
        from .findings import summary

        print(summary(self))

    def warn(self) -> None:
        """Issue a DiagnosticWarning for each finding of `diagnostics.findings`."""
        from .findings import warn_of

        warn_of(self)


@dataclasses.dataclass(repr=False)
class Bound:
    """A stochastic bound in nats.

    Attributes:
        kind: "ais", "raise" or "bdmc".
        lower, lower_error: Lower bound in expectation, and its standard error; infinite where the weights have no mean
            to speak of, NaN for a single chain or point.
        upper, upper_error: Upper bound in expectation ("bdmc"), else NaN.
        log_weights: "ais" {"forward": [N]}, "bdmc" {"forward": [N], "reverse": [N]}, "raise" {"points": [n, repeats]}.
        levels: [K] decreasing times.
        pareto_k: Shape of the tail of the forward and reverse weights, see `tail`; a mean over points has none.
    """

    kind: str
    lower: float
    lower_error: float
    upper: float
    upper_error: float
    log_weights: dict[str, np.ndarray]
    levels: np.ndarray
    pareto_k: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def gap(self) -> float:
        """upper - lower."""
        return self.upper - self.lower

    def to_datatree(self):
        """ArviZ DataTree with a group `bounds`."""
        from ..diagnose.datatree import to_datatree  # xarray is slow to import

        return to_datatree(self)

    def print_summary(self) -> None:
        """Print the bound with its errors and what speaks against it."""
        from ..diagnose.findings import summary

        print(summary(self))

    def _warned(self) -> Bound:
        from .findings import warn_of

        warn_of(self)
        return self

    def __repr__(self):
        return f"Bound({self}, {len(self.levels)} levels)"

    def __str__(self):
        upper = "" if np.isnan(self.upper) else f", upper {self.upper:.4f} +- {self.upper_error:.4f}"
        return f"{self.kind}: lower {self.lower:.4f} +- {self.lower_error:.4f}{upper}"


def kernel_text(kernel: Any) -> str:
    """A kernel with its settings, arrays by shape."""
    return repr(kernel)
