"""Canvases of cubes, 32x32 from a density of 16x16: share of the windows that show the cube they were asked for.

python benchmarks/tapestry/cubes.py [--seeds 2] [--only reverse] [--quick]
"""

from __future__ import annotations

import jax
import numpy as np

import numpyro_diffusion as nd
from benchmarks.table import arguments, measure
from benchmarks.tapestry.averaging import averaged
from numpyro_diffusion.cli.tapestries import SIZE, corners, share_shown, woven
from numpyro_diffusion.datasets import cubes

NAME, SIDE, LEVELS = "tapestry_cubes", 2, 20
COLUMNS = ["shown, %", "canvases", "evaluations", "seconds"]
HEADER = f"""# Canvases of cubes

`python benchmarks/tapestry/cubes.py`: the shipped `cubes_16` on canvases of 32x32, a window at every 8 pixels round the sides, so that four overlap everywhere, each to the power 1/4; four
windows that tile the canvas are asked for a cube at a random place. Share of these in which the shipped judge sees it. {LEVELS} levels, or as many as HMC has evaluations. `averaged`: noise
vectors averaged pixel by pixel, those of asked windows under their condition (MultiDiffusion); `tapered`: over 3 pixels, with two Langevin steps after each. Few canvases: on two cores. Other
places for each seed.
"""
#: HMC: one step of three leapfrogs, one evaluation to enter, one for the predictor.
PER_LEVEL = 5
COUNT = {"HMC": 2}


def places_of(seed: int) -> np.ndarray:
    """Places asked for [4, 2], and a key."""
    return np.asarray(cubes.positions(jax.random.key(100 + seed), SIDE**2))


def drawn(name: str, seed: int) -> dict:
    """Canvases by a sampler."""
    density, places, key = nd.load_pretrained(f"cubes_{SIZE}"), places_of(seed), jax.random.key(seed)
    count = COUNT.get(name, 4)
    if name in ("averaged", "tapered"):
        asked = dict(zip(corners(SIDE), places, strict=True))
        at = [(8 * i, 8 * j) for i in range(2 * SIDE) for j in range(2 * SIDE)]
        canvas = nd.tapestry((32, 32, 3), [(density, place, 1, asked.get(place)) for place in at], wrap=True)
        how = {"border": 3, "corrections": 2} if name == "tapered" else {}
        steps = LEVELS * PER_LEVEL // (3 if how else 1)
        x = averaged(key, canvas, (SIZE, SIZE, 3), count, steps, **how)
        return figures(x, places, LEVELS * PER_LEVEL)
    canvas = woven(density, places, SIDE)
    levels = lambda n: canvas.schedule.levels(n, smallest=canvas.resolution)
    if name == "HMC":
        run = nd.anneal(
            key, canvas, nd.HMC(num_integration_steps=3), num_chains=count, levels=levels(LEVELS), num_steps=1,
            predictor=True, num_pilot_chains=2, progress_bar=False,
        )  # fmt: skip
    else:
        steps = LEVELS * (PER_LEVEL if "equal" in name else 2)
        run = nd.anneal(key, canvas, nd.Reverse(), num_chains=count, levels=levels(steps), progress_bar=False)
    return figures(run.samples, places, run.evaluations_per_chain)


def figures(x, places, evaluations: int) -> dict:
    """Of canvases [n, 32, 32, 3]."""
    shown = 100 * share_shown(np.asarray(x), places, SIDE)
    return {"shown, %": shown, "canvases": len(x), "evaluations": evaluations}


if __name__ == "__main__":
    options = arguments(__doc__ or "", seeds=2)
    names = ["reverse", "averaged", "tapered", "HMC", "reverse, equal evaluations"]
    measure(NAME, options, [(name, lambda seed, name=name: drawn(name, seed)) for name in names], HEADER, COLUMNS)
