r"""Linear inverse problems under a mixture prior: everything about them that is known in closed form.

.. math::
    p(x) = \sum_{i,j=-2}^{2} w_{ij} N(x; m_{ij}, I), \quad m_{ij} = (8i, 8j, 8i, 8j, \dots) \in R^d, \qquad
    y = A x + \sigma_y \varepsilon \in R^{d_y}

with w ~ chi-squared(1), normalised; A = U S V' of a Gaussian matrix with its singular values replaced by U(0, 1) draws;
sigma_y = u max(S), u ~ U(0, 1); and y made from a draw of the prior (Cardoso et al. 2023, arXiv:2308.07983; the values
are those of their public script). The weights depend on d only, so that one trained prior serves all problems of that
dimension; A, sigma_y and y change with the seed.

The posterior is a mixture with weights proportional to w_k N(y; A m_k, S_y), S_y = A A' + sigma_y^2 I, whose sum is the
evidence p(y). Exact draws come from draws (x0, y0) of component k by x = x0 + A' S_y^{-1} (y - y0), without any [d, d] matrix.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

import numpyro_diffusion as nd
from numpyro_diffusion.diagnose.metrics import mode_weight_tv, sliced_wasserstein2

DRAWS, REFERENCE, FLOOR_DRAWS = 1000, 20_000, 10
SCHEDULE = nd.VariancePreserving.cosine(sigma_max=1000.0)
SIGMA_SCALE = 1.0  # of the half-normal prior of an unknown noise scale
SIGMAS = np.geomspace(1e-5, 10.0, 8000)  # quadrature for it


class Problem(NamedTuple):
    """Arrays of one problem: prior means [K, d] and log weights [K], A [d_y, d], sigma_y and y [d_y]."""

    means: np.ndarray
    log_weights: np.ndarray
    A: np.ndarray
    sigma_y: float
    y: np.ndarray


def prior_parameters(d: int) -> tuple[np.ndarray, np.ndarray]:
    """Means [25, d] and log weights [25] of the prior."""
    grid = 8.0 * np.arange(-2, 3)
    means = np.array([np.tile([a, b], d // 2) for a in grid for b in grid])
    weights = np.random.default_rng(d).chisquare(1, len(means))
    return means, np.log(weights / weights.sum())


def _log_prior(parameters, x, t):
    means, log_weights = parameters
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    variance = alpha**2 + sigma**2
    squared = jnp.sum((x - alpha * means) ** 2, -1)
    return logsumexp(log_weights - 0.5 * squared / variance) - 0.5 * x.size * jnp.log(2 * jnp.pi * variance)


@functools.cache
def exact_prior(d: int) -> nd.Density:
    """The prior at every noise level; its parameters are leaves, and the unit covariances cost no [d, d] products."""
    means, log_weights = prior_parameters(d)
    weights = np.exp(log_weights)
    mean = weights @ means
    covariance = np.eye(d) + (means.T * weights) @ means - np.outer(mean, mean)
    parameters = (jnp.asarray(means, dtype=float), jnp.asarray(log_weights, dtype=float))
    return nd.as_density(_log_prior, (d,), SCHEDULE, parameters=parameters, mean=mean, covariance=covariance,
                         normalised=True, name=f"mixture{d}")  # fmt: skip


def draw_prior(rng, means, log_weights, count: int) -> np.ndarray:
    """Exact draws [count, d] of the prior."""
    k = rng.choice(len(means), count, p=np.exp(log_weights))
    return means[k] + rng.standard_normal((count, means.shape[1]))


@functools.cache
def problem(d: int, d_y: int, seed: int) -> Problem:
    """The problem of a seed."""
    means, log_weights = prior_parameters(d)
    rng = np.random.default_rng([d, d_y, seed])
    u, _, vt = np.linalg.svd(rng.standard_normal((d_y, d)), full_matrices=False)
    singular = np.sort(rng.uniform(size=d_y))[::-1]
    A = (u * singular) @ vt
    sigma_y = float(rng.uniform() * singular[0])
    x = draw_prior(rng, means, log_weights, 1)[0]
    return Problem(means, log_weights, A, sigma_y, A @ x + sigma_y * rng.standard_normal(d_y))


def component_log_evidence(p: Problem, sigma) -> np.ndarray:
    """log w_k + log N(y; A m_k, A A' + sigma^2 I) [*sigma.shape, K]."""
    u, singular, _ = np.linalg.svd(p.A, full_matrices=False)
    residual = (p.y - p.means @ p.A.T) @ u
    variance = singular**2 + np.asarray(sigma)[..., None] ** 2
    log_det = np.sum(np.log(2 * np.pi * variance), -1)
    return p.log_weights - 0.5 * (residual**2 @ np.moveaxis(1 / variance, -1, 0)).T - 0.5 * log_det[..., None]


def _log_sum(a, axis=-1):
    top = a.max(axis, keepdims=True)
    return np.log(np.sum(np.exp(a - top), axis)) + np.squeeze(top, axis)


def log_evidence(p: Problem) -> float:
    """log p(y) at the true noise scale."""
    return float(_log_sum(component_log_evidence(p, p.sigma_y)))


def posterior_weights(p: Problem) -> np.ndarray:
    """Posterior probabilities [K] of the modes; they lie 16 or more standard deviations apart, so the nearest is the one."""
    log_w = component_log_evidence(p, p.sigma_y)
    return np.exp(log_w - _log_sum(log_w))


def draw_posterior(rng, p: Problem, count: int, sigma=None) -> np.ndarray:
    """Exact draws [count, d] of x given y and sigma, a number or [count]; the true one by default."""
    sigma = np.full(count, p.sigma_y) if sigma is None else sigma
    log_w = component_log_evidence(p, sigma)
    k = np.argmax(log_w + rng.gumbel(size=log_w.shape), axis=-1)
    x = p.means[k] + rng.standard_normal((count, p.means.shape[1]))
    u, singular, vt = np.linalg.svd(p.A, full_matrices=False)
    gap = (p.y - x @ p.A.T - sigma[:, None] * rng.standard_normal((count, len(p.y)))) @ u
    return x + (gap * singular / (singular**2 + sigma[:, None] ** 2)) @ vt


@functools.cache
def _sigma_posterior(d: int, d_y: int, seed: int) -> tuple[np.ndarray, float]:
    """Distribution function of sigma on the grid `SIGMAS`, and log evidence, by trapezoids in log sigma."""
    p = problem(d, d_y, seed)
    prior = 0.5 * np.log(2 / np.pi) - np.log(SIGMA_SCALE) - 0.5 * (SIGMAS / SIGMA_SCALE) ** 2
    log_f = _log_sum(component_log_evidence(p, SIGMAS)) + prior + np.log(SIGMAS)
    f = np.exp(log_f - log_f.max())
    steps = 0.5 * (f[1:] + f[:-1]) * np.diff(np.log(SIGMAS))
    cdf = np.concatenate([[0.0], np.cumsum(steps)])
    # Two resolutions, and what lies beyond the grid: f falls with sigma below it, and faster above.
    coarse = 0.5 * np.sum((f[2::2] + f[:-2:2]) * np.diff(np.log(SIGMAS[::2])))
    outside = f[0] + f[-1] + abs(coarse / cdf[-2] - 1) * cdf[-1]
    if outside > 1e-3 * cdf[-1]:
        raise RuntimeError(f"the evidence is known to {outside / cdf[-1]:.2g} nats only; refine or widen SIGMAS.")
    return cdf / cdf[-1], float(np.log(cdf[-1]) + log_f.max())


def draw_joint(rng, d: int, d_y: int, seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact draws of (x [count, d], sigma [count]) where sigma ~ HalfNormal is unknown too."""
    cdf, _ = _sigma_posterior(d, d_y, seed)
    sigma = np.exp(np.interp(rng.uniform(size=count), cdf, np.log(SIGMAS)))
    return draw_posterior(rng, problem(d, d_y, seed), count, sigma), sigma


@functools.cache
def _reference(d: int, d_y: int, seed: int) -> tuple[np.ndarray, float]:
    """A large exact posterior sample, and the mean sliced W2 of independent exact draws to it."""
    p, rng = problem(d, d_y, seed), np.random.default_rng([1, d, d_y, seed])
    truth = draw_posterior(rng, p, REFERENCE)
    draws = [draw_posterior(rng, p, DRAWS) for _ in range(FLOOR_DRAWS)]
    return truth, float(np.mean([sliced_wasserstein2(x, truth) for x in draws]))


def figures(x, d: int, d_y: int, seed: int, log_z: float | None = None) -> dict:
    """W2, its ratio to the noise floor, TV, and the error of a log evidence, of DRAWS samples x [DRAWS, d].

    And the squared error of their mean, DRAWS |mean - truth|^2 / tr(covariance): 1 in the mean for exact draws.
    Samples that are not finite are replaced by draws of the prior, as if y had not been seen.
    """
    p = problem(d, d_y, seed)
    x, truth_and_floor = np.asarray(x, dtype=np.float64), _reference(d, d_y, seed)
    finite = np.all(np.isfinite(x), -1)
    x = np.where(finite[:, None], x, draw_prior(np.random.default_rng(seed), p.means, p.log_weights, len(x)))
    w2 = sliced_wasserstein2(x, truth_and_floor[0])
    error = {} if log_z is None else {"log Z error": float(log_z) - log_evidence(p)}
    tv = mode_weight_tv(x, p.means, posterior_weights(p))
    lost = {"non-finite": 1 - finite.mean()}
    truth = truth_and_floor[0]
    squared = len(x) * np.sum((x.mean(0) - truth.mean(0)) ** 2) / truth.var(0).sum()
    return {"W2": w2, "W2 / floor": w2 / truth_and_floor[1], "TV": tv, "mean": squared} | error | lost


@functools.cache
def _joint_reference(d: int, d_y: int, seed: int):
    """(centre, scale, standardised large exact sample, mean sliced W2 of independent exact draws to it)."""
    rng = np.random.default_rng([2, d, d_y, seed])

    def draw(count):
        x, sigma = draw_joint(rng, d, d_y, seed, count)
        return np.column_stack([x, np.log(sigma)])

    truth = draw(REFERENCE)
    centre, scale = truth.mean(0), truth.std(0)
    floor = [sliced_wasserstein2((draw(DRAWS) - centre) / scale, (truth - centre) / scale) for _ in range(FLOOR_DRAWS)]
    return centre, scale, (truth - centre) / scale, float(np.mean(floor))


def joint_figures(x, sigma, d: int, d_y: int, seed: int, log_z: float | None = None) -> dict:
    """As `figures`, of (x, log sigma) standardised by the truth's moments, with the Kolmogorov-Smirnov distance of sigma."""
    p = problem(d, d_y, seed)
    x, sigma = np.asarray(x, dtype=np.float64), np.asarray(sigma, dtype=np.float64)
    centre, scale, truth, floor = _joint_reference(d, d_y, seed)
    cdf, evidence = _sigma_posterior(d, d_y, seed)
    w2 = sliced_wasserstein2((np.column_stack([x, np.log(sigma)]) - centre) / scale, truth)
    at = np.interp(np.log(np.sort(sigma)), np.log(SIGMAS), cdf)
    ranks = np.arange(len(sigma) + 1) / len(sigma)
    ks = max(np.max(ranks[1:] - at), np.max(at - ranks[:-1]))
    log_w = _log_sum(component_log_evidence(p, SIGMAS)[:, None, :], -1)[:, 0]
    weights = np.exp(component_log_evidence(p, SIGMAS) - log_w[:, None])
    weights = np.sum(0.5 * (weights[1:] + weights[:-1]) * np.diff(cdf)[:, None], 0)
    error = {} if log_z is None else {"log Z error": float(log_z) - evidence}
    return {"W2": w2, "W2 / floor": w2 / floor, "TV": mode_weight_tv(x, p.means, weights), "KS of sigma": ks} | error


def draw_prior_jax(rng_key, num_samples: int, d: int) -> jax.Array:
    """Draws of the prior for training, inside jit."""
    means, log_weights = prior_parameters(d)
    which, noise = jax.random.split(rng_key)
    k = jax.random.categorical(which, jnp.asarray(log_weights), shape=(num_samples,))
    return jnp.asarray(means)[k] + jax.random.normal(noise, (num_samples, d))
