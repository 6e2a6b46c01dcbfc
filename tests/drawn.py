"""Arguments drawn at random, for the tests of the public API."""

import hypothesis.strategies as st
import jax
import numpy as np
from densities import COVARIANCES, MEANS, WEIGHTS
from hypothesis import settings
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import numpyro_diffusion as nd

KEY = jax.random.key(0)
TYPED = (nd.errors.DiffusionError, TypeError, ValueError)


def few(count):
    """A property over `count` examples, always the same ones."""
    return settings(max_examples=count, deadline=None, derandomize=True, database=None)


coordinates = st.floats(-3, 3)
points = st.tuples(coordinates, coordinates).map(np.array)
times = st.floats(0, 1)
weights = st.floats(0.05, 3.0)


def noised(x, t, means=MEANS, covariances=COVARIANCES, shares=WEIGHTS, sigma_max=100.0):
    """Log density of a Gaussian mixture at time t of the cosine schedule, in double precision."""
    alpha, sigma = np.cos(np.arctan(sigma_max) * t), np.sin(np.arctan(sigma_max) * t)
    terms = [
        multivariate_normal.logpdf(x, alpha * m, alpha**2 * c + sigma**2 * np.eye(2))
        for m, c in zip(means, covariances, strict=True)
    ]
    return logsumexp(np.array(terms).T, b=shares, axis=-1)


def typed(call):
    """The value of a call, or None where it raised an error that says something about the arguments."""
    try:
        return call()
    except np.linalg.LinAlgError:
        raise  # says nothing about the arguments
    except TYPED as error:
        assert str(error), "an error without a text"
        return None
