"""What the weight of time scores does to energies of vectors: mixtures of Gaussians in 8, 30 and 80 dimensions.

python benchmarks/train/time_scores.py --seeds 3
python benchmarks/train/time_scores.py --only "d = 8"
"""

from __future__ import annotations

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from benchmarks.table import arguments, measure

SIZES, MODES, STEPS, BATCH, HELD_OUT = (8, 30, 80), 8, 3_000, 256, 4_000
LEVELS = (0.05, 0.2, 1.0)
#: Least and largest variance along the axes of a mode; means are normal, of unit variance.
VARIANCES = (0.02, 0.5)
COLUMNS = [
    *(f"{figure} {r:g}" for figure in ("beyond", "log Z", "raw log Z", "noise") for r in LEVELS), "training",
]  # fmt: skip
HEADER = f"""# Weights of time scores, for energies of vectors

`python benchmarks/train/time_scores.py --seeds 3`: a mixture of {MODES} Gaussians of unequal weights in d dimensions, axes of each
mode turned at random, variances along them from {VARIANCES[0]} to {VARIANCES[1]}, means apart by about sqrt(2 d). `nd.fit` with {STEPS:,} steps of {BATCH},
everything else by default. At noise-to-signal ratios r, of {HELD_OUT:,} points that were not drawn before:

- beyond: mean log density less the exact one, in nats: below zero by what is not learnt.
- log Z: of the energy, in nats, by importance from the exact density; poor where it is far from that.
- raw log Z: the same before `nd.fit` took out what it found of it by the data.
- noise: mean squared error of r times the score, per dimension, against the exact score.
- training: CPU seconds.
"""


def problem(size: int):
    """The mixture, the same for every seed of the training."""
    rng = np.random.default_rng(size)
    axes = [np.linalg.qr(rng.standard_normal((size, size)))[0] for _ in range(MODES)]
    variances = np.exp(rng.uniform(*np.log(VARIANCES), (MODES, size)))
    covariances = [q * v @ q.T for q, v in zip(axes, variances, strict=True)]
    means, weights = rng.standard_normal((MODES, size)), rng.dirichlet(np.full(MODES, 3.0))
    return nd.exact.GaussianMixture(means, covariances, weights, schedule=nd.VarianceExploding())


def row(size: int, weight: float | None, seed: int) -> dict:
    """Train one, and compare it with the truth."""
    truth, start = problem(size), time.process_time()
    density = nd.fit(
        jax.random.key(seed), truth.sample, schedule=truth.schedule, progress_bar=False,
        training=nd.TrainingConfig(num_steps=STEPS, batch_size=BATCH, time_score_weight=weight),
    )  # fmt: skip
    found = {"training": time.process_time() - start}
    x = truth.sample(jax.random.key(10_001), HELD_OUT)
    eps = jax.random.normal(jax.random.key(10_002), x.shape)
    for r in LEVELS:
        t, y = truth.schedule.time(r), x + r * eps
        log_p, log_q = (np.asarray(p.log_prob(y, t), dtype=float) for p in (density, truth))
        error = r * (density.score(y, t) - truth.score(y, t))
        found[f"beyond {r:g}"] = float(np.mean(log_p - log_q))
        found[f"log Z {r:g}"] = float(jax.nn.logsumexp(log_p - log_q) - jnp.log(HELD_OUT))
        found[f"raw log Z {r:g}"] = found[f"log Z {r:g}"] + float(jnp.interp(jnp.log(r), *density.log_z))
        found[f"noise {r:g}"] = float(jnp.mean(error**2))
    return found


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=3)
    rows = [
        (f"d = {size}, {name}", partial(row, size, weight))
        for size in SIZES
        for name, weight in (("2 / d", None), ("1", 1.0))
    ]
    measure("time_scores", options, rows[:1] if options.quick else rows, HEADER, COLUMNS)
