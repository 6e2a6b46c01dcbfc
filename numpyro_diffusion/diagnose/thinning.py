r"""Few draws that stand for many: a run of more chains than are to be kept, thinned without new noise in mode weights.

Of M draws of weights W that sum to one, n are kept. Any order of the draws will do: with their cumulated weights
:math:`c_i` and independent :math:`u_k \sim U(0, 1)`,

.. math:: i_k = \min \{ i : c_i \ge (k + u_k) / n \}, \qquad k = 0, \dots, n - 1,

takes each :math:`n W_i` times in expectation, so that means of the kept are unbiased for those of all. In a random
order that is a random subset, whose mode weights scatter as those of n independent draws do. Here neighbours in the
order are neighbours in space: a tree halves the draws along their principal direction until a cell holds the mass
1 / n, and one draw is kept of each. A region with many cells keeps its mass up to those at its edge.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ..errors import ArgumentTypeError, ParameterError, check_integer, check_key

#: Power iterations that find a cell's principal direction: roughly is enough.
ITERATIONS = 8


def thinned(rng_key, run, num_samples: int) -> Any:
    """A subset of a run's draws, all of which weigh alike, that stands for all of them.

    Mode weights are decided early, by all chains, and their error falls with the number of chains: of the same
    evaluations, four times as many chains on a quarter of the levels are often worth more, and `thinned` keeps what
    they are worth in as few draws as are needed. Expectations of all draws, `nd.expectation(run)`, are better still.

    Args:
        rng_key: JAX random key.
        run: Result of `nd.anneal`, or an `nd.AnnealedMCMC` that has run; of any weights.
        num_samples: Draws to keep, at most as many as there are.

    Returns:
        Draws [num_samples, *event_shape], or a dict of them by site. They are not independent: errors that are computed
        as if they were are too large. Draws whose weights are above 1 / num_samples are there more than once.

    Raises:
        TypeError: if `run` is neither.
        ParameterError: if `num_samples` is out of range, or no draw has a weight.

    Cost: M log(num_samples) d operations on the host.

    Example:
        >>> run = nd.anneal(rng_key, p * q, num_chains=4_000)
        >>> samples = nd.thinned(thin_key, run, 1_000)
    """
    if not hasattr(run, "particles"):
        raise ArgumentTypeError(
            f"nd.thinned takes the result of nd.anneal or an nd.AnnealedMCMC; got {type(run).__name__}."
        )
    rng_key, num_samples = check_key(rng_key), check_integer("num_samples", num_samples)
    samples, weight = run.particles.samples, np.asarray(run.particles.weight, dtype=float)
    if num_samples > len(weight):
        raise ParameterError(f"num_samples must be at most the {len(weight)} draws there are; got {num_samples}.")
    if not np.all(np.isfinite(weight)):
        raise ParameterError("no draw of this run has a weight above zero, so none can stand for the others.")
    kept = chosen(rng_key, samples, weight, num_samples)
    return jax.tree.map(lambda leaf: leaf[kept], samples)


def chosen(rng_key, samples, weight, num_samples: int) -> np.ndarray:
    """Indices [num_samples] of the draws to keep, of samples, a pytree [M, ...], and weights [M] that sum to one."""
    alive = np.flatnonzero(weight > 0)
    points = [np.asarray(leaf, dtype=float).reshape(len(weight), -1)[alive] for leaf in jax.tree.leaves(samples)]
    order = alive[_order(_standardised(np.concatenate(points, axis=1)), weight[alive], num_samples)]
    places = (np.arange(num_samples) + np.asarray(jax.random.uniform(rng_key, (num_samples,)))) / num_samples
    mass = np.cumsum(weight[order])
    return order[np.minimum(np.searchsorted(mass, places * mass[-1]), len(order) - 1)]


def _standardised(points):
    """Points [M, d] in units of their standard deviation, so that sites of different units count alike."""
    spread = points.std(axis=0)
    return (points - points.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def _order(points, weight, num_cells: int) -> np.ndarray:
    """The draws [M] by cells of about the same mass, neighbours next to each other."""
    done, open_cells = [], [(np.arange(len(points)), num_cells)]
    while open_cells:
        inside, count = open_cells.pop()
        if count < 2 or len(inside) < 2:
            done.append(inside)
            continue
        inside = inside[np.argsort(_along_principal(points[inside]), kind="stable")]
        mass, left = np.cumsum(weight[inside]), count // 2
        cut = np.searchsorted(mass, mass[-1] * left / count * (1 - 1e-12), side="left") + 1
        # The right half is opened after the left one.
        open_cells += [(inside[cut:], count - left), (inside[:cut], left)]
    return np.concatenate(done)


def _along_principal(points):
    """Coordinates [m] of points [m, d] along the direction in which they scatter most."""
    points = points - points.mean(axis=0)
    direction = points[np.argmax(np.sum(points**2, axis=1))]
    for _ in range(ITERATIONS):
        direction = direction / max(np.linalg.norm(direction), np.finfo(float).tiny)
        direction = points.T @ (points @ direction)
    return points @ direction
