"""What the command `distil` does: a teacher's energy, its file and card, and how it compares with the teacher."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np

import numpyro_diffusion as nd

from ..errors import ParameterError
from .models import load_model
from .training import trained_file

#: Of the data, the share that is held out for a report, and the fewest points of one.
HELD_OUT, FEWEST = 0.1, 10


def run(
    model: str, x: np.ndarray | None, output: Path, training: nd.TrainingConfig, *, name, checkpoint, seed, report, echo
) -> None:
    """Distil, save, and compare; `x` are data [n, *event_shape] or None."""
    teacher, rest, held_out = load_model(model), x, None
    if report:
        rest, held_out = _parted(x, seed)
    echo(f"{model}: distilled on {'samples of its own' if rest is None else f'{len(rest)} points'}")
    distil = partial(
        nd.distil, jax.random.key(seed), teacher, rest,
        training=training, name=name, checkpoint_path=checkpoint, progress_bar=sys.stderr.isatty(),
    )  # fmt: skip
    what = "samples of the teacher" if rest is None else f"{len(rest)} points"
    card = {"script": "numpyro-diffusion distil", "teacher": repr(teacher), "seed": seed, "data": what}
    density, seconds = trained_file(distil, output, training, checkpoint, card)
    echo(f"{output}: distilled in {seconds} s")
    if held_out is not None:
        # After saving: what takes long is on disk before it is looked at.
        echo(str(nd.distillation_report(jax.random.key(seed), density, teacher, held_out)))


def _parted(x: np.ndarray | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Data to distil on, and those held out, drawn by the seed."""
    if x is None or x.ndim < 2 or len(x) < FEWEST / HELD_OUT:
        got = "none" if x is None else f"an array of shape {x.shape}"
        raise ParameterError(
            f"--report needs --data, at least {FEWEST / HELD_OUT:.0f} points of which a tenth is held out; got {got}."
        )
    order = np.random.default_rng(seed).permutation(len(x))
    count = int(HELD_OUT * len(x))
    return x[order[count:]], x[order[:count]]
