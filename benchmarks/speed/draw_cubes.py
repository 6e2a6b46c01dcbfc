"""Draw docs/cubes.png: scenes of one to five cubes at 64, 32 and 16 pixels, the places of the cubes marked at 16.

python benchmarks/speed/draw_cubes.py           # docs/cubes.png, and how many pictures a second are rendered
python benchmarks/speed/draw_cubes.py --quick   # benchmarks/results/cubes_quick.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jax
import matplotlib
import numpy as np

from benchmarks.table import RESULTS, best_seconds
from numpyro_diffusion.datasets import cubes

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

DOCS = Path(__file__).resolve().parents[2] / "docs"
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
    return num_samples / best_seconds(sample, jax.random.key(0), num_samples, repeats=repeats)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave the picture of the documentation alone")
    quick = parser.parse_args().quick
    draw(RESULTS / "cubes_quick.png" if quick else DOCS / "cubes.png")
    for size in SIZES:
        print(f"{size}x{size}: {rate(size):.0f} pictures a second in batches of 256")
