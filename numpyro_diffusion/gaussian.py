"""Gaussian approximations of compositions: where precisions add and mixtures match two moments."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .density import Gaussian


def gaussian_product(parts):
    """Precisions add; those of denominators are subtracted up to 3/4 of what there is in any direction."""
    precision = [(jnp.linalg.inv(g.covariance), g.mean, c) for g, c in parts]
    plus = sum(jnp.maximum(c, 0.0) * p for p, _, c in precision)
    minus = sum(jnp.maximum(-c, 0.0) * p for p, _, c in precision)
    d = plus.shape[0]
    root = jnp.linalg.cholesky(plus + 1e-12 * jnp.eye(d))
    inner = jax.scipy.linalg.solve_triangular(root, minus, lower=True)
    inner = jax.scipy.linalg.solve_triangular(root, inner.T, lower=True)
    value, vector = jnp.linalg.eigh((inner + inner.T) / 2)
    # Softly below 3/4: the frame must move continuously with t.
    kept = jnp.where(value < 0.5, value, 0.5 + 0.25 * jnp.tanh((value - 0.5) / 0.25))
    scaled = root @ vector
    total = (scaled * (1 - kept)) @ scaled.T
    covariance = jnp.linalg.inv(total)
    # Where a denominator was cut, its pull on the mean is cut as well: only numerators place the mean.
    mean = jnp.linalg.solve(plus, sum(jnp.maximum(c, 0.0) * p @ m for p, m, c in precision))
    exact = covariance @ sum(c * p @ m for p, m, c in precision)
    mean = jnp.where(jnp.max(value) < 0.5, exact, mean)
    return Gaussian(mean, (covariance + covariance.T) / 2)


def gaussian_mixture(parts):
    weights = jnp.stack([c for _, c in parts])
    weights = weights / jnp.sum(weights)
    mean = sum(w * g.mean for w, (g, _) in zip(weights, parts, strict=True))
    covariance = sum(
        w * (g.covariance + jnp.outer(g.mean - mean, g.mean - mean)) for w, (g, _) in zip(weights, parts, strict=True)
    )
    return Gaussian(mean, covariance)
