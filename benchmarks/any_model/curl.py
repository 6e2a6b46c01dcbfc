"""Curl against the error of samples, over damaged score models.

python benchmarks/any_model/curl.py [--quick]
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr

import numpyro_diffusion as nd
from benchmarks.table import arguments, measure
from numpyro_diffusion.datasets import planar
from numpyro_diffusion.diagnose.curl import score_curl

COLUMNS = ["least curl", "most curl", "least W2", "most W2", "rank correlation", "floor W2", "seconds"]
HEADER = """# Curl of a score against the error of its samples

`python benchmarks/any_model/curl.py`. The shipped score model of the ring, 20 times: its weights are multiplied with 1 + s N(0, 1), s from .05 to 2, the same at all sizes but for s. Curl: mean relative curl (`score_curl`) at 400 noised points of the
data, at noise of .02 to 5 standard deviations. Error: sliced W2 of 500 samples of annealed HMC by line integrals (20 levels, two steps each) to draws of the truth; `floor` is that of two sets of draws. Spearman's rank correlation of the two over the 20 models.
"""
NUM_MODELS, NUM_POINTS, NUM_CHAINS, NUM_LEVELS = 20, 400, 500, 20
DAMAGES = np.geomspace(0.05, 2.0, NUM_MODELS)


@functools.cache
def model() -> nd.ScoreModel:
    return nd.load_pretrained("ring_score")  # pyright: ignore[reportReturnType]


def damaged(key, size: float) -> nd.ScoreModel:
    """The model with every weight multiplied with 1 + size N(0, 1)."""
    leaves, structure = jax.tree.flatten(model().state)
    keys = jax.random.split(key, len(leaves))
    moved = [leaf * (1 + size * jax.random.normal(k, leaf.shape)) for leaf, k in zip(leaves, keys, strict=True)]
    return model()._replace(state=jax.tree.unflatten(structure, moved))


def curl_of(density: nd.ScoreModel, data, key) -> float:
    """Mean relative curl at noised data."""
    place, noise, probe = jax.random.split(key, 3)
    scale = float(np.sqrt(np.mean(np.asarray(density.moments.variance))))
    ratios = scale * jnp.geomspace(0.02, 5.0, len(data))
    times = density.schedule.time(jax.random.permutation(place, ratios))
    alpha, sigma = density.schedule.alpha(times), density.schedule.sigma(times)
    x = alpha[:, None] * data + sigma[:, None] * jax.random.normal(noise, data.shape)
    return float(score_curl(density, x, times, probe).mean())


def ring(seed: int) -> dict:
    """Curl and error of all damaged models."""
    data_key, floor_key, damage_key, curl_key, run_key = jax.random.split(jax.random.key(seed), 5)
    draw = planar.sampler("ring")
    truth, other = (np.asarray(draw(key, NUM_CHAINS)) for key in (data_key, floor_key))
    curls, errors = [], []
    for size in DAMAGES:
        density = damaged(damage_key, float(size))
        run = nd.anneal(
            run_key, density, nd.HMC(), num_chains=NUM_CHAINS, levels=NUM_LEVELS, num_steps=2, progress_bar=False
        )
        samples = np.nan_to_num(np.asarray(run.samples), nan=1e3, posinf=1e3, neginf=-1e3)
        curls.append(curl_of(density, jnp.asarray(truth[:NUM_POINTS]), curl_key))
        errors.append(nd.metrics.sliced_wasserstein2(samples, truth))
    return {
        "least curl": min(curls), "most curl": max(curls), "least W2": min(errors), "most W2": max(errors),
        "rank correlation": spearmanr(curls, errors).statistic, "floor W2": nd.metrics.sliced_wasserstein2(other, truth),
        "curls": curls, "errors": [float(e) for e in errors],
    }  # fmt: skip


if __name__ == "__main__":
    options = arguments(__doc__ or "")
    measure("any_model_curl", options, [("ring, 20 damaged models", ring)], HEADER, COLUMNS)
