"""An unknown noise scale: how much mass a posterior has below quantiles of the exact one, by settings.

    python benchmarks/posteriors/noise_scale.py [--seeds 60] [--only default]

The model is the closed form of `sbc.py`. Given sigma its evidence is a mixture of Gaussians, so that the marginal
posterior of sigma is an integral over one dimension.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp
from scipy.stats import halfnorm, multivariate_normal

import numpyro_diffusion as nd
from benchmarks.posteriors.digits_problem import SIGMA_SCALE
from benchmarks.posteriors.sbc import A_CLOSED, closed_form, mixture_prior
from benchmarks.table import arguments, measure

NAME, PROBABILITIES, GRID = "noise_scale", (0.02, 0.05, 0.1, 0.5, 0.9, 0.95), np.linspace(-14.0, 2.0, 3000)
SETTINGS = {
    "default": {},
    "accuracy=0.03": {"accuracy": 0.03},
    "level_ess=0.97": {"level_ess": 0.97},
    "level_ess=0.99, num_steps=4": {"level_ess": 0.99, "num_steps": 4},
    "3,000 chains": {"num_chains": 3000},
}
COLUMNS = [
    *(f"below {p:g}" for p in PROBABILITIES), "log Z error", "|log Z error|", "its own error", "evaluations", "pilot",
    "seconds",
]  # fmt: skip
HEADER = """# An unknown noise scale

`python benchmarks/posteriors/noise_scale.py`. Two linear measurements of a mixture of three Gaussians in 4 dimensions, noise sigma ~ HalfNormal(0.3): the closed form of `sbc.py`. Mean ± standard error over seeds, each a draw
of the model; 1,000 chains of `nd.AnnealedMCMC(model)` unless the row says otherwise. below p: the share of draws of sigma below its exact posterior's quantile p, which would be p. log Z error: to the truth, in nats; its own error: that which runs report.
"""


@functools.cache
def runner(setting: str):
    return nd.AnnealedMCMC(closed_form, progress_bar=False, **SETTINGS[setting])


def exact(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Values of sigma, its posterior distribution function there, and log p(y)."""
    sigma, prior = SIGMA_SCALE * np.exp(GRID), mixture_prior()
    log_joint = halfnorm.logpdf(sigma, scale=SIGMA_SCALE) + np.log(sigma)
    covariances = jax.vmap(lambda part: part.covariance)(prior.components)
    by_part = prior.log_weights, prior.components.mean, covariances
    of_parts = [
        [log_weight + _normal(y, A_CLOSED @ mean, A_CLOSED @ covariance @ A_CLOSED.T, s) for s in sigma]
        for log_weight, mean, covariance in zip(*map(np.asarray, by_part), strict=True)
    ]
    log_joint = log_joint + logsumexp(of_parts, axis=0)
    total = logsumexp(log_joint)
    return sigma, np.cumsum(np.exp(log_joint - total)), float(total + np.log(GRID[1] - GRID[0]))


def _normal(y, mean, covariance, sigma) -> float:
    return multivariate_normal(mean, covariance + sigma**2 * np.eye(len(mean))).logpdf(y)


def row(setting: str, seed: int) -> dict:
    """One draw of the model, and the posterior of its data."""
    rng = np.random.default_rng(seed)
    x = np.asarray(mixture_prior().sample(jax.random.key(1000 + seed), 1))[0]
    y = A_CLOSED @ x + abs(rng.normal()) * SIGMA_SCALE * rng.normal(size=2)
    sigma, distribution, log_evidence = exact(y)
    prior, A = nd.DiffusionPrior(mixture_prior()), jnp.asarray(A_CLOSED, dtype=float)
    mcmc = runner(setting)
    mcmc.run(jax.random.key(seed), prior, A, None, jnp.asarray(y, dtype=float))
    drawn = np.asarray(mcmc.get_samples()["sigma"])
    error = mcmc.log_evidence - log_evidence
    below = {f"below {p:g}": np.mean(drawn < np.interp(p, distribution, sigma)) for p in PROBABILITIES}
    return below | {
        "log Z error": error, "|log Z error|": abs(error), "its own error": mcmc.log_evidence_error,
        "evaluations": mcmc.evaluations_per_chain, "pilot": mcmc.annealed.pilot_evaluations,
    }  # fmt: skip


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=60)
    measure(NAME, options, [(setting, functools.partial(row, setting)) for setting in SETTINGS], HEADER, COLUMNS)
