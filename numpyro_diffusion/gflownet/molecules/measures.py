"""What samples of molecules are like: cells of high and low scores, distinct ones, and how different they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...checks.points import points
from ...errors import ParameterError, ShapeError
from .library import parsed, rdkit

#: From which score on sEH, SA and QED are high, as in Garipov et al. (2023).
THRESHOLDS = (0.5, 0.6, 0.25)
#: Morgan fingerprints: bonds around an atom that are seen, and bits.
RADIUS, BITS = 2, 2048


def cells(scores, thresholds: Sequence[float] = THRESHOLDS) -> np.ndarray:
    """The number of the cell of every molecule, [N]: one binary digit a score, 1 where it is high.

    Args:
        scores: [N, K], such as sEH, SA and QED in the columns.
        thresholds: [K]; a score that reaches its threshold is high. The first score is the leading digit, so that cells
            run low-low-low, low-low-high, ... as in the paper's tables.

    Raises:
        ShapeError: if scores and thresholds do not fit.
    """
    scores = points("scores", scores)
    if scores.shape[1] != len(thresholds):
        raise ShapeError(
            f"scores must have one column a threshold; got shape {scores.shape} and {len(thresholds)} thresholds."
        )
    high = scores >= np.asarray(thresholds)
    return high @ (1 << np.arange(len(thresholds))[::-1])


def shares(cell: np.ndarray, num_cells: int, log_weights=None) -> np.ndarray:
    """The share of the total weight in every cell, [num_cells]; of weights exp(log_weights) [N], equal if None."""
    weights = np.ones(len(cell)) if log_weights is None else np.exp(log_weights - np.max(log_weights))
    return np.bincount(cell, weights, num_cells) / weights.sum()


def tanimoto_diversity(smiles: Sequence[str]) -> float:
    r"""Mean Tanimoto distance, 1 - \|a and b\| / \|a or b\|, of pairs of different rows by Morgan fingerprints.

    In [0, 1]: 0 if all molecules are the same. Of N molecules all N (N - 1) / 2 pairs, 50 ms for 1,000.

    Raises:
        ParameterError: for fewer than two molecules, and text that is no molecule.
        MissingLibraryError: where rdkit is not installed.
    """
    if len(smiles) < 2:
        raise ParameterError(f"diversity is of two molecules or more; got {len(smiles)}. Draw more.")
    generator = rdkit("Chem.rdFingerprintGenerator").GetMorganGenerator(radius=RADIUS, fpSize=BITS)
    similar = rdkit("DataStructs").BulkTanimotoSimilarity
    prints = [generator.GetFingerprint(parsed(text)) for text in smiles]
    total = sum(sum(similar(prints[i], prints[:i])) for i in range(1, len(prints)))
    return 1.0 - total / (len(prints) * (len(prints) - 1) / 2)
