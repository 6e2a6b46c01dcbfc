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

from ..density.abstract import gaussian_at
from ..density.axes import Basis
from ..density.density import Density
from ..density.gaussian import DiagonalGaussian
from ..errors import ParameterError

FRAMES = ("whitened", "identity")


class Frame(NamedTuple):
    """x = mean + root u of a flattened point: `mean` [d], `root` [d, d], `log_det` = log det root.

    `inverse` of the root, or None where nothing asks for coordinates.
    """

    mean: jax.Array
    root: jax.Array
    inverse: jax.Array | None
    log_det: jax.Array

    def point(self, u, event_shape):
        """u [d] to x [*event_shape]."""
        return (self.mean + self.root @ u).reshape(event_shape)

    def coordinates(self, x):
        """x [*event_shape] to u [d]."""
        assert self.inverse is not None
        return self.inverse @ (jnp.ravel(x) - self.mean)


class DiagonalFrame(NamedTuple):
    """x = mean + B (scale * B'u) with the axes B of `basis`: for images, where no [d, d] matrix fits."""

    mean: jax.Array
    scale: jax.Array
    basis: Basis
    log_det: jax.Array

    def point(self, u, event_shape):
        """u [d] to x [*event_shape]."""
        return (self.mean + self.basis.point(self.scale * self.basis.coordinates(u))).reshape(event_shape)

    def coordinates(self, x):
        """x [*event_shape] to u [d]."""
        return self.basis.point(self.basis.coordinates(jnp.ravel(x) - self.mean) / self.scale)


def frame_at(density: Density, t, kind: str) -> Frame | DiagonalFrame:
    """The frame of a density at time t; "identity" is x itself.

    Raises:
        ParameterError: if the kind is unknown.
    """
    if kind not in FRAMES:
        raise ParameterError(f"frame must be one of {FRAMES}; got {kind!r}.")
    gaussian = gaussian_at(density, t)
    size = gaussian.mean.size
    if kind == "identity" and isinstance(gaussian, DiagonalGaussian):
        return DiagonalFrame(jnp.zeros(size), jnp.ones(size), gaussian.basis, jnp.zeros(()))
    if kind == "identity":
        return Frame(jnp.zeros(size), jnp.eye(size), jnp.eye(size), jnp.zeros(()))
    if isinstance(gaussian, DiagonalGaussian):
        scale = jnp.sqrt(gaussian.variance)
        return DiagonalFrame(gaussian.mean, scale, gaussian.basis, jnp.sum(jnp.log(scale)))
    value, vector = jnp.linalg.eigh(gaussian.covariance)
    std = jnp.sqrt(jnp.maximum(value, 1e-12 * jnp.max(value)))
    root, inverse = (vector * std) @ vector.T, (vector / std) @ vector.T
    return Frame(gaussian.mean, root, inverse, jnp.sum(jnp.log(std)))


def start(density: Density, rng_key, kind: str) -> tuple[jax.Array, jax.Array]:
    """An exact draw u [d], in the frame at t = 1, of the density that chains start from, and its log density there."""
    frame = frame_at(density, 1.0, kind)
    x, log_prob = density.start(rng_key)
    return frame.coordinates(x), log_prob + frame.log_det


def start_log_prob(density: Density, u, kind: str) -> jax.Array:
    """Log density in u of what chains start from at t = 1."""
    frame = frame_at(density, 1.0, kind)
    return density.start_log_prob(jnp.ravel(frame.point(u, density.event_shape))) + frame.log_det
