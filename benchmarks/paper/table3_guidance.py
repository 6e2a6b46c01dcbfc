"""Table 3 of Du et al. (2023): guidance by a noise-conditional classifier, on digits and on cubes.

    python benchmarks/paper/table3_guidance.py [--quick] [--only digits] [--seeds 3]

The guides and the judges are trained first (minutes) and kept in results/.cache.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from benchmarks.paper.table2_cubes import SAMPLERS
from benchmarks.table import RESULTS, arguments, measure
from numpyro_diffusion.classifier import (
    Batch,
    features,
    likelihood,
    load_classifier,
    noised,
    predict,
    save_classifier,
    train_classifier,
)
from numpyro_diffusion.datasets import cubes, digits
from numpyro_diffusion.networks.classifier import ClassifierConfig
from numpyro_diffusion.train.optimise import TrainingConfig

LEVELS = {"digits": 60, "cubes": 40, "colours": 40}
SCALES = {"digits": (0.5, 1.0, 2.0, 4.0, 8.0), "cubes": (0.5, 1.0, 2.0, 4.0, 8.0), "colours": (1.0, 4.0)}
PER_CLASS = {"digits": 100, "cubes": 20, "colours": 12}
#: Classifier-free guidance, of digits: scales and samplers.
FREE_SCALES, FREE_SAMPLERS = (1.0, 2.0), ("reverse", "reverse, equal evaluations", "MALA", "HMC")
SHAPES = {"digits": (8, 8, 1), "cubes": (16, 16, 3), "colours": (16, 16, 3)}
CLASSES = {"digits": 10, "cubes": cubes.MAX_CUBES, "colours": len(cubes.COLOURS)}
COLUMNS = ["accuracy", "Frechet", "inception score", "acceptance", "evaluations", "seconds"]
HEADER = """# Guidance (Table 3 of Du et al. 2023)

`python benchmarks/paper/table3_guidance.py`. p(x) p(class | x)^s by a classifier that was trained on noised images, at guidance scales s. Digits: the ten classes, the shipped density without
class. Cubes: how many there are, 1 to 5, `cubes_16` without a place. Colours: the same pictures by the colour, of eight, of one of their cubes chosen at random. Accuracy in %: of *another* classifier, trained on clean
images, for which the class that was asked for is the likeliest (of rendered pictures with several colours it can only guess the one chosen). Frechet distance and inception score: in the 64 features and the classes of that
classifier, against {count} held-out digits (all there are) or 1,000 rendered images; seeds draw {digits} digits, {cubes} pictures of cubes or {colours} of colours each, equally from all classes. Small samples
have larger distances, and noisy ones: the row "data" is as many images of the data. Same levels for all samplers, a reverse step before each, and six further evaluations of value and gradient; "reverse" has the reverse step only.
Step sizes are tuned per level on one class. "Classifier-free": p(x)^(1-s) p(x | class)^s of the shipped density, which knows classes; s = 1 is p(x | class) itself.
"""


def labelled(kind: str):
    """Sampler of (images, integer labels) for training."""
    if kind == "cubes":

        def draw(rng_key, num_samples):
            x, labels = cubes.labelled(16)(rng_key, num_samples)
            return x, labels.count - 1
    elif kind == "colours":

        def draw(rng_key, num_samples):
            image_key, choice_key = jax.random.split(rng_key)
            x, labels = cubes.labelled(16)(image_key, num_samples)
            chosen = jax.random.categorical(choice_key, jnp.where(labels.mask, 0.0, -jnp.inf))
            return x, jnp.take_along_axis(labels.colour, chosen[:, None], axis=1)[:, 0]
    else:

        def draw(rng_key, num_samples):
            x, one_hot = digits.labelled_sampler(rng_key, num_samples)
            return x.reshape(-1, 8, 8, 1), jnp.argmax(one_hot, -1)

    return draw


@functools.cache
def networks(kind: str):
    """(guide that knows the noise level, judge of clean images)."""
    found = []
    for role in ("guide", "judge"):
        path = RESULTS / ".cache" / f"{role}_{kind}.safetensors"
        if not path.exists():
            draw = labelled(kind)
            config = ClassifierConfig(
                image_shape=SHAPES[kind], num_outputs=CLASSES[kind], widths=(24, 48, 96)[: 2 if kind == "digits" else 3],
                embedding_size=32 if role == "guide" else 0,
            )  # fmt: skip
            training = TrainingConfig(
                num_steps=1_500, batch_size=128, learning_rate=2e-3, ema_decay=0.99, weight_decay=1e-2
            )
            clean = lambda key, n, draw=draw: judge_batch(draw, key, n)
            data = noised(draw) if role == "guide" else clean
            path.parent.mkdir(parents=True, exist_ok=True)
            save_classifier(
                train_classifier(jax.random.key(len(role)), data, config=config, training=training), path,
                dtype="float32",
            )  # fmt: skip
        found.append(load_classifier(path))
    return tuple(found)


def judge_batch(draw, rng_key, num_samples) -> Batch:
    """Images with noise up to 0.1, so that the judge does not mind the sampler's residue."""
    draw_key, sigma_key, noise_key = jax.random.split(rng_key, 3)
    x, labels = draw(draw_key, num_samples)
    sigma = 0.1 * jax.random.uniform(sigma_key, (num_samples, 1, 1, 1))
    return Batch(x + sigma * jax.random.normal(noise_key, x.shape), labels)


@functools.cache
def reference(kind: str):
    """Images of data that nothing was trained on."""
    if kind != "digits":
        return labelled(kind)(jax.random.key(5_000), 1_000)[0]
    x = digits.dequantise(jax.random.key(5_000), digits.images("test")[0])
    return (x + 0.03 * jax.random.normal(jax.random.key(5_001), x.shape)).reshape(-1, 8, 8, 1)


def scores(kind: str, images, labels) -> dict:
    """Accuracy, Frechet distance and inception score of images meant to be of the labels."""
    judge = networks(kind)[1]
    images = jnp.asarray(images).reshape(-1, *SHAPES[kind])
    finite = np.asarray(jnp.all(jnp.isfinite(images), axis=(1, 2, 3)))
    probabilities = np.asarray(predict(judge, jnp.nan_to_num(images)))
    right = (probabilities.argmax(1) == np.asarray(labels)) & finite
    found = features(judge, images[finite])
    return {
        "accuracy": 100 * right.mean(),
        "Frechet": nd.metrics.frechet_distance(found, features(judge, reference(kind))),
        "inception score": nd.metrics.inception_score(probabilities[finite]),
        "lost": float(np.sum(~finite)),
    }


@functools.cache
def density(kind: str):
    """The unconditional density that is guided."""
    return nd.load_pretrained("digits") if kind == "digits" else nd.load_pretrained("cubes_16").given(None)


def target(kind: str, label: int, scale: float, free: bool = False):
    """p(x) p(label | x)^scale, or p(x)^(1 - scale) p(x | label)^scale."""
    prior = density(kind)
    if free:
        return nd.classifier_free_guided(prior, jax.nn.one_hot(label, CLASSES[kind]), scale)
    return nd.guided(prior, likelihood(networks(kind)[0], label, prior.schedule, prior.event_shape), scale)


def levels(kind: str, count: int | None = None):
    """Geometric levels down to the density's resolution."""
    prior = density(kind)
    return prior.schedule.levels(count or LEVELS[kind], smallest=prior.resolution)


@functools.cache
def step_sizes(kind: str, sampler: str, scale: float, free: bool):
    """Tuned on class 3."""
    kernel, steps = SAMPLERS[sampler]
    run = nd.anneal(
        jax.random.key(40), target(kind, 3, scale, free), kernel(), num_chains=2, num_steps=steps, levels=levels(kind),
        predictor=True, num_pilot_chains=16, progress_bar=False,
    )  # fmt: skip
    return tuple(run.stats["step_size"])


def row(seed: int, kind: str, sampler: str, scale: float, count: int, free: bool = False) -> dict:
    """All classes, `count` images each."""
    images, labels, rates, evaluations = [], [], [], 0
    for label in range(CLASSES[kind]):
        key, aim = jax.random.fold_in(jax.random.key(seed), label), target(kind, label, scale, free)
        if SAMPLERS[sampler] is None:
            times = levels(kind, LEVELS[kind] * (1 if sampler == "reverse" else 8))
            run = nd.anneal(key, aim, nd.Reverse(), num_chains=count, levels=times, progress_bar=False)
        else:
            kernel, steps = SAMPLERS[sampler]
            run = nd.anneal(
                key, aim, kernel(step_size=np.asarray(step_sizes(kind, sampler, scale, free))), num_chains=count,
                num_steps=steps, levels=levels(kind), predictor=True, progress_bar=False,
            )  # fmt: skip
            rates.append(np.mean(run.stats["acceptance_rate"]))
        images.append(np.asarray(run.samples).reshape(count, *SHAPES[kind]))
        labels += [label] * count
        evaluations = run.evaluations_per_chain
    result = scores(kind, np.concatenate(images), labels) | {"evaluations": evaluations}
    return result | ({"acceptance": float(np.mean(rates))} if rates else {})


def data_row(seed: int, kind: str, count: int) -> dict:
    """As many images of the data, `count` of each digit, and the judge's accuracy on them."""
    total = CLASSES[kind] * count
    if kind != "digits":
        return scores(kind, *labelled(kind)(jax.random.key(6_000 + seed), total))
    x, labels = digits.images("train")
    order = np.random.default_rng(seed).permutation(len(x))
    chosen = np.concatenate([order[labels[order] == label][:count] for label in range(CLASSES[kind])])
    return scores(kind, digits.dequantise(jax.random.key(seed), x[chosen]), labels[chosen])


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=3)
    table = []
    for kind in CLASSES:
        count = 2 if options.quick else PER_CLASS[kind]
        table.append((f"{kind}: data", functools.partial(data_row, kind=kind, count=PER_CLASS[kind])))
        for scale in (1.0,) if options.quick else SCALES[kind]:
            for sampler in ("reverse", "HMC") if options.quick else SAMPLERS:
                call = functools.partial(row, kind=kind, sampler=sampler, scale=scale, count=count)
                table.append((f"{kind}, s = {scale:g}: {sampler}", call))
    for scale in (1.0,) if options.quick else FREE_SCALES:
        for sampler in ("reverse", "HMC") if options.quick else FREE_SAMPLERS:
            count = 2 if options.quick else PER_CLASS["digits"]
            call = functools.partial(row, kind="digits", sampler=sampler, scale=scale, count=count, free=True)
            table.append((f"digits, classifier-free, s = {scale:g}: {sampler}", call))
    totals = {kind: CLASSES[kind] * PER_CLASS[kind] for kind in CLASSES}
    measure("table3_guidance", options, table, HEADER.format(count=297, **totals), COLUMNS)
