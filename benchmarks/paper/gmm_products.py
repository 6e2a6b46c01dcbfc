"""Products of two Gaussian mixtures in 2, 10 and 30 dimensions, harmonic mean and contrast: closed-form truth.

    python benchmarks/paper/gmm_products.py [--quick]

Two mixtures of four components (standard deviation 0.3, means uniform in [-1, 1]^d, two means in common); their product is a
mixture of sixteen with known weights and evidence. 1,000 chains everywhere; the noise floor is 1,000 exact draws. Baselines use 100
linear levels and no weights; `resampled` ones add weights and resampling; `default` is `nd.anneal(key, density, nd.HMC())`.
"""

from __future__ import annotations

import jax
import numpy as np
from scipy.special import logsumexp

import numpyro_diffusion as nd
from benchmarks.table import arguments, measure
from numpyro_diffusion.diagnose.metrics import mode_weight_tv, sliced_wasserstein2

STD, CHAINS, REFERENCE = 0.3, 1000, 20_000
COLUMNS = ["TV", "TV / floor", "W2", "W2 / floor", "log Z error", "evaluations", "seconds"]
SAMPLERS = {
    "reverse": (nd.Reverse(), {}),
    "ULA x 5": (nd.ULA(), {"num_steps": 5, "resample_threshold": 0.0}),
    "MALA x 5": (nd.MALA(), {"num_steps": 5, "resample_threshold": 0.0}),
    "U-HMC 2 x 3": (nd.UHMC(), {"num_steps": 2, "resample_threshold": 0.0}),
    "HMC 2 x 3": (nd.HMC(), {"num_steps": 2, "resample_threshold": 0.0}),
    "resampled MALA x 5": (nd.MALA(), {"num_steps": 5}),
    "resampled HMC 2 x 3": (nd.HMC(), {"num_steps": 2}),
    "default": (nd.HMC(), None),
}
HEADER = """# Products of Gaussian mixtures

`python benchmarks/paper/gmm_products.py`. Mean ± standard error over seeds (another pair of mixtures for each). TV: total variation of mode weights;
W2: sliced Wasserstein distance to 20,000 exact draws; over the same figure of 1,000 exact draws (mean of 20); log Z error in nats. Harmonic mean and
contrast: W2 to rejection samples, log Z against rejection rates.
"""


def problem(d: int, seed: int):
    """(first mixture, second, means [16, d], log weights [16] and log evidence of their product)."""
    rng = np.random.default_rng(100 * d + seed)
    first = rng.uniform(-1, 1, (4, d))
    second = np.concatenate([first[:2], rng.uniform(-1, 1, (2, d))])
    covariances = np.tile(STD**2 * np.eye(d), (4, 1, 1))
    p = nd.exact.GaussianMixture(first, covariances, name="p")
    q = nd.exact.GaussianMixture(second, covariances, name="q")
    gap = first[:, None] - second[None]
    log_w = (-np.sum(gap**2, -1) / (4 * STD**2) - d / 2 * np.log(4 * np.pi * STD**2) - np.log(16)).ravel()
    means = ((first[:, None] + second[None]) / 2).reshape(16, d)
    return p, q, means, log_w - logsumexp(log_w), float(logsumexp(log_w))


def draw_product(rng, means, log_w, count):
    """Exact draws of the product."""
    k = rng.choice(16, count, p=np.exp(log_w))
    return means[k] + STD / np.sqrt(2) * rng.standard_normal((count, means.shape[1]))


def distances(x, truth, means, log_w, floor_draws) -> dict:
    """TV and sliced W2 of x, and their ratios to exact draws' means."""
    kept = np.exp(log_w) > 1e-3
    weights = np.exp(log_w[kept]) / np.exp(log_w[kept]).sum()

    def tv(z):
        return mode_weight_tv(z, means[kept], weights)

    floor_tv = np.mean([tv(z) for z in floor_draws])
    floor_w2 = np.mean([sliced_wasserstein2(z, truth) for z in floor_draws])
    w2 = sliced_wasserstein2(x, truth)
    return {"TV": tv(x), "TV / floor": tv(x) / floor_tv, "W2": w2, "W2 / floor": w2 / floor_w2}


def product_row(d: int, sampler: str):
    """Function of the seed that computes a product's row."""

    def compute(seed: int) -> dict:
        p, q, means, log_w, evidence = problem(d, seed)
        rng = np.random.default_rng(seed)
        truth = draw_product(rng, means, log_w, REFERENCE)
        floor = [draw_product(rng, means, log_w, CHAINS) for _ in range(20)]
        if sampler == "noise floor":
            return distances(draw_product(rng, means, log_w, CHAINS), truth, means, log_w, floor)
        kernel, options = SAMPLERS[sampler]
        if options is not None:
            options = options | {"levels": np.linspace(1, 0, 100)}
            if isinstance(kernel, nd.Reverse):
                options = {"levels": options["levels"]}
        run = nd.anneal(jax.random.key(seed), p * q, kernel, num_chains=CHAINS, progress_bar=False, **(options or {}))
        x = np.asarray(run.samples)
        figures = distances(x, truth, means, log_w, floor) | {"evaluations": run.evaluations_per_chain}
        return figures | {"log Z error": run.log_evidence - evidence}

    return compute


def rejection(p, q, kind, rng_key, count):
    """Exact draws of harmonic mean or contrast (alpha 1/2) by rejection from p, and log evidence."""
    found, tried = [], 0
    rng = np.random.default_rng(int(jax.random.randint(rng_key, (), 0, 1 << 30)))
    while sum(map(len, found)) < count:
        rng_key, key = jax.random.split(rng_key)
        x = p.sample(key, 20_000)
        log_p, log_q = np.asarray(p.log_prob(x)), np.asarray(q.log_prob(x))
        # p q / (p/2 + q/2) = p * 2 q / (p + q);  p^2 / (p/2 + q/2) = p * 2 p / (p + q)
        top = log_q if kind == "harmonic mean" else log_p
        keep = np.log(rng.random(len(log_p))) < top - np.logaddexp(log_p, log_q)
        found.append(np.asarray(x)[keep])
        tried += len(keep)
    accepted = sum(map(len, found))
    return np.concatenate(found)[:count], float(np.log(2 * accepted / tried))


def sculpting_row(kind: str, d: int):
    """Function of the seed that computes a harmonic mean's or contrast's row with the default sampler."""

    def compute(seed: int) -> dict:
        p, q, *_ = problem(d, seed)
        truth, evidence = rejection(p, q, kind, jax.random.key(50 + seed), REFERENCE)
        floor = [rejection(p, q, kind, jax.random.key(60 + seed + i), CHAINS)[0] for i in range(5)]
        density = nd.harmonic_mean(p, q) if kind == "harmonic mean" else nd.contrast(p, q)
        run = nd.anneal(jax.random.key(seed), density, nd.HMC(), num_chains=CHAINS, progress_bar=False)
        w2 = sliced_wasserstein2(np.asarray(run.samples), truth)
        floor_w2 = np.mean([sliced_wasserstein2(z, truth) for z in floor])
        return {
            "W2": w2, "W2 / floor": w2 / floor_w2, "log Z error": run.log_evidence - evidence,
            "evaluations": run.evaluations_per_chain,
        }  # fmt: skip

    return compute


if __name__ == "__main__":
    options = arguments(__doc__ or "")
    rows = [
        (f"d = {d}, {sampler}", product_row(d, sampler)) for d in (2, 10, 30) for sampler in (*SAMPLERS, "noise floor")
    ]
    rows += [(f"{kind}, d = {d}", sculpting_row(kind, d)) for kind in ("harmonic mean", "contrast") for d in (2, 10)]
    measure("gmm_products", options, rows, HEADER, COLUMNS)
