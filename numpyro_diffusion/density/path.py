r"""How a log density changes along a path, where only its score is known.

Noise obeys the heat equation. In variance exploding units y = x / alpha, at the noise-to-signal ratio r,

.. math:: \frac{\partial \log p(y, r)}{\partial \log r} = r^2 \left( \mathrm{div}\, s + |s|^2 \right), \qquad
          s = \nabla_y \log p(y, r),

so that along any path from (y, r) to (y', r')

.. math:: \log \frac{p(y', r')}{p(y, r)} = \int s \cdot dy + r^2 \left( \mathrm{div}\, s + |s|^2 \right) d \log r .

On the path y is affine in r, as points of pure noise are, and the quadrature, Gauss and Lobatto's, is in log r. What it
gives is independent of the path only where s is a gradient; a learnt score is one but for its curl (`diagnose.curl`).
The divergence is exact up to `EXACT_SIZE` dimensions; beyond, probes estimate what it differs by from that of the
density's Gaussian approximation (Hutchinson 1990).

Sources: Song et al. (2021), arXiv:2011.13456; Sjoberg et al. (2023), arXiv:2307.14012.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .gaussian import Gaussian

#: Dimension up to which divergences are exact, and probes beyond.
EXACT_SIZE, PROBES = 64, 8
#: Nodes between two noise levels.
LEVEL_NODES = 3


class Place(NamedTuple):
    """A point x [*event_shape] at time t."""

    x: jax.Array
    t: jax.Array


@functools.cache
def lobatto(num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss and Lobatto on [0, 1]: exact for polynomials of degree 2 n - 3."""
    legendre = np.polynomial.legendre.Legendre.basis(num_nodes - 1)
    inner = np.sort(legendre.deriv().roots().real) if num_nodes > 2 else np.zeros(0)
    nodes = np.concatenate([[-1.0], inner, [1.0]])
    weights = 2 / (num_nodes * (num_nodes - 1) * legendre(nodes) ** 2)
    return (nodes + 1) / 2, weights / 2


def line_integral(score: Callable, start, end, ends: tuple, num_nodes: int) -> jax.Array:
    """Integral of the score along the line between two points [d], of which the scores `ends` at both are known."""
    places, weights = lobatto(num_nodes)
    along = weights[0] * ends[0] + weights[-1] * ends[1]
    if num_nodes > 2:
        inner, shares = (jnp.asarray(values[1:-1], start.dtype) for values in (places, weights))
        along += shares @ jax.vmap(lambda u: score(start + u * (end - start)))(inner)
    return along @ (end - start)


def draw_probes(rng_key, size: int, num_probes: int = PROBES) -> jax.Array | None:
    """Signs [num_probes, d] that estimate a divergence; None where it is exact."""
    return None if size <= EXACT_SIZE else jax.random.rademacher(rng_key, (num_probes, size), float)


def divergence(score: Callable, y, probes, approximation: Gaussian | None = None) -> tuple[jax.Array, jax.Array]:
    """Score [d] at a point y [d], and its divergence by every probe, [1] where it is exact.

    `approximation` is the Gaussian that the density is like.
    """
    # In the reverse mode, since networks may have rules for that alone.
    value, transposed = jax.vjp(score, y)
    derivative = lambda v: transposed(v)[0]
    if probes is None:
        return value, jnp.trace(jax.vmap(derivative)(jnp.eye(y.size, dtype=y.dtype)))[None]
    found = jnp.sum(probes * jax.vmap(derivative)(probes), axis=1)
    if approximation is not None:
        precision = 1 / approximation.variance
        along = jax.vmap(approximation.axes.coordinates)(probes)
        found += jnp.sum(along**2 * precision, axis=1) - jnp.sum(precision)
    return value, found


def score_at(density, y, r, probes) -> tuple[jax.Array, jax.Array]:
    """Score [d] in y = x / alpha at the noise-to-signal ratio r, and its divergence; see `divergence`."""
    t = density.schedule.time(r)
    alpha, gaussian = density.schedule.alpha(t), density.gaussian(t)
    scaled = None if gaussian is None else gaussian._replace(variance=gaussian.variance / alpha**2)

    def score(y):
        return alpha * jnp.ravel(jax.grad(density.log_density)((alpha * y).reshape(density.event_shape), t))

    return divergence(score, y, probes, scaled)


def divergence_evaluations(size: int) -> int:
    """Evaluations that a divergence costs beside that of the score."""
    return size if size <= EXACT_SIZE else PROBES


def increment(density, rng_key, start: Place, end: Place, num_nodes: int = LEVEL_NODES) -> jax.Array:
    """log p(end) - log p(start), in nats, of a density whose score JAX can differentiate.

    Below its resolution it stays what it is there.

    Cost: `num_nodes` scores and divergences.
    """
    schedule, size = density.schedule, start.x.size
    alphas = [schedule.alpha(place.t) for place in (start, end)]
    ratios = [jnp.maximum(schedule.noise_to_signal(place.t), density.resolution) for place in (start, end)]
    y, y_to = (jnp.ravel(place.x) / alpha for place, alpha in zip((start, end), alphas, strict=True))
    log_r, log_r_to = map(jnp.log, ratios)
    places, weights = lobatto(num_nodes)

    step = log_r_to - log_r
    is_level = jnp.abs(step) < 1e-4
    # What a change of r, at equal steps of its logarithm, has done by u; and at what pace.
    full = jnp.where(is_level, 1.0, jnp.expm1(step))

    def rate(u, key):
        r = jnp.exp(log_r + u * step)
        share = jnp.where(is_level, u, jnp.expm1(u * step) / full)
        pace = jnp.where(is_level, 1.0, step * jnp.exp(u * step) / full)
        s, div = score_at(density, y + share * (y_to - y), r, draw_probes(key, size))
        return pace * (s @ (y_to - y)) + r**2 * (jnp.mean(div) + s @ s) * step

    rates = jax.vmap(rate)(jnp.asarray(places, y.dtype), jax.random.split(rng_key, num_nodes))
    return jnp.asarray(weights, y.dtype) @ rates - size * (jnp.log(alphas[1]) - jnp.log(alphas[0]))
