"""Table A1 of Du et al. (2023): which form of energy trains best, on cubes, at equal steps.

    python benchmarks/paper/parameterisations.py [--quick] [--only l2] [--seeds 1]

Every row trains its own network, for far fewer steps than the shipped one.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np

import numpyro_diffusion as nd
from benchmarks.paper.table2_cubes import judge
from benchmarks.table import arguments, measure
from benchmarks.train.cubes import PRESETS, SIGMA_MAX, SIGMA_MIN, denoising_error
from numpyro_diffusion.annealing.draws import further_draws
from numpyro_diffusion.annealing.plan import PlannedLevel
from numpyro_diffusion.annealing.settings import Settings
from numpyro_diffusion.classifier import all_present
from numpyro_diffusion.classifier import features as activations
from numpyro_diffusion.datasets import cubes

SIZE, STEPS, BATCH, IMAGES = 16, 1_500, 32, 500
#: Row: model, energy form, calibrated, small start.
ROWS = {
    "epsilon (score)": ("score", "l2", False, False),
    "DAE": ("energy", "dae", False, False),
    "L2": ("energy", "l2", False, True),
    "inner product": ("energy", "inner_product", False, False),
    "calibrated DAE": ("energy", "dae", True, False),
    "calibrated L2": ("energy", "l2", True, True),
    "calibrated inner product": ("energy", "inner_product", True, False),
}
COLUMNS = ["error at .1", "error at .3", "error at 1", "Frechet", "accuracy", "acceptance", "lost", "seconds"]
HEADER = f"""# Parameterisations (Table A1 of Du et al. 2023)

`python benchmarks/paper/parameterisations.py`. Cubes {SIZE}x{SIZE}, the U-Net of the `cpu` preset, {STEPS:,} steps of {BATCH} each: far from converged; the order is what counts. Error: mean of
(r score + eps)^2 over held-out images and pixels at three noise levels. Frechet: distance of {IMAGES} images by reverse diffusion (40 steps, one requested place each for 50 of them) from {IMAGES} rendered ones, in the 64
features of the classifier of places asked at the image's middle; two samples of rendered ones are {{floor}} apart. Accuracy: cube at the requested place. Acceptance: Metropolis acceptance of HMC, three leapfrogs of 0.15 in the whitened
frame at noise 0.3, started from noised data: how well the energy fits its own score matters, and its curvature. Lost: images that are not finite.
"""


def features(images) -> np.ndarray:
    """Of the position classifier, asked for the image's middle."""
    return np.asarray(activations(judge(SIZE), images, np.full((len(images), 2), 0.5)))


@functools.cache
def reference(seed: int) -> np.ndarray:
    """Features of rendered images."""
    return features(cubes.sampler(SIZE)(jax.random.key(seed), IMAGES)[0])


def acceptance(density) -> float:
    """Of HMC on noised data, one move each."""
    if not density.has_log_density:
        return float("nan")
    t = float(density.schedule.time(0.3))
    x, _ = cubes.sampler(SIZE)(jax.random.key(31), 32)
    alpha = density.schedule.alpha(t)
    noised = alpha * (x + 0.3 * jax.random.normal(jax.random.key(32), x.shape))
    kernel = nd.HMC(num_integration_steps=3)
    here = PlannedLevel(t, 0.15)
    _, rate, _ = further_draws(
        density, kernel.without_step_size(), noised, jax.random.key(33), here, Settings(num_steps=2), num_samples=1
    )
    return float(np.mean(rate))


def row(seed: int, name: str, steps: int, count: int) -> dict:
    """Train, sample, measure."""
    model, form, calibrated, small = ROWS[name]
    preset = dataclasses.replace(PRESETS["cpu"])
    network = nd.UNetConfig(shape=(SIZE, SIZE, 3), num_positions=1, small_start=small, **preset.network)
    training = nd.TrainingConfig(
        num_steps=steps, batch_size=BATCH, learning_rate=1e-3, max_gradient_norm=10.0, time_score_weight=0.1,
        condition_dropout=0.15, ema_decay=0.99, weighting="denoiser",
    )  # fmt: skip
    density = nd.fit(
        jax.random.key(seed), cubes.sampler(SIZE), model=model, parameterisation=form, calibrated=calibrated,
        network=network, training=training, sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX, progress_bar=False,
    )  # fmt: skip
    errors = denoising_error(density, SIZE)
    images, correct = [], []
    for i in range(count // 50):
        place = cubes.positions(jax.random.key(500 + i), 1)[0]
        levels = density.schedule.levels(40, smallest=density.resolution)
        run = nd.anneal(
            jax.random.key(seed * 100 + i), density.given(place), nd.Reverse(), num_chains=50, levels=levels,
            progress_bar=False,
        )  # fmt: skip
        images.append(np.asarray(run.samples))
        correct.append(np.asarray(all_present(judge(SIZE), run.samples, place[None])))
    images = np.concatenate(images)
    finite = np.all(np.isfinite(images), axis=(1, 2, 3))
    return {
        "error at .1": errors["0.1"], "error at .3": errors["0.3"], "error at 1": errors["1.0"],
        "Frechet": nd.metrics.frechet_distance(features(images[finite]), reference(1)) if finite.sum() > 64 else np.nan,
        "accuracy": 100 * float(np.mean(correct)), "acceptance": acceptance(density), "lost": float(np.sum(~finite)),
    }  # fmt: skip


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=1)
    steps, count = (20, 100) if options.quick else (STEPS, IMAGES)
    floor = f"{nd.metrics.frechet_distance(reference(2), reference(1)):.3f}"
    rows = [(name, functools.partial(row, name=name, steps=steps, count=count)) for name in ROWS]
    measure("parameterisations", options, rows, HEADER.format(floor=floor), COLUMNS)
