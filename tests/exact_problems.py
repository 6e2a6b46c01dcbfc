"""Densities whose integral and moments are known, and annealed runs of them, for the tests of `anneal`.

Annealed chains that were resampled share ancestors. A run reports that through the standard error of its log
evidence, e^2 = share - 1 / N with `share` the sum of squared family weights, so 1 / share counts independent chains and
moments are compared at se = sd sqrt(e^2 + 1 / N). All comparisons are at 5 sigma, with fixed keys.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_diffusion.annealing.anneal import anneal
from numpyro_diffusion.density.exact import GaussianMixture
from numpyro_diffusion.density.schedule import VariancePreserving

# One number of chains and one number of components for all: what has been compiled once serves the next test.
NUM_CHAINS = 2000
LEVELS = np.array([1.0, 0.95, 0.9, 0.8, 0.65, 0.5, 0.35, 0.2, 0.1, 0.0])
SCHEDULE = VariancePreserving.cosine()


def sample(density, kernel, seed=0, **settings):
    settings = {"num_chains": NUM_CHAINS, "progress_bar": False} | settings
    return anneal(jax.random.key(seed), density, kernel, **settings)


@dataclasses.dataclass
class Problem:
    """A density at t = 0 with its integral and moments in closed form (or by quadrature)."""

    density: object
    log_z: float
    mean: np.ndarray
    second: np.ndarray


def mixture(seed, d, spread=1.3):
    """Three components with random places, shapes and weights."""
    draw = np.random.default_rng(seed)
    root = 0.25 * draw.normal(size=(3, d, d))
    covariances = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(d)
    return GaussianMixture(spread * draw.normal(size=(3, d)), covariances, draw.uniform(0.5, 1.5, 3), SCHEDULE)


def gaussian(mean, covariance):
    """One Gaussian, written as three equal components."""
    return GaussianMixture(np.tile(mean, (3, 1)), np.tile(covariance, (3, 1, 1)), None, SCHEDULE)


def components(density):
    weights = np.exp(np.asarray(density.log_weights, np.float64))
    values, vectors = np.asarray(density.eigenvalues, np.float64), np.asarray(density.eigenvectors, np.float64)
    covariances = np.einsum("kij,kj,klj->kil", vectors, values, vectors)
    return list(zip(weights, np.asarray(density.means, np.float64), covariances, strict=True))


def of_components(density, parts):
    """Problem of an unnormalised Gaussian mixture, parts = [(mass, mean, covariance)]."""
    z = sum(w for w, _, _ in parts)
    mean = sum(w * m for w, m, _ in parts) / z
    second = sum(w * (C + np.outer(m, m)) for w, m, C in parts) / z
    return Problem(density, np.log(z), mean, second)


def of_product(p, q):
    """N(m, C) N(n, D) = N(m; n, C + D) N(mean, S), S^-1 = C^-1 + D^-1, mean = S (C^-1 m + D^-1 n)."""
    parts = []
    for w, m, C in components(p):
        for v, n, D in components(q):
            gap, total = m - n, C + D
            log_mass = -0.5 * gap @ np.linalg.solve(total, gap) - 0.5 * np.linalg.slogdet(2 * np.pi * total)[1]
            S = np.linalg.inv(np.linalg.inv(C) + np.linalg.inv(D))
            mean = S @ (np.linalg.solve(C, m) + np.linalg.solve(D, n))
            parts.append((w * v * np.exp(log_mass), mean, S))
    return of_components(p * q, parts)


def of_quadrature(density):
    axis = np.linspace(-7, 7, 801)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    weight = np.exp(np.asarray(jax.jit(density.log_prob)(jnp.asarray(grid, jnp.float32)), np.float64))
    z = weight.sum() * (axis[1] - axis[0]) ** 2
    weight /= weight.sum()
    return Problem(density, np.log(z), weight @ grid, (grid * weight[:, None]).T @ grid)


P2, Q2 = mixture(0, 2), mixture(1, 2)


def assert_moments(samples, problem, error, log_weights=None, allowance=0.0):
    """First and second moments within 5 standard errors; weights are self-normalised."""
    x = np.asarray(samples, np.float64)
    w = np.ones(len(x)) if log_weights is None else np.exp(np.asarray(log_weights, np.float64) - np.max(log_weights))
    w /= w.sum()
    i, j = np.triu_indices(x.shape[1])
    for values, truth in [(x, problem.mean), (x[:, i] * x[:, j], problem.second[i, j])]:
        mean = w @ values
        sd = np.sqrt(w @ (values - mean) ** 2)
        assert np.all(np.abs(mean - truth) < 5 * sd * np.sqrt(error**2 + 1 / len(x)) + allowance), (mean, truth)
