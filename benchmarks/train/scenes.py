"""Train the density of captioned scenes: a U-Net that reads captions, to be composed with itself.

    python benchmarks/train/scenes.py [--preset cpu] [--model energy] [--steps 8000] [--batch-size 32] [--output FILE]

Presets: `tiny` (16x16, minutes on one core, to see that all runs), `cpu` (32x32, an hour on one core), `gpu` (32x32,
minutes on one H100). A killed run goes on from its last checkpoint. Weights and card go to numpyro_diffusion/pretrained/,
or to FILE and beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from benchmarks.train.places import folder, stored
from numpyro_diffusion.datasets import captioned_scenes
from numpyro_diffusion.train.optimise import OF_IMAGES

SEED = 0
#: How energies of images are trained, as `nd.fit` does; presets change steps, batches and learning rate.
RECIPE = dataclasses.replace(OF_IMAGES, condition_dropout=0.15)
#: Noise-to-signal ratios of a card.
LEVELS = (0.03, 0.1, 0.3, 1.0, 3.0)


@dataclasses.dataclass(frozen=True)
class Preset:
    """Image size, network, width of the text's transformer, and what is changed of `RECIPE`."""

    size: int
    network: dict
    text_width: int
    training: dict


PRESETS = {
    "tiny": Preset(
        16, {"width": 16, "multipliers": (1, 2, 2), "embedding_size": 64, "normalise": False}, 32, {"num_steps": 500}
    ),
    "cpu": Preset(
        32,
        {
            "width": 32,
            "multipliers": (1, 2, 2),
            "num_blocks": 1,
            "patch_size": 2,
            "embedding_size": 128,
            "normalise": False,
        },
        64,
        {"num_steps": 14_000},
    ),
    "gpu": Preset(
        32,
        {
            "width": 64,
            "multipliers": (1, 2, 2),
            "num_blocks": 1,
            "patch_size": 2,
            "embedding_size": 128,
            "normalise": False,
        },
        96,
        {"num_steps": 20_000, "batch_size": 256},
    ),
}


def name_of(size: int, model: str) -> str:
    """Name of a trained density: captioned_scenes_32, captioned_scenes_32_score."""
    return f"captioned_scenes_{size}{'_score' if model == 'score' else ''}"


def train(preset: Preset, model: str = "energy", *, checkpoint: Path | None = None, seed: int = SEED, **changes):
    """The density and its card; `changes` are of the preset's training."""
    training = dataclasses.replace(RECIPE, **preset.training | changes)
    training = training if model == "energy" else dataclasses.replace(training, contrastive_weight=None)
    text = dataclasses.replace(captioned_scenes.TEXT, width=preset.text_width)
    network = nd.UNetConfig(shape=(preset.size, preset.size, 3), text=text, **preset.network)
    name, start = name_of(preset.size, model), time.perf_counter()
    density = nd.fit(
        jax.random.key(seed), captioned_scenes.sampler(preset.size), model=model, network=network, training=training,
        name=name, checkpoint_path=checkpoint,
    )  # fmt: skip
    card = {
        "name": name,
        "seed": seed,
        "data": f"captioned_scenes.sampler({preset.size})",
        "network": dataclasses.asdict(network),
        "training": dataclasses.asdict(training),
        "training_seconds": round(time.perf_counter() - start, 1),
        "parameters": sum(a.size for a in jax.tree.leaves(density.state)),
    }
    return density, card


@jax.jit
def at_noise(density, x, eps, tokens, t):
    """Means over pictures [n, ...] of log p(x + r eps), zero of scores, and over pixels of (r score + eps)^2, given the
    tokens [n, c] of captions or None."""
    alpha, r = density.schedule.alpha(t), density.schedule.noise_to_signal(t)

    def one(point, noise, row):
        asked = density if row is None else density.given(row)
        value, score = jax.value_and_grad(asked.log_density)(alpha * (point + r * noise), t)
        return value + point.size * jnp.log(alpha), jnp.mean((r * alpha * score + noise) ** 2)

    # Not in a loop: convolutions are slow there on CPUs.
    return tuple(map(jnp.mean, jax.vmap(one)(x, eps, tokens)))


@jax.jit
def told(density, x, eps, t, rows):
    """Chances [n, k] of captions of tokens [k, c], one of which is true, for pictures [n, ...] at a noise level."""
    alpha, r = density.schedule.alpha(t), density.schedule.noise_to_signal(t)
    of = lambda row: jax.vmap(lambda p, e: density.given(row).log_density(alpha * (p + r * e), t))(x, eps)
    return jax.nn.softmax(jax.lax.map(of, rows), axis=0).T


def solids_told(density, size: int, count: int = 64) -> dict:
    """Shares of pictures of one solid whose colour, and whose shape, the density tells by Bayes' rule, by noise level."""
    draw = captioned_scenes.labelled(size)
    x, labels = draw(jax.random.key(10_003), 4 * count)
    alone = np.flatnonzero(np.asarray(labels.count) == 1)[:count]
    colour, shape = (np.asarray(part)[alone, 0] for part in (labels.colour, labels.shape))
    x, colours, shapes = x[alone], captioned_scenes.COLOURS, captioned_scenes.SHAPES
    rows = np.concatenate([density.config.text.rows([f"a {c} {s}"]) for c in colours for s in shapes])
    eps, found = jax.random.normal(jax.random.key(10_004), x.shape), {}
    for r in LEVELS:
        chances = np.asarray(told(density, x, eps, density.schedule.time(r), rows))
        chances = chances.reshape(-1, len(colours), len(shapes))
        right = chances.sum(2).argmax(1) == colour, chances.sum(1).argmax(1) == shape
        found[str(r)] = dict(zip(("colour", "shape"), (round(float(np.mean(one)), 3) for one in right), strict=True))
    return found


def figures(density, size: int, count: int = 128) -> dict:
    """Log density and error on held-out pictures (all are: none is drawn twice) at five noise levels, given the true
    caption, given none, and given another picture's; by how much the two last are worse says what captions are worth.
    And what the density tells of solids, see `solids_told`."""
    x, tokens = captioned_scenes.sampler(size)(jax.random.key(10_001), count)
    eps = jax.random.normal(jax.random.key(10_002), x.shape)
    captions = {"true caption": tokens, "no caption": None, "another's caption": jnp.roll(tokens, 1, axis=0)}
    found: dict[str, dict] = {"log density by noise": {}, "denoising error by noise": {}}
    for what, rows in captions.items():
        pairs = {str(r): at_noise(density, x, eps, rows, density.schedule.time(r)) for r in LEVELS}
        found["log density by noise"][what] = {r: round(float(value), 1) for r, (value, _) in pairs.items()}
        found["denoising error by noise"][what] = {r: round(float(error), 4) for r, (_, error) in pairs.items()}
    if isinstance(density, nd.ScoreModel):
        found.pop("log density by noise")
        return found
    return found | {"solids told by noise": solids_told(density, size)}


def keep(density, card: dict, path: Path, size: int) -> None:
    """Write weights and card, with figures."""
    card["figures"] = figures(density, size)
    nd.save(density, path, card=card, dtype=stored(card["name"]))
    path.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(card, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--model", choices=("energy", "score"), default="energy")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--output", type=Path, default=None, help="file for the weights, .safetensors")
    parser.add_argument("--card", action="store_true", help="only measure the weights that are there, for their card")
    options = parser.parse_args()
    preset = PRESETS[options.preset]
    given = {"num_steps": options.steps, "batch_size": options.batch_size}
    changes = {key: value for key, value in given.items() if value is not None}
    name = name_of(preset.size, options.model)
    path = options.output or folder(name) / f"{name}.safetensors"
    checkpoint = path.with_name(f".{path.stem}.training")
    if options.card:
        density, card = nd.load(path), json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    else:
        density, card = train(preset, options.model, checkpoint=checkpoint, **changes)
        card["script"] = f"python benchmarks/train/scenes.py --preset {options.preset} --model {options.model}"
    keep(density, card, path, preset.size)
    checkpoint.unlink(missing_ok=True)
