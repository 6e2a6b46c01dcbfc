"""Train the densities of coloured digits: m1, m2 and m3, whose compositions sculpting is held against.

    python benchmarks/train/coloured_digits.py                          # 16x16, all three in one conditional network
    python benchmarks/train/coloured_digits.py m1 --model score         # one by itself, only a score
    python benchmarks/train/coloured_digits.py --preset gpu             # wider and longer: two minutes on one H200
    python benchmarks/train/coloured_digits.py --preset gpu_28          # 28x28

What sculpting asks of calibrated energies are their ratios. Trained by themselves, two energies differ on pictures that
both know by what each has not learnt: m1 and m2 by 194 nats on green zeros, where the truth is 0. One network that is
told the model by its condition has that in common. A killed run goes on from its last checkpoint. Weights and cards go to
numpyro_diffusion/pretrained/; a card tells what held-out and training pictures have in log density, and how well noise is
predicted, by noise level.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from benchmarks.sculpting import mnist
from benchmarks.train.places import folder
from numpyro_diffusion.datasets import coloured_digits

SEED = 0
SIGMA_MIN = 0.03
#: The recipe for images, by preset: the defaults of `nd.fit`, and how large and how long.
PRESETS = {
    "cpu": (
        16,
        nd.UNetConfig(shape=(16, 16, 3), width=24, num_blocks=1, normalise=False),
        nd.TrainingConfig(
            num_steps=7_000,
            batch_size=32,
            learning_rate=1e-3,
            max_gradient_norm=10.0,
            ema_decay=0.995,
            condition_dropout=0.0,
        ),
    ),
    "gpu": (
        16,
        nd.UNetConfig(shape=(16, 16, 3), width=32, num_blocks=1, normalise=False),
        # The weights of the losses are the former defaults: sculpting asks for ratios, which these make more exact.
        nd.TrainingConfig(
            num_steps=8_000,
            batch_size=256,
            learning_rate=1e-3,
            max_gradient_norm=10.0,
            condition_dropout=0.15,
            time_score_weight=1.0,
            contrastive_weight=1.0,
        ),
    ),
    "gpu_28": (
        28,
        nd.UNetConfig(shape=(28, 28, 3), width=64, num_blocks=2),
        nd.TrainingConfig(
            num_steps=30_000, batch_size=128, learning_rate=5e-4, max_gradient_norm=10.0, condition_dropout=0.0
        ),
    ),
}
#: One network for all models.
ALL = "all"
LEVELS, COUNT = (0.03, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2), 512
SPLITS = ("test", "train")


def name_of(model: str, size: int, kind: str) -> str:
    """Name of a trained density: coloured_16, coloured_16_m1_score."""
    return f"coloured_{size}{'' if model == ALL else f'_{model}'}{'_score' if kind == 'score' else ''}"


def sampler(model: str, size: int, split: str):
    """Of one model, or of all with the number of the model as a condition."""
    if model != ALL:
        return coloured_digits.sampler(model, size, **mnist.scans(split))
    draws = [coloured_digits.sampler(one, size, **mnist.scans(split)) for one in coloured_digits.MODELS]

    def sample(rng_key, num_samples):
        which_key, *keys = jax.random.split(rng_key, 1 + len(draws))
        number = jax.random.randint(which_key, (num_samples,), 0, len(draws))
        x = jnp.stack([draw(key, num_samples) for draw, key in zip(draws, keys, strict=True)])
        return x[number, jnp.arange(num_samples)], jax.nn.one_hot(number, len(draws))

    return sample


def by_level(density, drawn) -> dict[str, list[float]]:
    """Mean log density, if there is one, and mean squared error of the noise per pixel, of pictures at each level."""
    x, condition = drawn if isinstance(drawn, tuple) else (drawn, None)
    condition = None if condition is None else jnp.append(condition, jnp.ones((len(x), 1)), axis=1)
    y = jnp.asarray(x).reshape(len(x), -1) - density.mean
    eps = jax.random.normal(jax.random.key(1), y.shape)

    @jax.jit
    def one(density, r):
        if isinstance(density, nd.ScoreModel):
            score = jax.vmap(lambda y, e, c: density.score_at(y + r * e, r, c))(y, eps, condition)
            return jnp.nan, jnp.mean((r * score + eps) ** 2)
        value, score = jax.vmap(lambda y, e, c: jax.value_and_grad(density.log_prob_at)(y + r * e, r, c))(
            y, eps, condition
        )
        return jnp.mean(value), jnp.mean((r * score + eps) ** 2)

    found = np.array([one(density, r) for r in LEVELS]).T
    figures = {"error of the noise": [round(float(v), 4) for v in found[1]]}
    return figures if np.isnan(found[0]).any() else {"log density": [round(float(v), 1) for v in found[0]]} | figures


def train(model: str, preset: str, kind: str, seed: int = SEED, **changes) -> None:
    """Train one density, and write its weights and its card; `changes` are of the preset's training."""
    size, network, training = PRESETS[preset]
    training = dataclasses.replace(training, **changes)
    training = training if kind == "energy" else dataclasses.replace(training, contrastive_weight=None)
    name = name_of(model, size, kind)
    out = folder(name)
    start = time.perf_counter()
    density = nd.fit(
        jax.random.key(seed), sampler(model, size, "train"), model=kind, sigma_min=SIGMA_MIN, network=network,
        training=training, name=name, checkpoint_path=out / f".{name}.training",
    )  # fmt: skip
    seconds = time.perf_counter() - start
    card = {
        "name": name,
        "script": f"python benchmarks/train/coloured_digits.py {model} --preset {preset} --model {kind}",
        "seed": seed,
        "data": f"MNIST digits, coloured_digits.sampler({model!r}, {size})",
        "network": dataclasses.asdict(network),
        "training": dataclasses.asdict(training),
        "training_seconds": round(seconds, 1),
        "figures": {
            "noise-to-signal ratios": list(LEVELS),
            **{split: by_level(density, sampler(model, size, split)(jax.random.key(7), COUNT)) for split in SPLITS},
        },
    }
    nd.save(density, out / f"{name}.safetensors", card=card, dtype="float16")
    (out / f"{name}.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    (out / f".{name}.training").unlink(missing_ok=True)
    print(name, json.dumps(card["figures"]), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = [ALL, *coloured_digits.MODELS]
    parser.add_argument("models", nargs="*", default=[ALL], help=f"of {', '.join(models)} (default {ALL})")
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--model", choices=("energy", "score"), default="energy")
    parser.add_argument("--steps", type=int, default=None, help="of training, instead of the preset's")
    options = parser.parse_args()
    if unknown := set(options.models) - set(models):
        parser.error(f"no model is called {', '.join(sorted(unknown))}. There are {', '.join(models)}.")
    for model in options.models:
        train(model, options.preset, options.model, **({"num_steps": options.steps} if options.steps else {}))
