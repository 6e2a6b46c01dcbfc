r"""Log evidence from the exchanges of neighbouring levels, and its error.

For neighbours a and b with evidences Z_a and Z_b, the works :math:`w = \log q_b(u) - \log q_a(u)` at points u of either
level give, for any centre c,

.. math:: \log \frac{Z_b}{Z_a} = c + \log \frac{E_a[\sigma(w - c)]}{E_b[\sigma(c - w)]}, \qquad
          \sigma(w) = \frac1{1 + e^{-w}},

which is exact whatever c is and has the least variance at c = log Z_b / Z_a (Bennett 1976; Meng and Wong 1996). Centres
come from the sweeps that warm the ladder up, so that two sums per pair are all there is to keep. From the start, whose
Z is one, down to the last level the ratios add up.

Errors are those of batch means. A batch is a piece of one group's sweeps; its deviation is summed over all pairs first,
because neighbours share replicas. Pieces are merged to twice, four times, ... their length while at least four of a
group remain, and the largest of these errors counts: batches shorter than the correlation hide it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .ladder import Tally


class Evidence(NamedTuple):
    """Log evidence of every rung [K], and its standard error [K]; an error of infinity where nothing was exchanged."""

    log_evidence: np.ndarray
    error: np.ndarray


def log_ratios(tally: Tally, centres) -> np.ndarray:
    """log Z_b / Z_a of every pair [K], from sums over pieces and groups; NaN where one side saw nothing."""
    forward, reverse = (np.asarray(side, dtype=float).sum((0, 2)) for side in (tally.forward, tally.reverse))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(centres, dtype=float) + np.log(forward) - np.log(reverse)


def evidence(tally: Tally, centres) -> Evidence:
    """Evidence of every rung, from tallies [B, K, G] of pieces."""
    turns, forward, reverse = (np.asarray(a, dtype=float) for a in (tally.turns, tally.forward, tally.reverse))
    deviation = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        for side, sign in ((forward, 1.0), (reverse, -1.0)):
            total, count = side.sum((0, 2), keepdims=True), turns.sum((0, 2), keepdims=True)
            deviation = deviation + sign * (side / total - turns / count)
    deviation = np.cumsum(deviation, axis=1)
    error = np.nan_to_num(_batch_means(deviation), nan=np.inf)
    return Evidence(np.cumsum(log_ratios(tally, centres)), error)


def _batch_means(deviation: np.ndarray) -> np.ndarray:
    """Standard errors [K] of sums of deviations [B, K, G], which sum to zero."""
    num_pieces, _, num_groups = deviation.shape
    found, length = [], 1
    while length == 1 or num_pieces // length >= 4:
        kept = num_pieces // length * length
        merged = deviation[:kept].reshape(-1, length, *deviation.shape[1:]).sum(1)
        count = merged.shape[0] * num_groups
        # Of one batch nothing is known.
        found.append(
            np.sqrt((merged**2).sum((0, 2)) * count / (count - 1)) if count > 1 else np.full(len(merged[0]), np.nan)
        )
        length *= 2
    return np.max(found, axis=0)
