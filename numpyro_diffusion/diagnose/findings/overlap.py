r"""Do the factors of a product overlap? A product of disjoint densities samples well, and means nothing.

A sample x is typical of a factor p if log p(x) is about :math:`-\tfrac12 \log \det(2 \pi e\, C)`, what a Gaussian with
p's covariance C has on average. (Any other density with that covariance has more on average, so this errs on the quiet
side.) Where half of the samples of a product lie many nats below that, they are points that p itself would never draw.
"""

from __future__ import annotations

import jax
import numpy as np

from ...density.abstract import batch_log_prob
from ...density.density import Density, Expression

#: Nats below its typical log density at which a point is improbable under a factor.
MOST_DEFICIT = 10.0
#: Samples at which factors are evaluated: a median needs no more.
MOST_SAMPLES = 256


def disjoint_factors(density: Density, samples: np.ndarray, t: float) -> list[str]:
    """Factors of a product under which its samples [N, *event_shape] at time t are improbable, and by how many nats.

    A density that is no product has none; factors without a log density or moments are not judged.
    """
    factors = numerator(density)
    x = samples[np.isfinite(samples.reshape(len(samples), -1)).all(axis=1)]
    if len(factors) < 2 or not len(x):
        return []
    x = x[:: -(-len(x) // MOST_SAMPLES)]
    size, names = int(np.prod(density.event_shape)), []
    for factor, exponent in factors:
        deficit = _deficit(factor, x, t)
        if deficit is None:
            continue
        # p ** a alone puts its samples (1 / a - 1) d / 2 nats lower, and log p of a Gaussian has standard deviation
        # sqrt(d / 2): neither is a lack of overlap.
        a, nats = min(exponent, 1.0), np.median(deficit)
        if a * nats > max(MOST_DEFICIT, 3 * np.sqrt(size / 2)) + (1 - a) * size / 2:
            names.append(f"`{factor!r}` ({f'by {nats:.0f} nats' if np.isfinite(nats) else 'zero there'})")
    return names


def numerator(density) -> list[tuple[Density, float]]:
    """Factors of a product with a positive exponent, as (density, exponent); empty if the density is no product."""
    while isinstance(density, Expression) and density.formula.kind == "mixture" and len(density.terms) == 1:
        density = density.terms[0][0]  # A mass in front: c * (p * q).
    if not isinstance(density, Expression) or density.formula.kind != "product":
        return []
    return [(factor, float(exponent)) for factor, exponent in density.terms if exponent > 0]


def _deficit(factor: Density, x: np.ndarray, t: float) -> np.ndarray | None:
    """Nats [n] by which log p(x) lies below a like Gaussian's mean log density; None if unknown."""
    along = _along_axes(factor, x, t)
    if along is None or not factor.has_log_density:
        return None
    variance, coordinates = (np.asarray(a, dtype=float) for a in along)
    if not np.all((variance > 0) & np.isfinite(variance)):
        return None
    if factor.is_calibrated:
        typical = -0.5 * np.sum(np.log(2 * np.pi * np.e * variance))
        log_prob = np.asarray(batch_log_prob(factor, x, t), dtype=float)
        return typical - np.where(np.isnan(log_prob), -np.inf, log_prob)
    # Without a normaliser log p has no origin; the Gaussian's own log density sees at least what is far away.
    return 0.5 * np.sum(coordinates**2 / variance - 1, axis=1)


@jax.jit
def _along_axes(density: Density, x, t):
    """Variances [d] and centred points [n, d] along the axes of the Gaussian approximation, or None."""
    if (gaussian := density.gaussian(t)) is None:
        return None
    mean, variance, axes = gaussian
    return variance, jax.vmap(lambda point: axes.coordinates(point - mean))(x.reshape(len(x), -1))
