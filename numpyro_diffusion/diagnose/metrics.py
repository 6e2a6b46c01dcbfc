r"""How far samples are from the truth, in NumPy.

A log likelihood can be gamed: samples that are too sharp exceed the truth's own value. It is read together with the
maximum mean discrepancy, mode weights, mode variances and the sliced Wasserstein distance, and every distance together
with its *noise floor*, the same distance between two independent draws of the truth. At 2,000 points a good sampler and
a better one cannot be told apart; 10,000 do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from ..checks.points import each, pair, points, real
from ..checks.text import shown
from ..datasets.targets import Target
from ..errors import ParameterError, ShapeError, check_integer
from .feature_metrics import frechet_distance, inception_score

__all__ = [
    "fraction_outside", "frechet_distance", "inception_score", "log_likelihood", "log_mmd2", "mode_covariances",
    "mode_std_error", "mode_variance_error", "mode_weight_tv", "mode_weights", "report", "sliced_wasserstein2",
]  # fmt: skip

#: Bandwidths of the Gaussian kernels that `log_mmd2` averages: from a mode's width to the plane's.
BANDWIDTHS = (0.05, 0.1, 0.2, 0.4, 0.8)


def log_likelihood(samples, log_prob_fn: Callable[[Any], Any]) -> float:
    """Mean log density (nats) of samples [n, d] under the true, normalised `log_prob_fn` ([n, d] -> [n]).

    Raises:
        ShapeError: if there are no samples, or the function does not give a number for each.
        ParameterError: if a sample or a log density is NaN, or a sample infinite.
    """
    x = points("samples", samples)
    return float(np.mean(each("log_prob_fn", log_prob_fn(x), len(x))))


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
    x, y = pair(x, y)
    chunk_size, widths = check_integer("chunk_size", chunk_size), real("bandwidths", bandwidths)
    if widths.ndim != 1 or not len(widths) or not np.all(np.isfinite(widths) & (widths > 0)):
        raise ParameterError(f"bandwidths must be positive numbers; got {shown(bandwidths)}.")

    def kernel_sum(a, b):
        total = 0.0
        for start in range(0, len(a), chunk_size):
            # Single precision halves the time of exp, and its rounding averages out over n^2 terms.
            squared = cdist(a[start : start + chunk_size], b, "sqeuclidean").astype(np.float32)
            for h in widths:
                total += float(np.sum(np.exp(squared * np.float32(-0.5 / h**2)), dtype=np.float64))
        return total

    value = (kernel_sum(x, x) + kernel_sum(y, y) - 2 * kernel_sum(x, y)) / (len(widths) * len(x) ** 2)
    # What is left of equal sets is rounding.
    return float(np.log(value)) if value > 1e-9 else -np.inf


def _nearest(samples, modes):
    samples, modes = points("samples", samples), points("modes", modes)
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
    found, weights = mode_weights(samples, modes), real("weights", weights)
    if weights.shape != found.shape:
        raise ShapeError(f"weights must have shape {found.shape} to match modes; got {weights.shape}.")
    if not np.all(weights >= 0) or not abs(np.sum(weights) - 1) < 1e-3:
        raise ParameterError(f"weights must be >= 0 and sum to one; got {shown(weights.tolist())}. Divide by the sum.")
    return float(0.5 * np.sum(np.abs(found - weights)))


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
    modes, covariance = points("modes", modes), real("covariance", covariance)
    size = modes.shape[1]
    if covariance.shape not in ((size, size), (len(modes), size, size)) or not np.all(np.isfinite(covariance)):
        raise ShapeError(
            f"covariance must be finite, of shape [{size}, {size}] or [{len(modes)}, {size}, {size}]; got shape "
            f"{covariance.shape}."
        )
    if np.any(np.diagonal(covariance, axis1=-2, axis2=-1) < 0):
        raise ParameterError("covariance has a negative variance. Give the covariances of the modes.")
    return np.broadcast_to(covariance, (*modes.shape, size))


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
    x, y = points("x", x), points("y", y)
    if len(x) > len(y):
        x, y = y, x
    if x.shape[1] != y.shape[1] or len(y) % len(x):
        raise ShapeError(f"x and y must have one dimension, and sizes that divide; got shapes {x.shape} and {y.shape}.")
    num_projections, seed = check_integer("num_projections", num_projections), check_integer("seed", seed, 0)
    directions = np.random.default_rng(seed).standard_normal((x.shape[1], num_projections))
    directions /= np.linalg.norm(directions, axis=0)
    along_x, along_y = np.sort(x @ directions, axis=0), np.sort(y @ directions, axis=0)
    # The optimal plan in one dimension matches ranks: each point of x with a block of consecutive points of y.
    blocks = along_y.reshape(len(x), -1, num_projections)
    return float(np.sqrt(np.mean((along_x[:, None] - blocks) ** 2)))


def fraction_outside(samples, is_outside: Callable[[Any], Any]) -> float:
    """Share of samples where the truth has no mass; `is_outside` maps [n, d] to [n] booleans.

    Raises:
        ShapeError, ParameterError: as `log_likelihood`.
    """
    x = points("samples", samples)
    return float(np.mean(each("is_outside", is_outside(x), len(x))))


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
    samples, seed = real("samples", samples), check_integer("seed", seed, 0)
    if samples.ndim != 2 or samples.shape[1] != 2 or not len(samples):
        raise ShapeError(f"samples must have shape [n, 2] with n >= 1; got {samples.shape}.")
    if not hasattr(target, "log_prob") or not hasattr(target, "is_outside"):
        raise ParameterError(f"target must be one of datasets.targets.target(name); got {shown(target)}.")
    finite = np.all(np.isfinite(samples), axis=-1)
    lost, samples = float(np.mean(~finite)), samples[finite]
    names = ("log_likelihood", "fraction_outside", "log_mmd2", "sliced_w2", "mode_weight_tv")
    result = dict.fromkeys((*names, "mode_variance_error", "mode_std_error"), float("nan")) | {"non_finite": lost}
    if not len(samples):
        return result
    truth = target.sample(len(samples), seed) if truth is None else points("truth", truth)[: len(samples)]
    result["log_likelihood"] = log_likelihood(samples, target.log_prob)
    result["fraction_outside"] = fraction_outside(samples, target.is_outside)
    result["log_mmd2"] = log_mmd2(samples, truth)
    result["sliced_w2"] = sliced_wasserstein2(samples, truth, seed=seed)
    if len(target.modes):
        result["mode_weight_tv"] = mode_weight_tv(samples, target.modes, target.weights)
        result["mode_variance_error"] = mode_variance_error(samples, target.modes, target.covariances)
        result["mode_std_error"] = mode_std_error(samples, target.modes, target.covariances)
    return result
