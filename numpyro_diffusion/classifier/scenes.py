"""The judge of captioned scenes: one network, and a question for each attribute.

Its questions are the shape, colour and size of the left solid, or of the only one, those of the right one or none,
where the left one stands, the ground and the sky. What it answers are `captioned_scenes.Labels`, of which
`captioned_scenes.holds` tells whether a caption is true.
"""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from ..datasets import captioned_scenes
from ..datasets.captioned_scenes import COLOURS, DEPTHS, GROUNDS, SHAPES, SIZES, SKIES, Labels
from ..errors import ParameterError, check_integer, check_key, check_number
from .batch import Batch
from .classifier import Classifier, by_head, log_prob

#: Questions and their answers; where there is no right solid, answer 0 is none.
QUESTIONS = {
    "left shape": SHAPES, "left colour": COLOURS, "left size": SIZES, "right shape": ("none", *SHAPES),
    "right colour": ("none", *COLOURS), "right size": ("none", *SIZES), "depth": ("none", *DEPTHS), "ground": GROUNDS,
    "sky": SKIES,
}  # fmt: skip
HEADS = tuple(map(len, QUESTIONS.values()))
#: Where the network's map of a place lies, from which it knows left from right.
REFERENCE = (0.0, 0.5)


def scene_queries(size: int = 32, max_noise: float = 0.1):
    """Sampler of `Batch`es of captioned scenes, their labels by question [n, 9], for a network with heads `HEADS`.

    White noise of standard deviation uniform in [0, max_noise] is added to every picture, so that the residual noise of
    a sampler does not matter. ParameterError for a size below 8 or a noise below 0.
    """
    return _scene_queries(size, check_number("max_noise", max_noise, 0.0, 1e6, "0.1 is usual for pictures in [-1, 1]."))


@lru_cache
def _scene_queries(size: int, max_noise: float):
    labelled = captioned_scenes.labelled(size)

    def sample(rng_key, num_samples):
        picture_key, noise_key, sigma_key = jax.random.split(check_key(rng_key), 3)
        num_samples = check_integer("num_samples", num_samples)
        x, labels = labelled(picture_key, num_samples)
        sigma = max_noise * jax.random.uniform(sigma_key, (num_samples, 1, 1, 1))
        noisy = x + sigma * jax.random.normal(noise_key, x.shape)
        return Batch(noisy, answers(labels), jnp.tile(jnp.array(REFERENCE), (num_samples, 1)))

    return sample


def answers(labels: Labels) -> jax.Array:
    """The answers [n, 9] that labels give to `QUESTIONS`."""
    solids = (labels.shape, labels.colour, labels.size)
    left, right = ([values[:, i] + i for values in solids] for i in range(2))
    return jnp.stack([*left, *right, labels.depth + 1, labels.ground, labels.sky], axis=-1)


def judged_labels(classifier: Classifier, images) -> Labels:
    """What a trained judge sees in pictures [n, size, size, 3], as labels: the likeliest answer to each question.

    Raises:
        ParameterError: for a classifier of other questions.
        ShapeError: if the pictures do not fit it.
    """
    config = classifier.config if isinstance(classifier, Classifier) else None
    if config is None or config.heads != HEADS or not config.position_width:
        raise ParameterError(
            f"a judge of scenes is a Classifier with heads {HEADS} and a position_width > 0, trained on "
            f"scene_queries; got {config}."
        )
    logs = dict(zip(QUESTIONS, by_head(config, log_prob(classifier, images, REFERENCE)), strict=True))
    best = {question: np.argmax(np.asarray(values), axis=-1) for question, values in logs.items()}
    there = best["right shape"] > 0

    def with_right(question):
        # Of a solid that is there, some answer other than none.
        return np.where(there, np.argmax(np.asarray(logs[question])[:, 1:], axis=-1), -1)

    solids = (np.stack([best[f"left {what}"], with_right(f"right {what}")], -1) for what in ("shape", "colour", "size"))
    return Labels(
        *solids, count=1 + there.astype(int), depth=with_right("depth"), ground=best["ground"], sky=best["sky"]
    )
