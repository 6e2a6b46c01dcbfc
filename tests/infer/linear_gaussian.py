"""A linear Gaussian model with its posterior in closed form, and draws compared with it."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from densities import COVARIANCE, MEAN, gaussian
from numpyro.diagnostics import effective_sample_size

import numpyro_diffusion as nd

A, SIGMA, Y = np.array([[1.0, 2.0]]), 0.3, np.array([1.7])
PRIOR = gaussian(MEAN, COVARIANCE)
LEVELS = 40


def model(y=None):
    x = numpyro.sample("x", nd.DiffusionPrior(PRIOR))
    numpyro.deterministic("total", x.sum())
    numpyro.sample("y", dist.Normal(jnp.asarray(A) @ x, SIGMA).to_event(1), obs=y)


def exact(y):
    """Mean and covariance of x given y, and log p(y)."""
    marginal = A @ COVARIANCE @ A.T + SIGMA**2 * np.eye(len(A))
    gain = COVARIANCE @ A.T @ np.linalg.inv(marginal)
    residual = y - A @ MEAN
    log_evidence = -0.5 * (residual @ np.linalg.solve(marginal, residual) + np.linalg.slogdet(2 * np.pi * marginal)[1])
    return SimpleNamespace(
        mean=MEAN + gain @ residual, covariance=COVARIANCE - gain @ A @ COVARIANCE, log_evidence=log_evidence
    )


def assert_mean(draws, expected, num_sigma=5):
    """The mean of draws [chains, draws] is the expected one, to `num_sigma` standard errors by effective size."""
    draws = np.asarray(draws, dtype=float)
    size = effective_sample_size(draws)
    assert size > 30
    error = draws.std() / np.sqrt(size)
    assert abs(draws.mean() - expected) < num_sigma * error, (draws.mean(), expected, error)


def assert_posterior(x, posterior):
    """First and second moments of draws [chains, draws, 2]."""
    centred = np.asarray(x) - posterior.mean
    for i in range(2):
        assert_mean(x[..., i], posterior.mean[i])
        for j in range(i + 1):
            assert_mean(centred[..., i] * centred[..., j], posterior.covariance[i, j])
