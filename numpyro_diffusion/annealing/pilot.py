r"""The pilot run: where to put noise levels, and how far to step at each.

A small population anneals once. The next level is the furthest at which the *conditional* effective sample size of the
weight increment stays at a target share (Zhou, Johansen and Aston 2016); at each level the log step size follows
Robbins and Monro to the kernel's target acceptance. Both are frozen before the weighted run, whose evidence therefore
stays unbiased.
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..density.density import Density
from ..errors import ParameterError, warn
from .advance import LevelStats, Moves, enter, level_stats, predict
from .effort import PILOT_ESS, adapted
from .escaped import escaped
from .information import learn
from .kernels import Kernel
from .level import level_at
from .piloted import Piloted
from .placing import HALVINGS, SCORE_REACH, next_level
from .plan import Plan, PlannedLevel, geometric_levels, given_levels, smallest_ratio
from .population import Population, start
from .reverse import Reverse
from .settings import WATCHED_SIZE, Settings

PILOT_CHAINS = 256
#: Pilot steps per level, each of which adapts the step size. Fewer with a preconditioner, which keeps the step size
#: near one, and for images, where acceptance averages over many pixels.
PILOT_STEPS, PRECONDITIONED_STEPS, COARSE_STEPS = 4, 3, 2
#: How often the first level is gone over, to find its step size.
START_SWEEPS = 3
#: Weight of earlier levels in the pilot's second moments.
SMOOTHING = 0.7
MAX_LEVELS = 400
#: Levels where none are given and nothing tells how far apart they should be: of a density with a score only, of
#: reverse diffusion, and of that where it tracks log densities.
SCORE_LEVELS, REVERSE_LEVELS, TRACKED_LEVELS = 100, 250, 150


@partial(jax.jit, static_argnames="settings")
def _pilot_level(
    density: Density, kernel: Kernel, population: Population, rng_key, planned: PlannedLevel, log_step, gain,
    settings: Settings,
):  # fmt: skip
    """Advance the pilot to a level, adapting the log step size; (population, mean of its second half, report)."""
    resample_key, move_key, predict_key = jax.random.split(rng_key, 3)
    start = population.state.position
    population, gained = predict(density, population, predict_key, planned, settings)
    level = level_at(density, planned.t, settings.frame, scale=planned.scale)
    population, change = enter(level, population, resample_key, 0.5, settings, planned.previous, start, gained)
    longest = math.inf if kernel.longest_step is None else math.log(kernel.longest_step)

    def one_step(carry, inputs):
        state, log_step = carry
        key, number = inputs
        keys, jitter_keys = jax.random.split(key, (2, population.log_weight.size))
        step = partial(level._replace(step_size=jnp.exp(log_step)).step, kernel)
        state, info = jax.vmap(step)(keys, jitter_keys, state)
        rate = jnp.mean(jnp.nan_to_num(info.acceptance_rate))
        log_step = log_step + gain * (rate - kernel.target_acceptance) / jnp.sqrt(1.0 + number)
        log_step = jnp.minimum(log_step, longest)
        return (state, log_step), (log_step, info.acceptance_rate, info.is_divergent)

    count = settings.num_steps
    inputs = (jax.random.split(move_key, count), jnp.arange(count))
    (state, _), reports = jax.lax.scan(one_step, (population.state, log_step), inputs)
    log_step, rate, diverged = (values[count // 2 :].mean(axis=0) for values in reports)
    x = jax.vmap(lambda v: jnp.ravel(level.point(v)))(state.position)
    moves = Moves(rate, diverged, jnp.zeros_like(rate), escaped(density, planned.t, x))
    population, tail = population._replace(state=jax.vmap(level.leave)(state)), change.tail
    tail = tail._replace(nats=jnp.where(change.resampled, 0.0, tail.nats))
    level = level._replace(step_size=jnp.exp(log_step))
    return population, log_step, level_stats(population, level, change, moves, tail, weighted=settings.weighted)


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
    gradient = jax.scipy.linalg.solve_triangular(scale, gradient.T, lower=True, trans=1).T
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


def plan(rng_key, density: Density, kernel: Kernel | Reverse, levels, settings: Settings, say=None) -> Plan:
    """The plan alone, see `planned`."""
    return planned(rng_key, density, kernel, levels, settings, say)[0]


def planned(
    rng_key, density: Density, kernel: Kernel | Reverse, levels, settings: Settings, say=None, *, always: bool = False
) -> tuple[Plan, Piloted | None]:
    """Levels (`anneal` says what may be given) and step sizes for a run, and the pilot that found them.

    There is none where nothing is to be learnt, unless one is `always` to be run.

    A density whose chains have no weights, because there is only a score, has geometric levels. `say` is told what the
    pilot is at.

    Raises:
        ParameterError: if there are not as many step sizes as levels, or none where acceptance cannot be measured.
    """
    if isinstance(kernel, Reverse):
        tracks = kernel.tracks(density)
        place = partial(geometric_levels, density) if tracks else density.schedule.levels
        levels = given_levels((TRACKED_LEVELS if tracks else REVERSE_LEVELS) if levels is None else levels, place)
        return Plan(levels, np.full(len(levels), np.nan), denoised=np.ones(len(levels), bool)), None
    steps, scored = kernel.step_size, not (density.has_log_density or settings.weighted)
    levels = None if levels is None else given_levels(levels, partial(geometric_levels, density))
    if steps is not None and np.ndim(steps) == 1 and (levels is None or len(levels) != len(steps)):
        count = "levels placed by conditional ESS" if levels is None else f"{len(levels)} levels"
        raise ParameterError(f"got {len(steps)} step sizes for {count}. Give one step size, or as many as levels.")
    if steps is None and not (density.has_log_density or kernel.num_nodes):
        raise ParameterError(
            f"{density!r} has only a score, from which {kernel!r} cannot measure acceptance. Give it a step_size."
        )
    if scored and levels is None:
        levels = geometric_levels(density, SCORE_LEVELS)
    if steps is not None and levels is not None and (scored or settings.metric == "frame") and not always:
        steps = np.broadcast_to(np.asarray(steps, dtype=float), levels.shape).copy()
        return Plan(levels, steps, denoised=np.full(len(levels), bool(settings.predictor))), None
    coarse = levels is None and settings.accuracy is not None
    of_pilot = dataclasses.replace(settings, level_ess=PILOT_ESS) if coarse else settings
    pilot = _pilot(rng_key, density, kernel, levels, of_pilot, say or (lambda text: None))
    if not coarse or settings.accuracy is None or not settings.weighted:
        return pilot.plan, pilot
    reach = math.inf if density.has_log_density else SCORE_REACH
    return adapted(pilot, density.schedule, settings.num_chains, settings.accuracy, reach), pilot


def _ways(settings: Settings, *, are_placed: bool) -> tuple[bool, ...]:
    """How chains may get to the next level: carried (False), by a reverse diffusion step (True); both: as is better."""
    if settings.predictor is None:
        # Between the far levels of a coarse pilot, weights of steps have tails that so few chains do not show. Nor do
        # steps between them hold, taken where they pay near the pilot's own levels: where a narrow likelihood comes in,
        # the information changes faster than it can be interpolated (0.65 nats lost, measured).
        return (False, True) if are_placed and settings.weighted and settings.accuracy is None else (False,)
    return (settings.predictor,)


def _pilot(rng_key, density: Density, kernel: Kernel, levels, settings: Settings, say) -> Piloted:
    start_key, level_key = jax.random.split(rng_key)
    size, fixed, mover = math.prod(density.event_shape), kernel.step_size, kernel.without_step_size()
    settings = _of_the_pilot(settings, size, are_placed=levels is None)
    population = start(density, start_key, num_chains=settings.num_chains, frame_kind=settings.frame)
    first = kernel.first_step_size(size) if fixed is None else np.ravel(fixed)[0]
    log_step = jnp.asarray(np.log(first), dtype=float)
    # Near a target of 1 the acceptance rate hardly answers to the step size: push harder.
    push = 0.0 if fixed is not None else 0.3 * kernel.step_power / (1 - kernel.target_acceptance)
    t, smallest, gap = jnp.ones(()), smallest_ratio(density), jnp.asarray(np.inf, dtype=float)
    unit = jnp.eye(size) if settings.metric == "pilot" else None
    scale, shape = unit, None if unit is None else _Shape(unit, unit)
    found: list[PlannedLevel] = []
    reports: list[LevelStats] = []
    information, ways = None, _ways(settings, are_placed=levels is None)
    while True:
        i = len(found)
        if levels is not None:
            t = jnp.asarray(levels[i], dtype=float)
        elif i:
            key = jax.random.fold_in(level_key, 10 * i + 9)
            last = found[-1]._replace(before=None, step=False)
            t, gap, steps = next_level(
                density, population, key, last, settings.level_ess, smallest, gap,
                frame_kind=settings.frame, ways=ways,
            )  # fmt: skip
        if fixed is not None and np.ndim(fixed):
            log_step = jnp.asarray(np.log(fixed[i]), dtype=float)
        say(f"pilot: level {i + 1}, t = {float(t):.3g}")
        previous = jnp.asarray(found[-1].t if i else 1.0, dtype=float)
        planned, gain = PlannedLevel(t, None, scale, None, previous), push * (0.8 if i else 1.5)
        if True in ways:
            # One structure for all levels, and so one program.
            first = planned._replace(t=1.0, step_size=1.0, information=jnp.eye(size) if size < WATCHED_SIZE else None)
            before = found[-1]._replace(before=None, step=False) if i else first
            planned = planned._replace(before=before, step=bool(i and (steps if levels is None else ways[-1])))
        # The first level has the start's step size to find; later ones follow their predecessor.
        for sweep in range(START_SWEEPS if i == 0 and fixed is None else 1):
            key = jax.random.fold_in(level_key, 10 * i + sweep)
            planned = planned if sweep == 0 else planned._replace(previous=t)
            args = population, key, planned, log_step, gain, settings
            population, log_step, report = _pilot_level(density, mover, *args)
            reports.append(report) if sweep == 0 else None
        if True in ways and size < WATCHED_SIZE:
            information = learn(level_at(density, t, settings.frame, scale=scale), population, information)
            planned = planned._replace(information=information.matrix)
        found.append(planned._replace(t=float(t), step_size=float(jnp.exp(log_step))))
        if shape is not None:
            shape, scale = _learn(population, shape, scale)
        if found[-1].t == 0.0 or (levels is not None and len(found) == len(levels)):
            break
        if levels is None and _gives_up(density, population, found, settings.level_ess):
            found.append(found[-1]._replace(t=0.0, step=False))
            break
    # Of the start's step size.
    num_sweeps = len(reports) + (0 if fixed is not None else START_SWEEPS - 1)
    num_looks = 0 if levels is not None else (len(reports) - 1) * len(ways) * (HALVINGS + 2)
    return Piloted(Plan.of(found), population, tuple(reports), settings, num_sweeps, num_looks)


def _of_the_pilot(settings: Settings, size: int, *, are_placed: bool) -> Settings:
    """The settings of a pilot in `size` dimensions, for a run's: its steps, chains and weights are its own."""
    is_large, learns = size >= WATCHED_SIZE, settings.metric == "pilot"
    coarse = are_placed and settings.accuracy is not None
    # A covariance takes some chains per dimension.
    num_chains = max(PILOT_CHAINS, min(4 * size, 1024)) if learns else PILOT_CHAINS
    return dataclasses.replace(
        settings,
        num_steps=max(COARSE_STEPS, settings.num_steps)
        if coarse
        else PRECONDITIONED_STEPS
        if is_large or learns
        else PILOT_STEPS,
        num_chains=settings.num_pilot_chains or num_chains,
        # Given levels need no weights, and in many dimensions these would leave a single chain.
        weighted=are_placed or not is_large,
        chain_batch_size=None,
        mesh=None,
    )


def _gives_up(density: Density, population: Population, found: list[PlannedLevel], level_ess: float) -> bool:
    """Whether to place no further levels, with a warning."""
    if not bool(jnp.any(jnp.isfinite(population.log_weight))):
        reason = f"no pilot chain kept a positive density below t = {found[-1].t:.3g}"
    elif len(found) == MAX_LEVELS:
        reason = f"{MAX_LEVELS} levels did not reach t = 0 at level_ess = {level_ess}"
    else:
        return False
    warn(f"{density!r}: {reason}; the rest is one leap. The factors may not overlap, or level_ess is too close to 1.")
    return True
