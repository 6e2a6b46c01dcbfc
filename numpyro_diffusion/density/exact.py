r"""Densities whose noised forms are known in closed form: the oracles that separate a sampler's error from a model's.

For :math:`x_t = \alpha_t x_0 + \sigma_t \varepsilon` a Gaussian mixture stays one, with means :math:`\alpha_t m_k` and
covariances :math:`\alpha_t^2 C_k + \sigma_t^2 I`, and a uniform box becomes a product of differences of normal CDFs
(`log_uniform`). Both are calibrated, under any schedule, and can be sampled exactly at any t. Their parameters may be
traced: values are then not checked, and gradients with respect to them are exact.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr, logsumexp

from ..checks.numbers import check_held, check_squares_held, constant, finite_array, is_traced, log_shares
from ..errors import ParameterError, ShapeError, check_integer, check_key
from ..pytree import register, replace
from .axes import DenseAxes
from .density import Density
from .gaussian import Gaussian, known_gaussians, log_normal, mixture_log_prob, mixture_moments
from .schedule import NoiseSchedule, VariancePreserving, check_time


class _Exact(Density):
    """What both share: parameters are given once and for all, whatever the schedule."""

    def with_schedule(self, schedule):
        return replace(self, schedule=schedule)


@register(("components", "covariances", "log_weights"), ("schedule", "event_shape", "name"))
class GaussianMixture(_Exact):
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
        means, covariances = finite_array("means", means, 2), finite_array("covariances", covariances, 3)
        count, d = means.shape
        if covariances.shape != (count, d, d):
            raise ShapeError(f"covariances must have shape {(count, d, d)} to match means; got {covariances.shape}.")
        weights = np.ones(count) if weights is None else finite_array("weights", weights, 1)
        if weights.shape != (count,):
            raise ShapeError(f"weights must have shape ({count},) to match means; got {weights.shape}.")
        self.log_weights = log_shares(weights) if is_traced(weights) else constant(log_shares(weights))
        # Derivatives of eigenvectors are infinite where eigenvalues are equal: covariances that may be differentiated
        # stay as they are, and cost a Cholesky factor at every evaluation.
        traced = is_traced(covariances)
        self.covariances: Any = covariances if traced else None
        self.components = Gaussian(means, None, DenseAxes(None)) if traced else known_gaussians(means, covariances)
        self.schedule, self.event_shape, self.name = schedule or VariancePreserving.cosine(), (d,), name

    means = property(lambda self: self.components.mean, doc="[K, d].")
    # None where covariances are traced.
    eigenvalues = property(lambda self: self.components.variance, doc="[K, d] of the covariances, ascending.")
    eigenvectors = property(lambda self: self.components.axes.vectors, doc="[K, d, d] of the covariances, in columns.")

    def log_density(self, x, t):
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        if self.covariances is None:
            return mixture_log_prob(self.components.noised(alpha, sigma), self.log_weights, x)
        root = self._root(alpha, sigma)
        z = jax.vmap(lambda a, b: jax.scipy.linalg.solve_triangular(a, b, lower=True))(root, x - alpha * self.means)
        scale = jnp.diagonal(root, axis1=-2, axis2=-1)
        return logsumexp(self.log_weights + log_normal(z, 1.0) - jnp.sum(jnp.log(scale), axis=-1))

    def _root(self, alpha, sigma) -> jax.Array:
        """A root [K, d, d] of every component's covariance at one noise level."""
        if self.covariances is None:
            _, variance, axes = self.components.noised(alpha, sigma)
            return axes.vectors * jnp.sqrt(variance)[:, None, :]
        return jnp.linalg.cholesky(alpha**2 * self.covariances + sigma**2 * jnp.eye(self.means.shape[1]))

    def sample(self, rng_key, num_samples: int, t=0.0) -> jax.Array:
        """Exact draws [num_samples, d] at time t."""
        check_time(t)
        check_integer("num_samples", num_samples, 0)
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        which, noise = jax.random.split(check_key(rng_key))
        k = jax.random.categorical(which, self.log_weights, shape=(num_samples,))
        z = jax.random.normal(noise, (num_samples, self.means.shape[1]))
        return alpha * self.means[k] + jnp.einsum("nij,nj->ni", self._root(alpha, sigma)[k], z)

    def _moments(self):
        covariances = self.components.covariance if self.covariances is None else self.covariances
        return mixture_moments(self.means, covariances, jnp.exp(self.log_weights))


@register(("centre", "half_width"), ("schedule", "event_shape", "name"))
class UniformBox(_Exact):
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
        low, high = finite_array("low", low, 1), finite_array("high", high, 1)
        if low.shape != high.shape:
            raise ShapeError(f"low and high must have one shape; got {low.shape} and {high.shape}.")
        self.centre, self.half_width = (low + high) / 2, (high - low) / 2
        if not is_traced((low, high)):
            if not np.all(low < high):
                raise ParameterError(f"low must be below high on every axis; got {low} and {high}. Exchange them.")
            check_held("low and high", np.stack([low, high]))
            for width in 2 * self.half_width:
                check_squares_held("widths of a box", width, 4, "Choose other units.")
            self.centre, self.half_width = constant(self.centre), constant(self.half_width)
        self.schedule, self.event_shape, self.name = schedule or VariancePreserving.cosine(), low.shape, name

    low = property(lambda self: self.centre - self.half_width, doc="[d].")
    high = property(lambda self: self.centre + self.half_width, doc="[d].")

    def log_density(self, x, t):
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        # x - alpha c; far from the origin and at little noise alpha c would round.
        distance = (x - self.centre) + self.schedule.signal_lost(t) * self.centre
        return jnp.sum(log_uniform(distance, alpha * self.half_width, sigma))

    def sample(self, rng_key, num_samples: int, t=0.0) -> jax.Array:
        """Exact draws [num_samples, d] at time t."""
        check_time(t)
        check_integer("num_samples", num_samples, 0)
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        place, noise = jax.random.split(check_key(rng_key))
        u = jax.random.uniform(place, (num_samples, self.half_width.size), minval=-1.0, maxval=1.0)
        x = self.centre + self.half_width * u
        return alpha * x + sigma * jax.random.normal(noise, x.shape)

    def _moments(self):
        return Gaussian(self.centre, self.half_width**2 / 3, DenseAxes(jnp.eye(self.centre.size)))


def log_uniform(distance, half_width, sigma) -> jax.Array:
    r"""Log density [d], at a `distance` [d], of uniform noise of `half_width` [d] plus normal noise of scale `sigma`.

    With c the distance from the centre and h the half width, both in units of the noise s,

    .. math:: p(x) = \frac{\Phi(c + h) - \Phi(c - h)}{2 h s} .

    Where h is small the difference cancels, and with k = c h and moments over e^{-k v} on [-1, 1]

    .. math:: p(x) = \frac{\phi(c)}{s} \frac{\sinh k}{k} \left(1 - \frac{h^2}{2} \langle v^2 \rangle + O(h^4)\right) .

    Right to about 1e-5 nats (float32) at any ratio of the two; without noise -inf outside, with gradient zero.
    """
    # Noise that no float tells from the box's edges is none.
    hard = sigma <= 1e-12 * half_width
    s = jnp.where(hard, half_width, sigma)
    c, h = distance / s, half_width / s
    narrow = h < (100 * jnp.finfo(h.dtype).eps) ** 0.2
    wide = _wide(c, jnp.where(narrow, 1.0, h)) - jnp.log(2 * half_width)
    noised = jnp.where(narrow, _narrow(c, jnp.where(narrow, h, 0.0)) - jnp.log(s), wide)
    box = jnp.where(jnp.abs(distance) <= half_width, -jnp.log(2 * half_width), -jnp.inf)
    return jnp.where(hard, box, noised)


def _wide(c, h):
    """log(Phi(c + h) - Phi(c - h)), accurate in both tails where h is not small."""
    c = -jnp.abs(c)
    top, bottom = log_ndtr(c + h), log_ndtr(c - h)
    gap = jnp.minimum(bottom - top, -jnp.finfo(top.dtype).eps)
    return top + jnp.log(-jnp.expm1(gap))


def _narrow(c, h):
    """log(Phi(c + h) - Phi(c - h)) - log(2 h) for small h, up to O(h^4)."""
    k = jnp.abs(c * h)
    small = k < 0.5
    near, far = jnp.where(small, k, 0.0) ** 2, jnp.where(small, 1.0, k)
    log_sinhc = jnp.where(
        small,
        near * (1 / 6 - near * (1 / 180 - near * (1 / 2835 - near * (1 / 37800 - near / 467775)))),
        far + jnp.log1p(-jnp.exp(-2 * far)) - jnp.log(2 * far),
    )
    square = jnp.where(
        small,
        1 / 3 + near * (2 / 45 - near * (4 / 945 - near * (2 / 4725 - near * 4 / 93555))),
        1 + 2 / far**2 - 2 / (far * jnp.tanh(far)),
    )
    return jax.scipy.stats.norm.logpdf(c) + log_sinhc - 0.5 * h**2 * square
