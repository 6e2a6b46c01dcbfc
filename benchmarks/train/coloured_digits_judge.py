"""Train the judge of coloured digits, p(digit, colour | picture), and write its weights and its card.

    python benchmarks/train/coloured_digits_judge.py             # 16x16 pictures, minutes on one core
    python benchmarks/train/coloured_digits_judge.py --size 28

Everything is measured on scans that training has not seen, with the weights as they are stored, in half precision.
"""

from __future__ import annotations

import argparse

import jax
import numpy as np

from benchmarks.sculpting import mnist
from benchmarks.train.judges import ship
from numpyro_diffusion.classifier import Batch, predict
from numpyro_diffusion.datasets.coloured_digits import CELLS, labelled
from numpyro_diffusion.networks.classifier import ClassifierConfig
from numpyro_diffusion.train.optimise import TrainingConfig

HELD_OUT_SEED, HELD_OUT = 1, 8_000
#: White noise of standard deviation uniform in [0, MAX_NOISE], so that the residual noise of a sampler does not matter.
MAX_NOISE = 0.1


def questions(size: int, split: str, max_noise: float = MAX_NOISE):
    """Sampler of pictures with noise and the numbers of their cells."""
    draw = labelled(CELLS, size, **mnist.scans(split))

    def sample(rng_key, num_samples):
        picture_key, sigma_key, noise_key = jax.random.split(rng_key, 3)
        x, cell = draw(picture_key, num_samples)
        sigma = max_noise * jax.random.uniform(sigma_key, (num_samples, 1, 1, 1))
        return Batch(x + sigma * jax.random.normal(noise_key, x.shape), cell)

    return sample


def figures(classifier, size: int) -> dict:
    """Accuracy on held-out scans, with noise and without, and of every cell."""
    found = {}
    for name, noise in (("held_out_accuracy", MAX_NOISE), ("held_out_accuracy_without_noise", 0.0)):
        batch = questions(size, "test", noise)(jax.random.key(HELD_OUT_SEED), HELD_OUT)
        right = np.asarray(predict(classifier, batch.images)).argmax(1) == np.asarray(batch.labels)
        found[name] = float(right.mean())
        for i, (digit, colour) in enumerate(CELLS):
            found[f"{name}_{colour}_{digit}"] = float(right[np.asarray(batch.labels) == i].mean())
    return {name: round(value, 4) for name, value in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=16, choices=(16, 28), help="pixels of a side (default 16)")
    parser.add_argument("--steps", type=int, default=3_000, help="optimiser steps (default 3000)")
    options = parser.parse_args()
    size, name = options.size, f"coloured_digits_{options.size}"
    config = ClassifierConfig(image_shape=(size, size, 3), num_outputs=len(CELLS), widths=(16, 32, 56))
    training = TrainingConfig(num_steps=options.steps, batch_size=128, learning_rate=3e-3, ema_decay=0.99)
    ship(
        name, questions(size, "train"), config, training, lambda judge: figures(judge, size),
        script=f"coloured_digits_judge.py --size {size} --steps {options.steps}",
        data=f"{mnist.source()}: coloured_digits.labelled(CELLS, {size}), noise up to {MAX_NOISE}",
    )  # fmt: skip
