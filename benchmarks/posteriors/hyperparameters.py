"""Priors of unknown location and scale, and discrete latents: evidence and posterior means against quadrature.

    python benchmarks/posteriors/hyperparameters.py [--quick] [--seeds 20] [--only outliers]

"outliers" needs the extra `enumerate`.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions.transforms import AffineTransform
from scipy.special import expit, logsumexp
from scipy.stats import norm

import numpyro_diffusion as nd
from benchmarks.table import arguments, measure

HEADER = """# Latent hyperparameters and discrete latents

`python benchmarks/posteriors/hyperparameters.py`. A mixture of two points in one dimension as prior. "location and scale": each of n data is a point of it, scaled and shifted by two latents, with noise 0.3. "outliers": a
discrete latent for each of four data says whether it is near the one point or near 3, with an unknown share. 1,000 chains, nothing set. log Z error: found less exact. z: errors of posterior means over
their standard deviation at 100 independent draws.
"""
WEIGHTS, MODES, VARIANCE = (0.3, 0.7), (-1.0, 1.0), 0.1
PRIOR = nd.exact.GaussianMixture(np.array(MODES)[:, None], np.full((2, 1, 1), VARIANCE), WEIGHTS)


def located(y):
    """Points of the prior at an unknown place, of unknown size."""
    loc, scale = numpyro.sample("loc", dist.Normal()), numpyro.sample("scale", dist.HalfNormal())
    prior = dist.TransformedDistribution(nd.DiffusionPrior(PRIOR), AffineTransform(loc, scale))
    with numpyro.plate("n", len(y)):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x[:, 0], 0.3), obs=y)


def outliers(y):
    """Data near one point of the prior, or near 3."""
    x, share = numpyro.sample("x", nd.DiffusionPrior(PRIOR)), numpyro.sample("share", dist.Beta(2.0, 2.0))
    with numpyro.plate("n", len(y)):
        is_outlier = numpyro.sample("is_outlier", dist.Bernoulli(share), infer={"enumerate": "parallel"})
        numpyro.sample("y", dist.Normal(jnp.where(is_outlier, 3.0, x[0]), 0.4), obs=y)


def exact_located(y):
    """Log evidence, and by name the posterior mean and standard deviation."""
    loc, scale = np.meshgrid(np.linspace(-4, 4, 401), np.linspace(1e-3, 5, 800), indexing="ij")
    log_p, spread = norm.logpdf(loc) + np.log(2) + norm.logpdf(scale), np.sqrt(VARIANCE * scale**2 + 0.09)
    for point in y:
        parts = [np.log(w) + norm.logpdf(point, loc + scale * m, spread) for w, m in zip(WEIGHTS, MODES, strict=True)]
        log_p += logsumexp(parts, axis=0)
    return summed(log_p, {"loc": loc, "scale": scale}, (8 / 400) * (5 - 1e-3) / 799)


def exact_outliers(y):
    """Log evidence, and by name the posterior mean and standard deviation."""
    x, logit = np.meshgrid(np.linspace(-3, 3, 601), np.linspace(-8, 8, 601), indexing="ij")
    share, std = expit(logit), np.sqrt(VARIANCE)
    log_p = logsumexp([np.log(w) + norm.logpdf(x, m, std) for w, m in zip(WEIGHTS, MODES, strict=True)], axis=0)
    log_p += np.log(6) + 2 * np.log(share) + 2 * np.log1p(-share)
    for point in y:
        near, far = norm.logpdf(point, x, 0.4) + np.log1p(-share), norm.logpdf(point, 3, 0.4) + np.log(share)
        log_p += np.logaddexp(near, far)
    return summed(log_p, {"x": x, "share": share}, (6 / 600) * (16 / 600))


def summed(log_p, values, cell):
    """Of a log density on a grid of cells of that size."""
    share = np.exp(log_p - logsumexp(log_p))
    means = {name: np.sum(share * value) for name, value in values.items()}
    stds = {name: np.sqrt(np.sum(share * (value - means[name]) ** 2)) for name, value in values.items()}
    return logsumexp(log_p) + np.log(cell), means, stds


def points(count: int) -> np.ndarray:
    """Data of `located` at location 0.5 and scale 0.8."""
    draws = np.asarray(PRIOR.sample(jax.random.key(7), count))[:, 0]
    return 0.5 + 0.8 * draws + 0.3 * np.random.default_rng(7).standard_normal(count)


def row(seed: int, model, exact, y) -> dict:
    """One run."""
    mcmc = nd.AnnealedMCMC(model, progress_bar=False)
    mcmc.run(jax.random.key(seed), jnp.asarray(y))
    evidence, means, stds = exact(y)
    found = {name: float(np.mean(np.asarray(mcmc.get_samples()[name]))) for name in means}
    z = {f"z of {i}": 10 * (found[name] - means[name]) / stds[name] for i, name in enumerate(means)}
    error = mcmc.log_evidence - evidence
    return {
        "evaluations": mcmc.evaluations_per_chain, "log Z error": error, "its size": abs(error),
        "as reported": mcmc.log_evidence_error, **z,
    }  # fmt: skip


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=20)
    rows = [
        ("location and scale, 4 data", functools.partial(row, model=located, exact=exact_located, y=points(4))),
        ("location and scale, 30 data", functools.partial(row, model=located, exact=exact_located, y=points(30))),
        ("outliers", functools.partial(row, model=outliers, exact=exact_outliers, y=np.array([-0.5, 3.6, 0.9, 2.8]))),
    ]
    columns = ["evaluations", "log Z error", "its size", "as reported", "z of 0", "z of 1", "seconds"]
    measure("hyperparameters", options, rows, HEADER, columns)
