r"""Losses: denoising score matching, and the time score that makes log densities comparable.

For y_r = y_0 + r eps with log r uniform, all losses regress on what is known given (y_0, eps):

.. math::
    L = \frac2d |r \nabla_y \log p + \varepsilon|^2
        + \frac{w}{2d} \left( \partial_{\log r} \log p - (|\varepsilon|^2 - d) \right)^2 .

The first term alone fixes the density up to constants that differ per noise level *and per isolated mode*. The second,
time-score matching, ties them together: its target is the conditional time score, its expectation d/d(log r) of log p.
The anchor at the largest noise, where log p is the Gaussian's, is built into `energy.EnergyDensity`.
The weighting "denoiser" multiplies the first term by 1 + r^2 / s^2.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..density.energy import ScoreModel


class Noised(NamedTuple):
    """Centred data at noise-to-signal ratios r: `points` y + r eps [n, d], `log_r` [n] and `eps` [n, d]."""

    points: jax.Array
    log_r: jax.Array
    eps: jax.Array


def noised(density, rng_key, y) -> Noised:
    """Centred data y [n, d], noised; one stratum of log r per point: the levels of a batch cover the range evenly."""
    n = len(y)
    order_key, place_key, noise_key = jax.random.split(rng_key, 3)
    low, high = jnp.log(density.sigmas[0]), jnp.log(density.sigmas[1])
    log_r = low + (high - low) * (jax.random.permutation(order_key, n) + jax.random.uniform(place_key, (n,))) / n
    eps = jax.random.normal(noise_key, y.shape)
    return Noised(y + jnp.exp(log_r)[:, None] * eps, log_r, eps)


def mismatch(density, noisy: Noised, condition, targets, time_score_weight, weighting):
    """Mean loss of a density's scores against `targets`: of the noise -r grad log p [n, d], and of the time score [n].

    The second is not asked for where the density is not calibrated; `condition` is [n, c + 1] or None.
    """
    points, log_r, _ = noisy
    r, d = jnp.exp(log_r), points.shape[1]
    if isinstance(density, ScoreModel):
        score, *rest = (jax.vmap(density.score_at)(points, r, condition),)
    else:
        log_prob = lambda z, log_q, c: density.log_prob_at(z, jnp.exp(log_q), c)
        gradient = jax.grad(log_prob, (0, 1) if density.is_calibrated else (0,))
        score, *rest = jax.vmap(gradient)(points, log_r, condition)
    noise, time_target = targets
    weight = 1.0 if weighting == "score" else 1 + r**2 / density._scale() ** 2
    value = jnp.mean(weight * jnp.sum((r[:, None] * score + noise) ** 2, -1)) * 2 / d
    if density.is_calibrated:
        (time_score,) = rest
        value += time_score_weight * jnp.mean((time_score - time_target) ** 2) / (2 * d)
    return value


def loss(density, rng_key, y, condition, time_score_weight, weighting="score"):
    """Mean training loss over centred data y [n, d] with conditions [n, c + 1] or None; w is `time_score_weight`."""
    noisy = noised(density, rng_key, y)
    return mismatch(density, noisy, condition, denoising_targets(noisy), time_score_weight, weighting)


def denoising_targets(noisy: Noised):
    """The noise [n, d], and the time score given data and noise, |eps|^2 - d [n]."""
    eps = noisy.eps
    return eps, jnp.sum(eps**2, -1) - eps.shape[1]
