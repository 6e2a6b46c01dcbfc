r"""The Fisher information of a density at a level, as the pilot sees it: how narrow its modes are.

In coordinates that are standard normal under the density's Gaussian the mean outer product F of gradients is the mean
curvature :math:`-E \nabla^2 \log \gamma`: I for a Gaussian, and where modes have parted far larger along the
directions that part them, which their common covariance does not tell. Of N points in d dimensions F comes with noise,
by which eigenvalues of 1 scatter between :math:`(1 \pm \sqrt s)^2`, s = d / N. Those within, and half as much again,
count as 1; others l are what spiked ones e look like (Donoho, Gavish and Johnstone 2018, arXiv:1311.0851),

.. math:: l = e + \frac{s e}{e - 1} .
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..density.abstract import gaussian_at
from .level import Level
from .population import Population

#: Distance in the log noise-to-signal ratio after which earlier levels count an e-th.
MEMORY = 0.15
#: How much further than noise takes them eigenvalues must lie to count.
MARGIN = 1.5


class Information(NamedTuple):
    """F [d, d] along the Gaussian's axes at time `t`: as seen, averaged with earlier levels, and what of it counts."""

    t: jax.Array
    seen: jax.Array
    matrix: jax.Array


@jax.jit
def learn(level: Level, population: Population, before: Information | None) -> Information:
    """The information at a level whose population has moved there; `before` is that of the level before."""
    _, variance, axes = gaussian_at(level.density, level.t)
    gradient = jax.vmap(lambda g: axes.coordinates(level.frame.gradient(g)))(population.state.logdensity_grad)
    gradient *= jnp.sqrt(variance)
    # Chains that are lost, or whose gradient fails, have no say.
    counted = jnp.isfinite(population.log_weight) & jnp.all(jnp.isfinite(gradient), axis=1)
    weight = jax.nn.softmax(jnp.where(counted, population.log_weight, -jnp.inf))
    gradient = jnp.where(counted[:, None], gradient, 0.0)
    seen = (gradient.T * weight) @ gradient
    if before is not None:
        turn = axes.vectors.T @ gaussian_at(level.density, before.t).axes.vectors
        ratio, ratio_before = (level.density.schedule.noise_to_signal(t) for t in (level.t, before.t))
        kept = (ratio / ratio_before) ** (1 / MEMORY)
        seen = kept * turn @ before.seen @ turn.T + (1 - kept) * seen
    # Earlier levels have much the same chains: they add no points.
    found = _spikes(seen, variance.size * jnp.sum(weight**2))
    fine = jnp.all(jnp.isfinite(found))
    known = jnp.eye(variance.size) if before is None else before.seen
    return Information(level.t, jnp.where(fine, seen, known), jnp.where(fine, found, jnp.eye(variance.size)))


def _spikes(seen, noise):
    """The matrix with eigenvalues that noise could have made of 1 put there; `noise` is s."""
    e, vectors = jnp.linalg.eigh(seen)
    b = e + 1 - noise
    root = jnp.sqrt(jnp.maximum(b**2 - 4 * e, 0.0))
    low, high = jnp.maximum(1 - jnp.sqrt(noise), 0.0) ** 2 / MARGIN, MARGIN * (1 + jnp.sqrt(noise)) ** 2
    e = jnp.where(e > high, (b + root) / 2, jnp.where(e < low, (b - root) / 2, 1.0))
    return (vectors * jnp.maximum(e, 0.0)) @ vectors.T
