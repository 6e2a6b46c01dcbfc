"""BDMC and RAISE on ten closed-form problems: does the sandwich hold, and how thick is it?

    python benchmarks/posteriors/bounds.py [--quick]      # 20 seeds; one with --quick

For every problem log Z and exact draws are known. A seed brackets if lower - 4 se <= log Z <= upper + 4 se. RAISE must not exceed the
true mean log likelihood of the same test points by more than 4 se.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from scipy.stats import multivariate_normal

import numpyro_diffusion as nd
from benchmarks.paper.gmm_products import draw_product, problem, rejection
from benchmarks.table import arguments, measure
from numpyro_diffusion.datasets import planar, targets

#: Nats to which single precision sums log densities; the weights of Gaussian problems are constant beyond that.
FLOAT32 = 1e-3
COLUMNS = ["log Z", "lower", "upper", "gap", "brackets", "RAISE", "true mean log p", "RAISE below", "seconds"]
HEADER = """# Bounds on closed-form problems

`python benchmarks/posteriors/bounds.py`. BDMC with 1,000 chains each way and default effort; `brackets`: share of seeds with lower - 4 se <= log Z <= upper +
4 se; RAISE of 100 exact draws, 4 paths each, beside their true mean log density; `RAISE below`: share of seeds where it is not above by more than 4 se.
"""


class Problem(NamedTuple):
    """A density, its log Z, exact draws `(seed, n) -> [n, d]`, and its normalised log density [n] of points."""

    density: nd.Density
    log_z: float
    draw: Callable[[int, int], np.ndarray]
    log_prob: Callable[[np.ndarray], np.ndarray]


def gaussian_product(d: int) -> Problem:
    """Product of two Gaussians with different means and covariances."""
    rng = np.random.default_rng(d)
    means = rng.normal(size=(2, d)) * 0.5
    scales = rng.uniform(0.3, 1.5, (2, d))
    parts = [
        nd.exact.GaussianMixture(m[None], np.diag(s**2)[None], name=name)
        for m, s, name in zip(means, scales, "pq", strict=True)
    ]
    precision = (1 / scales**2).sum(0)
    mean = (means / scales**2).sum(0) / precision
    gap = multivariate_normal(np.zeros(d), np.diag((scales**2).sum(0)))
    law = multivariate_normal(mean, np.diag(1 / precision))
    return Problem(
        parts[0] * parts[1], float(gap.logpdf(means[0] - means[1])),
        lambda seed, n: law.rvs(n, random_state=seed).reshape(n, d), lambda x: law.logpdf(x),
    )  # fmt: skip


def mixture_product(d: int) -> Problem:
    """Product of two Gaussian mixtures."""
    p, q, means, log_w, log_z = problem(d, 0)
    exact = nd.exact.GaussianMixture(means, np.tile(0.045 * np.eye(d), (16, 1, 1)), np.exp(log_w))
    return Problem(
        p * q, log_z, lambda seed, n: draw_product(np.random.default_rng(seed), means, log_w, n),
        lambda x: np.asarray(exact.log_prob(x)),
    )  # fmt: skip


def sculpted(kind: str) -> Problem:
    """Harmonic mean or contrast of two planar mixtures; log Z from 10^6 rejection tries."""
    p, q, *_ = problem(2, 1)
    density = nd.harmonic_mean(p, q) if kind == "harmonic mean" else nd.contrast(p, q)
    _, log_z = rejection(p, q, kind, jax.random.key(0), 600_000)
    return Problem(
        density, log_z, lambda seed, n: rejection(p, q, kind, jax.random.key(seed), n)[0],
        lambda x: np.asarray(density.log_prob(x)) - log_z,
    )  # fmt: skip


def planar_problem(name: str) -> Problem:
    """A composition of the paper."""
    target = targets.target(name)
    density = target.density(planar.exact)
    return Problem(
        density, target.log_evidence, lambda seed, n: target.sample(n, seed),
        lambda x: np.asarray(density.log_prob(x)) - target.log_evidence,
    )  # fmt: skip


def tempered() -> Problem:
    """A Gaussian at temperature 1/2: p^2."""
    d, scale = 5, 0.7
    p = nd.exact.GaussianMixture(np.zeros((1, d)), scale**2 * np.eye(d)[None], name="p")
    law = multivariate_normal(np.zeros(d), scale**2 / 2 * np.eye(d))
    log_z = -d / 2 * np.log(2 * np.pi * scale**2) - d / 2 * np.log(2)
    return Problem(nd.temper(p, 0.5), log_z, lambda seed, n: law.rvs(n, random_state=seed), lambda x: law.logpdf(x))


def problems() -> dict[str, Problem]:
    """The ten."""
    return {
        "Gaussian product, d = 2": gaussian_product(2),
        "Gaussian product, d = 10": gaussian_product(10),
        "Gaussian product, d = 30": gaussian_product(30),
        "mixture product, d = 2": mixture_product(2),
        "mixture product, d = 10": mixture_product(10),
        "tempered Gaussian, d = 5": tempered(),
        "harmonic mean, d = 2": sculpted("harmonic mean"),
        "contrast, d = 2": sculpted("contrast"),
        "ring x bar": planar_problem("product"),
        "left + right columns": planar_problem("mixture"),
    }


def row(p: Problem):
    """Function of the seed that computes one problem's figures."""

    def compute(seed: int) -> dict:
        bound_key, raise_key = jax.random.split(jax.random.key(seed))
        b = nd.bdmc(bound_key, p.density, p.draw(seed, 1000), nd.HMC(), progress_bar=False)
        test = p.draw(1000 + seed, 100)
        r = nd.raise_bound(raise_key, p.density, test, nd.HMC(), num_repeats=4, progress_bar=False)
        # Point by point: the test points' own spread cancels.
        per_point = np.logaddexp.reduce(r.log_weights["points"], axis=1) - np.log(4)
        excess = per_point - p.log_prob(test)
        return {
            "log Z": p.log_z, "lower": b.lower, "upper": b.upper, "gap": b.gap,
            "brackets": b.lower - 4 * b.lower_error - FLOAT32 <= p.log_z <= b.upper + 4 * b.upper_error + FLOAT32,
            "RAISE": r.lower, "true mean log p": p.log_prob(test).mean(),
            "RAISE below": excess.mean() <= 4 * excess.std() / np.sqrt(len(excess)) + FLOAT32,
        }  # fmt: skip

    return compute


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=20)
    measure("bounds", options, [(name, row(p)) for name, p in problems().items()], HEADER, COLUMNS)
