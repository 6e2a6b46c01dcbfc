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

import jax
import jax.numpy as jnp

from ..density.energy import ScoreModel


def loss(density, rng_key, y, condition, time_score_weight, weighting="score"):
    """Mean training loss over centred data y [n, d] with conditions [n, c + 1] or None; w is `time_score_weight`."""
    n, d = y.shape
    order_key, place_key, noise_key = jax.random.split(rng_key, 3)
    low, high = jnp.log(density.sigmas[0]), jnp.log(density.sigmas[1])
    # One stratum per sample: the noise levels of a batch cover the range evenly.
    log_r = low + (high - low) * (jax.random.permutation(order_key, n) + jax.random.uniform(place_key, (n,))) / n
    r, eps = jnp.exp(log_r), jax.random.normal(noise_key, y.shape)
    noisy = y + r[:, None] * eps
    if isinstance(density, ScoreModel):
        score, *rest = (jax.vmap(density.score_at)(noisy, r, condition),)
    else:
        log_prob = lambda z, log_q, c: density.log_prob_at(z, jnp.exp(log_q), c)
        gradient = jax.grad(log_prob, (0, 1) if density.is_calibrated else (0,))
        score, *rest = jax.vmap(gradient)(noisy, log_r, condition)
    weight = 1.0 if weighting == "score" else 1 + r**2 / density._scale() ** 2
    value = jnp.mean(weight * jnp.sum((r[:, None] * score + eps) ** 2, -1)) * 2 / d
    if density.is_calibrated:
        (time_score,) = rest
        value += time_score_weight * jnp.mean((time_score - (jnp.sum(eps**2, -1) - d)) ** 2) / (2 * d)
    return value
