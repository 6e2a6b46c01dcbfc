r"""Reverse diffusion with log densities tracked along each path: weights for score-only models.

From ratio r to r' < r the next point is proposed and weighed as

.. math:: y' \sim N(y + P s(y), P), \quad P = C v (v + C)^{-1}, \qquad
          w = \frac{\gamma_{r'}(y') \, N(y; y', C)}{\gamma_r(y) \, N(y'; y + P s(y), P)} ,

where s is the composition's score at r', v the covariance of its Gaussian there, and C what that Gaussian loses of its
covariance between r and r': for a diffusion model the variance r^2 - r'^2 of the noise, for the product of two half of
it. The proposal is then the optimal one of a Gaussian, whose weights are constant. With the variance of the noise for
C, the weights of products scatter at every level, by nats in ten dimensions; with the covariance of a single datum for
v, they are off by hundreds in many.

The log density of every leaf gains what its score says along the step (`density.path`), and a formula of them is
evaluated like any other: mixtures, whose score is :math:`\sum_i \pi_i s_i` with shares :math:`\pi` that follow the
path, are no exception.

In continuous time, with the variance of the noise for C, these are the Feynman-Kac weights of Skreta et al. (2025,
arXiv:2503.02819), and the tracked densities those of Skreta et al. (2024, arXiv:2412.17762).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ..density.abstract import gaussian_at
from ..density.algebra import combine
from ..density.axes import Axes, CosineAxes
from ..density.composed import Composed
from ..density.density import Density
from ..density.equal import EqualDensity
from ..density.gaussian import Gaussian
from ..density.path import Place
from .kernels import KernelState


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
    r, r_to = (jnp.maximum(schedule.noise_to_signal(t), density.resolution) for t in (t_from, t_to))
    y, size = state.position / alpha, state.position.size
    # Below the resolution nothing changes, and so nothing moves.
    moves = r > r_to * (1 + 1e-6)
    variance = jnp.where(moves, r**2 - r_to**2, 1.0)
    noise = jax.random.normal(noise_key, y.shape)

    def scores_at(x, t):
        found = formula.of_leaves(lambda leaf: jnp.ravel(jax.grad(leaf.log_density)(x.reshape(shape), t)))
        return jnp.stack(list(found.values())) * schedule.alpha(t)

    if isinstance(density, EqualDensity):
        drawn = jnp.sqrt(variance) * (r_to / r) * noise
        scores = scores_at(state.position, t_from)
        drift = variance * density.weights(state.leaves, scores, drawn, variance) @ scores
        y_to, log_ratio = y + drift + drawn, jnp.zeros(())
    else:
        scores = scores_at(alpha_to * y, t_to)
        score = jax.grad(lambda leaves: _value(formula, leaves))(state.leaves) @ scores
        step, lost = _proposal(density, (t_from, alpha), (t_to, alpha_to), variance)
        axes = step.axes
        forth = step._replace(mean=y + axes.point(step.variance * axes.coordinates(score)))
        y_to = forth.at(noise if isinstance(axes, CosineAxes) else axes.coordinates(noise))
        back = Gaussian(y_to, lost, axes)
        log_ratio = back.log_prob(y) - forth.log_prob(y_to)
    y_to, log_ratio = jnp.where(moves, y_to, y), jnp.where(moves, log_ratio, 0.0)
    start, end = Place(state.position.reshape(shape), t_from), Place((alpha_to * y_to).reshape(shape), t_to)
    gains = formula.of_leaves(lambda leaf: leaf.increment(path_key, start, end))
    leaves = state.leaves + jnp.stack(list(gains.values()))
    gain = _value(formula, leaves) - _value(formula, state.leaves)
    log_weight = gain + log_ratio + size * (jnp.log(alpha_to) - jnp.log(alpha))
    logdensity = state.logdensity + log_weight
    return KernelState(alpha_to * y_to, state.momentum, logdensity, state.logdensity_grad, leaves)


def _proposal(density: Density, before, after, noise) -> tuple[Gaussian, jax.Array]:
    """N(0, P) in y, and C along its axes, between two pairs (t, alpha); `noise` is the variance that noise loses."""
    (t_from, alpha), (t_to, alpha_to) = before, after
    old, new = gaussian_at(density, t_from), gaussian_at(density, t_to)
    v = new.variance / alpha_to**2
    # Any C is right; rounding, where there is hardly any noise left, must not make it absurd.
    lost = jnp.clip(_along(old, new.axes) / alpha**2 - v, 0.01 * noise, 100 * noise)
    return Gaussian(jnp.zeros_like(new.mean), lost * v / (v + lost), new.axes), lost


def _along(gaussian: Gaussian, axes: Axes) -> jax.Array:
    """Variances [d] along other axes of the same kind."""
    if isinstance(axes, CosineAxes):
        return gaussian.variance
    return jnp.sum((gaussian.axes.vectors.T @ axes.vectors) ** 2 * gaussian.variance[:, None], axis=0)
