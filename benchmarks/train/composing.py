"""What points off the data do to compositions: cubes at 16x16, requested places, by what such points are measured by.

python benchmarks/train/composing.py [--seeds 1] [--only "default"] [--quick]
"""

from __future__ import annotations

import functools
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from benchmarks.paper.table2_cubes import judge
from benchmarks.table import arguments, measure
from benchmarks.train.cubes import PRESETS, SIGMA_MAX, SIGMA_MIN, denoising_error
from numpyro_diffusion.classifier import all_present
from numpyro_diffusion.datasets import cubes
from numpyro_diffusion.train import losses

SIZE, STEPS, BATCH, SETS, CHAINS, LEVELS, COUNTS = 16, 1_200, 32, 20, 5, 40, (3, 5)
#: Least number of reference data that share a condition for points off the data to be measured by them alone, and
#: training settings.
VARIANTS = {
    "default": (losses.LEAST_ALIKE, {}),
    "a quarter off the data": (losses.LEAST_ALIKE, {"outlier_share": 0.25}),
    "a quarter off the data, by the picture of their condition": (0, {"outlier_share": 0.25}),
    "time scores .1": (losses.LEAST_ALIKE, {"time_score_weight": 0.1}),
}
#: Noise-to-signal ratio at which a score model looks at pictures.
LOOK = 0.1
COLUMNS = [*(f"{what} {count}" for count in COUNTS for what in ("right", "plausible")), "error at 0.03", "error at 0.1",
           "error at 1", "training"]  # fmt: skip
HEADER = f"""# Points off the data, and compositions

`python benchmarks/train/composing.py`: the network of `cubes_{SIZE}`, {STEPS:,} steps of {BATCH}, a third or less of what the shipped one has. Of {SETS * CHAINS} pictures by
reverse diffusion along {LEVELS} levels of compositions of 3 and of 5 conditions, shares: plausible, in which a score model, cubes_{SIZE}_score, that noises them to {LOOK}, errs by no
more than 1.5 times what it does on any of 1,000 rendered pictures; right, which are plausible, and in which the classifier sees a cube at each of the requested places. (Of
noise the classifier says that cubes are everywhere.) error: mean of (r score + eps)^2 over held-out pictures and pixels, under their own condition, at three noise levels.
training: CPU seconds. Every picture of the training has a condition of its own.
"""


@functools.cache
def referee():
    """The errors [n] of a score model on pictures [n, ...], and the largest of rendered ones."""
    model = nd.load_pretrained(f"cubes_{SIZE}_score")
    t = model.schedule.time(LOOK)
    alpha = model.schedule.alpha(t)

    @jax.jit
    def errors(x):
        eps = jax.random.normal(jax.random.key(8), x.shape)
        error = lambda point, e: jnp.mean((LOOK * alpha * model.score(alpha * (point + LOOK * e), t) + e) ** 2)
        return jax.vmap(error)(x, eps)

    return errors, float(jnp.max(errors(cubes.sampler(SIZE)(jax.random.key(99), 1_000)[0])))


def asked(density, count: int, sets: int) -> dict:
    """Shares of pictures of `count` requested places, see the page."""
    errors, largest = referee()
    right, plausible = [], []
    for i in range(sets):
        place_key, run_key = jax.random.split(jax.random.fold_in(jax.random.key(count), i))
        places = cubes.positions(place_key, count)
        run = nd.anneal(
            run_key, nd.compose_conditions(density, places), nd.Reverse(), num_chains=CHAINS, progress_bar=False,
            levels=density.schedule.levels(LEVELS, smallest=density.resolution),
        )  # fmt: skip
        plausible.append(np.asarray(errors(run.samples)) < 1.5 * largest)
        right.append(np.asarray(all_present(judge(SIZE), run.samples, places)) & plausible[-1])
    return {f"right {count}": np.mean(right), f"plausible {count}": np.mean(plausible)}


def row(variant: str, steps: int, sets: int, seed: int) -> dict:
    """Train one, and ask it for places."""
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
    for count in COUNTS:
        found |= asked(density, count, sets)
    return found


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=1)
    effort = (20, 1) if options.quick else (STEPS, SETS)
    names = list(VARIANTS)[:1] if options.quick else VARIANTS
    measure("composing", options, [(name, functools.partial(row, name, *effort)) for name in names], HEADER, COLUMNS)
