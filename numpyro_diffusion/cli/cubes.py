"""Composed cubes: several places asked for at once, drawn by reverse diffusion and by HMC, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ..annealing.anneal import anneal
from ..annealing.kernels import HMC
from ..annealing.reverse import Reverse
from ..classifier import Classifier, all_present, pretrained_classifier
from ..compose.conditions import compose_conditions
from ..datasets import cubes
from ..density.density import Density
from ..diagnose.result import AnnealedRun
from ..disk.densities import load_pretrained

LEVELS = 40


def pretrained_judge(size: int = 16) -> Classifier:
    """The classifier p(a cube at y | image) that ships with the package, for images of one size."""
    return pretrained_classifier(f"cubes_{size}")


def draw(
    density: Density, places, rng_key: jax.Array, *, num_images: int, num_steps: int = 2, progress_bar: bool = False
) -> Iterator[tuple[str, AnnealedRun]]:
    """Reverse diffusion and annealed HMC for the product of conditions (Du et al. 2023, Eq. 13), each when it is done.

    Args:
        density: Conditioned on one place, such as `nd.load_pretrained("cubes_16")`.
        places: Places (column, row) in [0, 1] that must all hold a cube, [c, 2].
        rng_key, num_images, num_steps, progress_bar: As of `side_by_side`.
    """
    target = compose_conditions(density, places)
    return side_by_side(target, rng_key, num_images=num_images, num_steps=num_steps, progress_bar=progress_bar)


def side_by_side(
    target: Density, rng_key: jax.Array, *, num_images: int, num_steps: int = 2, progress_bar: bool = False
) -> Iterator[tuple[str, AnnealedRun]]:
    """Reverse diffusion and, where the target has a log density, annealed HMC: "reverse" and "HMC" with their runs.

    Args:
        target: A composition of images.
        rng_key: JAX random key.
        num_images: Images of each.
        num_steps: HMC steps of three leapfrogs per level.
        progress_bar: Show levels.
    """
    levels = target.schedule.levels(LEVELS, smallest=target.resolution)
    reverse_key, hmc_key = jax.random.split(rng_key)
    shared: dict[str, Any] = {"num_chains": num_images, "levels": levels, "progress_bar": progress_bar}
    yield "reverse", anneal(reverse_key, target, Reverse(), **shared)
    if not target.has_log_density:
        return
    hmc = HMC(num_integration_steps=3, persistence=0.9)
    yield "HMC", anneal(hmc_key, target, hmc, num_steps=num_steps, predictor=True, num_pilot_chains=8, **shared)


def run(*, num_cubes: int, num_images: int, seed: int, size: int) -> Iterator[tuple[Any, dict, dict]]:
    """(places [c, 2], runs, share of images judged right) of a rendered scene, by sampler and after each of them."""
    place_key, run_key = jax.random.split(jax.random.key(seed))
    places, runs, shares = cubes.positions(place_key, num_cubes), {}, {}
    judge, density = pretrained_judge(size), load_pretrained(f"cubes_{size}")
    for name, result in draw(density, places, run_key, num_images=num_images, progress_bar=True):
        runs[name], shares[name] = result, float(np.mean(all_present(judge, result.samples, places)))
        yield places, runs, shares
