"""What the weights of the losses do to energies of images: captioned scenes of 16x16, and pictures of known density.

python benchmarks/train/loss_weights.py
python benchmarks/train/loss_weights.py --only known --seeds 2
"""

from __future__ import annotations

import dataclasses
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from benchmarks.table import arguments, measure
from benchmarks.train.scenes import RECIPE, at_noise
from numpyro_diffusion.datasets import captioned_scenes
from numpyro_diffusion.train.optimise import OF_IMAGES

SIZE, STEPS, HELD_OUT = 16, 1_000, 256
LEVELS = (0.03, 0.1, 0.3, 1.0)
DEFAULT = 2 / (SIZE * SIZE * 3)
#: row -> (kind, weight of time scores, weight of telling captions apart).
ROWS = {
    "score model": ("score", 0.0, 0.0),
    "time scores 2 / d": ("energy", DEFAULT, 0.0),
    "time scores 1": ("energy", 1.0, 0.0),
    "time scores 2 / d, contrastive .01": ("energy", DEFAULT, 0.01),
    "time scores 2 / d, contrastive .1": ("energy", DEFAULT, 0.1),
    "time scores 2 / d, contrastive 1": ("energy", DEFAULT, 1.0),
}
#: row -> (weight of time scores, share of points off the data).
OF_KNOWN = {
    "time scores 2 / d": (None, 0.0),
    "time scores 1": (1.0, 0.0),
    "time scores 2 / d, off the data": (None, 0.25),
}
#: Pictures of known density: rough patterns with noise.
KNOWN, PATTERNS, SPREAD = 8, 16, 0.1
COLUMNS = [
    "nats", *(f"noise {r:g}" for r in LEVELS), "caption .1", "caption 1", "beyond .1", "beyond 1", "beyond 3",
    "training", "seconds",
]  # fmt: skip
HEADER = f"""# Weights of the losses, for energies of images

`python benchmarks/train/loss_weights.py`: captioned scenes ({SIZE}x{SIZE}x3), a U-Net of width 24, {STEPS:,} steps of 32 pictures,
everything else by default.

- nats: mean log density of held-out pictures at the least noise, given their captions.
- noise: mean squared error of the noise of held-out pictures, per value, at four noise-to-signal ratios; 1 is no knowledge.
- caption: by how many nats pictures are likelier under their own caption than under another's, at noise .1 and 1.
- known: pictures of {KNOWN}x{KNOWN}x3, one of {PATTERNS} patterns and noise of {SPREAD}, a U-Net of width 16, 2,500 steps. beyond: mean log density
  of held-out pictures less the exact one, at noise .1, 1 and 3: below zero by what is not learnt, above it only where the
  energy is not normalised. off the data: a quarter of every batch is.
- training: CPU seconds.
"""


def row(kind: str, time_score_weight: float, contrastive_weight: float, seed: int) -> dict:
    """Train one, and measure it on pictures that were not drawn before."""
    network = nd.UNetConfig(
        shape=(SIZE, SIZE, 3), width=24, num_blocks=1, normalise=False,
        text=dataclasses.replace(captioned_scenes.TEXT, width=32),
    )  # fmt: skip
    training = dataclasses.replace(
        RECIPE, num_steps=STEPS, time_score_weight=time_score_weight,
        contrastive_weight=contrastive_weight if kind == "energy" else None,
    )  # fmt: skip
    start = time.process_time()
    density = nd.fit(
        jax.random.key(seed), captioned_scenes.sampler(SIZE), model=kind, network=network, training=training,
        progress_bar=False,
    )  # fmt: skip
    found = {"training": time.process_time() - start}
    x, tokens = captioned_scenes.sampler(SIZE)(jax.random.key(10_001), HELD_OUT)
    eps = jax.random.normal(jax.random.key(10_002), x.shape)
    for r in LEVELS:
        own, other = (
            at_noise(density, x, eps, rows, density.schedule.time(r)) for rows in (tokens, jnp.roll(tokens, 1, axis=0))
        )
        found[f"noise {r:g}"] = own[1]
        if kind == "energy":
            found |= {"nats": own[0]} if r == LEVELS[0] else {}
            found |= {f"caption {r:g}".replace("0.", "."): own[0] - other[0]} if r in (0.1, 1.0) else {}
    return found


def _patterns():
    rough = np.random.default_rng(0).standard_normal((PATTERNS, 3, 3, 3))
    return 0.6 * jax.image.resize(jnp.asarray(rough, float), (PATTERNS, KNOWN, KNOWN, 3), "cubic")


def known(time_score_weight: float | None, outlier_share: float, seed: int) -> dict:
    """Train on pictures whose density is a mixture of Gaussians, and compare."""
    means, shape = _patterns(), (KNOWN, KNOWN, 3)

    def draw(rng_key, count):
        which_key, noise_key = jax.random.split(rng_key)
        which = jax.random.randint(which_key, (count,), 0, PATTERNS)
        return means[which] + SPREAD * jax.random.normal(noise_key, (count, *shape))

    @jax.jit
    def beyond(density, y, r):
        squares = jnp.sum((y[:, None] - means.reshape(PATTERNS, -1)) ** 2, -1)
        variance, size = SPREAD**2 + r**2, y.shape[1]
        exact = jax.nn.logsumexp(-0.5 * squares / variance, 1) - jnp.log(PATTERNS)
        exact -= 0.5 * size * jnp.log(2 * jnp.pi * variance)
        return jnp.mean(jax.vmap(lambda point: density.log_prob_at(point, r))(y - density.mean) - exact)

    start = time.process_time()
    density = nd.fit(
        jax.random.key(seed), draw, progress_bar=False,
        network=nd.UNetConfig(shape=shape, width=16, multipliers=(1, 2), num_blocks=1, normalise=False),
        training=dataclasses.replace(
            OF_IMAGES, num_steps=2_500, time_score_weight=time_score_weight, outlier_share=outlier_share
        ),
    )  # fmt: skip
    found = {"training": time.process_time() - start}
    x = draw(jax.random.key(10_001), 1_000).reshape(1_000, -1)
    eps = jax.random.normal(jax.random.key(10_002), x.shape)
    return found | {f"beyond {r:g}".replace("0.", "."): beyond(density, x + r * eps, r) for r in (0.1, 1.0, 3.0)}


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=1)
    rows = [(name, partial(row, *settings)) for name, settings in ROWS.items()]
    rows += [(f"known, {name}", partial(known, *settings)) for name, settings in OF_KNOWN.items()]
    measure("loss_weights", options, rows[:1] if options.quick else rows, HEADER, COLUMNS)
