"""Train the densities of cubes: one position-conditioned U-Net, to be composed with itself.

    python benchmarks/train/cubes.py [--preset cpu] [--model energy] [--steps 8000] [--batch-size 32]

Presets: `cpu` (16x16, an hour on one core), `cpu32` (32x32, an hour on two cores), `gpu` (64x64, half an hour on one H100), `paper`
(64x64 at the size of Du et al. (2023), for a few steps only: prints what they cost, and keeps nothing). A killed run
goes on from its last checkpoint. Weights and card go to numpyro_diffusion/pretrained/, of variants to
benchmarks/weights/.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time

import jax
import numpy as np

import numpyro_diffusion as nd
from benchmarks.train.places import folder, stored
from benchmarks.train.typical import measure as measure_typical
from numpyro_diffusion.datasets import cubes

SEED = 0
#: Noise-to-signal ratios; the largest at 16x16, and in proportion at other sizes: what spans many pixels outlasts more
#: noise.
SIGMA_MIN, SIGMA_MAX = 0.02, 5.0


@dataclasses.dataclass(frozen=True)
class Preset:
    """Image size, network and optimisation."""

    size: int
    network: dict
    training: dict


PRESETS = {
    "cpu": Preset(
        16,
        {"width": 32, "multipliers": (1, 2, 2), "normalise": False},
        {"num_steps": 8_000, "batch_size": 32, "learning_rate": 1e-3},
    ),
    "cpu32": Preset(
        32,
        {"width": 32, "multipliers": (1, 2, 2, 2), "normalise": False},
        {"num_steps": 8_000, "batch_size": 32, "learning_rate": 1e-3},
    ),
    "gpu": Preset(
        64,
        {"width": 64, "multipliers": (1, 2, 3, 4), "attention": (16, 8), "compute_dtype": "bfloat16"},
        {"num_steps": 30_000, "batch_size": 128, "learning_rate": 3e-4},
    ),
    "paper": Preset(
        64,
        {"width": 128, "multipliers": (1, 2, 3, 4), "num_blocks": 3, "attention": (32, 16, 8), "rematerialise": True},
        {"num_steps": 20, "batch_size": 128, "learning_rate": 1e-4},
    ),
}


def name_of(size: int, model: str, parameterisation: str = "residual") -> str:
    """Name of a trained density: cubes_16, cubes_16_score, cubes_16_l2."""
    ending = "_score" if model == "score" else "" if parameterisation == "residual" else f"_{parameterisation}"
    return f"cubes_{size}{ending}"


def train(
    preset: Preset, model: str, parameterisation: str, *, steps: int | None = None, batch_size: int | None = None,
    seed: int = SEED, keep: bool = True,
):  # fmt: skip
    """The density and its card; without `keep` there is no checkpoint, and no figures that take long."""
    given = {"num_steps": steps, "batch_size": batch_size}
    settings = preset.training | {key: value for key, value in given.items() if value is not None}
    # All else by default.
    training = nd.TrainingConfig(max_gradient_norm=10.0, condition_dropout=0.15, **settings)
    network = nd.UNetConfig(
        shape=(preset.size, preset.size, 3), num_positions=1, small_start=parameterisation == "l2", **preset.network
    )
    name = name_of(preset.size, model, parameterisation)
    start = time.perf_counter()
    density = nd.fit(
        jax.random.key(seed), cubes.sampler(preset.size), model=model, parameterisation=parameterisation,
        sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX * preset.size / 16, network=network, training=training, name=name,
        checkpoint_path=folder(name) / f".{name}.training" if keep else None,
    )  # fmt: skip
    card = {
        "name": name,
        "seed": seed,
        "data": f"cubes.sampler({preset.size})",
        "network": dataclasses.asdict(network),
        "training": dataclasses.asdict(training),
        "training_seconds": round(time.perf_counter() - start, 1),
        "parameters": sum(a.size for a in jax.tree.leaves(density.state)),
        "figures": {"denoising error by noise": denoising_error(density, preset.size)} if keep else {},
    }
    return density, card


def denoising_error(density, size: int, count: int = 256) -> dict[str, float]:
    """Mean over held-out images and pixels of (r score + eps)^2, at six noise levels r."""
    x, condition = cubes.sampler(size)(jax.random.key(10_001), count)
    eps = jax.random.normal(jax.random.key(10_002), x.shape)
    result = {}
    for r in (0.03, 0.1, 0.3, 1.0, 3.0):
        t = density.schedule.time(r)
        alpha = density.schedule.alpha(t)

        def error(point, noise, c, r=r, t=t, alpha=alpha):
            score = jax.grad(density.given(c).log_density)(alpha * (point + r * noise), t)
            return ((r * alpha * score + noise) ** 2).mean()

        mapped = jax.jit(lambda *arrays, error=error: jax.lax.map(lambda a: error(*a), arrays, batch_size=32))
        result[str(r)] = round(float(np.mean(mapped(x, eps, condition))), 4)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--model", choices=("energy", "score"), default="energy")
    parser.add_argument("--parameterisation", choices=("residual", "inner_product", "l2", "dae"), default="residual")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--batch-size", type=int, default=None)
    options = parser.parse_args()
    keep, chosen = options.preset != "paper", PRESETS[options.preset]
    density, card = train(
        chosen, options.model, options.parameterisation,
        steps=options.steps, batch_size=options.batch_size, keep=keep,
    )  # fmt: skip
    name = card["name"]
    if keep:
        card["script"] = f"python benchmarks/train/cubes.py --preset {options.preset} --model {options.model}"
        card["script"] += "" if options.steps is None else f" --steps {options.steps}"
        nd.save(density, folder(name) / f"{name}.safetensors", card=card, dtype=stored(name))
        (folder(name) / f"{name}.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        measure_typical(name)
        (folder(name) / f".{name}.training").unlink(missing_ok=True)
    print(name, f"{card['parameters']:,} parameters", card["figures"], card["training_seconds"], "s")
