"""Do errors of posterior means and quantiles cover, for particles that share ancestors?

    python benchmarks/posteriors/particle_errors.py            # 200 seeds a row
    python benchmarks/posteriors/particle_errors.py --quick

Every row is one setting on a problem whose posterior is a mixture of Gaussians, known in closed form.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import jax
import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

import numpyro_diffusion as nd
from benchmarks.posteriors.coverage import _normal_density, mixture, product
from benchmarks.posteriors.linear_problem import exact_prior, log_evidence, posterior_weights, problem
from benchmarks.posteriors.posterior_gmm import model
from benchmarks.table import arguments, measure
from numpyro_diffusion.errors import DiagnosticWarning

CHAINS, PROBS = 400, (0.025, 0.25, 0.5, 0.9)
COLUMNS = ["mean covered", "quantiles covered", "squared off / error", "n_eff", "families", "by islands", "Z / truth"]
HEADER = f"""# Errors of particles

`python benchmarks/posteriors/particle_errors.py`: {CHAINS} chains, a new key per seed (and for `posterior` a new problem). Covered: share of 95 % intervals of `nd.expectation` (means of all coordinates) and `nd.quantile`
(probabilities {", ".join(map(str, PROBS))} of two coordinates) that hold the truth (asked: .90 to .99). `squared off / error`: mean square of (mean - truth) / error, 1 if errors are right in the mean; `n_eff`: effective number of draws of the means, by families, `families`
that of families. `by islands`: means covered by the error between islands, of Student's t with three degrees of freedom; `Z / truth`: evidence over the exact one. Products are of two mixtures of three Gaussians each; `posterior` is that of `posterior_gmm.py`, 25 modes."""


class Mixture:
    """A mixture of Gaussians as the truth: weights [K], means [K, d], variances of the coordinates [K, d]."""

    def __init__(self, weights, means, variances):
        self.weights, self.means, self.sd = weights / weights.sum(), np.asarray(means), np.sqrt(np.asarray(variances))

    @property
    def mean(self) -> np.ndarray:
        """Mean [d]."""
        return self.weights @ self.means

    def quantile(self, prob: float, i: int) -> float:
        """The quantile of coordinate i."""
        low, high = (self.means[:, i] - 12 * self.sd[:, i]).min(), (self.means[:, i] + 12 * self.sd[:, i]).max()
        return brentq(lambda q: self.weights @ ndtr((q - self.means[:, i]) / self.sd[:, i]) - prob, low, high)


@functools.cache
def product_truth(size: int) -> Mixture:
    """That of `coverage.product`."""
    parts = []
    for w, m, C in mixture(0, size):
        for v, n, D in mixture(1, size):
            spread = np.linalg.inv(np.linalg.inv(C) + np.linalg.inv(D))
            centre = spread @ (np.linalg.solve(C, m) + np.linalg.solve(D, n))
            parts.append((w * v * _normal_density(m - n, C + D), centre, np.diag(spread)))
    weights, means, variances = (np.array(a) for a in zip(*parts, strict=True))
    return Mixture(weights, means, variances)


@functools.cache
def posterior_truth(d: int, d_y: int, seed: int) -> Mixture:
    """That of `linear_problem.problem`."""
    p = problem(d, d_y, seed)
    gain = p.A.T @ np.linalg.inv(p.A @ p.A.T + p.sigma_y**2 * np.eye(d_y))
    variance = np.diag(np.eye(d) - gain @ p.A)
    means = p.means + (p.y - p.means @ p.A.T) @ gain.T
    return Mixture(posterior_weights(p), means, np.tile(variance, (len(means), 1)))


def figures(run, truth: Mixture, log_z: float) -> dict:
    """One seed's figures."""
    ratio = np.exp(run.log_evidence - log_z)
    x = nd.expectation(run)
    x = x["x"] if isinstance(x, dict) else x
    held = (x.lower <= truth.mean) & (truth.mean <= x.upper)
    quantiles = []
    for prob in PROBS:
        q = nd.quantile(run, prob)
        q = q["x"] if isinstance(q, dict) else q
        quantiles += [q.lower[i] <= truth.quantile(prob, i) <= q.upper[i] for i in range(2)]
    # Student's t with 3 degrees of freedom, of four islands.
    between = (
        np.mean(np.abs(x.value - truth.mean) <= 3.18 * x.island_error) if run.particles.island is not None else np.nan
    )
    return {
        "mean covered": held.mean(), "quantiles covered": np.mean(quantiles),
        "squared off / error": np.mean(((x.value - truth.mean) / x.error) ** 2), "n_eff": x.num_effective.mean(),
        "families": run.particles.num_effective, "by islands": between, "Z / truth": ratio,
    }  # fmt: skip


def annealed(size: int, kernel=None, **settings) -> Callable[[int], dict]:
    """A row of `nd.anneal` on a product."""
    settings = {"num_chains": CHAINS, "progress_bar": False} | settings

    def row(seed: int) -> dict:
        run = nd.anneal(jax.random.key(seed), product(size)[0], kernel or nd.HMC(), **settings)
        return figures(run, product_truth(size), product(size)[1])

    return row


def posterior(d_y: int, **settings) -> Callable[[int], dict]:
    """A row of `nd.AnnealedMCMC` on the linear problem of the seed in 8 dimensions."""
    settings = {"num_chains": CHAINS, "progress_bar": False} | settings

    def row(seed: int) -> dict:
        p = problem(8, d_y, seed)
        mcmc = nd.AnnealedMCMC(model, nd.HMC(), **settings)
        mcmc.run(jax.random.key(seed), exact_prior(8), *(jax.numpy.asarray(a, float) for a in (p.A, p.sigma_y, p.y)))
        return figures(mcmc, posterior_truth(8, d_y, seed), log_evidence(p))

    return row


def rows() -> list[tuple[str, Callable[[int], dict]]]:
    """Names and functions of all rows."""
    return [
        ("product, 2-d", annealed(2)),
        ("product, 2-d, 100 chains", annealed(2, num_chains=100)),
        ("product, 2-d, 12 levels", annealed(2, nd.HMC(0.5), levels=12)),
        ("product, 2-d, no resampling", annealed(2, resample_threshold=0.0)),
        ("product, 2-d, ULA", annealed(2, nd.ULA())),
        ("product, 2-d, 4 islands", annealed(2, num_islands=4)),
        ("product, 10-d", annealed(10)),
        ("product, 10-d, 12 levels", annealed(10, nd.HMC(0.5), levels=12)),
        ("posterior, d_y = 1", posterior(1)),
        ("posterior, d_y = 1, 1,000 chains", posterior(1, num_chains=1000)),
        ("posterior, d_y = 1, 60 chains", posterior(1, num_chains=60)),
        ("posterior, d_y = 1, 1,000 chains, 4 islands", posterior(1, num_chains=1000, num_islands=4)),
        ("posterior, d_y = 4", posterior(4)),
        ("posterior, d_y = 1, 5 draws a chain", posterior(1, num_samples=5)),
    ]


if __name__ == "__main__":
    warnings.simplefilter("ignore", DiagnosticWarning)
    options = arguments(__doc__ or "", seeds=200)
    if options.quick:
        options.seeds = 5
    measure("particle_errors", options, rows(), HEADER, COLUMNS)
