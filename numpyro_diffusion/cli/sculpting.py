"""What the command `sculpt` does: a tree of answers about three discs, as formulas and as samples of them."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd

from ..datasets import circles
from ..disk import arrays as files
from . import pictures

#: Answers along the branch that is drawn: every row shows what the next observer may say.
BRANCH = (1, 2)
#: Half side of what is drawn, cells of a side, and of a side of a histogram.
HALF, SIDE, BINS = 1.25, 240, 60


def run(output: Path, *, num_chains: int, seed: int, echo) -> None:
    """Draw the tree, anneal its last row, and write heat maps."""
    discs, answers = circles.densities(), range(1, circles.COUNT + 1)
    rows, last = [], []
    for depth in range(len(BRANCH) + 1):
        said = BRANCH[:depth]
        parent = nd.sculpt(discs, said) if said else nd.mixture(*discs)
        last = [((*said, answer), nd.observe(parent, discs, answer)) for answer in answers]
        titles = [_text(labels) for labels in (said, *(labels for labels, _ in last))]
        rows.append((f"answer {depth + 1}", titles, [_heights(density) for density in (parent, *(d for _, d in last))]))
        last = [(said, parent), *last]
    echo("observers of x say which of three discs it came from; what they say sculpts the mixture of the discs\n")
    echo(f"{'said':<8} {'log evidence':>18} {'exact':>8} {'regions':>8}")
    maps = []
    for i, ((labels, density), heights) in enumerate(zip(last, rows[-1][2], strict=True)):
        key = jax.random.fold_in(jax.random.key(seed), i)
        found = nd.anneal(key, density, num_chains=num_chains, progress_bar=sys.stderr.isatty())
        x, weights = np.asarray(found.samples), np.exp(np.asarray(found.log_weights, np.float64))
        masses = np.bincount(circles.region(x), weights, 8) / weights.sum()
        distance = 0.5 * np.sum(np.abs(masses - np.bincount(circles.region(_GRID), heights.ravel(), 8) / heights.sum()))
        evidence = f"{found.log_evidence:.3f} +- {found.log_evidence_error:.3f}"
        exact = np.log(heights.sum() * (2 * HALF / SIDE) ** 2)
        echo(f"{', '.join(map(str, labels)):<8} {evidence:>18} {exact:>8.3f} {distance:>8.3f}")
        # First axis down, as in the heat maps.
        maps.append(np.histogram2d(x[:, 1], x[:, 0], BINS, [[-HALF, HALF]] * 2, weights=weights)[0])
    rows.append((f"{num_chains:,} samples", rows[-1][1], maps))
    files.write(
        output, pictures.heat_maps([(name, titles, [m / m.max() for m in maps]) for name, titles, maps in rows])
    )
    echo(f"\nregions: total variation of the masses of the eight that the discs cut from the plane\n{output}: written")


_AXIS = (np.arange(SIDE) + 0.5) / SIDE * 2 * HALF - HALF
_GRID = np.stack(np.meshgrid(_AXIS, _AXIS), -1).reshape(-1, 2)


@jax.jit
def _log_heights(density):
    return jax.vmap(lambda x: density.log_density(x, jnp.zeros(())))(jnp.asarray(_GRID, float))


def _heights(density) -> np.ndarray:
    """Density [SIDE, SIDE] at the middles of cells."""
    return np.exp(np.asarray(_log_heights(density), np.float64)).reshape(SIDE, SIDE)


def _text(labels) -> str:
    return f"p(x | {', '.join(map(str, labels))})" if labels else "p(x)"
