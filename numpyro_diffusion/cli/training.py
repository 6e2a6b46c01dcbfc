"""What the commands `train` and `distil` share: a density trained and saved with its card, and what Ctrl-C leaves."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click

import numpyro_diffusion as nd

from ..density.density import Density
from .console import interrupts


def trained_file(
    train: Callable[[], Density], output: Path, training: nd.TrainingConfig, checkpoint: Path | None, card: dict
) -> tuple[Density, float]:
    """Train and save with a card: the density, and the seconds that the training took.

    Raises:
        ClickException: after Ctrl-C. With a checkpoint no output is written, and the same command goes on; without one
            the output holds what there is, and its card how many steps that was.
    """
    start = time.perf_counter()
    with interrupts() as found:
        density = train()
    seconds, done = round(time.perf_counter() - start, 1), found[0].done if found else training.num_steps
    stopped = f"interrupted after step {done} of {training.num_steps}"
    if found and checkpoint is not None:
        raise click.ClickException(f"{stopped}; {output} is not written. The same command goes on.")
    card |= {"num_steps": done, "batch_size": training.batch_size, "training_seconds": seconds}
    nd.save(density, output, card=card)
    if found:
        raise click.ClickException(
            f"{stopped}; {output} is what they made. With --checkpoint FILE training can be resumed."
        )
    return density, seconds
