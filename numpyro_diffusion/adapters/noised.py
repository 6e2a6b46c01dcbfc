r"""Data with noise: what a model is checked on.

Noise comes in pairs :math:`\pm\varepsilon` on one point, and is scaled so that its mean square is one at every level.
What little noise says of the data is of second order, and would otherwise drown in the first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Noised(NamedTuple):
    """Points with noise, in pairs.

    Attributes:
        points: Data [N, d]; the second half repeats the first.
        rows: Which rows of the data these are [N].
        noise: Standard normal noise [L, N, d] by level; the second half is that of the first, negated.
        scale: Standard deviation of the data, a mean over coordinates.
    """

    points: np.ndarray
    rows: np.ndarray
    noise: np.ndarray
    scale: float

    def at(self, ratios: np.ndarray, factor: float = 1.0, shift: float = 0.0) -> np.ndarray:
        """Points y = factor x + shift + r eps [L, N, d]."""
        return factor * self.points + shift + ratios[:, None, None] * self.noise


def noised(rng: np.random.Generator, data: np.ndarray, num_points: int, num_levels: int) -> Noised:
    """At most every other point of data [n, d], or these several times, with noise at `num_levels` levels."""
    count = max(num_points // 2, 1)
    rows = rng.permutation(len(data))[: max(min(count, len(data) // 2), 1)]
    rows = np.resize(rows, count)
    noise = rng.standard_normal((num_levels, count, data.shape[1]))
    noise /= np.sqrt(np.mean(noise**2, axis=(1, 2), keepdims=True))
    rows = np.concatenate([rows, rows])
    scale = float(np.sqrt(data.var(axis=0).mean()))
    return Noised(data[rows], rows, np.concatenate([noise, -noise], axis=1), scale)


def by_pair(errors: np.ndarray) -> np.ndarray:
    """Means of errors [L, N] over the pairs, [L, N / 2]."""
    half = errors.shape[1] // 2
    return (errors[:, :half] + errors[:, half:]) / 2
