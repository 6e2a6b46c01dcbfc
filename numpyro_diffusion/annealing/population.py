r"""A population of annealed chains and its move from one noise level to the next.

At each level, in this order: re-initialise every chain's log density and gradient, add
:math:`\log \gamma_k(u) - \log \gamma_{k-1}(u)` to its log weight (Neal 2001; it comes free with the re-initialisation),
resample if the effective sample size is small, then take the kernel's steps.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jax.sharding import Mesh, PartitionSpec

from ..density.density import Density
from ..diagnose.weights import pareto_tail
from . import frame as frames
from .devices import by_chain, replicated
from .escape import escaped
from .evidence import Account, evidence_error, folded, new_account
from .kernels import Kernel, KernelState, effective_sample_size, init, systematic_resampling
from .level import from_scale, log_density_in_frame, move, to_scale
from .reverse import reverse_step


class Population(NamedTuple):
    """`state` of N chains, `log_weight` [N], founding `ancestor` [N], log evidence so far folded in, its account."""

    state: KernelState
    log_weight: jax.Array
    ancestor: jax.Array
    log_evidence: jax.Array
    account: Account

    @jax.jit
    def evidence(self) -> jax.Array:
        """Estimate of log Z of the present level: its exponential is unbiased."""
        return self.log_evidence + logsumexp(self.log_weight) - jnp.log(self.log_weight.size)

    def evidence_error(self, tail=None) -> jax.Array:
        """Standard error of `evidence`, see the module of that name; `tail`, of the weights, where it is known."""
        sizes = jnp.abs(self.state.logdensity)
        size = 1 + jnp.mean(sizes, where=jnp.isfinite(sizes)) + jnp.abs(self.evidence())
        error = evidence_error(self.account, self.log_weight, self.ancestor, tail)
        # No less than what rounding does to log densities.
        return jnp.hypot(error, 4 * jnp.finfo(sizes.dtype).eps * jnp.where(jnp.isfinite(size), size, 0.0))


class LevelStats(NamedTuple):
    """Population summaries of one level, all scalars; `ess` and `conditional_ess` as shares of the population.

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


def map_chains(fn, shared, *arrays, chain_batch_size=None, mesh=None):
    """fn(shared, *values of one chain) for every chain, in pieces of `chain_batch_size`.

    Each device of a mesh has its share of the chains, and all of the pytree `shared`.
    """

    def share(shared, *arrays):
        if chain_batch_size is None or chain_batch_size >= len(jax.tree.leaves(arrays[0])[0]):
            return jax.vmap(partial(fn, shared))(*arrays)
        return jax.lax.map(lambda args: fn(shared, *args), arrays, batch_size=chain_batch_size)

    if mesh is None:
        return share(shared, *arrays)
    chains = PartitionSpec(mesh.axis_names)
    specs = (PartitionSpec(), *(chains for _ in arrays))
    return jax.shard_map(share, mesh=mesh, in_specs=specs, out_specs=chains, check_vma=False)(shared, *arrays)


def chain_keys(rng_key, num_chains):
    """One key per chain, that depends on the chain's number only."""
    return jax.vmap(partial(jax.random.fold_in, rng_key))(jnp.arange(num_chains))


@partial(jax.jit, static_argnames=("num_chains", "frame", "mesh"))
def start(density: Density, rng_key, *, num_chains: int, frame: str, mesh: Mesh | None = None) -> Population:
    """Exact draws of the Gaussian at t = 1, whose log density is the base of all weights."""

    def one(density, key):
        place, push = jax.random.split(key)
        u, log_prob = frames.start(density, place, frame)
        return KernelState(u, jax.random.normal(push, u.shape), log_prob, jnp.zeros_like(u))

    state = map_chains(one, density, chain_keys(rng_key, num_chains), mesh=mesh)
    weights = jnp.zeros(num_chains), jnp.arange(num_chains), jnp.zeros(())
    return placed(Population(state, *weights, new_account(num_chains)), mesh)


def placed(population: Population, mesh: Mesh | None) -> Population:
    """The population with its arrays where `devices` says."""
    state = population.state._replace(logdensity=replicated(population.state.logdensity, mesh))
    state = state._replace(**{k: by_chain(getattr(state, k), mesh) for k in state._fields if k != "logdensity"})
    return Population(state, *replicated(tuple(population[1:]), mesh))


#: Share of a fair weight 1 / N below which a chain counts as lost: nothing it does is worth a report.
LOST = 1e-3


def _kept(log_weight):
    return log_weight - logsumexp(log_weight) > jnp.log(LOST / log_weight.size)


def conditional_ess(log_weight, increment):
    """Share (sum W v)^2 / sum W v^2 of an increment v given normalised weights W; 1 if v is constant.

    Lost chains are left out: coming back by a little, from nowhere near, one of them would rule the sum.
    """
    log_w = jnp.where(_kept(log_weight), log_weight, -jnp.inf)
    log_w = log_w - logsumexp(log_w)
    return jnp.exp(2 * logsumexp(log_w + increment) - logsumexp(log_w + 2 * increment))


def reweigh(population: Population, state: KernelState, rng_key, threshold):
    """Add the increment, and resample if ESS / N < threshold.

    Returns:
        Population, increment, ESS and conditional ESS as shares, the tail of the weights before a resampling, and
        whether there was one.
    """
    # A NaN or infinite energy is a dead chain: weight zero. One that was dead before stays dead, wherever it is now.
    known = jnp.isfinite(state.logdensity) & jnp.isfinite(population.state.logdensity)
    increment = jnp.where(known, state.logdensity - population.state.logdensity, -jnp.inf)
    cess = conditional_ess(population.log_weight, increment)
    population = population._replace(state=state, log_weight=population.log_weight + increment)
    alive = jnp.any(jnp.isfinite(population.log_weight))
    ess = jnp.where(alive, effective_sample_size(population.log_weight) / increment.size, 0.0)
    due = (ess < threshold) & alive
    tail = pareto_tail(population.log_weight)
    population = jax.tree.map(partial(jnp.where, due), resample(population, rng_key, tail.nats), population)
    return population, increment, ess, cess, tail, due


@jax.jit
def resample(population: Population, rng_key, tail=None) -> Population:
    """Systematic resampling: equal weights, their mean folded into the log evidence, its error into the account."""
    num_chains = population.log_weight.size
    # Without a single live chain there is nothing to prefer.
    safe = jnp.where(jnp.any(jnp.isfinite(population.log_weight)), population.log_weight, 0.0)
    index = systematic_resampling(rng_key, safe, num_chains)
    return Population(
        jax.tree.map(lambda a: a[index], population.state),
        jnp.zeros(num_chains),
        population.ancestor[index],
        population.evidence(),
        folded(population.account, population.log_weight, population.ancestor, tail),
    )


def predict(
    density: Density, state: KernelState, rng_key, t_from, t, frame: str, chain_batch_size=None, mesh=None
) -> KernelState:
    """Chains after one reverse diffusion step from time `t_from` to `t`; their cached values are stale."""
    at_both = (t_from, frames.frame_at(density, t_from, frame)), (t, frames.frame_at(density, t, frame))

    def one(shared, key, u):
        density, ((t_from, before), (t, after)) = shared
        return after.coordinates(reverse_step(density, key, before.point(u, density.event_shape), t_from, t))

    keys = chain_keys(rng_key, len(state.position))
    return state._replace(
        position=map_chains(one, (density, at_both), keys, state.position, chain_batch_size=chain_batch_size, mesh=mesh)
    )


@partial(jax.jit, static_argnames=("num_steps", "frame", "weighted", "predictor", "chain_batch_size", "mesh"))
def advance(
    density: Density, kernel: Kernel, population: Population, rng_key, t_from, t, step_size, threshold, scale=None,
    *, num_steps: int, frame: str, weighted: bool, predictor: bool, chain_batch_size: int | None,
    mesh: Mesh | None = None,
) -> tuple[Population, LevelStats, ChainStats]:  # fmt: skip
    """Take the population to time t. The densities and settings are traced: one compiled program serves every level.

    A chain's cached log density and gradient belong to the level they were computed at. They are recomputed here, first
    of all: carried across, chains reject and accept against the wrong density, at healthy acceptance rates.

    Kernels move v = scale^{-1} u, u the frame's coordinates: a preconditioner of this level's moves alone, which leaves
    weights as they are.
    """
    logdensity_fn = log_density_in_frame(density, t, frame, scale)
    num_chains = population.log_weight.size
    predict_key, resample_key, move_key = jax.random.split(rng_key, 3)
    state = population.state
    if predictor:
        state = predict(density, state, predict_key, t_from, t, frame, chain_batch_size, mesh)

    def refresh(logdensity_fn, position, momentum):
        return init(position, momentum, logdensity_fn)

    position = to_scale(state.position, scale)
    fresh = map_chains(refresh, logdensity_fn, position, state.momentum, chain_batch_size=chain_batch_size, mesh=mesh)
    fresh = fresh._replace(logdensity=replicated(fresh.logdensity, mesh))
    undefined = jnp.full((), jnp.nan)
    if weighted:
        population, increment, ess, cess, (pareto_k, tail), resampled = reweigh(
            population, fresh, resample_key, threshold
        )
        tail = jnp.where(resampled, 0.0, tail)
    else:
        population, increment = population._replace(state=fresh), jnp.zeros(num_chains)
        ess = cess = pareto_k = tail = undefined
        resampled = jnp.zeros((), bool)

    def moved(shared, key, state):
        kernel, logdensity_fn, step_size, scale = shared
        state, info = move(kernel, state, logdensity_fn, key, step_size, scale, num_steps=num_steps)
        return state, info.acceptance_rate.mean(), info.is_divergent.sum(), info.log_weight.sum()

    keys = chain_keys(move_key, num_chains)
    shared = kernel, logdensity_fn, step_size, scale
    state, *reports = map_chains(moved, shared, keys, population.state, chain_batch_size=chain_batch_size, mesh=mesh)
    acceptance, diverged, correction = replicated(reports, mesh)
    x = jax.vmap(lambda v: jnp.ravel(logdensity_fn.frame.point(v, density.event_shape)))(state.position)
    population = population._replace(state=state._replace(position=from_scale(state.position, scale)))
    if weighted and not kernel.is_adjusted:
        population = _corrected(population, correction)
        after, tail = pareto_tail(population.log_weight)
        pareto_k = jnp.fmax(pareto_k, after)
    population = placed(population, mesh)
    if not density.has_log_density:
        acceptance = jnp.full(num_chains, jnp.nan)
    mean, sd, counted = _counted(population.log_weight, increment)
    stats = LevelStats(
        acceptance_rate=acceptance.mean(),
        step_size=step_size,
        ess=ess,
        conditional_ess=cess,
        log_weight_increment=mean if weighted else undefined,
        log_weight_increment_sd=sd if weighted else undefined,
        log_evidence=population.evidence() if weighted else undefined,
        log_evidence_error=population.evidence_error(tail) if weighted else undefined,
        resampled=resampled,
        divergences=jnp.sum(diverged, where=counted),
        pareto_k=pareto_k,
        tail=population.account.tail + tail,
        correction=population.account.correction,
        escaped=jnp.sum(escaped(density, t, x)),
    )
    return population, stats, ChainStats(acceptance, increment)


def _corrected(population: Population, correction) -> Population:
    """The population with the corrections of unadjusted steps in its weights."""
    log_weight = population.log_weight + correction
    # Weighted as the chains were before the steps, corrections average to one, whatever the density.
    mean = logsumexp(log_weight) - logsumexp(population.log_weight)
    account = population.account._replace(
        correction=population.account.correction + jnp.where(jnp.isfinite(mean), mean, 0.0)
    )
    return population._replace(log_weight=log_weight, account=account)


def _counted(log_weight, increment):
    """Mean and standard deviation of the increments of chains that are not lost, and whose divergences count [N]."""
    alive = _kept(log_weight)
    finite = jnp.isfinite(increment) & alive
    count = jnp.maximum(finite.sum(), 1)
    mean = jnp.sum(jnp.where(finite, increment, 0.0)) / count
    sd = jnp.sqrt(jnp.sum(jnp.where(finite, (increment - mean) ** 2, 0.0)) / count)
    # Chains of weight zero sit where the density fails: that is worth a report.
    return mean, sd, alive | jnp.isneginf(log_weight)


@partial(jax.jit, static_argnames=("frame",))
def points(density: Density, population: Population, t, *, frame: str) -> jax.Array:
    """Chains [N, *event_shape] in x."""
    at = frames.frame_at(density, t, frame)
    return jax.vmap(lambda u: at.point(u, density.event_shape))(population.state.position)
