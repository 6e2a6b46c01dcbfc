r"""How far samples are from the truth, in NumPy.

A log likelihood can be gamed: samples that are too sharp exceed the truth's own value. It is read together with the
maximum mean discrepancy, mode weights, mode variances and the sliced Wasserstein distance, and every distance together
with its *noise floor*, the same distance between two independent draws of the truth. At 2,000 points a good sampler and
a better one cannot be told apart; 10,000 do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ParameterError, ShapeError

if TYPE_CHECKING:
    from .datasets.targets import Target

#: Bandwidths of the Gaussian kernels that `log_mmd2` averages: from a mode's width to the plane's.
BANDWIDTHS = (0.05, 0.1, 0.2, 0.4, 0.8)


def _real(name, value) -> np.ndarray:
    if np.iscomplexobj(value):
        raise ShapeError(f"{name} must be real numbers; got complex ones. Take their parts or their size.")
    return np.asarray(value, dtype=np.float64)


def _points(name, value):
    array = _real(name, value)
    if array.ndim != 2 or len(array) == 0:
        raise ShapeError(f"{name} must have shape [n, d] with n >= 1; got {array.shape}. Flatten the event axes.")
    if not np.all(np.isfinite(array)):
        raise ParameterError(f"{name} must be finite; got {np.sum(~np.isfinite(array))} NaN or infinite values.")
    return array


def _pair(x, y):
    x, y = _points("x", x), _points("y", y)
    if x.shape != y.shape:
        raise ShapeError(f"x and y must have one shape; got {x.shape} and {y.shape}. Draw as many of each.")
    return x, y


def log_likelihood(samples, log_prob_fn: Callable[[Any], Any]) -> float:
    """Mean log density (nats) of samples [n, d] under the true, normalised `log_prob_fn` ([n, d] -> [n])."""
    return float(np.mean(np.asarray(log_prob_fn(np.asarray(samples)), dtype=np.float64)))


def log_mmd2(x, y, bandwidths: Sequence[float] = BANDWIDTHS, *, chunk_size: int = 1000) -> float:
    r"""Log of the squared maximum mean discrepancy between two sets of points.

    .. math:: \ln \frac{1}{n^2} \sum_{ij} \left[ k(x_i, x_j) + k(y_i, y_j) - 2 k(x_i, y_j) \right], \qquad
              k(x, y) = \frac1B \sum_b e^{-|x - y|^2 / 2 h_b^2}

    The V-statistic: never negative, and biased upwards by about (2 / n) (1 - E k), which the noise floor shares.

    Args:
        x, y: Points [n, d], as many of each.
        bandwidths: Kernel widths h_b.
        chunk_size: Rows of the kernel matrix held at a time; memory is `chunk_size` x n numbers.

    Returns:
        Nats; -inf for equal sets.

    Raises:
        ShapeError: if the shapes differ.
        ParameterError: if a bandwidth is not positive or a value not finite.
    """
    x, y = _pair(x, y)
    widths = np.asarray(bandwidths, dtype=np.float64)
    if widths.ndim != 1 or not len(widths) or not np.all(np.isfinite(widths) & (widths > 0)):
        raise ParameterError(f"bandwidths must be positive numbers; got {bandwidths}.")
    centre = x.mean(axis=0)
    x, y = x - centre, y - centre
    x_norm, y_norm = np.sum(x**2, axis=1), np.sum(y**2, axis=1)

    def kernel_sum(a, a_norm, b, b_norm):
        total = 0.0
        for start in range(0, len(a), chunk_size):
            rows = slice(start, start + chunk_size)
            squared = a_norm[rows, None] + b_norm - 2 * (a[rows] @ b.T)
            # Single precision halves the time of exp, and its rounding averages out over n^2 terms.
            squared = np.maximum(squared, 0.0).astype(np.float32)
            for h in widths:
                total += float(np.sum(np.exp(squared * np.float32(-0.5 / h**2)), dtype=np.float64))
        return total

    within = kernel_sum(x, x_norm, x, x_norm) + kernel_sum(y, y_norm, y, y_norm)
    value = (within - 2 * kernel_sum(x, x_norm, y, y_norm)) / (len(widths) * len(x) ** 2)
    # What is left of equal sets is rounding.
    return float(np.log(value)) if value > 1e-9 else -np.inf


def _nearest(samples, modes):
    samples, modes = _points("samples", samples), _points("modes", modes)
    if samples.shape[1] != modes.shape[1]:
        raise ShapeError(f"samples and modes must have one dimension d; got {samples.shape} and {modes.shape}.")
    squared = np.sum(modes**2, axis=1) - 2 * samples @ modes.T
    return samples, np.argmin(squared, axis=1)


def mode_weights(samples, modes) -> np.ndarray:
    """Share [K] of samples [n, d] whose nearest mode among [K, d] is the k-th."""
    samples, nearest = _nearest(samples, modes)
    return np.bincount(nearest, minlength=len(modes)) / len(samples)


def mode_weight_tv(samples, modes, weights) -> float:
    """Total variation sum_k |w_k - w_k*| / 2 between the samples' mode weights and the true `weights` [K]."""
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (len(modes),):
        raise ShapeError(f"weights must have shape ({len(modes)},) to match modes; got {weights.shape}.")
    return float(0.5 * np.sum(np.abs(mode_weights(samples, modes) - weights)))


def mode_covariances(samples, modes) -> np.ndarray:
    """Covariance [K, d, d] of the samples nearest to each mode; zero where fewer than two are."""
    samples, nearest = _nearest(samples, modes)
    result = np.zeros((len(modes), samples.shape[1], samples.shape[1]))
    for k in range(len(modes)):
        mine = samples[nearest == k]
        if len(mine) > 1:
            result[k] = np.atleast_2d(np.cov(mine.T))
    return result


def _true_covariances(modes, covariance):
    modes = _real("modes", modes)
    return np.broadcast_to(np.asarray(covariance, dtype=np.float64), (*modes.shape, modes.shape[1]))


def mode_variance_error(samples, modes, covariance) -> float:
    """Mean over modes of the squared Frobenius distance between samples' and true covariances.

    Args:
        samples, modes: [n, d] and [K, d].
        covariance: [K, d, d], or [d, d] for all.
    """
    difference = mode_covariances(samples, modes) - _true_covariances(modes, covariance)
    return float(np.mean(np.sum(difference**2, axis=(1, 2))))


def mode_std_error(samples, modes, covariance) -> float:
    """Half the mean over modes of |s_k - s_k*|, s the standard deviations per axis: the scale of the paper's "Var".

    Arguments as in `mode_variance_error`.
    """

    def std(c):
        return np.sqrt(np.diagonal(c, axis1=1, axis2=2))

    difference = std(mode_covariances(samples, modes)) - std(_true_covariances(modes, covariance))
    return float(0.5 * np.mean(np.linalg.norm(difference, axis=1)))


def sliced_wasserstein2(x, y, num_projections: int = 128, seed: int = 0) -> float:
    """Sliced 2-Wasserstein distance: root mean square over random directions of the distance along one.

    A shift by a vector delta gives |delta| / sqrt(d).

    Args:
        x: Points [n, d].
        y: Points [m, d]; with m a multiple of n, quantiles of the larger set are compared with the smaller.
        num_projections: Directions.
        seed: Their seed; the same directions for every sampler compared.
    """
    x, y = _points("x", x), _points("y", y)
    if len(x) > len(y):
        x, y = y, x
    if x.shape[1] != y.shape[1] or len(y) % len(x):
        raise ShapeError(f"x and y must have one dimension, and sizes that divide; got shapes {x.shape} and {y.shape}.")
    if num_projections < 1:
        raise ParameterError(f"num_projections must be >= 1; got {num_projections}.")
    directions = np.random.default_rng(seed).standard_normal((x.shape[1], num_projections))
    directions /= np.linalg.norm(directions, axis=0)
    along_x, along_y = np.sort(x @ directions, axis=0), np.sort(y @ directions, axis=0)
    # The optimal plan in one dimension matches ranks: each point of x with a block of consecutive points of y.
    blocks = along_y.reshape(len(x), -1, num_projections)
    return float(np.sqrt(np.mean((along_x[:, None] - blocks) ** 2)))


def fraction_outside(samples, is_outside: Callable[[Any], Any]) -> float:
    """Share of samples where the truth has no mass; `is_outside` maps [n, d] to [n] booleans."""
    return float(np.mean(is_outside(np.asarray(samples))))


def report(samples, target: Target, *, truth=None, seed: int = 0) -> dict[str, float]:
    """Every metric of samples [n, 2] of a planar target (`datasets.targets.target`).

    Non-finite samples are counted under `non_finite` and left out of the rest.

    Args:
        samples: Points [n, 2].
        target: What they should be distributed as.
        truth: Exact draws to compare with; as many as the samples, drawn with `seed` by default.
        seed: Seed of those draws. For the noise floor, report `target.sample(n, other_seed)`.

    Returns:
        log_likelihood, fraction_outside, log_mmd2, sliced_w2, non_finite, and for targets with modes mode_weight_tv,
        mode_variance_error and mode_std_error (else NaN).
    """
    samples = _real("samples", samples)
    finite = np.all(np.isfinite(samples), axis=-1)
    lost, samples = float(np.mean(~finite)), samples[finite]
    names = ("log_likelihood", "fraction_outside", "log_mmd2", "sliced_w2", "mode_weight_tv")
    result = dict.fromkeys((*names, "mode_variance_error", "mode_std_error"), float("nan")) | {"non_finite": lost}
    if not len(samples):
        return result
    truth = target.sample(len(samples), seed) if truth is None else np.asarray(truth)[: len(samples)]
    result["log_likelihood"] = log_likelihood(samples, target.log_prob)
    result["fraction_outside"] = fraction_outside(samples, target.is_outside)
    result["log_mmd2"] = log_mmd2(samples, truth)
    result["sliced_w2"] = sliced_wasserstein2(samples, truth, seed=seed)
    if len(target.modes):
        result["mode_weight_tv"] = mode_weight_tv(samples, target.modes, target.weights)
        result["mode_variance_error"] = mode_variance_error(samples, target.modes, target.covariances)
        result["mode_std_error"] = mode_std_error(samples, target.modes, target.covariances)
    return result


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
        values = _real(name, values)
        if values.ndim != 2 or len(values) < 2:
            raise ShapeError(f"{name} must have shape [n, k] with n >= 2; got {values.shape}.")
        if not np.all(np.isfinite(values)):
            raise ParameterError(f"{name} must be finite; got NaN or infinity. Leave those images out, and count them.")
        moments.append((values.mean(0), np.cov(values.T).reshape(values.shape[1], -1)))
    (mean, covariance), (other_mean, other) = moments
    if mean.shape != other_mean.shape:
        raise ShapeError(f"features have {mean.size} columns, the reference {other_mean.size}. Use one classifier.")
    # tr (C1 C2)^{1/2} is the sum of singular values of C1^{1/2} C2^{1/2}.
    roots = []
    for matrix in (covariance, other):
        value, vector = np.linalg.eigh(matrix)
        roots.append((vector * np.sqrt(np.maximum(value, 0))) @ vector.T)
    common = np.linalg.svd(roots[0] @ roots[1], compute_uv=False).sum()
    return float(np.sum((mean - other_mean) ** 2) + np.trace(covariance) + np.trace(other) - 2 * common)


def inception_score(probabilities) -> float:
    r"""exp of the mean of KL(p(y | x) | p(y)) over images x: between 1 and the number of classes, large for images that
    a classifier tells apart with confidence (Salimans et al. 2016), here with any classifier.

    Args:
        probabilities: p(y | x) [n, k], rows summing to one.

    Raises:
        ShapeError, ParameterError: for other shapes, negative entries, or rows that do not sum to one.
    """
    p = _real("probabilities", probabilities)
    if p.ndim != 2 or not p.size:
        raise ShapeError(f"probabilities must have shape [n, k]; got {p.shape}.")
    if np.any(p < 0) or not np.allclose(p.sum(1), 1, atol=1e-3):
        raise ParameterError("probabilities must be >= 0 with rows that sum to one. Exponentiate log probabilities.")
    marginal = p.mean(0)
    return float(np.exp(np.mean(np.sum(p * (np.log(np.maximum(p, 1e-300)) - np.log(np.maximum(marginal, 1e-300))), 1))))
