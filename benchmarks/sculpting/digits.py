"""Sculpting of coloured digits: rows of `sculpting.py`, against the exact masses of cells, as a judge counts them."""

from __future__ import annotations

import functools
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from benchmarks.sculpting import mnist
from numpyro_diffusion.classifier import (
    JointClassifier,
    predict,
    pretrained_classifier,
    sculpted,
    train_joint_classifier,
)
from numpyro_diffusion.datasets import coloured_digits
from numpyro_diffusion.networks.classifier import ClassifierConfig

SIZE, NUM_IMAGES, QUICK_IMAGES = 16, 200, 50
LEVELS, REVERSE_LEVELS, WEIGHTED_LEVELS = 40, 100, 400
HMC = nd.HMC(num_integration_steps=3, persistence=0.9)
#: Kernel, levels and other settings. A predictor goes where the samples are, and leaves no weights.
SAMPLERS = {
    "energies, HMC": (HMC, LEVELS, {"num_steps": 2, "predictor": True, "num_pilot_chains": 8}),
    "energies, HMC beside the mixture": (HMC, LEVELS, {"num_steps": 2, "num_pilot_chains": 8}),
    "energies, weighted": (HMC, WEIGHTED_LEVELS, {"num_steps": 1, "num_pilot_chains": 8}),
    "energies, reverse": (nd.Reverse(), REVERSE_LEVELS, {}),
    "scores": (nd.Reverse(), REVERSE_LEVELS, {}),
}
#: Pictures of each model that are weighed, and the noise at which they are: there ratios are most exact (`train/ratios.py`).
WEIGHED, WEIGHED_AT = 400, 0.2
#: The joint classifier of the score-only route.
NETWORK = ClassifierConfig(image_shape=(SIZE, SIZE, 3), widths=(16, 32, 56), embedding_size=32)
TRAINING = nd.TrainingConfig(num_steps=3_000, batch_size=128, learning_rate=2e-3, ema_decay=0.99)
SCALES = (1.0, 10.0, 20.0, 75.0)
MODELS = tuple(coloured_digits.MODELS)
#: (models, labels): all pairs and triples of three models, and the harmonic means of two of them by themselves.
PROBLEMS = {
    **{
        f"{{{','.join(map(str, labels))}}}": (MODELS, labels)
        for labels in ((1, 2), (1, 3), (2, 3), (1, 1), (2, 2), (3, 3), (1, 2, 3), (1, 1, 1), (2, 2, 2), (3, 3, 3))
    },
    **{f"{a} and {b} alone": ((a, b), (1, 2)) for a, b in (("m1", "m2"), ("m1", "m3"), ("m2", "m3"))},
}  # fmt: skip
HEADER = f"""# Sculpting coloured digits

`python benchmarks/sculpting/sculpting.py`. Mean ± standard error over seeds. Pictures of {SIZE}x{SIZE}x3, "pictures" of each row and
seed, sorted into the eight cells (digit, colour) by the judge that ships with the package. m1 draws green 0 to 3, m2 red and
green 0 and 1, m3 red and green 0 and 2. Cells: total variation of their masses from the exact ones; unweighted: without the
weights of the run; sure: mean probability that the judge gives its cell.

- energies, HMC: nd.sculpt of calibrated energies, without a classifier, by annealed HMC after predictor steps over {LEVELS} levels,
  which has no weights; beside the mixture: with weights of the answers alone, after steps that the mixture of the models
  proposes (`predictor=nd.mixture(...)`); weighted: without predictor, over {WEIGHTED_LEVELS} levels; reverse: reverse diffusion of the formula.
- models, weighed: {WEIGHED} pictures of each model by its own reverse diffusion over {REVERSE_LEVELS} levels, weighed by what the ratios
  of the energies at noise {WEIGHED_AT} make of the answers, p(y_1 | x) .. p(y_n | x), which is never above one; one run for all answers.
- scores: score models and a joint classifier trained in two phases ({TRAINING.num_steps:,} steps of {TRAINING.batch_size} each);
  reverse diffusion over {REVERSE_LEVELS} levels, by scale of guidance.
- log Z - truth: of nd.sculpt, from the exact sum over cells.
"""
COLUMNS = ["cells", "unweighted", "sure", "log Z - truth", "log Z error", "ESS", "evaluations", "pictures", "seconds"]


def is_trained(kind: str) -> bool:
    """Whether the network of `benchmarks/train/coloured_digits.py` is there."""
    return name_of(kind) in nd.list_pretrained()


def name_of(kind: str) -> str:
    return f"coloured_{SIZE}{'_score' if kind == 'score' else ''}"


@functools.cache
def loaded(model: str, kind: str) -> nd.Density:
    """A model: the network under the condition that names it."""
    network: Any = nd.load_pretrained(name_of(kind))
    return network.given(np.eye(len(MODELS))[MODELS.index(model)])


@functools.cache
def judge():
    return pretrained_classifier(f"coloured_digits_{SIZE}")


@functools.cache
def joint(models: tuple[str, ...], seed: int) -> JointClassifier:
    """Trained once, and kept."""
    path = Path(__file__).parent / "models" / f"joint_{'_'.join(models)}_{seed}"
    path.parent.mkdir(exist_ok=True)
    return train_joint_classifier(
        jax.random.key(1_000 + seed), [coloured_digits.sampler(model, SIZE, **mnist.scans()) for model in models],
        len(models), network=NETWORK, training=TRAINING, checkpoint_path=path,
    )  # fmt: skip


class Weighed(NamedTuple):
    """Pictures with weights, by the names that runs have."""

    samples: jax.Array
    log_weights: np.ndarray
    log_evidence: float
    log_evidence_error: float
    evaluations_per_chain: int


@functools.cache
def drawn(seed: int, count: int) -> tuple[jax.Array, np.ndarray]:
    """As many pictures x [3 count, ...] of each model, and log p(model | x) [3, 3 count]."""
    network: Any = nd.load_pretrained(name_of("energy"))
    levels = network.schedule.levels(REVERSE_LEVELS, smallest=network.resolution)
    keys, whose = jax.random.split(jax.random.key(2_000 + seed), len(MODELS) + 1), jnp.eye(len(MODELS))
    x = jnp.concatenate([
        nd.anneal(key, network.given(one), nd.Reverse(), num_chains=count, levels=levels, progress_bar=False).samples
        for key, one in zip(keys, whose, strict=False)
    ])  # fmt: skip
    logs = under_models(network, x.reshape(len(x), -1) - network.mean, WEIGHED_AT, keys[-1])
    return x, np.asarray(jax.nn.log_softmax(logs, axis=0), np.float64)


@jax.jit
def under_models(network, y, r, rng_key) -> jax.Array:
    """Log densities [3, n] of centred pictures y [n, d], noised, under each model."""
    noisy = y + r * jax.random.normal(rng_key, y.shape)
    under = lambda one: jax.lax.map(lambda point: network.log_prob_at(point, r, one), noisy, batch_size=100)
    return jax.vmap(under)(jnp.append(jnp.eye(len(MODELS)), jnp.ones((len(MODELS), 1)), axis=1))


def weighed(labels: tuple[int, ...], seed: int, count: int) -> Weighed:
    """Draws of the mixture of all models, weighed by the answers."""
    x, told = drawn(seed, count)
    # Each answer is worth p(y | x) / p(y), as in `nd.sculpt`.
    log_weights = np.sum([told[i - 1] + np.log(len(MODELS)) for i in labels], axis=0)
    weights = np.exp(log_weights)
    error = weights.std() / weights.mean() / np.sqrt(len(weights))
    return Weighed(x, log_weights, float(np.log(weights.mean())), float(error), REVERSE_LEVELS - 1 + len(MODELS))


def figures(problem, run) -> dict:
    """What the judge says of a run's pictures."""
    models, labels = problem
    exact, log_evidence = coloured_digits.shares(labels, models=models)
    chances = np.asarray(predict(judge(), run.samples))
    cells, sure = chances.argmax(1), chances.max(1)
    weights = np.exp(np.asarray(run.log_weights, np.float64))
    weights /= weights.sum()
    found, plain = np.bincount(cells, weights, 8), np.bincount(cells, minlength=8) / len(cells)
    return {
        "cells": 0.5 * np.abs(found - exact).sum(), "unweighted": 0.5 * np.abs(plain - exact).sum(),
        "sure": sure.mean(), "log Z - truth": run.log_evidence - log_evidence, "log Z error": run.log_evidence_error,
        "ESS": 1 / np.sum(weights**2), "evaluations": run.evaluations_per_chain,
        "pictures": len(cells), "masses": [round(float(m), 4) for m in found],
    }  # fmt: skip


def answered(labels: tuple[int, ...], seed: int, count: int) -> dict:
    """Figures of weighed draws."""
    return figures((MODELS, labels), weighed(labels, seed, count))


def row(problem, method: str, scale: float, quick: bool):
    """Function of the seed."""
    models, labels = problem
    options = {"num_chains": QUICK_IMAGES if quick else NUM_IMAGES, "progress_bar": False}

    def compute(seed: int) -> dict:
        if method == "scores":
            density = sculpted([loaded(model, "score") for model in models], joint(models, seed), labels, scale=scale)
        else:
            density = nd.sculpt([loaded(model, "energy") for model in models], labels)
        smallest = density.leaves[0].resolution
        kernel, count, how = SAMPLERS[method]
        if "beside" in method:
            how = how | {"predictor": nd.mixture(*(loaded(model, "energy") for model in models))}
        levels = density.schedule.levels(count, smallest=smallest)
        run = nd.anneal(jax.random.key(seed), density, kernel, levels=levels, **how, **options)
        return figures(problem, run)

    return compute


def rows(quick: bool):
    """(name, function of the seed) of every row."""
    for name, (models, labels) in PROBLEMS.items():
        if models == MODELS and is_trained("energy"):
            count = QUICK_IMAGES if quick else WEIGHED
            yield f"{name}: models, weighed", partial(answered, labels, count=count)
    for name, problem in PROBLEMS.items():
        for method in SAMPLERS:
            if method != "scores" and is_trained("energy"):
                yield f"{name}: {method}", row(problem, method, 1.0, quick)
        for scale in SCALES if is_trained("score") else ():
            yield f"{name}: scores and classifier, scale {scale:g}", row(problem, "scores", scale, quick)
