"""What the command `scenes` does: a prompt over a density that knows captions, drawn, and judged where that can be."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

import jax
import numpy as np

from ..classifier import judged_labels, load_classifier
from ..compose.grammar import parse
from ..compose.prompts import prompt as composed
from ..datasets import captioned_scenes
from ..density.density import Density
from ..diagnose.result import AnnealedRun
from ..disk.densities import list_pretrained
from ..errors import ParameterError, TextError
from .cubes import side_by_side
from .models import load_model

#: The density that ships with the package, once there is one.
PRETRAINED = "captioned_scenes_32"


def target(prompt: str, model: str | None) -> Density:
    """The density of a prompt over a model, a file or a name.

    Raises:
        TextError: for a prompt that does not follow the grammar, or captions that the model does not know.
        ParameterError: where there is no model, or it knows no captions.
    """
    parse(prompt)
    if model is None and PRETRAINED not in list_pretrained():
        raise ParameterError(
            "no density of captioned scenes ships with this version. Train one with benchmarks/train/scenes.py, and "
            "give it: --model FILE."
        )
    density = load_model(model or PRETRAINED)
    if getattr(getattr(density, "config", None), "text", None) is None:
        raise ParameterError(f"{model} knows no captions. Give a density that was trained with UNetConfig(text=...).")
    # A floor makes a sum, of which score-only models do not know the shares.
    return composed(density, prompt, floor=0.01 if density.has_log_density else 0.0)


def run(
    prompt: str, density: Density, *, num_images: int, seed: int
) -> Iterator[tuple[str, AnnealedRun, float | None]]:
    """(sampler, run, share of images judged right), each when it is done; None where nobody judges."""
    for name, result in side_by_side(density, jax.random.key(seed), num_images=num_images, progress_bar=True):
        yield name, result, share_right(prompt, result.samples)


def share_right(prompt: str, images) -> float | None:
    """Share of images [n, size, size, 3] that a prompt is true of, by the judge that ships for their size; or None."""
    folder = resources.files("numpyro_diffusion") / "pretrained" / "classifiers"
    file = folder / f"captioned_scenes_{images.shape[1]}.safetensors"
    if images.shape[3:] != (3,) or not file.is_file():
        return None
    with resources.as_file(file) as path:
        judge = load_classifier(path)
    try:
        return float(np.mean(captioned_scenes.fulfils(prompt, judged_labels(judge, images))))
    except TextError:  # a model of other captions
        return None
