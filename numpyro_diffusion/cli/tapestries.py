"""A tapestry of cubes: one canvas of many windows, each asked for a cube at a place of its own."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from ..annealing.anneal import anneal
from ..annealing.kernels import HMC
from ..annealing.reverse import Reverse
from ..classifier import all_present
from ..compose.conditions import classifier_free_guided
from ..compose.tapestry import tapestry
from ..datasets import cubes
from ..density.density import Density
from ..diagnose.result import AnnealedRun
from ..disk.densities import load_pretrained
from .cubes import LEVELS, pretrained_judge

#: Pixels of a side of a window.
SIZE = 16


def corners(side: int) -> list[tuple[int, int]]:
    """First pixels (row, column) of the side x side windows that tile a canvas."""
    return [(SIZE * i, SIZE * j) for i in range(side) for j in range(side)]


def woven(density: Density, places, side: int) -> Density:
    """The canvas of which window k shows a cube at `places` [side^2, 2], in window k's own units (column, row).

    A window stands at every half window, round the sides, so that four overlap everywhere, each to the power 1/4. Those
    that are asked for cubes are guided by 4: :math:`(p(x) (p(x | y) / p(x))^4)^{1/4}`, the likelihood at full strength.
    """
    half, every = SIZE // 2, range(2 * side)
    asked = {corner: classifier_free_guided(density, y, 4.0) for corner, y in zip(corners(side), places, strict=True)}
    at = [(half * i, half * j) for i in every for j in every]
    return tapestry((SIZE * side, SIZE * side, 3), [(asked.get(place, density), place) for place in at], wrap=True)


def share_shown(samples, places, side: int) -> float:
    """Share of the windows of canvases [n, height, width, 3] in which the judge sees the cube that was asked for."""
    judge, images = pretrained_judge(SIZE), jnp.asarray(samples)
    shown = [
        all_present(judge, images[:, i : i + SIZE, j : j + SIZE], np.asarray(place)[None])
        for (i, j), place in zip(corners(side), places, strict=True)
    ]
    return float(np.mean(shown))


def run(*, side: int, num_images: int, seed: int) -> Iterator[tuple[np.ndarray, dict[str, AnnealedRun], dict]]:
    """(places [side^2, 2] on the canvas, runs, share of windows judged right), after each sampler."""
    place_key, reverse_key, hmc_key = jax.random.split(jax.random.key(seed), 3)
    places = np.asarray(cubes.positions(place_key, side**2))
    canvas = woven(load_pretrained(f"cubes_{SIZE}"), places, side)
    levels = canvas.schedule.levels(LEVELS, smallest=canvas.resolution)
    on_canvas = (places + np.array([(j, i) for i, j in corners(side)]) / SIZE) / side
    shared = {"num_chains": num_images, "levels": levels, "progress_bar": True}
    hmc = HMC(num_integration_steps=3, persistence=0.9)
    samplers = {
        "reverse": lambda: anneal(reverse_key, canvas, Reverse(), **shared),
        "HMC": lambda: anneal(hmc_key, canvas, hmc, num_steps=2, predictor=True, num_pilot_chains=8, **shared),
    }
    runs, shares = {}, {}
    for name, sampled in samplers.items():
        runs[name] = sampled()
        shares[name] = share_shown(runs[name].samples, places, side)
        yield on_canvas, runs, shares
