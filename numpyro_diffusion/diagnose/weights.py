r"""Importance weights, as logarithms: their effective sample size, and their tail beyond the largest that was seen.

The M = min(N / 5, 3 sqrt(N)) largest of N weights, less the next one u, follow about a generalised Pareto law of shape
k and scale s, fitted as in PSIS (Vehtari et al. 2024, arXiv:1507.02646; Zhang and Stephens 2009). Above k = 1/2 the
weights have no variance, above 1 no mean. Of a mean of N draws, what the law holds beyond the largest weight w is

.. math:: \frac1N \left(w + \frac{s + k (w - u)}{1 - k}\right).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

#: Shape above which weights have no variance, so that their scatter says nothing of the error of their mean.
HEAVY = 0.5
#: Least number of weights in a tail, and least spread of theirs, relative to the largest, that is no rounding.
LEAST_TAIL, LEAST_SPREAD = 5, 1e-3
#: Share of a fair weight 1 / N below which a chain counts as lost: nothing it does is worth a report.
LOST = 1e-3


def effective_sample_size(log_weight) -> jax.Array:
    """(sum w)^2 / sum w^2 of weights [N], between 1 and N; NaN where none is above zero."""
    log_weight = jnp.asarray(log_weight)
    return jnp.exp(2 * logsumexp(log_weight) - logsumexp(2 * log_weight))


def conditional_ess(log_weight, increment) -> jax.Array:
    """Share (sum W v)^2 / sum W v^2 of an increment v given normalised weights W; 1 if v is constant.

    Lost chains are left out: coming back by a little, from nowhere near, one of them would rule the sum.
    """
    log_w = jnp.where(is_kept(log_weight), log_weight, -jnp.inf)
    log_w = log_w - logsumexp(log_w)
    return jnp.exp(2 * logsumexp(log_w + increment) - logsumexp(log_w + 2 * increment))


def is_kept(log_weight) -> jax.Array:
    """Which chains [N] are not lost."""
    return log_weight - logsumexp(log_weight) > jnp.log(LOST / log_weight.size)


def normalised(log_weight) -> np.ndarray:
    """Weights [N] that sum to one, in double precision; NaN where none is finite."""
    log_weight = np.asarray(log_weight, dtype=float)
    if not np.any(np.isfinite(log_weight)):
        return np.full(len(log_weight), np.nan)
    weight = np.exp(log_weight - log_weight.max())
    return weight / weight.sum()


def evenly(weight) -> np.ndarray:
    """Which draws [M] of weights [M] that sum to one weigh alike: systematic, at fixed offsets, so that the same
    weights give the same draws; all of them once where they weigh alike already."""
    if np.ptp(weight) == 0 or not np.all(np.isfinite(weight)):
        return np.arange(len(weight))
    places = (np.arange(len(weight)) + 0.5) / len(weight)
    return np.minimum(np.searchsorted(np.cumsum(weight), places), len(weight) - 1)


class Tail(NamedTuple):
    """Shape k of a tail, and the nats that the log of the weights' mean misses beyond the largest of them."""

    pareto_k: jax.Array
    nats: jax.Array


def tail_size(num_weights: int) -> int:
    """Weights that make the tail."""
    return math.floor(min(num_weights / 5, 3 * math.sqrt(num_weights)))


def tied(share) -> np.ndarray:
    """Of which contributions [N, k], as shares of the largest, a quarter of the tail equals the next one: those of an
    indicator, say, which have no tail of a continuous law."""
    count = tail_size(len(share))
    if count < LEAST_TAIL:
        return np.zeros(share.shape[1], bool)
    tail = np.sort(share, axis=0)[-count - 1 :]
    return (tail[(count + 3) // 4] - tail[0] < 1e-6) & (tail[0] > 0.01)


def pareto_tail(log_weight, caution: float = 0.0) -> Tail:
    """The tail of weights [N]; its nats at `caution` standard errors (1 + k) / sqrt(M) above the shape k.

    NaN and 0 for too few weights to have a tail (N < 25) or none above zero; 0 and 0 where they are all but equal. The
    nats are 0 below k = 1/2, where the scatter of the weights accounts for their tail, and infinite from k = 1 on.
    """
    num_weights = log_weight.size
    size = tail_size(num_weights)
    if size < LEAST_TAIL:
        return Tail(jnp.full((), jnp.nan, log_weight.dtype), jnp.zeros((), log_weight.dtype))
    largest = jnp.max(log_weight)
    weight = jnp.sort(jnp.exp(log_weight - largest))[-size - 1 :]
    excess = weight[1:] - weight[0]
    spread = excess[-1] > LEAST_SPREAD
    shape, scale = _fit(jnp.where(spread, excess, jnp.arange(1.0, size + 1)))
    heavier = shape + caution * (1 + shape) / math.sqrt(size)
    missing = (1 + (scale + heavier * excess[-1]) / (1 - heavier)) / jnp.exp(logsumexp(log_weight - largest))
    nats = jnp.where(heavier < 1, jnp.log1p(missing), jnp.inf)
    alive, counted = jnp.isfinite(largest), spread & (heavier > HEAVY)
    shape = jnp.where(spread, shape, 0.0)
    return Tail(jnp.where(alive, shape, jnp.nan), jnp.where(alive & counted, nats, 0.0))


def _fit(excess):
    """Shape and scale of ascending excesses [M]: the mean of a posterior over theta = -k / s, k drawn towards 1/2."""
    size = excess.size
    quartile = jnp.maximum(excess[int(size / 4 + 0.5) - 1], jnp.finfo(excess.dtype).tiny)
    count = 30 + int(math.sqrt(size))
    theta = (1 - jnp.sqrt(count / (jnp.arange(count) + 0.5))) / (3 * quartile) + 1 / excess[-1]
    shapes = jnp.mean(jnp.log1p(-theta[:, None] * excess), axis=1)
    log_posterior = size * (jnp.log(-theta / shapes) - shapes - 1)
    posterior = jnp.exp(log_posterior - logsumexp(log_posterior))
    theta = jnp.sum(posterior * theta)
    shape = jnp.mean(jnp.log1p(-theta * excess))
    return (size * shape + 5) / (size + 10), -shape / theta
