"""Gaussian approximations of compositions: where precisions add and mixtures match two moments."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from .density import Gaussian


def _stack(parts):
    means, covariances = (jnp.stack(column) for column in zip(*(gaussian for gaussian, _ in parts), strict=True))
    return means, covariances, jnp.stack([coefficient for _, coefficient in parts])


def gaussian_product(parts: Sequence[tuple[Gaussian, jax.Array]]) -> Gaussian:
    """Precisions add; those of denominators are subtracted up to 3/4 of what there is in any direction."""
    means, covariances, exponents = _stack(parts)
    precisions = jnp.linalg.inv(covariances)
    above = jnp.maximum(exponents, 0.0)
    plus = jnp.einsum("k,kij->ij", above, precisions)
    minus = jnp.einsum("k,kij->ij", above - exponents, precisions)
    root = jnp.linalg.cholesky(plus + 1e-12 * jnp.eye(len(plus)))
    inner = jax.scipy.linalg.solve_triangular(root, minus, lower=True)
    inner = jax.scipy.linalg.solve_triangular(root, inner.T, lower=True)
    value, vector = jnp.linalg.eigh((inner + inner.T) / 2)
    # Softly below 3/4: the frame must move continuously with t.
    removed = jnp.where(value < 0.5, value, 0.5 + 0.25 * jnp.tanh((value - 0.5) / 0.25))
    scaled = root @ vector
    covariance = jnp.linalg.inv((scaled * (1 - removed)) @ scaled.T)
    # Where a denominator was cut, its pull on the mean is cut as well: only numerators place the mean.
    exact = covariance @ jnp.einsum("k,kij,kj->i", exponents, precisions, means)
    above_only = jnp.linalg.solve(plus, jnp.einsum("k,kij,kj->i", above, precisions, means))
    mean = jnp.where(jnp.max(value) < 0.5, exact, above_only)
    return Gaussian(mean, (covariance + covariance.T) / 2)


def gaussian_mixture(parts: Sequence[tuple[Gaussian, jax.Array]]) -> Gaussian:
    """The mixture's own mean and covariance."""
    means, covariances, weights = _stack(parts)
    weights = weights / jnp.sum(weights)
    mean = weights @ means
    centred = means - mean
    return Gaussian(mean, jnp.einsum("k,kij->ij", weights, covariances) + (centred.T * weights) @ centred)
