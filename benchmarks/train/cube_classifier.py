"""Train the judge of composed cubes, p(a cube at y | picture), and write its weights and its card.

    python benchmarks/train/cube_classifier.py             # 16x16 pictures, minutes on one core
    python benchmarks/train/cube_classifier.py --size 32

Everything is measured on pictures that training has not seen, with the weights as they are stored, in half precision.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.train.judges import ship
from numpyro_diffusion.classifier import (
    all_present,
    position_queries,
    predict,
)
from numpyro_diffusion.datasets import cubes
from numpyro_diffusion.networks.classifier import ClassifierConfig
from numpyro_diffusion.train.optimise import TrainingConfig

HELD_OUT_SEED, HELD_OUT, MAX_NOISE = 1, 4_000, 0.1


def figures(classifier, size: int) -> dict:
    """Accuracy on fresh questions, clean and noisy, and how often whole pictures are judged right."""
    found = {}
    for name, noise in (("held_out_accuracy", MAX_NOISE), ("held_out_accuracy_without_noise", 0.0)):
        queries = jax.jit(position_queries(cubes.labelled(size), noise), static_argnums=1)
        batch = queries(jax.random.key(HELD_OUT_SEED), HELD_OUT)
        right = np.asarray((predict(classifier, batch.images, batch.positions) > 0.5) == batch.labels)
        found[name] = float(right.mean())
        found[f"{name}_yes"] = float(right[np.asarray(batch.labels) == 1].mean())
        found[f"{name}_no"] = float(right[np.asarray(batch.labels) == 0].mean())
    draw = jax.jit(cubes.labelled(size), static_argnums=1)
    x, labels = draw(jax.random.key(HELD_OUT_SEED + 1), HELD_OUT)
    right = np.asarray(all_present(classifier, x, labels.positions, labels.mask))
    found["true_pictures_judged_right"] = float(right.mean())
    for count in range(1, cubes.MAX_CUBES + 1):
        found[f"true_pictures_of_{count}_judged_right"] = float(right[np.asarray(labels.count) == count].mean())
    # The same pictures, asked for one cube they do not have: nobody's cube is within 0.1 of it.
    _, other = draw(jax.random.key(HELD_OUT_SEED + 2), HELD_OUT)
    wrong = other.positions[:, :1]
    distance = jnp.where(labels.mask, jnp.linalg.norm(wrong - labels.positions, axis=-1), jnp.inf)
    far = np.asarray(jnp.min(distance, axis=1)) > 0.1
    found["pictures_without_the_cube_judged_right"] = float(np.asarray(all_present(classifier, x, wrong))[far].mean())
    return {name: round(value, 4) for name, value in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=16, help="pixels of a side (default 16)")
    parser.add_argument("--steps", type=int, default=2_000, help="optimiser steps (default 2000)")
    options = parser.parse_args()
    size, name = options.size, f"cubes_{options.size}"
    widths = (24, 48, 96) if size <= 16 else (24, 48, 72, 96)
    config = ClassifierConfig(image_shape=(size, size, 3), widths=widths, position_width=0.05)
    training = TrainingConfig(num_steps=options.steps, batch_size=128, ema_decay=0.99)
    ship(
        name, position_queries(cubes.labelled(size), MAX_NOISE), config, training, lambda judge: figures(judge, size),
        script=f"cube_classifier.py --size {size} --steps {options.steps}",
        data=f"numpyro_diffusion.datasets.cubes.labelled({size}), noise up to {MAX_NOISE}",
    )  # fmt: skip
