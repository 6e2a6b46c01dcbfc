"""Draw docs/captioned_scenes.png: rendered scenes, each under the caption that was drawn for it.

python benchmarks/scenes/data.py
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from numpyro_diffusion.datasets import captioned_scenes

PATH = Path(__file__).parents[2] / "docs" / "captioned_scenes.png"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the same")
    parser.parse_args()
    x, tokens = captioned_scenes.sampler(32)(jax.random.key(4), 32)
    figure = Figure(figsize=(10, 6.2), layout="constrained")
    for ax, image, row in zip(figure.subplots(4, 8).flat, np.asarray(x), np.asarray(tokens), strict=True):
        ax.imshow((image + 1) / 2, interpolation="nearest")
        ax.set_title(textwrap.fill(captioned_scenes.TEXT.decode(row), 24), fontsize=6.5)
        ax.set_axis_off()
    figure.savefig(PATH, dpi=100)
    print(PATH.name)
