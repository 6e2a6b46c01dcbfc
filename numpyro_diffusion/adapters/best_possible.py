r"""How well the noise in noised data can be predicted at all, from the data themselves.

At noise-to-signal ratio r let :math:`y = x_0 + r \varepsilon`. The best prediction of the noise is its posterior mean,
:math:`\varepsilon^* = -r \nabla \log p(y, r)`, and its error :math:`B = E|\varepsilon^* - \varepsilon|^2 / d` is what
no network is below. B is not known, but data bracket it:

- Whatever predicts the noise of points that it has not seen is above B. Tried are zero, the Gaussian with the other
  points' mean and shrunk covariance, and the posterior mean under the other points, blurred by noise h,

  .. math:: x_0 \mapsto \frac{h^2 y + r^2 \sum_i w_i x_i}{h^2 + r^2}, \qquad
            w_i \propto \exp\left(-\frac{|y - x_i|^2}{2 (h^2 + r^2)}\right),

  at a few h. The least of their errors at a level is the *reference*.
- The least error possible is concave in the distribution of the data, so that under the empirical distribution of n
  points, the point itself among them, it is below B on average: the *floor*, which memorises.

Both are close where n points are dense at the scale of the noise. At small noise in many dimensions neither is, and a
good network lies between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

#: Blur h in units of the noise.
BLURS = (0.0, 1.0, 3.0)


class Reference(NamedTuple):
    """At one level: the noise [N, d] that the best of those tried predicts, and the floor, an error."""

    noise: np.ndarray
    floor: float


class BestPossible:
    """What can be predicted of data [n, d].

    Args:
        data: Points [n, d].
        held: Rows that will be noised; the Gaussian is that of the other ones.
    """

    def __init__(self, data: np.ndarray, held: np.ndarray):
        others = np.delete(data, held, axis=0)
        self.data, self.squares, self.num_others = data, np.sum(data**2, axis=1), len(others)
        #: Means of x_0 [N, d] given points [N, d] at a noise-to-signal ratio, under the Gaussian.
        self.gaussian = _gaussian_denoiser(others)

    def at(self, y: np.ndarray, rows: np.ndarray, noise: np.ndarray, ratio: float) -> Reference:
        """The reference at points y [N, d], the `rows` [N] of the data with `ratio` times the noise [N, d] in them."""
        distances = np.maximum(np.sum(y**2, axis=1)[:, None] + self.squares - 2 * y @ self.data.T, 0.0)
        everywhere = (y - _weights(distances, ratio) @ self.data) / ratio
        distances[np.arange(len(y)), rows] = np.inf
        tried = [np.zeros_like(y), (y - self.gaussian(y, ratio)) / ratio]
        for blur in BLURS:
            mean = _weights(distances, ratio * np.hypot(1.0, blur)) @ self.data
            tried.append((y - mean) / (ratio * (1 + blur**2)))
        errors = [np.mean((prediction - noise) ** 2) for prediction in tried]
        return Reference(tried[int(np.argmin(errors))], float(np.mean((everywhere - noise) ** 2)))


def _gaussian_denoiser(points: np.ndarray) -> Callable[[np.ndarray, float], np.ndarray]:
    """(y [N, d], r) -> the posterior mean of x_0 under a Gaussian with the moments of points [n, d], shrunk."""
    count, size = points.shape
    mean = points.mean(axis=0)
    centred = points - mean
    # Of the smaller of the two matrices of inner products: n points have at most n variances that are not zero.
    if count < size:
        values, vectors = np.linalg.eigh(centred @ centred.T)
        there = values > 1e-10 * values.max()
        values, axes = values[there], vectors[:, there].T @ centred / np.sqrt(values[there])[:, None]
    else:
        values, vectors = np.linalg.eigh(centred.T @ centred)
        axes = vectors.T
    variances, rest = _shrunk(np.maximum(values, 0) / count, count, size)

    def denoised(y, ratio):
        centred, share = y - mean, rest / (rest + ratio**2)
        along = variances / (variances + ratio**2) - share
        return mean + share * centred + (centred @ axes.T * along) @ axes

    return denoised


def _weights(distances: np.ndarray, width: float) -> np.ndarray:
    """Shares [N, n] of Gaussian kernels at squared distances [N, n]."""
    exponents = -distances / (2 * width**2)
    weights = np.exp(exponents - exponents.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _shrunk(variance: np.ndarray, count: int, size: int) -> tuple[np.ndarray, float]:
    """Variances of `count` points drawn towards their mean over `size` axes, and what axes without points have.

    The oracle approximating shrinkage of Chen et al. (2010): a covariance of few points is too sure of itself.
    """
    mean, square = variance.sum() / size, np.sum(variance**2) / size
    spread = max(square - mean**2, 1e-12 * square)
    share = min((square + size * mean**2) / ((count + 1) * spread), 1.0)
    return (1 - share) * variance + share * mean, share * mean
