"""Train the densities that ship with the package.

    python benchmarks/train_pretrained.py                 # all planar densities, three variants each
    python benchmarks/train_pretrained.py ring ring_paper # some

A name is a planar density ("ring"), with the suffix "_paper" for the uncalibrated energy of Du et al. (2023) and
"_score" for a score-only model. Interrupted runs resume. `benchmarks/calibration.py` measures the results.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import jax

import numpyro_diffusion as nd
from numpyro_diffusion.datasets import planar

OUT = Path(nd.__file__).parent / "pretrained"
SEED = 0
# The paper's network (residual MLP, 4 blocks, 128 wide) and about as many samples as its 15,000 Adam steps of 1,000.
NETWORK = nd.NetworkConfig(width=128, num_blocks=4)
TRAINING = {
    "": nd.TrainingConfig(num_steps=12_000, batch_size=1024, learning_rate=2e-3),
    "_paper": nd.TrainingConfig(num_steps=10_000, batch_size=512, learning_rate=1e-3),
    "_score": nd.TrainingConfig(num_steps=10_000, batch_size=512, learning_rate=1e-3),
}


def train(name: str) -> None:
    """Train one density and write its weights and card."""
    base = name.removesuffix("_paper").removesuffix("_score")
    variant = name.removeprefix(base)
    start = time.perf_counter()
    density = nd.fit(
        jax.random.key(SEED),
        planar.sampler(base),
        model="score" if variant == "_score" else "energy",
        calibrated=variant == "",
        sigma_min=0.0025,
        network=NETWORK,
        training=TRAINING[variant],
        name=name,
        checkpoint_path=OUT / f".{name}.training",
    )
    card = {
        "name": name,
        "script": f"benchmarks/train_pretrained.py {name}",
        "seed": SEED,
        "data": f"numpyro_diffusion.datasets.planar.sampler({base!r})",
        "network": nd.storage.dataclasses.asdict(NETWORK),
        "training": nd.storage.dataclasses.asdict(TRAINING[variant]),
        "training_seconds": round(time.perf_counter() - start, 1),
    }
    nd.save(density, OUT / f"{name}.safetensors", card=card, dtype="float16")
    (OUT / f"{name}.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    (OUT / f".{name}.training").unlink()


if __name__ == "__main__":
    every = [f"{name}{variant}" for variant in ("", "_paper", "_score") for name in planar.NAMES]
    for name in sys.argv[1:] or every:
        train(name)
