"""The digits density: is it normalised, and how well does it predict held-out scans beside Gaussian mixtures?

    python benchmarks/digits.py [--quick]

All log likelihoods are of the same 297 held-out scans, dequantised and with the density's least noise (sigma 0.03) added, in nats per image.
"""

from __future__ import annotations

import jax
import numpy as np
from _table import arguments, measure
from sklearn.mixture import GaussianMixture

import numpyro_diffusion as nd
from numpyro_diffusion.datasets import digits

COLUMNS = [
    "held-out log likelihood",
    "train log likelihood",
    "log Z",
    "log Z error",
    "ESS share",
    "evaluations",
    "seconds",
]
HEADER = """# Handwritten digits (8x8, 64 dimensions)

`python benchmarks/digits.py`. log Z: annealed in the preconditioned frame, 0 for a normalised density, with its standard error; ESS share of the
population at its least. Gaussian mixtures: scikit-learn, full covariances, regularised by 1e-3, fitted to three noised copies of the training scans.
"""
SIGMA = 0.03


def noisy(split: str, seed: int):
    """Dequantised, noised scans [n, 64]."""
    dequantise_key, noise_key = jax.random.split(jax.random.key(700 + seed))
    x = digits.dequantise(dequantise_key, digits.images(split)[0])
    return np.asarray(x + SIGMA * jax.random.normal(noise_key, x.shape))


def ours(seed: int) -> dict:
    """Held-out log likelihood and annealed normaliser of the shipped density."""
    density = nd.load_pretrained("digits")
    kernel = nd.HMC(num_integration_steps=4)
    run = nd.anneal(jax.random.key(seed), density, kernel, num_chains=500, num_steps=3, progress_bar=False)
    return {
        "held-out log likelihood": float(density.log_prob(noisy("test", seed)).mean()),
        "train log likelihood": float(density.log_prob(noisy("train", seed)).mean()),
        "log Z": run.log_evidence, "log Z error": run.log_evidence_error,
        "ESS share": float(run.stats["ess"].min()), "evaluations": run.evaluations_per_chain,
    }  # fmt: skip


def gaussian_mixture(components: int):
    """Function of the seed that fits and scores a Gaussian mixture."""

    def compute(seed: int) -> dict:
        train, test = np.concatenate([noisy("train", 10 * seed + i) for i in range(3)]), noisy("test", seed)
        fit = GaussianMixture(components, reg_covar=1e-3, random_state=seed, max_iter=50).fit(train)
        return {"held-out log likelihood": fit.score(test), "train log likelihood": fit.score(train)}

    return compute


if __name__ == "__main__":
    options = arguments(__doc__ or "")
    mixtures = [(f"Gaussian mixture, {k} components", gaussian_mixture(k)) for k in (1, 3, 10, 30)]
    measure("digits", options, [("ours", ours), *mixtures], HEADER, COLUMNS)
