r"""The preconditioned frame: coordinates u in which a density has roughly unit scale at every noise level.

.. math:: x = m_t + L_t u, \qquad q(u, t) = p(m_t + L_t u, t) \, |\det L_t|,

with m_t and L_t the mean and symmetric square root of the covariance of the density's Gaussian approximation
(`Density.gaussian`). At t = 1 q is close to N(0, I), one step size nearly serves all levels, and going to the next
level at fixed u carries each chain along; the log determinants make that change of variables exact.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .density import Density, Gaussian
from .errors import ParameterError

FRAMES = ("whitened", "identity")


class Frame(NamedTuple):
    """x = mean + root u of a flattened point: `mean` [d], `root` [d, d], `log_det` = log det root."""

    mean: jax.Array
    root: jax.Array
    log_det: jax.Array

    def point(self, u, event_shape):
        """u [d] to x [*event_shape]."""
        return (self.mean + self.root @ u).reshape(event_shape)

    def coordinates(self, x):
        """x [*event_shape] to u [d]."""
        return jnp.linalg.solve(self.root, jnp.ravel(x) - self.mean)


def gaussian_at(density: Density, t) -> Gaussian:
    """The density's Gaussian approximation at time t; of unit-variance data where nothing is known."""
    known = density.gaussian(t)
    if known is not None:
        return known
    size = 1
    for n in density.event_shape:
        size *= n
    variance = density.schedule.alpha(t) ** 2 + density.schedule.sigma(t) ** 2
    return Gaussian(jnp.zeros(size), variance * jnp.eye(size))


def frame_at(density: Density, t, kind: str) -> Frame:
    """The frame of a density at time t; "identity" is x itself.

    Raises:
        ParameterError: if the kind is unknown.
    """
    if kind not in FRAMES:
        raise ParameterError(f"frame must be one of {FRAMES}; got {kind!r}.")
    gaussian = gaussian_at(density, t)
    size = gaussian.mean.size
    if kind == "identity":
        return Frame(jnp.zeros(size), jnp.eye(size), jnp.zeros(()))
    value, vector = jnp.linalg.eigh(gaussian.covariance)
    value = jnp.maximum(value, 1e-12 * jnp.max(value))
    return Frame(gaussian.mean, (vector * jnp.sqrt(value)) @ vector.T, 0.5 * jnp.sum(jnp.log(value)))


def start(density: Density, rng_key, kind: str) -> tuple[jax.Array, jax.Array]:
    """An exact draw u [d] of the Gaussian at t = 1 in its frame, and its log density there."""
    gaussian, frame = gaussian_at(density, 1.0), frame_at(density, 1.0, kind)
    noise = jax.random.normal(rng_key, gaussian.mean.shape)
    u = (
        noise
        if kind == "whitened"
        else frame.coordinates(gaussian.mean + jnp.linalg.cholesky(gaussian.covariance) @ noise)
    )
    return u, start_log_prob(density, u, kind)


def start_log_prob(density: Density, u, kind: str) -> jax.Array:
    """Log density in u of the Gaussian that chains start from at t = 1."""
    gaussian, frame = gaussian_at(density, 1.0), frame_at(density, 1.0, kind)
    x = frame.mean + frame.root @ u
    log_prob = jax.scipy.stats.multivariate_normal.logpdf(x, gaussian.mean, gaussian.covariance)
    return jnp.asarray(log_prob) + frame.log_det
