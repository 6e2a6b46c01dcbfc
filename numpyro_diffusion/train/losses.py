r"""Losses: denoising score matching, and the time score that makes log densities comparable.

For y_r = y_0 + r eps with log r uniform, all losses regress on what is known given (y_0, eps):

.. math::
    L = \frac2d |r \nabla_y \log p + \varepsilon|^2
        + \frac{w}{2d} \left( \partial_{\log r} \log p - (|\varepsilon|^2 - d) \right)^2 .

The first term alone fixes the density up to constants that differ per noise level *and per isolated mode*. The second,
time-score matching, ties them together: its target is the conditional time score, its expectation d/d(log r) of log p.
The anchor at the largest noise, where log p is the Gaussian's, is built into `energy.EnergyDensity`.
The weighting "denoiser" multiplies the first term by 1 + r^2 / s^2.

The first term's target has variance 1 in each of d coordinates, the second's 2 d: at w = 2 / d errors in both count by
the noise that they are learnt from. Images, of thousands of coordinates, need that: with w = 1 their training follows
the noise of one number, and learns in hours what it else does in minutes.

Data say nothing of where they never are; there an energy is an extrapolation, and may be high: chains find such *false
wells*, however deep or wide. A share of points can therefore lie off the data (`TrainingConfig.outlier_share`),

.. math:: y = \kappa y_0 + a C^{1/2} \xi + r e^b \varepsilon , \qquad \kappa \in \{0, 1\}, a \in (0, 1), b \in (0, 3/2),

with a, b often near 0 (squares of uniform numbers). Such points regress on what is known there by the training data of
their condition, y_0 itself among them, :math:`p = \frac1n \sum_i N(y; y_i, r^2 I)`: noise
:math:`\varepsilon^* = (y - E[y_0 | y]) / r` and time score :math:`E[|y - y_0|^2 | y] / r^2 - d`. Both grow with the
distance from the data, so errors count relative to :math:`|\varepsilon^*|^2`: what matters is the way back.

The picture of one caption says nothing of all other pictures that the caption may have. So where few data share a
condition, all data say what is there, far away, where a condition matters little: errors count
:math:`(1 - d / |\varepsilon^*|^2)^2` times, which is nothing at the data. Without the condition such points may not be:
its density would be free where that of all data is not, and products of conditions would leave the data.

What data of one condition are worth under another, no score at data of their own says; sums, quotients and evidences of
conditions are made of it. Where noised data y_r have the condition c, and c' is that of other data, Bayes' rule tells
which of the two is theirs, and the cross-entropy

.. math:: -\log \frac{p(y_r | c)}{p(y_r | c) + p(y_r | c')}

is least for the true ratios (van den Oord et al. 2018, arXiv:1807.03748), also of conditions that overlap, equal ones
and none among them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..density.energy import ScoreModel
from .data import Points

#: b above, at most: points are noised by e^(3/2) times their level.
MOST_NOISE = 1.5
#: Reference data of a condition, at least, for points off the data to be measured by these alone.
LEAST_ALIKE = 64


class Noised(NamedTuple):
    """Centred data at noise-to-signal ratios r: `points` y + r eps [n, d], `log_r` [n] and `eps` [n, d]."""

    points: jax.Array
    log_r: jax.Array
    eps: jax.Array


class Targets(NamedTuple):
    """What scores regress on.

    Attributes:
        noise: -r grad log p, [n, d].
        time_score: d log p / d log r, [n].
        excess: By how much |noise|^2 / d is beyond its one at data, [n]; errors count relative to 1 + excess.
        weight: How much errors count, [n].
    """

    noise: jax.Array
    time_score: jax.Array
    excess: Any = 0.0
    weight: Any = 1.0


def noised(density, rng_key, y) -> Noised:
    """Centred data y [n, d], noised; one stratum of log r per point: the levels of a batch cover the range evenly."""
    n = len(y)
    order_key, place_key, noise_key = jax.random.split(rng_key, 3)
    low, high = jnp.log(density.sigmas[0]), jnp.log(density.sigmas[1])
    log_r = low + (high - low) * (jax.random.permutation(order_key, n) + jax.random.uniform(place_key, (n,))) / n
    eps = jax.random.normal(noise_key, y.shape)
    return Noised(y + jnp.exp(log_r)[:, None] * eps, log_r, eps)


def mismatch(density, noisy: Noised, condition, targets: Targets, time_score_weight, weighting):
    """Mean loss of a density's scores against `targets`, and its log p at the points [n], None of score models.

    The time score is not asked for where the density is not calibrated; `condition` is [n, c + 1] or None.
    """
    points, log_r, _ = noisy
    r, d = jnp.exp(log_r), points.shape[1]
    if isinstance(density, ScoreModel):
        log_probs, (score, *rest) = None, (jax.vmap(density.score_at)(points, r, condition),)
    else:
        log_prob = lambda z, log_q, c: density.log_prob_at(z, jnp.exp(log_q), c)
        gradient = jax.value_and_grad(log_prob, (0, 1) if density.is_calibrated else (0,))
        log_probs, (score, *rest) = jax.vmap(gradient)(points, log_r, condition)
    noise, time_target, excess, weight = targets
    by_level = 1 + r**2 / density._scale() ** 2 if weighting == "denoiser" else 1.0
    value = jnp.mean(weight * by_level / (1 + excess) * jnp.sum((r[:, None] * score + noise) ** 2, -1)) * 2 / d
    if density.is_calibrated:
        (time_score,) = rest
        value += time_score_weight * jnp.mean(weight * (time_score - time_target) ** 2 / (2 * d + (excess * d) ** 2))
    return value, log_probs


def loss(density, rng_key, y, condition, config, reference=None):
    """Mean training loss over centred data y [n, d] with conditions [n, c + 1] or None.

    `reference` is training data, centred, that a share of points off the data is measured by; None for no such points.
    """
    noisy = noised(density, rng_key, y)
    targets = denoising_targets(noisy)
    start = len(y) - (0 if reference is None else int(config.outlier_share * len(y)))
    if reference is not None and start < len(y):
        out = jax.tree.map(lambda a: a[start:], (y, noisy, condition))
        # The batch as well, so that of many data those that points come from are known.
        batch = Points(y, None if condition is None else condition[:, :-1])
        known = jax.tree.map(lambda *parts: jnp.concatenate(parts), reference, batch)
        moved = outlying(density, jax.random.fold_in(rng_key, 1), *out[:2])
        # Of their own condition: what another one has may be what theirs has, too, and is not known to be off it.
        beyond = moved, outlying_targets(moved, out[2], known, reference)
        noisy, targets = jax.tree.map(lambda a, b: jnp.concatenate([a[:start], b]), (noisy, targets), beyond)
    value, own = mismatch(density, noisy, condition, targets, config.time_score_weight, config.weighting)
    if condition is None or not config.contrastive_weight:
        return value
    told = jax.tree.map(lambda a: a[:start], (noisy, condition, own))
    return value + config.contrastive_weight * contrastive(density, jax.random.fold_in(rng_key, 2), *told)


def contrastive(density, rng_key, noisy: Noised, condition, own):
    """Mean cross-entropy of which condition noised data have, their own [n, c + 1] or that of others of the batch.

    `own` is their log p [n] under their own, which is there already.
    """
    log_prob = jax.vmap(lambda y, log_r, c: density.log_prob_at(y, jnp.exp(log_r), c))
    other = log_prob(*noisy[:2], jax.random.permutation(rng_key, condition))
    return jnp.mean(jax.nn.softplus(other - own))


def denoising_targets(noisy: Noised) -> Targets:
    """The noise, and the time score given data and noise, |eps|^2 - d."""
    eps = noisy.eps
    return Targets(eps, jnp.sum(eps**2, -1) - eps.shape[1], jnp.zeros(len(eps)), jnp.ones(len(eps)))


def outlying(density, rng_key, y, noisy: Noised) -> Noised:
    """Points off the data at the noise levels of `noisy`, from y [n, d]: see the module for the formula."""
    number_key, along_key = jax.random.split(rng_key)
    kept, *moved = jax.random.uniform(number_key, (3, len(y), 1))
    a, b = jnp.square(jnp.stack(moved))
    along = jnp.sqrt(density.eigenvalues) * jax.random.normal(along_key, y.shape)
    noise = jnp.exp(noisy.log_r[:, None] + MOST_NOISE * b) * noisy.eps
    points = (kept < 0.5) * y + a * jax.vmap(density.moments.axes.point)(along) + noise
    return noisy._replace(points=points)


def posterior_targets(noisy: Noised, condition, known: Points) -> Targets:
    """Noise and time score of points under the smoothed `known` data, of those with the point's own condition."""
    points, (y, conditions), r = noisy.points, known, jnp.exp(noisy.log_r)
    squares = jnp.maximum(jnp.sum(points**2, -1)[:, None] - 2 * points @ y.T + jnp.sum(y**2, -1), 0)
    log_share = -0.5 * squares / r[:, None] ** 2
    if condition is not None:
        alike = jnp.all(condition[:, None, :-1] == conditions, axis=-1) | (condition[:, None, -1] == 0)
        log_share = jnp.where(alike, log_share, -jnp.inf)
    share, d = jax.nn.softmax(log_share, axis=-1), y.shape[1]
    noise = (points - share @ y) / r[:, None]
    time_score = jnp.sum(share * squares, -1) / r**2 - d
    return Targets(noise, time_score, jnp.maximum(jnp.sum(noise**2, -1) / d - 1, 0), jnp.ones(len(points)))


def outlying_targets(noisy: Noised, condition, known: Points, reference: Points) -> Targets:
    """Noise and time score of points off the data: of those with the point's condition [n, c + 1], or of all where less
    than LEAST_ALIKE of the `reference` data share it, which are right far away only."""
    if condition is None:
        return posterior_targets(noisy, None, known)
    alike = jnp.sum(jnp.all(condition[:, None, :-1] == reference.conditions, axis=-1), axis=1, keepdims=True)
    is_known = (alike >= LEAST_ALIKE) | (condition[:, -1:] == 0)
    found = posterior_targets(noisy, jnp.where(is_known, condition, 0.0), known)
    return found._replace(weight=jnp.where(is_known[:, 0], 1.0, (found.excess / (1 + found.excess)) ** 2))
