"""What forms and losses do to energies of vectors: mixtures of Gaussians in 8, 30 and 80 dimensions.

python benchmarks/train/vectors.py --seeds 3
python benchmarks/train/vectors.py --only "d = 8"
"""

from __future__ import annotations

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from benchmarks.table import arguments, measure

SIZES, MODES, STEPS, BATCH, HELD_OUT, CHAINS = (8, 30, 80), 8, 3_000, 256, 16_000, 500
LEVELS = (0.05, 0.2, 1.0)
#: Least and largest variance along the axes of a mode; means are normal, of unit variance.
VARIANCES = (0.02, 0.5)
#: What differs from the defaults; the last is what they were once.
RESIDUAL = {"parameterisation": "residual"}
VARIANTS = {
    "default": ({}, {}),
    "weighting score, time scores 1": ({}, {"weighting": "score", "time_score_weight": 1.0}),
    "residual": (RESIDUAL, {}),
    "residual, weighting score": (RESIDUAL, {"weighting": "score"}),
}
COLUMNS = [
    *(f"{figure} {r:g}" for figure in ("beyond", "modes", "log Z", "raw log Z", "noise") for r in LEVELS),
    "sampled", "sampled log Z", "training",
]  # fmt: skip
HEADER = f"""# Forms and losses, for energies of vectors

`python benchmarks/train/vectors.py --seeds 3`: a mixture of {MODES} Gaussians of unequal weights in d dimensions, axes of each
mode turned at random, variances along them from {VARIANCES[0]} to {VARIANCES[1]}, means apart by about sqrt(2 d). `nd.fit` with {STEPS:,} steps of {BATCH},
everything else by default but for what the row says. At noise-to-signal ratios r, of {HELD_OUT:,} points that were not drawn before:

- beyond: mean log density less the exact one, in nats: below zero by what is not learnt.
- modes: root mean square over the {MODES} modes of the error of the logarithm of their masses, in nats, by importance from
  the exact density; like log Z poor where that is far: at 80 dimensions and small noise.
- log Z: of the energy, in nats, by importance from the exact density.
- raw log Z: the same before `nd.fit` took out what it found of it by the data.
- noise: mean squared error of r times the score, per dimension, against the exact score.
- sampled, sampled log Z: median exact log density of {CHAINS} samples of the energy, by annealed HMC with weights, less that of
  exact draws, and the run's log evidence, 0 of what is normalised; in nats. They see the mass that an energy has where no data are,
  which all figures before do not.
- training: CPU seconds.
"""


def problem(size: int):
    """The mixture, the same for every seed of the training, and its Gaussians, each a density."""
    rng = np.random.default_rng(size)
    axes = [np.linalg.qr(rng.standard_normal((size, size)))[0] for _ in range(MODES)]
    variances = np.exp(rng.uniform(*np.log(VARIANCES), (MODES, size)))
    covariances = np.array([q * v @ q.T for q, v in zip(axes, variances, strict=True)])
    means, weights = rng.standard_normal((MODES, size)), rng.dirichlet(np.full(MODES, 3.0))
    mixture = partial(nd.exact.GaussianMixture, schedule=nd.VarianceExploding())
    modes = [mixture(means[k : k + 1], covariances[k : k + 1]) for k in range(MODES)]
    return mixture(means, covariances, weights), modes, weights


def row(size: int, variant: str, seed: int) -> dict:
    """Train one, and compare it with the truth."""
    (truth, modes, weights), (settings, training) = problem(size), VARIANTS[variant]
    start = time.process_time()
    density = nd.fit(
        jax.random.key(seed), truth.sample, schedule=truth.schedule, progress_bar=False, **settings,
        training=nd.TrainingConfig(num_steps=STEPS, batch_size=BATCH, **training),
    )  # fmt: skip
    found = {"training": time.process_time() - start}
    x = truth.sample(jax.random.key(10_001), HELD_OUT)
    eps = jax.random.normal(jax.random.key(10_002), x.shape)
    for r in LEVELS:
        t, y = truth.schedule.time(r), x + r * eps
        log_p, log_q, *log_modes = (np.asarray(p.log_prob(y, t), dtype=float) for p in (density, truth, *modes))
        excess, share = log_p - log_q, np.exp(np.array(log_modes) - log_q) * weights[:, None]
        masses = np.mean(share * np.exp(excess), axis=1) / np.mean(share, axis=1)
        error = r * (density.score(y, t) - truth.score(y, t))
        found[f"beyond {r:g}"] = float(np.mean(excess))
        found[f"modes {r:g}"] = float(np.sqrt(np.mean(np.log(masses) ** 2)))
        found[f"log Z {r:g}"] = float(jax.nn.logsumexp(excess) - jnp.log(HELD_OUT))
        found[f"raw log Z {r:g}"] = found[f"log Z {r:g}"] + float(jnp.interp(jnp.log(r), *density.log_z))
        found[f"noise {r:g}"] = float(jnp.mean(error**2))
    run = nd.anneal(jax.random.key(10_003), density, nd.HMC(), num_chains=CHAINS, progress_bar=False)
    found["sampled"] = float(jnp.median(truth.log_prob(run.samples)) - jnp.median(truth.log_prob(x)))
    return found | {"sampled log Z": float(run.log_evidence)}


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=3)
    rows = [(f"d = {size}, {variant}", partial(row, size, variant)) for size in SIZES for variant in VARIANTS]
    measure("vectors", options, rows[:1] if options.quick else rows, HEADER, COLUMNS)
