"""The table that `AnnealedMCMC.print_summary` prints: NumPyro's columns, with ArviZ's ESS and R-hat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpyro.diagnostics import hpdi

from ..checks.text import columns
from ..errors import check_number


def table(samples: dict, shape: tuple[int, int], prob: float) -> str:
    """Moments, the shortest interval, ESS and R-hat of every number, a line each.

    Args:
        samples: Draws by site, [num_chains, num_samples, ...] in any grouping.
        shape: Chains and draws that ESS (bulk) and R-hat (rank-normalised) are of: `islands.layout`.
        prob: Mass of the interval, in [0, 1].

    Raises:
        ParameterError: if `prob` is outside [0, 1].
    """
    check_number("prob", prob, 0.0, 1.0)
    names = ("mean", "std", "median", f"{50 * (1 - prob):.1f}%", f"{50 * (1 + prob):.1f}%", "n_eff", "r_hat")
    lines: list[Sequence[str]] = [(" " * 10, *names)]
    for name, values in samples.items():
        values = np.asarray(values)
        found = _statistics(values.reshape(shape + values.shape[2:]).astype(float), prob)
        for index in np.ndindex(values.shape[2:]):
            label = f"{name}[{','.join(map(str, index))}]" if index else name
            lines.append((label, *(f"{statistic[index]:.2f}" for statistic in found)))
    return columns(lines, least=8)


def _statistics(values, prob: float) -> Sequence[np.ndarray]:
    """Of draws [chains, draws, ...], each [...], in the order of the table."""
    flat = values.reshape(-1, *values.shape[2:])
    # All of the draws, at most.
    lower, upper = hpdi(flat, min(prob, 1 - 0.5 / len(flat)))
    spread = flat.std(axis=0, ddof=1) if len(flat) > 1 else np.full(flat.shape[1:], np.nan)
    ess, r_hat = (_by_number(values, name) for name in ("ess", "rhat"))
    return flat.mean(axis=0), spread, np.median(flat, axis=0), lower, upper, ess, r_hat


def _by_number(values, statistic: str) -> np.ndarray:
    chains, draws, *rest = values.shape
    # ArviZ logs an error for each number of which it has too few draws.
    if draws < 4 or (chains < 2 and statistic == "rhat"):
        return np.full(rest, np.nan)
    from arviz_stats.base import array_stats  # slow to import

    # Numbers that never change have an R-hat of 0 / 0.
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(getattr(array_stats, statistic)(values, chain_axis=0, draw_axis=1))
