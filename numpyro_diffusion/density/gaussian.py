r"""Gaussians by their variances along orthonormal axes, and what products and mixtures of them are like.

With axes B, a mean m and variances v the covariance is C = B diag(v) B'. Noise leaves the axes alone,

.. math:: \alpha x + \sigma \varepsilon \sim N(\alpha m, B \, \mathrm{diag}(\alpha^2 v + \sigma^2) \, B'),

so a covariance is decomposed once, whatever the noise level. In a product precisions add; mixtures match two moments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from ..checks.numbers import check_held, constant, is_traced
from ..errors import ParameterError
from .axes import Axes, CosineAxes, DenseAxes


class Gaussian(NamedTuple):
    """A Gaussian of a flattened point: `mean` [d], and `variance` [d] along `axes`.

    Or K of them, stacked: [K, d], [K, d] and [K, d, d].
    """

    mean: Any
    variance: Any
    axes: Axes

    @classmethod
    def of(cls, mean, covariance) -> Gaussian:
        """Of a mean [d] and a covariance [d, d]; rounding takes no variance below 1e-12 of the largest."""
        variance, vectors = jnp.linalg.eigh(covariance)
        return cls(mean, jnp.maximum(variance, 1e-12 * jnp.max(variance)), DenseAxes(vectors))

    @classmethod
    def standard(cls, size: int) -> Gaussian:
        """N(0, I) in `size` dimensions."""
        return cls(jnp.zeros(size), jnp.ones(size), DenseAxes(jnp.eye(size)))

    @property
    def covariance(self) -> jax.Array:
        """[d, d]; along cosines for small d only."""
        return self.matrix_function(lambda variance: variance)

    def matrix_function(self, fn) -> jax.Array:
        """A function of the covariance, B diag(fn(v)) B' [d, d]: its square root for jnp.sqrt."""
        vectors = self.axes.vectors
        return (vectors * fn(self.variance)[..., None, :]) @ jnp.swapaxes(vectors, -1, -2)

    def noised(self, alpha, sigma) -> Gaussian:
        """Of alpha x + sigma eps."""
        return self._replace(mean=alpha * self.mean, variance=alpha**2 * self.variance + sigma**2)

    def at(self, noise) -> jax.Array:
        """The point [d] that standard normal noise [d] along the axes stands for."""
        return self.mean + self.axes.point(jnp.sqrt(self.variance) * noise)

    def sample(self, rng_key) -> jax.Array:
        """A draw [d]."""
        noise = jax.random.normal(rng_key, self.mean.shape)
        # Eigenvectors have no sign of their own, and what a key draws must not depend on it.
        return self.at(self.axes.coordinates(noise) if isinstance(self.axes, DenseAxes) else noise)

    def log_prob(self, x) -> jax.Array:
        """Log density at a point x [d]."""
        return log_normal(self.axes.coordinates(x - self.mean), self.variance)


def log_normal(z, variance) -> jax.Array:
    """Log density [...] of independent coordinates z [..., d] about zero."""
    return -0.5 * jnp.sum(z**2 / variance + jnp.log(2 * jnp.pi * variance), axis=-1)


def known_gaussians(means, covariances: np.ndarray) -> Gaussian:
    """K Gaussians of means [K, d], which may be traced, and known covariances [K, d, d].

    ParameterError unless these are symmetric positive definite, and all numbers floats of the moment.
    """
    if not np.allclose(covariances, covariances.transpose(0, 2, 1), rtol=1e-5, atol=1e-8):
        skew = np.max(np.abs(covariances - covariances.transpose(0, 2, 1)))
        raise ParameterError(f"covariances must be symmetric; got {skew:.3g} between C and C'. Give (C + C') / 2.")
    values, vectors = np.linalg.eigh(covariances)
    if values.size and not values.min() > 0:
        raise ParameterError(
            f"covariances must be positive definite; the smallest eigenvalue is {values.min():.3g}. Add a multiple of "
            "the identity."
        )
    check_held("eigenvalues of covariances", values, are_scales=True)
    if not is_traced(means):
        check_held("means", means)
        means = constant(means)
    return Gaussian(means, constant(values), DenseAxes(constant(vectors)))


def mixture_log_prob(components: Gaussian, log_weights, x) -> jax.Array:
    """Log density at a point x [d] of K stacked components with log weights [K], for K d^2 multiplications."""
    centre = jnp.mean(components.mean, axis=0)
    vectors = components.axes.vectors
    # One matrix product for all components: the means are rotated apart from the point.
    z = jnp.einsum("j,kji->ki", x - centre, vectors) - jnp.einsum("kj,kji->ki", components.mean - centre, vectors)
    return logsumexp(log_weights + log_normal(z, components.variance))


def mixture_moments(means, covariances, weights) -> Gaussian:
    """The Gaussian with the moments of a mixture: means [K, d], covariances [K, d, d], weights [K] of sum one."""
    mean = weights @ means
    centred = means - mean
    return Gaussian.of(mean, jnp.einsum("k,kij->ij", weights, covariances) + (centred.T * weights) @ centred)


def common_axes(gaussians: Sequence[Gaussian]) -> Axes | None:
    """The axes that all of them have, equal cosines or the very same array, or None."""
    (leaves, structure), *others = (jax.tree.flatten(gaussian.axes) for gaussian in gaussians)
    same = all(s == structure and all(a is b for a, b in zip(other, leaves, strict=True)) for other, s in others)
    return gaussians[0].axes if same else None


def _unzipped(parts):
    """The Gaussians, their means [k, d] and their coefficients [k]."""
    gaussians, coefficients = zip(*parts, strict=True)
    return gaussians, jnp.stack([g.mean for g in gaussians]), jnp.stack([jnp.asarray(c) for c in coefficients])


def limited(value):
    """What denominators remove, as a share: itself up to 1/2, then softly up to 3/4.

    Softly, because the frame must move continuously with t. At 1 there would be no precision left; 3/4 leaves a
    quarter, and so a standard deviation that is at most twice that of the numerator alone.
    """
    return jnp.where(value < 0.5, value, 0.5 + 0.25 * jnp.tanh((value - 0.5) / 0.25))


def kept_pull(value):
    """What is kept of the denominators in the mean: all where they remove up to 1/2, and none from 1 on.

    Where they are cut it is numerators that place the mean. Continuous, as the limit above: harmonic means of densities
    that are alike stay at 1/2, and chains move with the frame.
    """
    return jnp.clip(2 * (1 - value), 0.0, 1.0)


def _sum(coefficients, values):
    """Of values [k, ...] with coefficients [k]."""
    return jnp.einsum("k,k...->...", coefficients, values, precision="highest")


def gaussian_product(parts: Sequence[tuple[Gaussian, jax.Array]]) -> Gaussian:
    """Precisions add; those of denominators are subtracted up to 3/4 of what there is in any direction."""
    gaussians, means, exponents = _unzipped(parts)
    above = jnp.maximum(exponents, 0.0)
    if (axes := common_axes(gaussians)) is not None:
        means, precisions = jax.vmap(axes.coordinates)(means), 1 / jnp.stack([g.variance for g in gaussians])
        plus = _sum(above, precisions)
        value = _sum(above - exponents, precisions) / plus
        precision = plus * (1 - limited(value))
        above_pull, pull, kept = _sum(above, means * precisions), _sum(exponents, means * precisions), kept_pull(value)
        mean = ((1 - kept) * above_pull + kept * pull) / (plus * (1 - kept * value))
        return Gaussian(axes.point(mean), 1 / precision, axes)
    precisions = jnp.stack([g.matrix_function(jnp.reciprocal) for g in gaussians])
    pulls = jnp.einsum("kij,kj->ki", precisions, means)
    plus, minus = _sum(above, precisions), _sum(above - exponents, precisions)
    return quotient(plus, minus, _sum(above, pulls), _sum(exponents, pulls))


def quotient(plus, minus, pull_above, pull) -> Gaussian:
    """Of the precision `plus` - `minus` [d, d], cut, and what pulls its mean [d], numerators alone and everything."""
    root = Gaussian.of(pull, plus).matrix_function(jax.lax.rsqrt)
    value, vector = jnp.linalg.eigh(root @ minus @ root)
    scaled = root @ vector
    covariance = (scaled / (1 - limited(value))) @ scaled.T
    kept = kept_pull(jnp.max(value))
    mean = (scaled / (1 - kept * value)) @ scaled.T @ ((1 - kept) * pull_above + kept * pull)
    return Gaussian.of(mean, covariance)


def gaussian_mixture(parts: Sequence[tuple[Gaussian, jax.Array]]) -> Gaussian:
    """The mixture's own mean and covariance; along common axes its variances only."""
    gaussians, means, weights = _unzipped(parts)
    if len(gaussians) == 1:
        return gaussians[0]
    weights = weights / jnp.sum(weights)
    if not isinstance(axes := common_axes(gaussians), CosineAxes):
        return mixture_moments(means, jnp.stack([g.covariance for g in gaussians]), weights)
    means, variances = jax.vmap(axes.coordinates)(means), jnp.stack([g.variance for g in gaussians])
    mean = _sum(weights, means)
    return Gaussian(axes.point(mean), _sum(weights, variances + (means - mean) ** 2), axes)
