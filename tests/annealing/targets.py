"""Targets of kernels in closed form, chains that move on them, and the moments that are compared."""

import jax
import numpy as np

from numpyro_diffusion.annealing.kernels import init
from numpyro_diffusion.density.exact import GaussianMixture

D = 3


def _anisotropic():
    """N(m, diag(1, 4, 9)), as three equal components so that both targets share every compiled program."""
    covariance = np.diag([1.0, 4.0, 9.0])
    return GaussianMixture(np.tile([0.5, -1.0, 2.0], (3, 1)), np.tile(covariance, (3, 1, 1)))


def _skewed():
    """Unequal weights, places and shapes: third moments, which no Gaussian has."""
    means = [[-1.0, 0.0, 0.5], [1.5, 1.0, -0.5], [0.5, 3.0, 1.0]]
    turned = [[1.0, 0.5, 0.0], [0.5, 0.7, 0.0], [0.0, 0.0, 0.4]]
    covariances = [np.diag([0.5, 1.0, 1.5]), turned, np.diag([1.2, 0.4, 0.8])]
    return GaussianMixture(means, covariances, [0.6, 0.3, 0.1])


TARGETS = {"anisotropic": _anisotropic(), "skewed": _skewed()}


def run_kernel(log_prob, kernel, rng_key, x, step_size, num_steps):
    """Chains from x [N, d]: final states, mean acceptance rate, divergences per chain and log weight per chain."""

    def one(key, x):
        push_key, move_key = jax.random.split(key)
        state = init(x, jax.random.normal(push_key, x.shape), log_prob)
        step = lambda s, k: kernel.step(k, s, log_prob, step_size)
        state, info = jax.lax.scan(step, state, jax.random.split(move_key, num_steps))
        return state, info.acceptance_rate.mean(), info.is_divergent.sum(), info.log_weight.sum()

    state, rate, diverged, log_weight = jax.vmap(one)(jax.random.split(rng_key, len(x)), x)
    return state, rate.mean(), diverged, log_weight


def features(x):
    """First, second and third moments of points [N, d], as columns."""
    i, j = np.triu_indices(D)
    a, b, c = np.array([(a, b, c) for a in range(D) for b in range(a, D) for c in range(b, D)]).T
    x = np.asarray(x, dtype=np.float64)
    return np.concatenate([x, x[:, i] * x[:, j], x[:, a] * x[:, b] * x[:, c]], axis=1)
