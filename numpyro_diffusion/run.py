"""The result of an annealed run: arrays, statistics by level, and what to make of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from .density import Density


@dataclasses.dataclass
class AnnealedRun:
    """Samples of a density with their weights, evidence and statistics by noise level.

    Attributes:
        samples: [N, *event_shape] at the last level; equally weighted unless resampling was switched off.
        log_weights: [N], relative to `log_evidence`'s own folded-in part; all zero after resampling.
        log_evidence: Estimate of log of the density's integral, in nats; NaN where weights are not defined.
        log_evidence_error: Its standard error, estimated from how many founding chains survive.
        levels: [K] decreasing times.
        stats: Arrays [K] by name: acceptance_rate, step_size, ess and conditional_ess (shares of N),
            log_weight_increment (population mean) and its sd, log_evidence, resampled, divergences.
        history: Arrays [K, N] by name if kept, NumPy's or, where they were streamed to disk, Zarr's; else None.
        density, kernel: What was run.
        is_weighted: Whether weights are defined: not for reverse diffusion, predictors and score-only densities.
        num_steps: Kernel steps per level.
        evaluations_per_chain: Evaluations of value and gradient, pilot excluded.
        ancestors: [N] founding chain of each; chains of one ancestor are related.
        scale: [d, d] preconditioner of the last level's moves, or None.
        is_complete: False if an interrupt ended the run before its last level.
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

    @property
    def ess(self) -> float:
        """Effective sample size of `log_weights`, in chains."""
        w = np.asarray(self.log_weights, dtype=float)
        w = np.exp(w - w.max())
        return float(w.sum() ** 2 / (w**2).sum())

    def to_datatree(self):
        """ArviZ DataTree with groups posterior, sample_stats and annealing; see `datatree.to_datatree`."""
        from .datatree import to_datatree  # xarray is slow to import

        return to_datatree(self)

    def print_summary(self) -> None:
        """Print evidence, ESS, acceptance and warnings."""
        from .diagnostics import summary

        print(summary(self))

    def warn(self) -> None:
        """Issue a DiagnosticWarning for each finding of `diagnostics.findings`."""
        from .diagnostics import warn

        warn(self)


def kernel_text(kernel: Any) -> str:
    """A kernel with its settings, arrays by shape."""

    def text(value):
        if value is None:
            return "tuned"
        return f"array{list(np.shape(value))}" if np.ndim(value) else f"{float(value):.4g}"

    fields = ("step_size", "num_integration_steps", "persistence")
    settings = [f"{name}={text(getattr(kernel, name))}" for name in fields if hasattr(kernel, name)]
    algorithm = getattr(kernel, "algorithm", None)
    if algorithm is not None:
        settings.insert(
            0, getattr(algorithm, "__name__", None) or getattr(algorithm.init, "__module__", "").split(".")[-1]
        )
    return f"{type(kernel).__name__}({', '.join(settings)})"
