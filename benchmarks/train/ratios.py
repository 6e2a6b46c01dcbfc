"""What the conditions of coloured_16 are worth against each other on held-out digits, by noise level, beside Bayes' rule.

    python benchmarks/train/ratios.py [FILE]

Of each cell: total variation between p(model | picture) and its exact value, and in brackets the mean log density under
m1, m2 and m3 less the largest. One set of weights, 384 pictures.
"""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from benchmarks.sculpting import mnist
from numpyro_diffusion.datasets import coloured_digits

LEVELS, COUNT = (0.03, 0.1, 0.2, 0.4, 0.8, 1.6), 384
CELLS = [cell for cell in coloured_digits.CELLS if any(cell in cells for cells in coloured_digits.MODELS.values())]


@jax.jit
def log_probs(density, y, r):
    """Log densities [3, n] of centred pictures y [n, d], noised, under each model."""
    noisy = y + r * jax.random.normal(jax.random.key(1), y.shape)
    models = jnp.append(jnp.eye(3), jnp.ones((3, 1)), axis=1)
    return jax.vmap(lambda model: jax.vmap(lambda point: density.log_prob_at(point, r, model))(noisy))(models)


if __name__ == "__main__":
    density = nd.load(sys.argv[1]) if len(sys.argv) > 1 else nd.load_pretrained("coloured_16")
    x, cell = coloured_digits.labelled(CELLS, 16, **mnist.scans("test"))(jax.random.key(3), COUNT)
    shares = np.array([[(c in cells) / len(cells) for c in CELLS] for cells in coloured_digits.MODELS.values()])
    exact, cell = (shares / shares.sum(0))[:, np.asarray(cell)], np.asarray(cell)
    for r in LEVELS:
        logs = np.asarray(log_probs(density, x.reshape(COUNT, -1) - density.mean, r))
        off = 0.5 * np.abs(np.asarray(jax.nn.softmax(logs, axis=0)) - exact).sum(0)
        words = []
        for i, (digit, colour) in enumerate(CELLS):
            own = cell == i
            gaps = " ".join(f"{gap:.0f}" for gap in (logs - logs.max(0))[:, own].mean(1))
            words.append(f"{colour} {digit}: {off[own].mean():.2f} ({gaps})")
        print(f"noise {r:g}: {off.mean():.3f};", "; ".join(words))
