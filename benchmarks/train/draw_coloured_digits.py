"""Draw docs/coloured_digits.png: coloured digits of one network by reverse diffusion, left, and by HMC, right.

python benchmarks/train/draw_coloured_digits.py
"""

from __future__ import annotations

from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

import numpyro_diffusion as nd

OUT = Path(__file__).parents[2] / "docs" / "coloured_digits.png"
ROWS, COLUMNS = 4, 8
HMC = {"levels": 60, "num_steps": 2, "predictor": True, "num_pilot_chains": 16}


def grid(x) -> np.ndarray:
    """Pictures [n, h, w, 3] in [-1, 1] side by side, in [0, 1]."""
    n, h, w, c = x.shape
    tiles = np.asarray(x).reshape(ROWS, COLUMNS, h, w, c).transpose(0, 2, 1, 3, 4)
    return np.clip((tiles.reshape(ROWS * h, COLUMNS * w, c) + 1) / 2, 0, 1)


if __name__ == "__main__":
    network = nd.load_pretrained("coloured_16")
    figure, axes = plt.subplots(1, 2, figsize=(8, 2.3), layout="constrained")
    # Red and green zeros and ones: the second of the three models.
    density = network.given([0.0, 1.0, 0.0])
    for axis, (title, kernel, how) in zip(
        axes, [("reverse diffusion", nd.Reverse(), {"levels": 100}), ("HMC", nd.HMC(), HMC)], strict=True
    ):
        run = nd.anneal(jax.random.key(0), density, kernel, num_chains=ROWS * COLUMNS, **how)
        axis.imshow(grid(run.samples), interpolation="nearest")
        axis.set_title(title, fontsize=9)
        axis.axis("off")
    figure.savefig(OUT, dpi=110)
