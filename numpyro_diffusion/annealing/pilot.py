r"""The pilot run: where to put noise levels, and how far to step at each.

A small population anneals once. The next level is the furthest at which the *conditional* effective sample size of the
weight increment stays at a target share (Zhou, Johansen and Aston 2016); at each level the log step size follows
Robbins and Monro to the kernel's target acceptance. Both are frozen before the weighted run, whose evidence therefore
stays unbiased.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..density.abstract import gaussian_at
from ..density.axes import CosineAxes
from ..density.density import Density
from ..errors import ParameterError, warn
from .kernels import Kernel, init
from .level import from_scale, jittered, log_density_in_frame, to_scale
from .levels import given_levels, smallest_ratio
from .population import Population, conditional_ess, predict, reweigh, start

PILOT_CHAINS = 256
#: Pilot steps per level, each of which adapts the step size. Fewer with a preconditioner, which keeps the step size
#: near one, and for images, where acceptance averages over many pixels.
PILOT_STEPS, PRECONDITIONED_STEPS = 4, 3
#: How far the next level is looked for, in gaps between the two before, and how often that is halved before it is
#: interpolated.
REACH, HALVINGS = 3.0, 4
#: Weight of earlier levels in the pilot's second moments.
SMOOTHING = 0.7
METRICS = ("frame", "pilot")
MAX_LEVELS = 400
#: Levels of a density with a score only, where none are given: nothing tells how far apart they should be.
SCORE_LEVELS = 100
#: Dimension from which on weights are watched.
WATCHED_SIZE = 256


class Plan(NamedTuple):
    """Decreasing `levels` [K] from 1 to 0, a `step_sizes` entry for each, and `scales` [K, d, d] of moves or None."""

    levels: np.ndarray
    step_sizes: np.ndarray
    scales: np.ndarray | None = None

    def scale(self, i: int):
        """Preconditioner of level i, or None."""
        return None if self.scales is None else self.scales[i]


def check_metric(metric: str, density: Density) -> None:
    """Raise ParameterError for an unknown metric, and for "pilot" where no [d, d] matrix fits."""
    if metric not in METRICS:
        raise ParameterError(f"metric must be one of {METRICS}; got {metric!r}.")
    if metric == "pilot" and isinstance(jax.eval_shape(lambda: gaussian_at(density, 0.5)).axes, CosineAxes):
        raise ParameterError(
            f"metric 'pilot' learns a matrix [d, d], and {density!r} is one of images, d = "
            f"{math.prod(density.event_shape)}, whose frame keeps variances only. Use metric='frame'."
        )


@partial(jax.jit, static_argnames=("frame",))
def _next_level(density: Density, population: Population, t, target, smallest, gap, *, frame: str):
    """The least t' < t with conditional ESS >= target, by bisection in the log noise-to-signal ratio; 0 if it does.

    Returns it and its distance in that logarithm; `gap`, the distance before, says how far to look.

    What is compared and interpolated is the root of -log ESS, which grows about linearly with the distance.
    """
    schedule, aim = density.schedule, jnp.sqrt(-jnp.log(target))

    def loss(s):
        log_density = jax.vmap(log_density_in_frame(density, s, frame))(population.state.position)
        increment = log_density - population.state.logdensity
        ess = conditional_ess(population.log_weight, jnp.where(jnp.isfinite(increment), increment, -jnp.inf))
        return jnp.where(ess > 0, jnp.sqrt(jnp.maximum(-jnp.log(ess), 0.0)), jnp.inf)

    high = jnp.log(schedule.noise_to_signal(t))
    low = jnp.minimum(jnp.maximum(jnp.log(smallest), high - REACH * gap), high - 1e-3)

    def halve(_, ends):
        (low, above), (near, below) = ends
        middle = (low + near) / 2
        here = middle, loss(schedule.time(jnp.exp(middle)))
        return jax.tree.map(partial(jnp.where, here[1] <= aim), ((low, above), here), (here, (near, below)))

    ends = (low, jnp.full_like(t, jnp.inf)), (high, jnp.zeros_like(t))
    (low, above), (near, below) = jax.lax.fori_loop(0, HALVINGS, halve, ends)
    found = near - (near - low) * (aim - below) / (above - below)
    # Always move: 2 % of a factor at least.
    found = jnp.minimum(found, high - 0.02)
    time = jnp.minimum(schedule.time(jnp.exp(found)), t * (1 - 1e-4))
    return jnp.where(loss(jnp.zeros_like(t)) <= aim, 0.0, time), high - found


@partial(jax.jit, static_argnames=("frame", "weighted", "predictor"))
def _pilot_level(
    density: Density, kernel: Kernel, population: Population, rng_key, t_from, t, log_step, target, gain, scale,
    *, frame: str, weighted: bool, predictor: bool,
):  # fmt: skip
    """Advance the pilot to t, adapting the log step size; returns (population, mean of its second half)."""
    logdensity_fn = log_density_in_frame(density, t, frame, scale)
    resample_key, move_key, predict_key = jax.random.split(rng_key, 3)
    state = population.state
    if predictor:
        state = predict(density, state, predict_key, t_from, t, frame)
    position = to_scale(state.position, scale)
    fresh = jax.vmap(lambda p, m: init(p, m, logdensity_fn))(position, state.momentum)
    if weighted:
        population, *_ = reweigh(population, fresh, resample_key, 0.5)
    else:
        population = population._replace(state=fresh)

    def one_step(carry, inputs):
        state, log_step = carry
        key, number = inputs
        keys, jitter_keys = jax.random.split(key, (2, population.log_weight.size))
        steps = jax.vmap(lambda k: jittered(k, jnp.exp(log_step), scale))(jitter_keys)
        state, info = jax.vmap(lambda k, s, step: kernel.step(k, s, logdensity_fn, step))(keys, state, steps)
        rate = jnp.mean(jnp.nan_to_num(info.acceptance_rate))
        log_step = log_step + gain * (rate - target) / jnp.sqrt(1.0 + number)
        return (state, log_step), log_step

    many = state.position.shape[1] >= WATCHED_SIZE
    count = PRECONDITIONED_STEPS if many or scale is not None else PILOT_STEPS
    inputs = (jax.random.split(move_key, count), jnp.arange(count))
    (state, log_step), path = jax.lax.scan(one_step, (population.state, log_step), inputs)
    gradient = state.logdensity_grad
    if scale is not None:
        gradient = jax.scipy.linalg.solve_triangular(scale, gradient.T, lower=True, trans=1).T
    state = state._replace(position=from_scale(state.position, scale), logdensity_grad=gradient)
    return population._replace(state=state), path[count // 2 :].mean()


class _Shape(NamedTuple):
    """Second moments [d, d] of the pilot in the frame, averaged over levels: of its points, and of its gradients."""

    covariance: jax.Array
    information: jax.Array

    def scale(self, num_chains: int):
        r"""Lower triangular S with :math:`(S S')^{-1} = (C^{-1} + F) / 2`.

        Where modes have parted, the covariance C spans them all, and moves in its coordinates would be as small as one
        of them is narrow in *any* direction. The Fisher information F, the mean outer product of gradients, sees
        curvature alone: one mode's (Titsias 2023, arXiv:2305.14442). For a Gaussian the two are one. Where F says
        nothing, between walls, C remains.
        """
        size = len(self.covariance)
        # Towards the diagonal by the share of noise; the average is of (1 + s) / (1 - s) levels.
        noise = size / (size + num_chains * (1 + SMOOTHING) / (1 - SMOOTHING))
        covariance, information = ((1 - noise) * m + noise * jnp.diag(jnp.diag(m)) for m in self)
        precision = (jnp.linalg.inv(covariance) + information) / 2
        # With U U' the precision and U upper triangular, S = U'^{-1}.
        upper = jnp.linalg.cholesky(precision[::-1, ::-1])[::-1, ::-1]
        return jax.scipy.linalg.solve_triangular(upper, jnp.eye(size), trans=1)


@jax.jit
def _learn(population: Population, shape: _Shape, scale):
    """The shape with this level's population in it, and its scale; both as they were where that fails."""
    u, gradient = population.state.position, population.state.logdensity_grad
    # Chains that are lost, or whose gradient fails, have no say.
    counted = jnp.isfinite(population.log_weight) & jnp.all(jnp.isfinite(gradient), axis=1)
    weight = jax.nn.softmax(jnp.where(counted, population.log_weight, -jnp.inf))
    u, gradient = (jnp.where(counted[:, None], a, 0.0) for a in (u, gradient))

    def moment(a):
        return (a.T * weight) @ a

    now = _Shape(moment(u - weight @ u), moment(gradient))
    new = jax.tree.map(lambda old, m: SMOOTHING * old + (1 - SMOOTHING) * m, shape, now)
    root = new.scale(len(u))
    fine = jnp.all(jnp.isfinite(root))
    return jax.tree.map(partial(jnp.where, fine), (new, root), (shape, scale))


def plan(
    rng_key, density: Density, kernel: Kernel, levels,
    *, frame: str, level_ess: float, metric="frame", predictor=False, num_chains: int | None = None, say=None,
) -> Plan:  # fmt: skip
    """Levels and step sizes for a run; no pilot where both are given and nothing else is to be learnt.

    Args:
        levels: None to place them by conditional ESS, a number of geometric levels, or the levels themselves.
        level_ess: Target share of the conditional ESS between levels, in (0, 1).
        predictor: Whether the run takes a reverse step before each level; the pilot does as the run.
        num_chains: Chains of the pilot; 256 by default, more for metric "pilot".
        metric: "frame" moves in the frame's coordinates, "pilot" in those in which the pilot, or one of its modes, is
            about round. A density with a score only has no weights to learn these by, and moves in the frame's.
        say: Function of a text, told what the pilot is at.

    Raises:
        ParameterError: if a setting is out of range, or there are not as many step sizes as levels.
    """
    check_metric(metric, density)
    if not 0 < level_ess < 1:
        raise ParameterError(f"level_ess must lie in (0, 1); got {level_ess}.")
    levels, steps, scored = given_levels(levels, density), kernel.step_size, not density.has_log_density
    if steps is not None and np.ndim(steps) == 1 and (levels is None or len(levels) != len(steps)):
        count = "levels placed by conditional ESS" if levels is None else f"{len(levels)} levels"
        raise ParameterError(f"got {len(steps)} step sizes for {count}. Give one step size, or as many as levels.")
    if scored and steps is None:
        raise ParameterError(
            f"{density!r} has only a score, from which acceptance cannot be measured. Give the kernel a step_size."
        )
    if scored:
        levels = given_levels(levels, density, SCORE_LEVELS)
    if steps is not None and levels is not None and (scored or metric == "frame"):
        return Plan(levels, np.broadcast_to(np.asarray(steps, dtype=float), levels.shape).copy())
    return _pilot(rng_key, density, kernel, levels, frame, level_ess, metric, predictor, num_chains, say)


def _pilot(rng_key, density, kernel, levels, frame, level_ess, metric, predictor, num_chains, say) -> Plan:
    start_key, level_key = jax.random.split(rng_key)
    size = math.prod(density.event_shape)
    # A covariance takes some chains per dimension.
    if num_chains is None:
        num_chains = PILOT_CHAINS if metric == "frame" else max(PILOT_CHAINS, min(4 * size, 1024))
    # Given levels need no weights, and in many dimensions these would leave a single chain.
    weighted = levels is None or not (predictor or size >= WATCHED_SIZE)
    population = start(density, start_key, num_chains=num_chains, frame=frame)
    fixed, mover = kernel.step_size, kernel.without_step_size()
    first = kernel.first_step_size(size) if fixed is None else np.ravel(fixed)[0]
    log_step = jnp.asarray(np.log(first), dtype=float)
    # Near a target of 1 the acceptance rate hardly answers to the step size: push harder.
    push = 0.0 if fixed is not None else 0.3 / (1 - kernel.target_acceptance)
    t, smallest, gap = jnp.ones(()), smallest_ratio(density), jnp.asarray(np.inf, dtype=float)
    scale, shape = None, None
    if metric == "pilot":
        scale, shape = jnp.eye(size), _Shape(jnp.eye(size), jnp.eye(size))
    found, steps, scales, i = [], [], [], 0
    while True:
        if levels is not None:
            t = jnp.asarray(levels[i], dtype=float)
        elif i:
            t, gap = _next_level(density, population, t, level_ess, smallest, gap, frame=frame)
        if fixed is not None and np.ndim(fixed):
            log_step = jnp.asarray(np.log(fixed[i]), dtype=float)
        if say is not None:
            say(f"pilot: level {i + 1}, t = {float(t):.3g}")
        # The first level has the start's step size to find; later ones follow their predecessor.
        for sweep in range(3 if i == 0 and fixed is None else 1):
            key = jax.random.fold_in(level_key, 10 * i + sweep)
            gain = push * (1.5 if i == 0 else 0.8)
            population, log_step = _pilot_level(
                density, mover, population, key, jnp.asarray(found[-1] if i else 1.0), t, log_step,
                kernel.target_acceptance, gain, scale,
                frame=frame, weighted=weighted, predictor=predictor and i > 0,
            )  # fmt: skip
        found.append(float(t))
        steps.append(float(jnp.exp(log_step)))
        if shape is not None:
            scales.append(np.asarray(scale))
            shape, scale = _learn(population, shape, scale)
        i += 1
        if found[-1] == 0.0 or (levels is not None and i == len(levels)):
            break
        dead = levels is None and not bool(jnp.any(jnp.isfinite(population.log_weight)))
        if dead or i == MAX_LEVELS:
            reason = (
                f"no pilot chain kept a positive density below t = {found[-1]:.3g}"
                if dead
                else f"{MAX_LEVELS} levels did not reach t = 0 at level_ess = {level_ess}"
            )
            warn(f"{reason}; the rest is one leap. The factors may not overlap, or level_ess is too close to 1.")
            found.append(0.0)
            steps.append(steps[-1])
            scales += scales[-1:]
            break
    return Plan(np.asarray(found), np.asarray(steps), np.asarray(scales) if scales else None)
