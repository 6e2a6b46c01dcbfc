"""Posteriors whose likelihood is zero but on a small region: log evidence and moments by its share of the prior.

python benchmarks/posteriors/zeros.py [--seeds 10] [--only "half space"]
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import numpyro_diffusion as nd
from benchmarks.table import arguments, measure

NAME, DRAWS, SHARES = "zeros", 1_000_000, (0.05, 0.01, 0.001)
KINDS = {"box": 2, "half space": 8, "interval per coordinate": 8}
COLUMNS = ["log Z error", "|log Z error|", "its own error", "mean off", "evaluations", "pilot", "seconds"]
HEADER = """# Likelihoods that are zero nearly everywhere

`python benchmarks/posteriors/zeros.py`. Mean ± standard error over seeds; `nd.AnnealedMCMC(model)` by default, 1,000 chains. Priors: four modes in 2 or 8
dimensions, in closed form. The likelihood is 1 (an interval: its uniform density) on a region of the named share of the prior's mass and 0 elsewhere: a box about a draw, a
half space, or every coordinate's own interval about a draw. Truth: of a million draws of the prior those in the region.
log Z error: to the truth, in nats; its own error: the finite standard errors that runs report (an infinite one says that weights have no variance); mean off: largest error of a posterior mean, in
posterior standard deviations.
"""


@functools.cache
def prior(d: int):
    """Four modes, and a million draws."""
    means = np.random.default_rng(0).normal(size=(4, d)) * 2.0
    density = nd.exact.GaussianMixture(means, np.stack([0.5 * np.eye(d)] * 4))
    return density, np.asarray(density.sample(jax.random.key(1), DRAWS))


def on_a_box(density, centre, half):
    x = numpyro.sample("x", nd.DiffusionPrior(density))
    numpyro.factor("box", jnp.where(jnp.all(jnp.abs(x - centre) < half), 0.0, -jnp.inf))


def half_space(density, normal, bound):
    x = numpyro.sample("x", nd.DiffusionPrior(density))
    numpyro.factor("half", jnp.where(x @ normal > bound, 0.0, -jnp.inf))


def intervals(density, y, half):
    x = numpyro.sample("x", nd.DiffusionPrior(density))
    numpyro.sample("y", dist.Uniform(x - half, x + half), obs=y)


def problem(kind: str, share: float):
    """Model, its arguments after the density, which draws are inside, and the log likelihood there."""
    density, draws = prior(KINDS[kind])
    if kind == "half space":
        normal = np.ones(KINDS[kind]) / np.sqrt(KINDS[kind])
        along = draws @ normal
        bound = np.quantile(along, 1 - share)
        return half_space, (density, jnp.asarray(normal), bound), along > bound, 0.0
    away = np.max(np.abs(draws - draws[0]), axis=1)
    half = np.quantile(away, share)
    if kind == "box":
        return on_a_box, (density, jnp.asarray(draws[0]), half), away < half, 0.0
    return intervals, (density, jnp.asarray(draws[0]), half), away < half, -KINDS[kind] * np.log(2 * half)


def row(kind: str, share: float):
    """Function of the seed."""

    def compute(seed: int) -> dict:
        model, given, inside, log_likelihood = problem(kind, share)
        kept = prior(KINDS[kind])[1][inside]
        mcmc = nd.AnnealedMCMC(model, progress_bar=False)
        mcmc.run(jax.random.key(seed), *given)
        error = mcmc.log_evidence - np.log(inside.mean()) - log_likelihood
        x, own = np.asarray(mcmc.get_samples()["x"]), mcmc.log_evidence_error
        return {
            "log Z error": error, "|log Z error|": abs(error), **({"its own error": own} if np.isfinite(own) else {}),
            "mean off": np.max(np.abs(x.mean(axis=0) - kept.mean(axis=0)) / kept.std(axis=0)),
            "evaluations": mcmc.evaluations_per_chain, "pilot": mcmc.annealed.pilot_evaluations,
        }  # fmt: skip

    return compute


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=10)
    rows = [(f"{kind}, {100 * share:g} %", row(kind, share)) for kind in KINDS for share in SHARES]
    measure(NAME, options, rows, HEADER, COLUMNS)
