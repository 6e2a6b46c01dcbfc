"""What the conditions of coloured_16 are worth against each other on held-out digits, by noise level, beside Bayes' rule.

    python benchmarks/train/ratios.py [FILE]

Of each cell: total variation between p(model | picture) and its exact value, and in brackets the mean log density under
m1, m2 and m3 less the largest. Then, of answers as in `sculpting`, the total variation of the cells' masses from exact ones that
these ratios make of exact draws of the mixture: what would be left if all else were right. One set of weights, 1,536 pictures. At
large noise pictures of different cells look alike, and Bayes' rule for clean ones is no measure.
"""

from __future__ import annotations

import sys

import jax
import numpy as np

import numpyro_diffusion as nd
from benchmarks.sculpting import mnist
from benchmarks.sculpting.digits import under_models
from numpyro_diffusion.datasets import coloured_digits

LEVELS, COUNT = (0.03, 0.1, 0.2, 0.4, 0.8, 1.6), 1536
#: Answers, by the numbers of models from zero.
ANSWERS = ((0, 1), (0, 2), (1, 2), (0, 0), (1, 1), (2, 2), (0, 1, 2))
CELLS = [cell for cell in coloured_digits.CELLS if any(cell in cells for cells in coloured_digits.MODELS.values())]


def off(answers, of_models, exact, mixture) -> float:
    """Total variation between masses of cells, by p(model | picture) [3, n] of exact draws and by the exact ones."""

    def masses(told):
        weight = mixture * np.prod([told[i] for i in answers], axis=0)
        return np.bincount(cell, weight, len(CELLS)) / weight.sum()

    return 0.5 * float(np.abs(masses(of_models) - masses(exact)).sum())


if __name__ == "__main__":
    density = nd.load(sys.argv[1]) if len(sys.argv) > 1 else nd.load_pretrained("coloured_16")
    x, cell = coloured_digits.labelled(CELLS, 16, **mnist.scans("test"))(jax.random.key(3), COUNT)
    shares = np.array([[(c in cells) / len(cells) for c in CELLS] for cells in coloured_digits.MODELS.values()])
    cell = np.asarray(cell)
    exact, mixture = (shares / shares.sum(0))[:, cell], shares.sum(0)[cell]
    for r in LEVELS:
        logs = np.asarray(under_models(density, x.reshape(COUNT, -1) - density.mean, r, jax.random.key(1)))
        told = np.asarray(jax.nn.softmax(logs, axis=0))
        wrong = 0.5 * np.abs(told - exact).sum(0)
        words = []
        for i, (digit, colour) in enumerate(CELLS):
            own = cell == i
            gaps = " ".join(f"{gap:.0f}" for gap in (logs - logs.max(0))[:, own].mean(1))
            words.append(f"{colour} {digit}: {wrong[own].mean():.2f} ({gaps})")
        print(f"noise {r:g}: {wrong.mean():.3f};", "; ".join(words))
        masses = (f"{{{','.join(str(i + 1) for i in a)}}} {off(a, told, exact, mixture):.3f}" for a in ANSWERS)
        print("  cells:", ", ".join(masses), flush=True)
