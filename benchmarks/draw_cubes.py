"""Draw docs/cubes.png: scenes of one to five cubes at 64, 32 and 16 pixels, the places of the cubes marked at 16.

python benchmarks/draw_cubes.py           # docs/cubes.png, and how many pictures a second are rendered
python benchmarks/draw_cubes.py --quick   # benchmarks/results/cubes_quick.png
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import jax
import matplotlib
import numpy as np

from numpyro_diffusion.datasets import cubes

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
SIZES, COLUMNS, SEED = (64, 32, 16), 10, 0


def draw(path: Path) -> None:
    """Each column one scene, each row one size."""
    keys = jax.random.split(jax.random.key(SEED), COLUMNS)
    scenes = [cubes.sample_scene(key, 1 + i % cubes.MAX_CUBES) for i, key in enumerate(keys)]
    figure, axes = plt.subplots(len(SIZES), COLUMNS, figsize=(COLUMNS, len(SIZES)), dpi=100)
    for size, row in zip(SIZES, axes, strict=True):
        render = jax.jit(lambda scene, size=size: cubes.render(scene, size))
        for scene, axis in zip(scenes, row, strict=True):
            axis.imshow((np.asarray(render(scene)) + 1) / 2, extent=(0, 1, 1, 0), interpolation="nearest")
            axis.set_axis_off()
            if size == SIZES[-1]:
                axis.plot(
                    *np.asarray(scene.positions)[np.asarray(scene.mask)].T, "w+", markersize=4, markeredgewidth=0.6
                )
    figure.subplots_adjust(0, 0, 1, 1, 0.02, 0.02)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path)


def rate(size: int, num_samples: int = 256, repeats: int = 3) -> float:
    """Pictures a second of one compiled batch, the best of some repeats."""
    sample = jax.jit(cubes.labelled(size), static_argnums=1)
    seconds = []
    for i in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(sample(jax.random.key(i), num_samples))
        seconds.append(time.perf_counter() - start)
    return num_samples / min(seconds[1:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave the picture of the documentation alone")
    quick = parser.parse_args().quick
    draw(ROOT / "benchmarks/results/cubes_quick.png" if quick else ROOT / "docs/cubes.png")
    for size in SIZES:
        print(f"{size}x{size}: {rate(size):.0f} pictures a second in batches of 256")
