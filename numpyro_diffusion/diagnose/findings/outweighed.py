r"""Does a denominator outweigh what it divides? Then a quotient has no finite integral, and still anneals.

Where factors :math:`p_k` are about Gaussians of precision :math:`P_k`, a product :math:`\prod_k p_k^{a_k}` falls off in
every direction only if :math:`\sum_k a_k P_k` is positive definite. Gaussian approximations err for factors with modes,
so the density itself is asked as well: whether its score, far out in that direction, points further outward.
"""

from __future__ import annotations

import numpy as np

from ...density.density import Density, Expression
from ...density.gaussian import common_axes

#: Distances, in standard deviations of the numerator, at which the score is looked at.
DISTANCES = (4.0, 8.0)
#: Largest dimension for which [d, d] matrices are compared.
MOST_DENSE = 512


def outweighed(density: Density, t: float) -> list[tuple[str, float]]:
    """Products in a formula whose denominators outweigh the numerators in some direction, and by what factor."""
    found = []
    if not density.has_increments:
        return found  # mixtures of score-only models have no score at a point that could be asked
    products = [e for e in density.nodes if e.formula.kind == "product"] if isinstance(density, Expression) else []
    for product in products:
        judged = _excess([(factor.gaussian(t), float(exponent)) for factor, exponent in product.terms])
        if judged is not None and judged[0] >= 1 and _points_outward(density, t, *judged[1:]):
            found.append((repr(product), judged[0]))
    return found


def _excess(parts):
    """Largest ratio of subtracted to added precision, and there: the numerator's mean [d] and a step [d] of one sd."""
    known = [(gaussian, exponent) for gaussian, exponent in parts if gaussian is not None]
    if not any(a < 0 for _, a in known) or not any(a > 0 for _, a in known):
        return None
    if (axes := common_axes([g for g, _ in known])) is not None:
        precision = np.array([a / np.asarray(g.variance, dtype=float) for g, a in known])
        mean = np.array([np.asarray(axes.coordinates(g.mean), dtype=float) for g, _ in known])
        above = np.maximum(precision, 0.0)
        plus = above.sum(0)
        ratio = -np.minimum(precision, 0.0).sum(0) / plus
        worst = int(np.argmax(ratio))
        axis = np.zeros(len(plus))
        axis[worst] = 1 / np.sqrt(plus[worst])
        return ratio[worst], np.asarray(axes.point((above * mean).sum(0) / plus)), np.asarray(axes.point(axis))
    if known[0][0].mean.size > MOST_DENSE:
        return None
    precision = np.array([a * np.linalg.inv(np.asarray(g.covariance, dtype=float)) for g, a in known])
    mean = np.array([np.asarray(g.mean, dtype=float) for g, _ in known])
    above = np.array([a > 0 for _, a in known])
    plus = precision[above].sum(0)
    value, vector = np.linalg.eigh(plus)
    if not np.all(value > 0):
        return None
    root = (vector / np.sqrt(value)) @ vector.T
    ratio, direction = np.linalg.eigh(-root @ precision[~above].sum(0) @ root)
    pull = np.einsum("kij,kj->i", precision[above], mean[above])
    return ratio[-1], np.linalg.solve(plus, pull), root @ direction[:, -1]


def _points_outward(density, t, mean, step) -> bool:
    """Whether the score at all distances on one side points away from the mean."""
    far = np.array(DISTANCES)
    points = mean + np.array([1.0, -1.0])[:, None, None] * far[:, None] * step
    score = np.asarray(density.score(points.reshape(-1, *density.event_shape), t), dtype=float)
    along = score.reshape(2, len(far), -1) @ step * np.array([[1.0], [-1.0]])
    return bool(np.any(np.all(along > 0, axis=1)))
