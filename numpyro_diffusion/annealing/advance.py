"""A population's move from one noise level to the next.

At each level, in this order: *predict*, a reverse diffusion step if one is asked for; *enter*, every chain's log
density and gradient computed anew; *reweigh*; *move*, the kernel's steps; *correct*, the log weights of unadjusted
steps added; *report*. Reverse diffusion that tracks log densities steps, and reweighs.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from ..density.density import Density
from ..diagnose.weights import Tail
from .denoising import denoising
from .devices import chain_keys, replicated
from .escaped import escaped
from .kernels import Kernel, KernelState
from .level import Level, level_at
from .plan import PlannedLevel
from .population import Population, Reweighing, on_islands, reweigh, sharded
from .referred import referred_step
from .reverse import Reverse, reverse_step
from .settings import Settings
from .tracked import tracked_step


class LevelStats(NamedTuple):
    """Population summaries of one level, all scalars; `ess` and `conditional_ess` as shares of the population.

    Of islands means; `resampled` if any was, `pareto_k` and `tail` of the worst.

    `pareto_k` is the shape of the weights' tail at its heaviest, before a resampling or after the steps; `tail` and
    `correction` are the nats that the evidence so far misses by either, see `evidence`; `escaped` counts chains that
    left every scale.
    """

    acceptance_rate: jax.Array
    step_size: jax.Array
    ess: jax.Array
    conditional_ess: jax.Array
    log_weight_increment: jax.Array
    log_weight_increment_sd: jax.Array
    log_evidence: jax.Array
    log_evidence_error: jax.Array
    resampled: jax.Array
    divergences: jax.Array
    pareto_k: jax.Array
    tail: jax.Array
    correction: jax.Array
    escaped: jax.Array


class ChainStats(NamedTuple):
    """Per-chain values of one level [N]."""

    acceptance_rate: jax.Array
    log_weight_increment: jax.Array


def predict(
    density: Density, population: Population, rng_key, planned: PlannedLevel, settings: Settings, reference=None
):  # fmt: skip
    """Chains after one reverse diffusion step to a level, if one is planned; their cached values are stale.

    With them what their log weights [N] gain by the step itself, see `denoising`, and `referred` where there is a
    reference; 0 where there are none.
    """
    num_chains = population.log_weight.size
    if planned.before is None:
        return population, jnp.zeros(num_chains)
    both, information = (planned.before, planned), planned.before.information
    before, after = (level_at(density, level.t, settings.frame, scale=level.scale) for level in both)
    state, keys = population.state, chain_keys(rng_key, num_chains)

    def weighed():
        def one(shared, key, state):
            by, before, after = shared
            noise = jax.random.normal(key, state.position.shape)
            return by.move(noise, state) if reference is None else referred_step(by, before, after, noise, state)

        by = denoising(before, after, information) if reference is None else reference
        moved, gain = settings.map_chains(one, (by, before, after), keys, state)
        return moved, replicated(gain, settings.mesh)

    def unweighed():
        def one(shared, key, u):
            density, before, after = shared
            x = reverse_step(density, key, before.point(before.frame.unscaled(u)), before.t, after.t)
            return after.frame.position(x)

        return settings.map_chains(one, (density, before, after), keys, state.position), jnp.zeros(num_chains)

    step = weighed if settings.weighted else unweighed
    moved, gain = jax.lax.cond(planned.step, step, lambda: (state.position, jnp.zeros(num_chains)))
    return population._replace(state=state._replace(position=moved)), gain


def enter(
    level: Level,
    population: Population,
    rng_key,
    threshold,
    settings: Settings,
    previous=None,
    start=None,
    gain: Any = 0.0,
) -> tuple[Population, Reweighing]:
    """Chains at a level, weighed if they are to be.

    With a score only, by what they gain since the `previous` time, when they were at `start`; and by the `gain` of the
    step that led here.
    """
    state, density = population.state, level.density
    if density.has_log_density or not settings.weighted:
        fresh = settings.map_chains(Level.enter, level, state.position, state.momentum)
    else:

        def one(levels, key, state, start):
            (level, before), u = levels, state.position
            return level.enter(u, state.momentum, state.logdensity + level.gain(key, before, start, u))

        # Folded in: keys of densities with log densities stay what they are.
        keys = chain_keys(jax.random.fold_in(rng_key, 1), population.log_weight.size)
        start = state.position if start is None else start
        fresh = settings.map_chains(one, (level, level_at(density, previous, settings.frame)), keys, state, start)
    fresh = fresh._replace(logdensity=replicated(fresh.logdensity, settings.mesh))
    if settings.weighted:
        return reweigh(population, fresh, rng_key, threshold, gain)
    return _unweighed(population, fresh)


def _unweighed(population: Population, state: KernelState) -> tuple[Population, Reweighing]:
    """Chains in a state, without weights."""
    none = jnp.full((), jnp.nan)
    change = Reweighing(jnp.zeros(population.log_weight.size), none, none, Tail(none, none), jnp.zeros((), bool))
    return population._replace(state=state), change


@partial(jax.jit, static_argnames="settings")
def advance(
    density: Density, kernel: Kernel | Reverse, population: Population, rng_key, planned: PlannedLevel, threshold,
    settings: Settings, reference: Density | None = None,
) -> tuple[Population, LevelStats, ChainStats]:  # fmt: skip
    """Take the population to a level. Densities and plans are traced: one compiled program serves every level."""
    predict_key, resample_key, move_key = jax.random.split(rng_key, 3)
    if isinstance(kernel, Reverse) and kernel.tracks(density):
        return _tracked(density, population, rng_key, planned, threshold, settings)
    start = population.state.position
    population, gain = predict(density, population, predict_key, planned, settings, reference)
    if isinstance(kernel, Reverse):
        # Nothing moves on from there, so nothing is evaluated either.
        num_chains, none = population.log_weight.size, jnp.full((), jnp.nan)
        stats = LevelStats(*[none] * len(LevelStats._fields))._replace(escaped=jnp.zeros((), int))
        return sharded(population, settings.mesh), stats, ChainStats(jnp.full(num_chains, none), jnp.zeros(num_chains))
    level = level_at(density, planned.t, settings.frame, planned.step_size, planned.scale)
    population, change = enter(level, population, resample_key, threshold, settings, planned.previous, start, gain)
    population, moves = _move(level, kernel, population, move_key, settings)
    # What a resampling has folded into the evidence is in its account.
    tail = change.tail._replace(nats=jnp.where(change.resampled, 0.0, change.tail.nats))
    if settings.weighted and not kernel.is_adjusted:
        population = _correct(population, moves.correction)
        after = population.tails()
        tail = after._replace(pareto_k=jnp.fmax(tail.pareto_k, after.pareto_k))
    population = sharded(population, settings.mesh)
    stats = level_stats(population, level, change, moves, tail, weighted=settings.weighted)
    return population, stats, ChainStats(moves.acceptance_rate, change.increment)


def _tracked(density: Density, population: Population, rng_key, planned: PlannedLevel, threshold, settings: Settings):
    """`advance` by reverse diffusion with log densities tracked along the paths: a step, then its weights."""
    step_key, resample_key = jax.random.split(rng_key)

    def one(shared, key, state):
        density, times = shared
        return tracked_step(density, key, state, *times)

    keys, times = chain_keys(step_key, population.log_weight.size), (planned.previous, planned.t)
    state = settings.map_chains(one, (density, times), keys, population.state)
    state = state._replace(logdensity=replicated(state.logdensity, settings.mesh))
    if settings.weighted:
        population, change = reweigh(population, state, resample_key, threshold)
    else:
        population, change = _unweighed(population, state)
    none = jnp.full(population.log_weight.size, jnp.nan)
    moves = Moves(none, jnp.zeros_like(none), jnp.zeros_like(none), escaped(density, planned.t, state.position))
    tail = change.tail._replace(nats=jnp.where(change.resampled, 0.0, change.tail.nats))
    level, population = (
        level_at(density, planned.t, settings.frame, jnp.full((), jnp.nan)),
        sharded(population, settings.mesh),
    )
    stats = level_stats(population, level, change, moves, tail, weighted=settings.weighted)
    return population, stats, ChainStats(none, change.increment)


class Moves(NamedTuple):
    """What the steps of a level did, by chain [N]: mean acceptance, divergences, log weights; and who has escaped."""

    acceptance_rate: jax.Array
    divergences: jax.Array
    correction: jax.Array
    escaped: jax.Array


def _move(
    level: Level, kernel: Kernel, population: Population, rng_key, settings: Settings
) -> tuple[Population, Moves]:
    def one(shared, key, state):
        level, kernel = shared
        state, info = level.move(kernel, key, state, settings.num_steps)
        return state, info.acceptance_rate.mean(), info.is_divergent.sum(), info.log_weight.sum()

    density, keys = level.density, chain_keys(rng_key, population.log_weight.size)
    state, *reports = settings.map_chains(one, (level, kernel), keys, population.state)
    acceptance, diverged, correction = replicated(reports, settings.mesh)
    if not (density.has_log_density or kernel.num_nodes):
        acceptance = jnp.full(acceptance.shape, jnp.nan)
    x = jax.vmap(lambda v: jnp.ravel(level.point(v)))(state.position)
    moves = Moves(acceptance, diverged, correction, escaped(density, level.t, x))
    return population._replace(state=jax.vmap(level.leave)(state)), moves


def _correct(population: Population, correction) -> Population:
    """The population with the corrections of unadjusted steps in its weights."""

    def corrected(population, correction):
        log_weight = population.log_weight + correction
        # Weighted as the chains were before the steps, corrections average to one, whatever the density.
        mean = logsumexp(log_weight) - logsumexp(population.log_weight)
        account = population.account
        account = account._replace(correction=account.correction + jnp.where(jnp.isfinite(mean), mean, 0.0))
        return population._replace(log_weight=log_weight, account=account)

    return on_islands(corrected, population, correction)


def level_stats(
    population: Population, level: Level, change: Reweighing, moves: Moves, tail: Tail, *, weighted: bool
) -> LevelStats:
    """What a level did to a population, after its moves."""
    log_weight, increment, account = population.log_weight, change.increment, population.account
    alive = population.kept()
    finite = jnp.isfinite(increment) & alive
    count = jnp.maximum(finite.sum(), 1)
    mean = jnp.sum(jnp.where(finite, increment, 0.0)) / count
    sd = jnp.sqrt(jnp.sum(jnp.where(finite, (increment - mean) ** 2, 0.0)) / count)
    evidence = mean, sd, population.evidence(), population.evidence_error(tail.nats)
    return LevelStats(
        moves.acceptance_rate.mean(),
        level.step_size,
        jnp.mean(change.ess),
        jnp.mean(change.conditional_ess),
        *(evidence if weighted else [jnp.full((), jnp.nan)] * 4),
        resampled=jnp.any(change.resampled),
        # Chains of weight zero sit where the density fails: that is worth a report; lost ones do not count.
        divergences=jnp.sum(moves.divergences, where=alive | jnp.isneginf(log_weight)),
        pareto_k=jnp.max(tail.pareto_k),
        tail=jnp.max(account.tail_nats + tail.nats),
        correction=jnp.mean(account.correction),
        escaped=jnp.sum(moves.escaped),
    )
