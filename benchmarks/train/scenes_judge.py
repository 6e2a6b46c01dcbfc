"""Train the judge of captioned scenes, one network with a question for each attribute; write its weights and its card.

    python benchmarks/train/scenes_judge.py             # 32x32 pictures, minutes on one core
    python benchmarks/train/scenes_judge.py --size 16 --steps 1000

Everything is measured on pictures that training has not seen, with the weights as they are stored, in half precision.
"""

from __future__ import annotations

import argparse

import jax
import numpy as np

from benchmarks.train.judges import ship
from numpyro_diffusion.classifier import judged_labels, scene_queries
from numpyro_diffusion.classifier.scenes import HEADS, QUESTIONS, answers
from numpyro_diffusion.datasets import captioned_scenes
from numpyro_diffusion.networks.classifier import ClassifierConfig
from numpyro_diffusion.train.optimise import TrainingConfig

HELD_OUT_SEED, HELD_OUT, MAX_NOISE = 1, 4_000, 0.1


def figures(classifier, size: int) -> dict:
    """Held-out accuracy by question, of all questions at once, and of the captions drawn for the pictures."""
    draw = jax.jit(captioned_scenes.labelled(size), static_argnums=1)
    x, labels = draw(jax.random.key(HELD_OUT_SEED), HELD_OUT)
    noise = 0.05 * jax.random.normal(jax.random.key(HELD_OUT_SEED + 1), x.shape)
    found = {}
    for name, pictures in (("held_out_accuracy", x), ("held_out_accuracy_with_noise_0.05", x + noise)):
        judged = judged_labels(classifier, pictures)
        right = np.asarray(answers(labels)) == np.asarray(answers(judged))
        found[name] = dict(zip(QUESTIONS, right.mean(0).tolist(), strict=True)) | {"all": right.all(1).mean()}
    # Of captions: true ones called true, and those of other pictures called what they are.
    _, tokens = jax.jit(captioned_scenes.sampler(size), static_argnums=1)(jax.random.key(HELD_OUT_SEED), 200)
    captions = [captioned_scenes.TEXT.decode(row) for row in np.asarray(tokens)]
    labels, judged = (captioned_scenes.Labels(*map(np.asarray, one)) for one in (labels, judged_labels(classifier, x)))
    truth, seen = (np.stack([captioned_scenes.holds(c, one) for c in captions]) for one in (labels, judged))
    found["captions"] = {
        "true ones called true": seen[truth].mean(),
        "false ones called false": 1 - seen[~truth].mean(),
    }
    return {name: {key: round(float(value), 4) for key, value in rows.items()} for name, rows in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32, help="pixels of a side (default 32)")
    parser.add_argument("--steps", type=int, default=1_500, help="optimiser steps (default 1500)")
    options = parser.parse_args()
    size, name = options.size, f"captioned_scenes_{options.size}"
    config = ClassifierConfig(
        image_shape=(size, size, 3), num_outputs=sum(HEADS), heads=HEADS, widths=(16, 24, 40, 56), position_width=0.5
    )
    # Nine losses are summed, and so are their gradients.
    training = TrainingConfig(
        num_steps=options.steps, batch_size=128, learning_rate=3e-3, ema_decay=0.99, max_gradient_norm=5.0
    )
    ship(
        name, scene_queries(size, MAX_NOISE), config, training, lambda judge: figures(judge, size),
        script=f"scenes_judge.py --size {size} --steps {options.steps}",
        data=f"numpyro_diffusion.datasets.captioned_scenes.labelled({size}), noise up to {MAX_NOISE}",
    )  # fmt: skip
