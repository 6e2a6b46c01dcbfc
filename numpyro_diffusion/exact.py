r"""Densities whose noised forms are known in closed form: the oracles that separate a sampler's error from a model's.

For :math:`x_t = \alpha_t x_0 + \sigma_t \varepsilon` a Gaussian mixture stays one, with means :math:`\alpha_t m_k` and
covariances :math:`\alpha_t^2 C_k + \sigma_t^2 I`, and a uniform box becomes a product of differences of normal CDFs.
Both are calibrated, under any schedule, and can be sampled exactly at any t.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr, logsumexp

from .density import Density, Gaussian, check_time, register_density
from .errors import ParameterError, ShapeError
from .schedule import NoiseSchedule, VariancePreserving


def _finite(name, value, ndim):
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"{name} must be a numeric array with {ndim} axes; got {type(value).__name__}.") from error
    if array.ndim != ndim:
        raise ShapeError(f"{name} must have {ndim} axes; got shape {array.shape}.")
    if not np.all(np.isfinite(array)):
        raise ParameterError(f"{name} must be finite; got NaN or infinity.")
    return array


@register_density(
    ("means", "eigenvalues", "eigenvectors", "log_weights"), ("schedule", "event_shape", "name", "is_calibrated")
)
class GaussianMixture(Density):
    r"""Mixture :math:`\sum_k w_k N(m_k, C_k)` in d dimensions, at every noise level.

    Args:
        means: [K, d].
        covariances: [K, d, d], symmetric positive definite.
        weights: [K], positive; normalised to sum one. Equal by default.
        schedule: Noise schedule; variance preserving cosine by default.
        name: Name for formulas.

    Raises:
        ShapeError: if shapes do not fit together.
        ParameterError: if a weight is not positive, or a covariance not symmetric positive definite.
    """

    def __init__(self, means, covariances, weights=None, schedule: NoiseSchedule | None = None, name=None):
        means, covariances = _finite("means", means, 2), _finite("covariances", covariances, 3)
        count, d = means.shape
        if covariances.shape != (count, d, d):
            raise ShapeError(f"covariances must have shape {(count, d, d)} to match means; got {covariances.shape}.")
        weights = np.ones(count) if weights is None else _finite("weights", weights, 1)
        if weights.shape != (count,):
            raise ShapeError(f"weights must have shape ({count},) to match means; got {weights.shape}.")
        if not np.all(weights > 0):
            raise ParameterError(f"weights must be positive; got {weights}. Drop components of weight zero.")
        if not np.allclose(covariances, covariances.transpose(0, 2, 1), rtol=1e-5, atol=1e-8):
            raise ParameterError("covariances must be symmetric.")
        values, vectors = np.linalg.eigh(covariances)
        if not np.all(values > 0):
            raise ParameterError(
                f"covariances must be positive definite; the smallest eigenvalue is {values.min():.3g}."
            )
        self.means, self.eigenvalues = jnp.asarray(means, dtype=float), jnp.asarray(values, dtype=float)
        self.eigenvectors = jnp.asarray(vectors, dtype=float)
        self.log_weights = jnp.asarray(np.log(weights / weights.sum()), dtype=float)
        self.schedule, self.event_shape, self.name = schedule or VariancePreserving.cosine(), (d,), name
        self.is_calibrated = True

    def _log_prob(self, x, t):
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        variance = alpha**2 * self.eigenvalues + sigma**2
        z = jnp.einsum("kji,kj->ki", self.eigenvectors, x - alpha * self.means)
        terms = -0.5 * jnp.sum(z**2 / variance + jnp.log(2 * jnp.pi * variance), axis=-1)
        return logsumexp(self.log_weights + terms)

    def sample(self, rng_key, num_samples: int, t=0.0) -> jax.Array:
        """Exact draws [num_samples, d] at time t."""
        check_time(t)
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        which, noise = jax.random.split(rng_key)
        k = jax.random.categorical(which, self.log_weights, shape=(num_samples,))
        scale = jnp.sqrt(alpha**2 * self.eigenvalues + sigma**2)[k]
        z = scale * jax.random.normal(noise, scale.shape)
        return alpha * self.means[k] + jnp.einsum("nij,nj->ni", self.eigenvectors[k], z)

    def with_schedule(self, schedule):
        new = jax.tree.map(lambda a: a, self)
        new.schedule = schedule
        return new

    def _moments(self):
        weights = jnp.exp(self.log_weights)
        mean = weights @ self.means
        centred = self.means - mean
        within = jnp.einsum("kij,kj,klj->kil", self.eigenvectors, self.eigenvalues, self.eigenvectors)
        return Gaussian(mean, jnp.einsum("k,kij->ij", weights, within) + (centred.T * weights) @ centred)


def _log_ndtr_difference(a, b):
    """log(Phi(b) - Phi(a)) for a < b, accurate in both tails."""
    flip = a + b > 0
    a, b = jnp.where(flip, -b, a), jnp.where(flip, -a, b)
    top, bottom = log_ndtr(b), log_ndtr(a)
    gap = jnp.minimum(bottom - top, -1e-7)
    return top + jnp.log(-jnp.expm1(gap))


@register_density(("low", "high"), ("schedule", "event_shape", "name", "is_calibrated"))
class UniformBox(Density):
    """Uniform density on the box low < x < high in d dimensions, at every noise level.

    At t = 0 under a schedule without noise there, the log density is -inf outside.

    Args:
        low, high: [d], low < high on every axis.
        schedule: Noise schedule; variance preserving cosine by default.
        name: Name for formulas.

    Raises:
        ShapeError: if shapes differ.
        ParameterError: if low >= high on an axis.
    """

    def __init__(self, low, high, schedule: NoiseSchedule | None = None, name=None):
        low, high = _finite("low", low, 1), _finite("high", high, 1)
        if low.shape != high.shape:
            raise ShapeError(f"low and high must have one shape; got {low.shape} and {high.shape}.")
        if not np.all(low < high):
            raise ParameterError(f"low must be below high on every axis; got {low} and {high}.")
        self.low, self.high = jnp.asarray(low, dtype=float), jnp.asarray(high, dtype=float)
        self.schedule, self.event_shape, self.name = schedule or VariancePreserving.cosine(), low.shape, name
        self.is_calibrated = True

    def _log_prob(self, x, t):
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        low, high = alpha * self.low, alpha * self.high
        hard_walls = sigma < 1e-6
        s = jnp.where(hard_walls, 1.0, sigma)
        a, b = (low - x) / s, (high - x) / s
        noised = jnp.sum(_log_ndtr_difference(a, b) - jnp.log(high - low))
        inside = jnp.all((x >= low) & (x <= high))
        hard = jnp.where(inside, -jnp.sum(jnp.log(high - low)), -jnp.inf)
        return jnp.where(hard_walls, hard, noised)

    def sample(self, rng_key, num_samples: int, t=0.0) -> jax.Array:
        """Exact draws [num_samples, d] at time t."""
        check_time(t)
        place, noise = jax.random.split(rng_key)
        x = jax.random.uniform(place, (num_samples, self.low.size), minval=self.low, maxval=self.high)
        return self.schedule.alpha(t) * x + self.schedule.sigma(t) * jax.random.normal(noise, x.shape)

    def with_schedule(self, schedule):
        new = jax.tree.map(lambda a: a, self)
        new.schedule = schedule
        return new

    def _moments(self):
        return Gaussian((self.low + self.high) / 2, jnp.diag((self.high - self.low) ** 2 / 12))
