r"""A population of annealed chains: how it starts, and how it is weighed and resampled.

At a change of level :math:`\log \gamma_k(u) - \log \gamma_{k-1}(u)` is added to every chain's log weight (Neal 2001; it
comes free with entering the level, see `advance`), and the population is resampled if its effective sample size is
small.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..density.density import Density
from ..diagnose.weights import Tail, conditional_ess, effective_sample_size, pareto_tail
from . import frame as frames
from .devices import chain_keys, map_chains
from .evidence import Account, evidence_error, folded, new_account
from .kernels import KernelState, systematic_resampling
from .tracked import first_leaves, first_value


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

    def evidence_error(self, tail_nats=None) -> jax.Array:
        """Standard error of `evidence`, see the module of that name; `tail_nats` of the weights where it is known."""
        sizes = jnp.abs(self.state.logdensity)
        size = 1 + jnp.mean(sizes, where=jnp.isfinite(sizes)) + jnp.abs(self.evidence())
        error = evidence_error(self.account, self.log_weight, self.ancestor, tail_nats)
        # No less than what rounding does to log densities.
        return jnp.hypot(error, 4 * jnp.finfo(sizes.dtype).eps * jnp.where(jnp.isfinite(size), size, 0.0))


class Reweighing(NamedTuple):
    """What a change of level did to the weights: `increment` [N], ESS before a resampling and conditional ESS as shares
    of the population, the weights' `tail` then, and whether there was one."""

    increment: jax.Array
    ess: jax.Array
    conditional_ess: jax.Array
    tail: Tail
    resampled: jax.Array


@partial(jax.jit, static_argnames=("num_chains", "frame_kind", "mesh", "tracks"))
def start(
    density: Density, rng_key, *, num_chains: int, frame_kind: str, mesh: Mesh | None = None, tracks: bool = False
) -> Population:
    """Exact draws of the Gaussian at t = 1, whose log density is the base of all weights.

    `tracks` has their states hold the log densities of the density's leaves.
    """

    def one(density, key):
        position_key, momentum_key = jax.random.split(key)
        u, log_prob = frames.start(density, position_key, frame_kind)
        state = KernelState(u, jax.random.normal(momentum_key, u.shape), log_prob, jnp.zeros_like(u))
        frame = frames.frame_at(density, 1.0, frame_kind)
        if tracks:
            leaves = first_leaves(density, frame.point(u, density.event_shape))
            first = first_value(density, leaves) + frame.log_det
            return state._replace(leaves=leaves, logdensity=first), first - log_prob
        if density.has_log_density or not density.has_increments:
            return state, jnp.zeros(())
        # With a score only, log densities are known from here on, by what they gain.
        first = density.first_log_density(frame.point(u, density.event_shape)) + frame.log_det
        return state._replace(logdensity=first), first - log_prob

    state, log_weight = map_chains(one, density, chain_keys(rng_key, num_chains), mesh=mesh)
    others = jnp.arange(num_chains), jnp.zeros(()), new_account(num_chains)
    return sharded(Population(state, log_weight, *others), mesh)


def sharded(population: Population, mesh: Mesh | None) -> Population:
    """Within a compiled function: the population with its arrays where `devices` says."""
    if mesh is None:
        return population
    whole, shares = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    leaves: Any = () if isinstance(population.state.leaves, tuple) else shares
    places: Any = Population(KernelState(shares, shares, whole, shares, leaves), *[whole] * 4)  # pyright: ignore
    return jax.lax.with_sharding_constraint(population, places)


def reweigh(population: Population, state: KernelState, rng_key, threshold, gain=0.0) -> tuple[Population, Reweighing]:
    """Add to the weights what chains gain by being in `state`, and `gain`, and resample if ESS / N < threshold."""
    # A NaN or infinite energy is a dead chain: weight zero. One that was dead before stays dead, wherever it is now.
    known = jnp.isfinite(state.logdensity) & jnp.isfinite(population.state.logdensity)
    increment = jnp.where(known, state.logdensity - population.state.logdensity + gain, -jnp.inf)
    cess = conditional_ess(population.log_weight, increment)
    population = population._replace(state=state, log_weight=population.log_weight + increment)
    alive = jnp.any(jnp.isfinite(population.log_weight))
    ess = jnp.where(alive, effective_sample_size(population.log_weight) / increment.size, 0.0)
    due = (ess < threshold) & alive
    tail = pareto_tail(population.log_weight)
    population = jax.tree.map(partial(jnp.where, due), resample(population, rng_key, tail.nats), population)
    return population, Reweighing(increment, ess, cess, tail, due)


@jax.jit
def resample(population: Population, rng_key, tail_nats=None) -> Population:
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
        folded(population.account, population.log_weight, population.ancestor, tail_nats),
    )


@partial(jax.jit, static_argnames="frame_kind")
def points(density: Density, population: Population, t, *, frame_kind: str) -> jax.Array:
    """Chains [N, *event_shape] in x."""
    at = frames.frame_at(density, t, frame_kind)
    return jax.vmap(lambda u: at.point(u, density.event_shape))(population.state.position)
