r"""Data with noise: what a model is checked on.

Noise comes in pairs :math:`\pm\varepsilon` on one point, and is scaled so that its mean square is one at every level.
What little noise says of the data is of second order, and would otherwise drown in the first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Noised(NamedTuple):
    """Points with noise, in pairs: the second half of the points repeats the first, with the opposite noise.

    Attributes:
        points: Points [N, d], and `rows`, which of the data they are [N].
        noise: Standard normal noise [L, N, d] by level.
        scale: Standard deviation of the data, root mean square over coordinates.
    """

    points: np.ndarray
    rows: np.ndarray
    noise: np.ndarray
    scale: float


def noised(rng: np.random.Generator, data: np.ndarray, held: np.ndarray, num_points: int, num_levels: int) -> Noised:
    """`num_points` (or one less) of the rows `held` of data [n, d], each several times where they are too few."""
    rows = np.resize(held, max(num_points // 2, 1))
    noise = rng.standard_normal((num_levels, len(rows), data.shape[1]))
    noise /= np.sqrt(np.mean(noise**2, axis=(1, 2), keepdims=True))
    rows = np.concatenate([rows, rows])
    return Noised(data[rows], rows, np.concatenate([noise, -noise], axis=1), spread(data))


def spread(data: np.ndarray) -> float:
    """Standard deviation of points [n, d], root mean square over coordinates."""
    return float(np.sqrt(data.var(axis=0).mean()))


def by_pair(errors: np.ndarray) -> np.ndarray:
    """Means of errors [..., N] over the pairs, [..., N / 2]."""
    half = errors.shape[-1] // 2
    return (errors[..., :half] + errors[..., half:]) / 2
