"""Which training leaves no false wells in energies of images? Coloured digits 0 and 1, 16x16, a small U-Net.

    python benchmarks/train/false_wells.py                      # the ablation, 64 chains
    python benchmarks/train/false_wells.py --only "default, 6,000" --seeds 3

An energy is an extrapolation where there are no data. Chains that anneal find what it holds there: deep wells, or shallow
ones that are wide.
"""

from __future__ import annotations

import functools
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import sqrtm

import numpyro_diffusion as nd
from benchmarks.sculpting import mnist
from benchmarks.table import arguments, measure
from numpyro_diffusion.datasets import coloured_digits
from numpyro_diffusion.errors import DiagnosticWarning

CELLS = [(digit, colour) for digit in (0, 1) for colour in coloured_digits.COLOURS]
NETWORK = nd.UNetConfig(shape=(16, 16, 3), width=16, num_blocks=1, normalise=False)
SIGMA_MIN, FEATURES, HELD_OUT = 0.03, 40, 1_000
LEVELS = (0.03, 0.1, 0.2, 0.4, 0.8, 1.6)
#: row -> (form, share of points off the data, weight of time scores or None for the default, steps, chains).
ROWS = {
    "inner product": ("inner_product", 0.0, None, 1_500, 64),
    "inner product, off the data": ("inner_product", 0.25, None, 1_500, 64),
    "l2, off the data": ("l2", 0.25, None, 1_500, 64),
    "denoiser, off the data": ("dae", 0.25, None, 1_500, 64),
    "default": ("residual", 0.0, None, 1_500, 64),
    "default, 6,000 steps, 1,000 chains": ("residual", 0.0, None, 6_000, 1_000),
    "off the data": ("residual", 0.25, None, 1_500, 64),
    "off the data, 6,000 steps, 1,000 chains": ("residual", 0.25, None, 6_000, 1_000),
    "inner product, time score 1": ("inner_product", 0.0, 1.0, 1_500, 64),
    "inner product, off the data, time score 1": ("inner_product", 0.25, 1.0, 1_500, 64),
    "l2, time score 1": ("l2", 0.0, 1.0, 1_500, 64),
    "l2, off the data, time score 1": ("l2", 0.25, 1.0, 1_500, 64),
    "denoiser, off the data, time score 1": ("dae", 0.25, 1.0, 1_500, 64),
    "residual, time score 1": ("residual", 0.0, 1.0, 1_500, 64),
    "residual, off the data, time score 1": ("residual", 0.25, 1.0, 1_500, 64),
    "residual, off the data, time score 1, 6,000 steps, 1,000 chains": ("residual", 0.25, 1.0, 6_000, 1_000),
    "residual, off the data, time score 1, 6,000 steps, 256 chains": ("residual", 0.25, 1.0, 6_000, 256),
    "denoiser, off the data, time score 1, 6,000 steps, 256 chains": ("dae", 0.25, 1.0, 6_000, 256),
}
COLUMNS = [
    "nats", "noise .1", "noise .4", "Frechet", "Frechet reverse", "sample nats", "outside", "acceptance", "training",
    "seconds",
]  # fmt: skip
HEADER = f"""# False wells in energies of images

`python benchmarks/train/false_wells.py`: coloured digits 0 and 1 (16x16x3), U-Net of width 16, batches of 32, denoiser
weighting, sigma_min {SIGMA_MIN}. HMC (60 levels, two steps each, after a reverse step, no resampling) beside reverse
diffusion of 100 levels.

- nats: mean log density of held-out pictures at the least noise; sample nats: of the samples of HMC.
- noise .1, .4: mean squared error of the noise of held-out pictures, per pixel, at those noise-to-signal ratios.
- Frechet: distance of HMC's samples from held-out pictures in {FEATURES} principal components of the data, and reverse
  diffusion's; the floor of as many held-out pictures is of order .1 for 1,000.
- outside: share of HMC's chains that, noised to any of {LEVELS}, lie more than 5 standard deviations outside the range of
  log densities of {HELD_OUT} held-out pictures noised alike.
- time score 1: with a weight of 1 for time scores, the default before that of images became 2 / d.
- training: CPU seconds. Of time score 1, the row of 1,000 chains was computed on one H100, which other jobs shared.
"""


@functools.cache
def pictures(split: str, count: int) -> np.ndarray:
    draw = coloured_digits.sampler(CELLS, 16, **mnist.scans(split))
    return np.asarray(draw(jax.random.key(7), count))


@jax.jit
def log_probs(density, y, r):
    return jax.vmap(lambda point: density.log_prob_at(point, r))(y)


@jax.jit
def noise_error(density, y, eps, r):
    score = jax.vmap(lambda point: jax.grad(density.log_prob_at)(point, r))(y + r * eps)
    return jnp.mean((r * score + eps) ** 2)


def frechet(x, y) -> float:
    """Squared Frechet distance of two sets of pictures in principal components of the training data."""
    data = pictures("train", 4_000).reshape(4_000, -1)
    mean = data.mean(0)
    axes = np.linalg.svd(data - mean, full_matrices=False)[2][:FEATURES].T
    a, b = ((z.reshape(len(z), -1) - mean) @ axes for z in (x, y))
    covariances = [np.cov(z.T) for z in (a, b)]
    cross = np.real(sqrtm(covariances[0] @ covariances[1]))
    return float(np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(sum(covariances) - 2 * cross))


def outside(density, samples, held_out) -> float:
    """Share of samples that lie outside the range of held-out log densities, at any level."""
    beyond = np.zeros(len(samples), bool)
    for i, r in enumerate(LEVELS):
        # Samples have the least noise already.
        sets = (held_out, r), (samples, np.sqrt(max(r**2 - SIGMA_MIN**2, 0.0)))
        known, found = (
            np.concatenate([log_probs(density, part, r) for part in np.array_split(noised(density, z, q, i + j), 8)])
            for j, (z, q) in enumerate(sets)
        )
        margin = 5 * known.std()
        beyond |= ~((found > known.min() - margin) & (found < known.max() + margin))
    return float(beyond.mean())


def noised(density, x, r: float, number: int):
    y = x.reshape(len(x), -1) - np.asarray(density.mean)
    return y + r * np.random.default_rng(number).standard_normal(y.shape).astype(np.float32)


def row(form: str, share: float, time_score_weight: float | None, steps: int, chains: int):
    def figures(seed: int) -> dict:
        training = nd.TrainingConfig(
            num_steps=steps, batch_size=32, learning_rate=1e-3, max_gradient_norm=10.0, ema_decay=0.99,
            outlier_share=share, time_score_weight=time_score_weight,
        )  # fmt: skip
        # An l2 energy has no gradient where its network is zero.
        network = nd.UNetConfig(**(vars(NETWORK) | {"small_start": form == "l2"}))
        draw = coloured_digits.sampler(CELLS, 16, **mnist.scans("train"))
        start = time.process_time()
        density = nd.fit(
            jax.random.key(seed), draw, parameterisation=form, sigma_min=SIGMA_MIN, network=network, training=training,
            progress_bar=False,
        )  # fmt: skip
        trained = time.process_time() - start
        x = pictures("test", HELD_OUT)
        y = x.reshape(HELD_OUT, -1)[:256] - np.asarray(density.mean)
        eps = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DiagnosticWarning)
            run = nd.anneal(
                jax.random.key(seed + 1), density, nd.HMC(), num_chains=chains, levels=60, num_steps=2, predictor=True,
                num_pilot_chains=16, resample_threshold=0.0, progress_bar=False,
            )  # fmt: skip
            reverse = nd.anneal(
                jax.random.key(seed + 2), density, nd.Reverse(), num_chains=chains, levels=100, progress_bar=False
            )
        samples = np.asarray(run.samples)
        return {
            "nats": float(np.mean(log_probs(density, y + SIGMA_MIN * eps, SIGMA_MIN))),
            "noise .1": noise_error(density, y, eps, 0.1), "noise .4": noise_error(density, y, eps, 0.4),
            "Frechet": frechet(samples, x), "Frechet reverse": frechet(np.asarray(reverse.samples), x),
            "sample nats": float(np.mean(log_probs(density, noised(density, samples, 0.0, 0), SIGMA_MIN))),
            "outside": outside(density, samples, x), "acceptance": np.mean(run.stats["acceptance_rate"]),
            "training": trained,
        }  # fmt: skip

    return figures


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=1)
    rows = [(name, row(*settings)) for name, settings in ROWS.items()]
    measure("false_wells", options, rows[:1] if options.quick else rows, HEADER, COLUMNS)
