"""How far generated images are from data, by what a classifier makes of them."""

from __future__ import annotations

import numpy as np

from ..checks.points import real
from ..errors import ParameterError, ShapeError


def frechet_distance(features, reference) -> float:
    r"""Frechet distance of two Gaussians with the moments of two samples of features,

    .. math:: |\mu_1 - \mu_2|^2 + \mathrm{tr}\left(C_1 + C_2 - 2 (C_1 C_2)^{1/2}\right),

    as the FID of Heusel et al. (2017) with the features of any classifier: figures compare only within one classifier
    and one sample size, for small samples are too far apart.

    Args:
        features: Activations [n, k] of generated images; n should be several times k.
        reference: Activations [m, k] of data.

    Raises:
        ShapeError: if shapes do not fit, or there are fewer than two samples.
        ParameterError: if a feature is NaN or infinite.
    """
    moments = []
    for name, values in (("features", features), ("reference", reference)):
        values = real(name, values)
        if values.ndim != 2 or len(values) < 2 or not values.shape[1]:
            raise ShapeError(f"{name} must have shape [n, k] with n >= 2 and k >= 1; got {values.shape}.")
        if not np.all(np.isfinite(values)):
            raise ParameterError(f"{name} must be finite; got NaN or infinity. Leave those images out, and count them.")
        moments.append((values.mean(0), np.cov(values.T).reshape(values.shape[1], -1)))
    (mean, covariance), (other_mean, other) = moments
    if mean.shape != other_mean.shape:
        raise ShapeError(f"features have {mean.size} columns, the reference {other_mean.size}. Use one classifier.")
    # The eigenvalues of C1 C2 are real and not negative, but for rounding.
    common = np.sqrt(np.maximum(np.real(np.linalg.eigvals(covariance @ other)), 0)).sum()
    return float(np.sum((mean - other_mean) ** 2) + np.trace(covariance) + np.trace(other) - 2 * common)


def inception_score(probabilities) -> float:
    r"""exp of the mean of KL(p(y | x) | p(y)) over images x: between 1 and the number of classes, large for images that
    a classifier tells apart with confidence (Salimans et al. 2016), here with any classifier.

    Args:
        probabilities: p(y | x) [n, k], rows summing to one.

    Raises:
        ShapeError, ParameterError: for other shapes, negative entries, or rows that do not sum to one.
    """
    p = real("probabilities", probabilities)
    if p.ndim != 2 or not p.size:
        raise ShapeError(f"probabilities must have shape [n, k]; got {p.shape}.")
    if np.any(p < 0) or not np.allclose(p.sum(1), 1, atol=1e-3):
        raise ParameterError("probabilities must be >= 0 with rows that sum to one. Exponentiate log probabilities.")
    marginal = p.mean(0)
    return float(np.exp(np.mean(np.sum(p * (np.log(np.maximum(p, 1e-300)) - np.log(np.maximum(marginal, 1e-300))), 1))))
