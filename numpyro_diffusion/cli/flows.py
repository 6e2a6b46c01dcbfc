"""What the command `flows` does: two flows on a grid, what they compose to, and who samples it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

import numpyro_diffusion as nd
from numpyro_diffusion import gflownet

from ..disk import arrays as files
from . import pictures

#: Weighted paths of each composition.
NUM_PATHS = 100_000


def run(output: Path, *, side: int, num_steps: int, seed: int, echo) -> None:
    """Train flows and classifiers, compose, and write heat maps."""
    grid, shown = gflownet.Hypergrid(2, side), sys.stderr.isatty()
    network, key = gflownet.PolicyNetwork(width=128), jax.random.key(seed)
    training = gflownet.FlowTraining(num_steps=num_steps, learning_rate=3e-3)
    of_classifier = nd.TrainingConfig(num_steps=num_steps, batch_size=64, learning_rate=3e-3, ema_decay=0.99)
    flows = [
        gflownet.train(
            jax.random.fold_in(key, k), grid, grid.reward(gflownet.circle(k)), network=network, training=training,
            name=f"circle{k}", progress_bar=shown,
        )
        for k in (1, 2)
    ]  # fmt: skip
    rows = {"harmonic mean": [1, 2], "contrast": [1, 1]}
    echo(f"two flows on a {side} x {side} grid; L1 distances from the exact composition of both\n")
    echo(f"{'composition':<14} {'routing':>8} {'classifier':>11} {'weighted':>9} {'log sum':>8} {'exact':>8}")
    maps = []
    for name, labels in rows.items():
        composed: Any = nd.sculpt(flows, labels)  # pyright: ignore[reportArgumentType]
        sampled = gflownet.sample(key, composed, num_samples=NUM_PATHS)
        guided = gflownet.guided(key, flows, labels, network=network, training=of_classifier, progress_bar=shown)
        truth, *others = found = [
            _shares(composed), _shares(gflownet.routing(composed)), _shares(guided), sampled.probabilities(),
        ]  # fmt: skip
        errors = [float(np.sum(np.abs(other - truth))) for other in others]
        echo(
            f"{name:<14} {errors[0]:>8.3f} {errors[1]:>11.3f} {errors[2]:>9.3f} {sampled.log_evidence:>8.3f} "
            f"{composed.log_sum():>8.3f}"
        )
        ways = zip(("routing", "classifier", "weighted paths"), errors, strict=True)
        titles = ["exact", *(f"{way}, L1 {error:.2f}" for way, error in ways)]
        maps.append((name, titles, [values.reshape(side, side).T for values in found]))
    files.write(output, pictures.heat_maps(maps))
    echo(f"\n{output}: written")


def _shares(flow) -> np.ndarray:
    """Exact probabilities [S]."""
    logs = np.asarray(flow.log_probs(), dtype=np.float64)
    return np.exp(logs - np.logaddexp.reduce(logs))
