r"""Reverse diffusion with log densities tracked along each path: weights for score-only models.

The step is that of `denoising`, but for its drift. From ratio r to r' < r the next point is proposed and weighed as

.. math:: y' \sim N(y + P s(y), P), \quad P = (C^{-1} + V^{-1})^{-1}, \qquad
          w = \frac{\gamma_{r'}(y') \, N(y; y', C)}{\gamma_r(y) \, N(y'; y + P s(y), P)} ,

where s is the composition's score at r', V the covariance of its Gaussian there, and C what that Gaussian loses of its
covariance between r and r'. Of a Gaussian the weights are constant.

The log density of every leaf gains what its score says along the step (`density.path`), and a formula of them is
evaluated like any other: mixtures, whose score is :math:`\sum_i \pi_i s_i` with shares :math:`\pi` that follow the
path, are no exception.

In continuous time, with the variance of the noise for C, these are the Feynman-Kac weights of Skreta et al. (2025,
arXiv:2503.02819), and the tracked densities those of Skreta et al. (2024, arXiv:2412.17762).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ..density.algebra import combine
from ..density.composed import Composed
from ..density.density import Density
from ..density.equal import EqualDensity
from ..density.path import Place
from .denoising import denoising
from .kernels import KernelState
from .level import level_at


def composed(density: Density) -> Composed:
    """The density as a formula of leaves."""
    return density if isinstance(density, Composed) else combine("product", [(density, 1.0)])  # pyright: ignore


def first_leaves(density: Density, x) -> jax.Array:
    """Log densities [m] of the leaves at a point of t = 1, of score-only models by their Gaussians."""
    formula = composed(density)
    return jnp.stack(list(formula.of_leaves(lambda leaf: leaf.first_log_density(x)).values()))


def first_value(density: Density, leaves) -> jax.Array:
    """The log density of those of the leaves."""
    return _value(composed(density), leaves)


def _value(formula: Composed, leaves):
    names = formula.of_leaves(lambda leaf: 0)
    return formula.value(dict(zip(names, leaves, strict=True)))


def tracked_step(density: Density, rng_key, state: KernelState, t_from, t_to) -> KernelState:
    """A chain x [d], flattened, one step on. Its `logdensity` gains the log weight of the step."""
    formula, schedule, shape = composed(density), density.schedule, density.event_shape
    noise_key, path_key = jax.random.split(rng_key)
    alpha, alpha_to = schedule.alpha(t_from), schedule.alpha(t_to)
    x, noise = state.position, jax.random.normal(noise_key, state.position.shape)

    def scores_at(x, t):
        found = formula.of_leaves(lambda leaf: jnp.ravel(jax.grad(leaf.log_density)(x.reshape(shape), t)))
        return jnp.stack(list(found.values()))

    if isinstance(density, EqualDensity):
        r, r_to = (jnp.maximum(schedule.noise_to_signal(t), density.resolution) for t in (t_from, t_to))
        # Below the resolution nothing changes, and so nothing moves.
        variance, scores = jnp.where(r > r_to * (1 + 1e-6), r**2 - r_to**2, 0.0), scores_at(x, t_from) * alpha
        drawn = jnp.sqrt(variance) * (r_to / r) * noise
        drift = variance * density.weights(state.leaves, scores, drawn, variance) @ scores
        x_to, log_ratio = alpha_to * (x / alpha + drift + drawn), x.size * (jnp.log(alpha_to) - jnp.log(alpha))
    else:
        step = denoising(*(level_at(density, t, "identity") for t in (t_from, t_to)))
        score = jax.grad(lambda leaves: _value(formula, leaves))(state.leaves) @ scores_at(step.carried(x), t_to)
        x_to, log_ratio = step.move_by_score(step.turned(noise), x, score)
    start, end = Place(x.reshape(shape), t_from), Place(x_to.reshape(shape), t_to)
    gains = formula.of_leaves(lambda leaf: leaf.increment(path_key, start, end))
    leaves = state.leaves + jnp.stack(list(gains.values()))
    gain = _value(formula, leaves) - _value(formula, state.leaves)
    logdensity = state.logdensity + gain + log_ratio
    return KernelState(x_to, state.momentum, logdensity, state.logdensity_grad, leaves)
