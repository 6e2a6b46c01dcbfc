r"""Densities whose noised forms are known in closed form: the oracles that separate a sampler's error from a model's.

For :math:`x_t = \alpha_t x_0 + \sigma_t \varepsilon` a Gaussian mixture stays one, with means :math:`\alpha_t m_k` and
covariances :math:`\alpha_t^2 C_k + \sigma_t^2 I`, and a uniform box becomes a product of differences of normal CDFs
(see `walls`). Both are calibrated, under any schedule, and can be sampled exactly at any t. Their parameters may be
traced: values are then not checked, and gradients with respect to them are exact.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from ..checks.numbers import array_of, check_held, constant, floats, is_traced, log_shares
from ..errors import ParameterError, ShapeError, check_key
from ..pytree import register
from .density import Density
from .gaussian import Gaussian
from .schedule import NoiseSchedule, VariancePreserving, check_time
from .walls import log_uniform


def _finite(name: str, value: Any, ndim: int) -> Any:
    """`value` with `ndim` axes: in double precision and checked, or as it is where it is traced."""
    array = array_of(name, value, f"a numeric array with {ndim} axes")
    if array.ndim != ndim:
        raise ShapeError(f"{name} must have {ndim} axes; got shape {array.shape}.")
    if is_traced(array):
        return array
    if not np.all(np.isfinite(array)):
        raise ParameterError(f"{name} must be finite; got NaN or infinity.")
    if name != "weights":  # of which logarithms are kept
        check_held(name, np.asarray(array))
    return array


def _log_weights(weights: Any, count: int) -> Any:
    """Logarithms [count] of weights that sum to one."""
    weights = np.ones(count) if weights is None else _finite("weights", weights, 1)
    if weights.shape != (count,):
        raise ShapeError(f"weights must have shape ({count},) to match means; got {weights.shape}.")
    return log_shares(weights) if is_traced(weights) else constant(log_shares(weights))


def _axes(covariances: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues [K, d] and eigenvectors [K, d, d] in columns."""
    if not np.allclose(covariances, covariances.transpose(0, 2, 1), rtol=1e-5, atol=1e-8):
        raise ParameterError("covariances must be symmetric.")
    values, vectors = np.linalg.eigh(covariances)
    if values.size and not values.min() > 0:
        raise ParameterError(
            f"covariances must be positive definite; the smallest eigenvalue is {values.min():.3g}. Add a multiple of "
            "the identity."
        )
    check_held("eigenvalues of covariances", values, are_scales=True)
    return constant(values), constant(vectors)


@register(
    ("means", "eigenvalues", "eigenvectors", "covariances", "log_weights"),
    ("schedule", "event_shape", "name", "is_calibrated"),
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
        self.log_weights = _log_weights(weights, count)
        self.means = means if is_traced(means) else constant(means)
        # Derivatives of eigenvectors are infinite where eigenvalues are equal: covariances that may be differentiated
        # stay as they are, and cost a Cholesky factor at every evaluation.
        self.covariances: Any = covariances if is_traced(covariances) else None
        axes: tuple[Any, Any] = (None, None) if is_traced(covariances) else _axes(covariances)
        self.eigenvalues, self.eigenvectors = axes
        self.schedule, self.event_shape, self.name = schedule or VariancePreserving.cosine(), (d,), name
        self.is_calibrated = True

    def log_density(self, x, t):
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        centred = x - alpha * self.means
        if self.covariances is None:
            variance = alpha**2 * self.eigenvalues + sigma**2
            squares = jnp.einsum("kji,kj->ki", self.eigenvectors, centred) ** 2 / variance
            terms = -0.5 * jnp.sum(squares + jnp.log(2 * jnp.pi * variance), axis=-1)
        else:
            root = self._root(alpha, sigma)
            z = jax.vmap(lambda a, b: jax.scipy.linalg.solve_triangular(a, b, lower=True))(root, centred)
            scale = jnp.diagonal(root, axis1=-2, axis2=-1)
            terms = -0.5 * jnp.sum(z**2 + jnp.log(2 * jnp.pi * scale**2), axis=-1)
        return logsumexp(self.log_weights + terms)

    def _root(self, alpha, sigma) -> jax.Array:
        """A root [K, d, d] of every component's covariance at one noise level."""
        if self.covariances is None:
            return self.eigenvectors * jnp.sqrt(alpha**2 * self.eigenvalues + sigma**2)[:, None, :]
        return jnp.linalg.cholesky(alpha**2 * self.covariances + sigma**2 * jnp.eye(self.means.shape[1]))

    def sample(self, rng_key, num_samples: int, t=0.0) -> jax.Array:
        """Exact draws [num_samples, d] at time t."""
        check_time(t)
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        which, noise = jax.random.split(check_key(rng_key))
        k = jax.random.categorical(which, self.log_weights, shape=(num_samples,))
        z = jax.random.normal(noise, (num_samples, self.means.shape[1]))
        return alpha * self.means[k] + jnp.einsum("nij,nj->ni", self._root(alpha, sigma)[k], z)

    def with_schedule(self, schedule):
        return self._replace(schedule=schedule)

    def _moments(self):
        weights = jnp.exp(self.log_weights)
        mean = weights @ self.means
        centred = self.means - mean
        within = self.covariances
        if within is None:
            within = jnp.einsum("kij,kj,klj->kil", self.eigenvectors, self.eigenvalues, self.eigenvectors)
        return Gaussian(mean, jnp.einsum("k,kij->ij", weights, within) + (centred.T * weights) @ centred)


@register(("centre", "half_width"), ("schedule", "event_shape", "name", "is_calibrated"))
class UniformBox(Density):
    """Uniform density on the box low < x < high in d dimensions, at every noise level.

    Kept as centre and half width, so that a box far from the origin may be narrow. At t = 0 under a schedule without
    noise there, the log density is -inf outside.

    Args:
        low, high: [d], low < high on every axis.
        schedule: Noise schedule; variance preserving cosine by default.
        name: Name for formulas.

    Raises:
        ShapeError: if shapes differ.
        ParameterError: if low >= high on an axis, or the square of a width is no float.
    """

    def __init__(self, low, high, schedule: NoiseSchedule | None = None, name=None):
        low, high = _finite("low", low, 1), _finite("high", high, 1)
        if low.shape != high.shape:
            raise ShapeError(f"low and high must have one shape; got {low.shape} and {high.shape}.")
        self.centre, self.half_width = (low + high) / 2, (high - low) / 2
        if not is_traced((low, high)):
            if not np.all(low < high):
                raise ParameterError(f"low must be below high on every axis; got {low} and {high}. Exchange them.")
            _check_width(self.half_width)
            self.centre, self.half_width = constant(self.centre), constant(self.half_width)
        self.schedule, self.event_shape, self.name = schedule or VariancePreserving.cosine(), low.shape, name
        self.is_calibrated = True

    @property
    def low(self) -> jax.Array:
        """[d]."""
        return self.centre - self.half_width

    @property
    def high(self) -> jax.Array:
        """[d]."""
        return self.centre + self.half_width

    def log_density(self, x, t):
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        # x - alpha c; far from the origin and at little noise alpha c would round.
        distance = (x - self.centre) + self.schedule.signal_lost(t) * self.centre
        return jnp.sum(log_uniform(distance, alpha * self.half_width, sigma))

    def sample(self, rng_key, num_samples: int, t=0.0) -> jax.Array:
        """Exact draws [num_samples, d] at time t."""
        check_time(t)
        place, noise = jax.random.split(check_key(rng_key))
        u = jax.random.uniform(place, (num_samples, self.half_width.size), minval=-1.0, maxval=1.0)
        x = self.centre + self.half_width * u
        return self.schedule.alpha(t) * x + self.schedule.sigma(t) * jax.random.normal(noise, x.shape)

    def with_schedule(self, schedule):
        return self._replace(schedule=schedule)

    def _moments(self):
        return Gaussian(self.centre, jnp.diag(self.half_width**2 / 3))


def _check_width(half_width: np.ndarray) -> None:
    low, high = (float(limit) ** 0.5 for limit in (np.finfo(floats()).tiny, np.finfo(floats()).max))
    for width in 2 * half_width:
        if not 4 * low <= width <= high / 4:
            raise ParameterError(
                f"widths of a box must lie in [{4 * low:.2g}, {high / 4:.2g}], whose squares {floats()} holds; got "
                f"{width:.6g}. Choose other units."
            )
