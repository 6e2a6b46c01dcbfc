r"""What an output may stand for, and what it then says about the noise.

With x = alpha x_0 + sigma eps every kind of prediction o is the noise by a linear rule, eps = a o + b x:

    noise      o = eps                       a = 1,                                  b = 0
    denoiser   o = x_0                       a = -alpha / sigma,                     b = 1 / sigma
    velocity   o = alpha eps - sigma x_0     a = alpha / (alpha^2 + sigma^2),        b = sigma / (alpha^2 + sigma^2)
    flow       o = eps - x_0                 a = alpha / (alpha + sigma),            b = 1 / (alpha + sigma)
    score      o = -eps / sigma              a = -sigma,                             b = 0
    residual   o = sigma eps                 a = 1 / sigma,                          b = 0

so that from a few inner products follow the errors of all of them, of their opposites and of their multiples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

KINDS = ("noise", "denoiser", "velocity", "flow", "score", "residual")
#: Errors of a point count no more than this, for they are averaged: predicting no noise at all has error 1.
MOST_ERROR = 10.0
#: Factors of the output that are taken for one, and the least and largest that are taken for a convention.
NEAR_ONE, FACTORS = 0.1, (1e-4, 1e4)


class Reading(NamedTuple):
    """An output of the kind `kind`, after multiplication with `factor`."""

    kind: str
    factor: float


def rule(kind: str, alpha: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(a, b) of eps = a o + b x."""
    zero = np.zeros_like(alpha)
    match kind:
        case "noise":
            return zero + 1, zero
        case "denoiser":
            return -alpha / sigma, 1 / sigma
        case "velocity":
            return alpha / (alpha**2 + sigma**2), sigma / (alpha**2 + sigma**2)
        case "flow":
            return alpha / (alpha + sigma), 1 / (alpha + sigma)
        case "score":
            return -sigma, zero
    return 1 / sigma, zero


class Products:
    """Inner products over a point's d coordinates, over d, of outputs, points and noise [L, N, d] at L levels."""

    def __init__(self, output, x, noise, alpha, sigma):
        dot = lambda u, v: np.einsum("lnd,lnd->ln", u, v) / u.shape[-1]
        self.oo, self.ox, self.on = dot(output, output), dot(output, x), dot(output, noise)
        self.xx, self.xn, self.nn = dot(x, x), dot(x, noise), dot(noise, noise)
        self.alpha, self.sigma = alpha[:, None], sigma[:, None]

    @property
    def are_numbers(self) -> np.ndarray:
        """Levels [L] at which all outputs are finite."""
        return np.all(np.isfinite(self.oo), axis=1)

    def errors(self, reading: Reading) -> np.ndarray:
        """|eps_hat - eps|^2 / d [L, N], what is no number and what is too large cut off."""
        a, b = rule(reading.kind, self.alpha, self.sigma)
        a = reading.factor * a
        with np.errstate(invalid="ignore", over="ignore"):
            rest = b**2 * self.xx - 2 * b * self.xn + self.nn
            error = a**2 * self.oo + 2 * a * (b * self.ox - self.on) + rest
        return np.clip(np.nan_to_num(error, nan=MOST_ERROR, posinf=MOST_ERROR), 0.0, MOST_ERROR)

    def readings(self) -> Iterator[Reading]:
        """All kinds, with the output as it is, its opposite, and the multiple that predicts best."""
        for kind in KINDS:
            yield from (Reading(kind, 1.0), Reading(kind, -1.0))
            factor = self._factor(kind)
            if FACTORS[0] < abs(factor) < FACTORS[1] and abs(abs(factor) - 1) > NEAR_ONE:
                yield Reading(kind, factor)

    def _factor(self, kind: str) -> float:
        """The factor of least squared error, over levels in which it is a number."""
        a, b = rule(kind, self.alpha, self.sigma)
        with np.errstate(invalid="ignore", over="ignore"):
            size, along = np.sum(a**2 * self.oo, axis=1), np.sum(a * (self.on - b * self.ox), axis=1)
        fine = np.isfinite(size) & np.isfinite(along)
        total = size[fine].sum()
        return float(along[fine].sum() / total) if total > 0 else 0.0
