"""Training of the judges that ship with the package: weights and a card, with what is measured on the weights as stored."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import jax

import numpyro_diffusion
from numpyro_diffusion.classifier import Classifier, load_classifier, save_classifier, train_classifier
from numpyro_diffusion.networks.classifier import ClassifierConfig
from numpyro_diffusion.train.optimise import TrainingConfig

OUT = Path(numpyro_diffusion.__file__).parent / "pretrained" / "classifiers"
SEED = 0


def ship(
    name: str,
    questions: Callable,
    config: ClassifierConfig,
    training: TrainingConfig,
    figures: Callable[[Classifier], dict],
    *,
    script: str,
    data: str,
) -> None:
    """Train a judge, resuming a killed run, and write and print what it is; `script` and `data` are for the card."""
    working, path, start = OUT / f".{name}.training", OUT / f"{name}.safetensors", time.perf_counter()
    classifier = train_classifier(
        jax.random.key(SEED), questions, config=config, training=training, name=name, checkpoint_path=working
    )
    card = {
        "name": name,
        "script": f"python benchmarks/train/{script}",
        "seed": SEED,
        "data": data,
        "network": dataclasses.asdict(config),
        "training": dataclasses.asdict(training),
        "training_seconds": round(time.perf_counter() - start, 1),
    }
    save_classifier(classifier, path, card=card)
    card["figures"] = figures(load_classifier(path))
    save_classifier(classifier, path, card=card)
    (OUT / f"{name}.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    working.unlink(missing_ok=True)
    print(json.dumps(card["figures"], indent=1))
    print(f"{path.name}: {path.stat().st_size} bytes, {card['training_seconds']} s")
