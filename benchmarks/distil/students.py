"""Teachers with a score alone, and the energies distilled from them: trained once, and kept in `benchmarks/distil/models/`.

    python benchmarks/distil/students.py ring 0     # distil the ring's score model with seed 0, or read it back

Teachers are the pretrained score models, and one of the digits, of which none ships: it is trained here by `nd.fit` on
scikit-learn's digits. Data are those that teachers were trained on.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import jax

import numpyro_diffusion as nd
from numpyro_diffusion.datasets import cubes, digits, planar

MODELS = Path(__file__).parent / "models"
PLANAR = nd.TrainingConfig(num_steps=3_000, batch_size=512, learning_rate=2e-3)
DIGITS = nd.TrainingConfig(num_steps=8_000, batch_size=256, learning_rate=1e-3)
CUBES = nd.TrainingConfig(
    num_steps=1_000, batch_size=32, learning_rate=5e-4, max_gradient_norm=10.0, time_score_weight=0.1,
    condition_dropout=0.15, weighting="denoiser",
)  # fmt: skip


def settings(name: str) -> tuple[Any, dict]:
    """Sampler of the data, and arguments of `nd.distil`."""
    if name == "digits":
        return digits.sampler, {"training": DIGITS}
    if name == "cubes_16":
        return cubes.sampler(16), {"training": CUBES, "parameterisation": "inner_product", "normalise": False}
    return planar.sampler(name), {"training": PLANAR}


def teacher(name: str) -> Any:
    """The score model of that name."""
    if name != "digits":
        return nd.load_pretrained(f"{name}_score")
    path = MODELS / "digits_score.safetensors"
    if not path.exists():
        MODELS.mkdir(exist_ok=True)
        config = nd.TrainingConfig(num_steps=4_000, batch_size=256, learning_rate=1e-3, weight_decay=1e-2)
        model = nd.fit(
            jax.random.key(0), digits.sampler, model="score", training=config, sigma_min=0.03, sigma_max=20.0,
            name="digits_score",
        )  # fmt: skip
        nd.save(model, path)
    return nd.load(path)


def student(name: str, seed: int) -> Any:
    """The energy distilled from the teacher of that name."""
    path = MODELS / f"{name}_{seed}.safetensors"
    if not path.exists():
        MODELS.mkdir(exist_ok=True)
        (data, how), working = settings(name), MODELS / f".{name}_{seed}.training"
        start = time.perf_counter()
        model = nd.distil(
            jax.random.key(seed), teacher(name), data, name=name, checkpoint_path=working,
            progress_bar=False, **how,
        )  # fmt: skip
        nd.save(model, path, card={"seed": seed, "seconds": round(time.perf_counter() - start, 1)})
        working.unlink(missing_ok=True)
        print(name, seed, time.perf_counter() - start, flush=True)
    return nd.load(path)


if __name__ == "__main__":
    for seed in sys.argv[2:]:
        student(sys.argv[1], int(seed))
