"""Composed cubes: several places asked for at once, drawn by reverse diffusion and by HMC, side by side."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np

from ..annealing.anneal import anneal
from ..annealing.kernels import HMC
from ..annealing.reverse import Reverse
from ..classifier import Classifier, all_present, load_classifier
from ..compose.operators import compose_conditions
from ..datasets import cubes
from ..density.density import Density
from ..disk.densities import load_pretrained

LEVELS = 40


def pretrained_judge(size: int = 16) -> Classifier:
    """The classifier p(a cube at y | image) that ships with the package, for images of one size."""
    folder = resources.files("numpyro_diffusion") / "pretrained" / "classifiers"
    with resources.as_file(folder / f"cubes_{size}.safetensors") as path:
        return load_classifier(path)


def draw(
    density: Density,
    places,
    rng_key: jax.Array,
    *,
    num_images: int,
    num_steps: int = 2,
    progress_bar: bool = False,
    told: Callable[[str, Any], Any] = lambda name, run: None,
) -> dict[str, Any]:
    """Runs of reverse diffusion and of annealed HMC for the product of conditions (Du et al. 2023, Eq. 13).

    Args:
        density: Conditioned on one place, such as `nd.load_pretrained("cubes_16")`.
        places: Places (column, row) in [0, 1] that must all hold a cube, [c, 2].
        rng_key: JAX random key.
        num_images: Images of each.
        num_steps: HMC steps of three leapfrogs per level.
        progress_bar: Show levels.
        told: Takes the name and the run of each sampler as soon as it is done.

    Returns:
        "reverse" and "HMC": an `AnnealedRun` each.
    """
    target = compose_conditions(density, places)
    levels = target.schedule.levels(LEVELS, smallest=target.resolution)
    reverse_key, hmc_key = jax.random.split(rng_key)
    shared = {"num_chains": num_images, "levels": levels, "progress_bar": progress_bar}
    runs: dict[str, Any] = {"reverse": anneal(reverse_key, target, Reverse(), **shared)}
    told("reverse", runs["reverse"])
    runs["HMC"] = anneal(
        hmc_key, target, HMC(num_integration_steps=3, persistence=0.9), num_steps=num_steps, predictor=True,
        num_pilot_chains=8, **shared,
    )  # fmt: skip
    told("HMC", runs["HMC"])
    return runs


def run(
    *,
    num_cubes: int = 5,
    num_images: int = 8,
    seed: int = 0,
    size: int = 16,
    progress_bar: bool = False,
    told: Callable[[Any, dict, dict], Any] = lambda places, runs, shares: None,
):
    """(places [c, 2], runs, share of images judged right by sampler) for the places of a rendered scene.

    The same, with the samplers that are done, is passed to `told` after each of them.
    """
    place_key, run_key = jax.random.split(jax.random.key(seed))
    places, runs, shares = cubes.positions(place_key, num_cubes), {}, {}
    judge = pretrained_judge(size)

    def judged(name, result):
        runs[name], shares[name] = result, float(np.mean(all_present(judge, result.samples, places)))
        told(places, runs, shares)

    density = load_pretrained(f"cubes_{size}")
    draw(density, places, run_key, num_images=num_images, progress_bar=progress_bar, told=judged)
    return places, runs, shares


def require_matplotlib() -> None:
    """Raise ImportError where there is nothing to draw with: before the minutes of sampling."""
    if find_spec("matplotlib") is None:
        raise ImportError("pictures of cubes need matplotlib. pip install 'numpyro-diffusion[plots]'.")
