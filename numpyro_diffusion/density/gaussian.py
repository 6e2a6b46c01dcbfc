"""Gaussian approximations, and those of compositions: precisions add, and mixtures match two moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .axes import Basis


class Gaussian(NamedTuple):
    """First two moments: `mean` [d] and `covariance` [d, d] of a flattened point."""

    mean: jax.Array
    covariance: jax.Array

    def noised(self, alpha, sigma) -> Gaussian:
        """Of alpha x + sigma eps."""
        eye = jnp.eye(self.mean.size)
        return Gaussian(alpha * self.mean, alpha**2 * self.covariance + sigma**2 * eye)

    def at(self, noise) -> jax.Array:
        """The point [d] that standard normal noise [d] stands for."""
        value, vector = jnp.linalg.eigh(self.covariance)
        return self.mean + vector @ (jnp.sqrt(value) * (vector.T @ noise))

    def log_prob(self, x) -> jax.Array:
        """Log density of the Gaussian with these moments at a point x [d]."""
        value, vector = jnp.linalg.eigh(self.covariance)
        return jnp.sum(jax.scipy.stats.norm.logpdf(vector.T @ (x - self.mean), 0.0, jnp.sqrt(value)))


class DiagonalGaussian(NamedTuple):
    """First two moments with uncorrelated coordinates: `mean` [d], and `variance` [d] along the axes of `basis`."""

    mean: jax.Array
    variance: jax.Array
    basis: Basis

    def noised(self, alpha, sigma) -> DiagonalGaussian:
        """Of alpha x + sigma eps."""
        return self._replace(mean=alpha * self.mean, variance=alpha**2 * self.variance + sigma**2)

    def at(self, noise) -> jax.Array:
        """The point [d] that standard normal noise [d] stands for."""
        return self.mean + self.basis.point(jnp.sqrt(self.variance) * noise)

    def log_prob(self, x) -> jax.Array:
        """Log density of the Gaussian with these moments at a point x [d]."""
        v = self.basis.coordinates(x - self.mean)
        return jnp.sum(jax.scipy.stats.norm.logpdf(v, 0.0, jnp.sqrt(self.variance)))

    @property
    def covariance(self) -> jax.Array:
        """[d, d]; for small d only."""
        axes = jax.vmap(self.basis.point)(jnp.eye(self.mean.size))
        return axes.T * self.variance @ axes


def _stack(parts):
    means = jnp.stack([gaussian.mean for gaussian, _ in parts])
    covariances = jnp.stack([gaussian.covariance for gaussian, _ in parts])
    return means, covariances, jnp.stack([coefficient for _, coefficient in parts])


def _common_basis(parts):
    """The basis that all parts are diagonal in, or None."""
    first = parts[0][0]
    if not all(isinstance(gaussian, DiagonalGaussian) and gaussian.basis == first.basis for gaussian, _ in parts):
        return None
    return first.basis


def _stack_diagonal(parts, basis):
    """Means along the axes and variances [k, d], coefficients [k, 1]."""
    means = jnp.stack([basis.coordinates(gaussian.mean) for gaussian, _ in parts])
    variances = jnp.stack([gaussian.variance for gaussian, _ in parts])
    return means, variances, jnp.stack([jnp.asarray(coefficient) for _, coefficient in parts])[:, None]


def _soft_limit(value):
    """What denominators remove, as a share: softly below 3/4, because the frame must move continuously with t."""
    return jnp.where(value < 0.5, value, 0.5 + 0.25 * jnp.tanh((value - 0.5) / 0.25))


def _power(matrix, exponent: float):
    """Power of symmetric positive definite matrices [..., d, d]."""
    value, vector = jnp.linalg.eigh(matrix)
    return (vector * value[..., None, :] ** exponent) @ jnp.swapaxes(vector, -1, -2)


def gaussian_product(parts: Sequence[tuple[Gaussian | DiagonalGaussian, jax.Array]]) -> Gaussian | DiagonalGaussian:
    """Precisions add; those of denominators are subtracted up to 3/4 of what there is in any direction."""
    basis = _common_basis(parts)
    if basis is not None:
        means, variances, exponents = _stack_diagonal(parts, basis)
        above = jnp.maximum(exponents, 0.0)
        plus = jnp.sum(above / variances, 0)
        value = jnp.sum((above - exponents) / variances, 0) / plus
        precision = plus * (1 - _soft_limit(value))
        exact = jnp.sum(exponents * means / variances, 0) / precision
        mean = jnp.where(value < 0.5, exact, jnp.sum(above * means / variances, 0) / plus)
        return DiagonalGaussian(basis.point(mean), 1 / precision, basis)
    means, covariances, exponents = _stack(parts)
    precisions = _power(covariances, -1.0)
    above = jnp.maximum(exponents, 0.0)
    plus = jnp.einsum("k,kij->ij", above, precisions)
    minus = jnp.einsum("k,kij->ij", above - exponents, precisions)
    root = _power(plus, -0.5)
    value, vector = jnp.linalg.eigh(root @ minus @ root)
    scaled = root @ vector
    covariance = (scaled / (1 - _soft_limit(value))) @ scaled.T
    # Where a denominator was cut, its pull on the mean is cut as well: only numerators place the mean.
    exact = covariance @ jnp.einsum("k,kij,kj->i", exponents, precisions, means)
    above_only = root @ root @ jnp.einsum("k,kij,kj->i", above, precisions, means)
    mean = jnp.where(jnp.max(value) < 0.5, exact, above_only)
    return Gaussian(mean, (covariance + covariance.T) / 2)


def gaussian_mixture(parts: Sequence[tuple[Gaussian | DiagonalGaussian, jax.Array]]) -> Gaussian | DiagonalGaussian:
    """The mixture's own mean and covariance; along common axes its variances only."""
    basis = _common_basis(parts)
    if basis is not None:
        means, variances, weights = _stack_diagonal(parts, basis)
        weights = weights / jnp.sum(weights)
        mean = jnp.sum(weights * means, 0)
        variance = jnp.sum(weights * (variances + (means - mean) ** 2), 0)
        return DiagonalGaussian(basis.point(mean), variance, basis)
    means, covariances, weights = _stack(parts)
    weights = weights / jnp.sum(weights)
    mean = weights @ means
    centred = means - mean
    return Gaussian(mean, jnp.einsum("k,kij->ij", weights, covariances) + (centred.T * weights) @ centred)
