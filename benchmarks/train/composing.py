"""What points off the data do to compositions: cubes at 16x16, five requested places, by what such points know.

python benchmarks/train/composing.py [--seeds 1] [--only "default"] [--quick]
"""

from __future__ import annotations

import time
from functools import partial
from unittest import mock

import jax
import numpy as np

import numpyro_diffusion as nd
from benchmarks.paper.table2_cubes import judge
from benchmarks.table import arguments, measure
from benchmarks.train.cubes import PRESETS, SIGMA_MAX, SIGMA_MIN, denoising_error
from numpyro_diffusion.classifier import all_present
from numpyro_diffusion.datasets import cubes
from numpyro_diffusion.train import losses

SIZE, STEPS, BATCH, SETS, CHAINS, LEVELS, COUNT = 16, 1_200, 32, 20, 5, 40, 5
#: Least number of reference data that share a condition for points off the data to keep it, and training settings.
VARIANTS = {
    "default": (losses.LEAST_ALIKE, {}),
    "points off the data keep their condition": (0, {}),
    "no points off the data": (losses.LEAST_ALIKE, {"outlier_share": 0.0}),
    "no points off the data, time scores .1": (losses.LEAST_ALIKE, {"outlier_share": 0.0, "time_score_weight": 0.1}),
}
COLUMNS = ["right", "error at 0.03", "error at 0.1", "error at 1", "training"]
HEADER = f"""# Points off the data, and compositions

`python benchmarks/train/composing.py`: the network of `cubes_{SIZE}`, {STEPS:,} steps of {BATCH}, a third or less of what the shipped one has. right: share of
{SETS * CHAINS} pictures in which the classifier sees a cube at each of {COUNT} requested places, by reverse diffusion along {LEVELS} levels of the composition of {COUNT}
conditions. error: mean of (r score + eps)^2 over held-out pictures and pixels, under their own condition, at three noise levels.
training: CPU seconds. Every picture of the training has a condition of its own.
"""


def row(variant: str, steps: int, sets: int, seed: int) -> dict:
    """Train one, and ask it for five places."""
    least, changes = VARIANTS[variant]
    network = nd.UNetConfig(shape=(SIZE, SIZE, 3), num_positions=1, **PRESETS["cpu"].network)
    training = nd.TrainingConfig(
        num_steps=steps, batch_size=BATCH, learning_rate=1e-3, max_gradient_norm=10.0, condition_dropout=0.15,
        ema_decay=0.99, **changes,
    )  # fmt: skip
    start = time.process_time()
    with mock.patch.object(losses, "LEAST_ALIKE", least):
        density = nd.fit(
            jax.random.key(seed), cubes.sampler(SIZE), network=network, training=training,
            sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX, progress_bar=False,
        )  # fmt: skip
    # What was traced with the patch must not serve the next row.
    jax.clear_caches()
    found = {"training": time.process_time() - start}
    found |= {f"error at {float(r):g}": value for r, value in denoising_error(density, SIZE).items()}
    right = []
    for i in range(sets):
        place_key, run_key = jax.random.split(jax.random.fold_in(jax.random.key(COUNT), i))
        places = cubes.positions(place_key, COUNT)
        run = nd.anneal(
            run_key, nd.compose_conditions(density, places), nd.Reverse(), num_chains=CHAINS, progress_bar=False,
            levels=density.schedule.levels(LEVELS, smallest=density.resolution),
        )  # fmt: skip
        right.append(np.asarray(all_present(judge(SIZE), run.samples, places)))
    return found | {"right": float(np.mean(right))}


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=1)
    effort = (20, 1) if options.quick else (STEPS, SETS)
    names = list(VARIANTS)[:1] if options.quick else VARIANTS
    measure("composing", options, [(name, partial(row, name, *effort)) for name in names], HEADER, COLUMNS)
