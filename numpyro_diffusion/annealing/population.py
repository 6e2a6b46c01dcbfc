r"""A population of annealed chains: how it starts, and how it is weighed and resampled.

At a change of level :math:`\log \gamma_k(u) - \log \gamma_{k-1}(u)` is added to every chain's log weight (Neal 2001; it
comes free with entering the level, see `advance`), and the population is resampled if its effective sample size is
small.

Several *islands* are populations of one size that run side by side: chains, weights and families of the first, then of
the second, and so on, one log evidence each. They are weighed and resampled by themselves (`on_islands`). Every island
has an unbiased evidence, and so has their mean; each weighs in proportion to its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..density.density import Density
from ..diagnose.weights import Tail, conditional_ess, effective_sample_size, is_kept, pareto_tail
from . import frame as frames
from .devices import chain_keys, map_chains
from .evidence import Account, error_of, evidence_error, folded, new_account, together
from .kernels import KernelState, systematic_resampling
from .tracked import first_leaves, first_value

#: Chains that are drawn at a time, and how many times at most.
BLOCK, MOST_BLOCKS = 256, 16


class Population(NamedTuple):
    """`state` of N chains, `log_weight` [N], founding `ancestor` [N], log evidence so far folded in, its account.

    Of J islands log evidences [J], and an account of each; founders are numbered from 0 in every island.
    """

    state: KernelState
    log_weight: jax.Array
    ancestor: jax.Array
    log_evidence: jax.Array
    account: Account

    @jax.jit
    def island_evidences(self) -> jax.Array:
        """Estimate of log Z of the present level, [] or [J]: its exponential is unbiased."""
        return on_islands(lambda p: p.log_evidence + logsumexp(p.log_weight) - jnp.log(p.log_weight.size), self)

    @jax.jit
    def evidence(self) -> jax.Array:
        """Estimate of log Z of the present level, of islands the log of their mean: its exponential is unbiased."""
        found = self.island_evidences()
        return found if found.ndim == 0 else logsumexp(found) - jnp.log(found.size)

    def evidence_error(self, tail_nats=None) -> jax.Array:
        """Standard error of `evidence`, see the module of that name; `tail_nats` of the weights where it is known."""
        sizes = jnp.abs(self.state.logdensity)
        size = 1 + jnp.mean(sizes, where=jnp.isfinite(sizes)) + jnp.abs(self.evidence())
        if self.log_evidence.ndim == 0:
            error = evidence_error(self.account, self.log_weight, self.ancestor, tail_nats)
        else:
            error = _islands_error(self, self.tails().nats if tail_nats is None else tail_nats)
        # No less than what rounding does to log densities.
        return jnp.hypot(error, 4 * jnp.finfo(sizes.dtype).eps * jnp.where(jnp.isfinite(size), size, 0.0))

    @jax.jit
    def tails(self) -> Tail:
        """The tail of the weights, of each island its own."""
        return on_islands(lambda p: pareto_tail(p.log_weight), self)

    def kept(self) -> jax.Array:
        """Which chains [N] are not lost."""
        return on_islands(lambda p: is_kept(p.log_weight), self)

    @jax.jit
    def log_weights(self) -> jax.Array:
        """Log weights [N], between islands as well: each has the evidence it has folded in, over the mean of them."""
        if self.log_evidence.ndim == 0:
            return self.log_weight
        share = jax.nn.log_softmax(self.log_evidence) + jnp.log(self.log_evidence.size)
        return self.log_weight + jnp.repeat(share, self.island_size)

    @property
    def island_size(self) -> int:
        """Chains of an island."""
        return self.log_weight.size // self.log_evidence.size

    def founders(self) -> jax.Array:
        """Founding chains [N], numbered through all islands."""
        numbers = jnp.arange(self.ancestor.size)
        return self.ancestor + (numbers - numbers % self.island_size)


def on_islands(fn: Callable, population: Population, *args) -> Any:
    """`fn(population, *args)`, of every island where there are several.

    What they give by chain is put together as [N, ...], numbers as [J]; `args` have a value by chain [N, ...] or by
    island [J, ...].
    """
    if population.log_evidence.ndim == 0:
        return fn(population, *args)
    count = population.log_evidence.size

    def parted(a):
        return a if a.shape[0] == count else a.reshape(count, -1, *a.shape[1:])

    found = jax.vmap(fn)(*jax.tree.map(parted, (population, *args)))
    return jax.tree.map(lambda a: a if a.ndim == 1 else a.reshape(-1, *a.shape[2:]), found)


def _keys(population: Population, rng_key) -> jax.Array:
    """The key, or one for every island."""
    return rng_key if population.log_evidence.ndim == 0 else jax.random.split(rng_key, population.log_evidence.size)


@jax.jit
def _islands_error(population: Population, tail_nats) -> jax.Array:
    def account(p, nats):
        return folded(p.account, p.log_weight, p.ancestor, nats)

    accounts, share = on_islands(account, population, tail_nats), jax.nn.softmax(population.island_evidences())
    return error_of(together(accounts, share), population.log_weight)


class Reweighing(NamedTuple):
    """What a change of level did to the weights: `increment` [N], ESS before a resampling and conditional ESS as shares
    of the population, the weights' `tail` then, and whether there was one; all but the first by island, if several."""

    increment: jax.Array
    ess: jax.Array
    conditional_ess: jax.Array
    tail: Tail
    resampled: jax.Array


def start(
    density: Density, rng_key, *, num_chains: int, frame_kind: str, mesh: Mesh | None = None, tracks: bool = False,
    num_islands: int = 1,
) -> Population:  # fmt: skip
    """Exact draws of the Gaussian at t = 1, whose log density is the base of all weights.

    `tracks` has their states hold the log densities of the density's leaves.
    """
    keys, draw = _chain_keys(rng_key, num_chains), partial(_draw, density, frame_kind=frame_kind, tracks=tracks)
    if mesh is None and num_chains <= MOST_BLOCKS * BLOCK:
        # By blocks, the last one filled up: a pilot and its run have one program, however many chains.
        rows = np.arange(-(-num_chains // BLOCK) * BLOCK).reshape(-1, BLOCK) % num_chains
        state, log_weight = _joined([draw(keys[block]) for block in rows], num_chains)
    else:
        state, log_weight = draw(keys, mesh=mesh)
    founders, shape = jnp.arange(num_chains) % (num_chains // num_islands), (num_islands,) if num_islands > 1 else ()
    others = founders, jnp.zeros(shape), new_account(num_chains, shape)
    population = Population(state, log_weight, *others)
    return population if mesh is None else _sharded(population, mesh)


_chain_keys = jax.jit(chain_keys, static_argnums=1)


@partial(jax.jit, static_argnames=("frame_kind", "mesh", "tracks"))
def _draw(density: Density, keys, *, frame_kind: str, tracks: bool, mesh: Mesh | None = None):
    """States of chains at the start, of a key each, and their log weights."""

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

    return map_chains(one, density, keys, mesh=mesh)


@partial(jax.jit, static_argnums=1)
def _joined(blocks, num_chains: int):
    return jax.tree.map(lambda *parts: jnp.concatenate(parts)[:num_chains], *blocks)


def sharded(population: Population, mesh: Mesh | None) -> Population:
    """Within a compiled function: the population with its arrays where `devices` says."""
    if mesh is None:
        return population
    whole, shares = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    leaves: Any = () if isinstance(population.state.leaves, tuple) else shares
    places: Any = Population(KernelState(shares, shares, whole, shares, leaves), *[whole] * 4)  # pyright: ignore
    return jax.lax.with_sharding_constraint(population, places)


_sharded = jax.jit(sharded, static_argnums=1)


def reweigh(population: Population, state: KernelState, rng_key, threshold, gain=0.0) -> tuple[Population, Reweighing]:
    """Add to the weights `gain` and what `state` gains, and resample islands whose ESS / N < threshold."""
    new, gains = partial(_reweighed, threshold=threshold), jnp.broadcast_to(gain, population.log_weight.shape)
    return on_islands(new, population, state, gains, _keys(population, rng_key))


def _reweighed(population: Population, state: KernelState, gain, rng_key, threshold) -> tuple[Population, Reweighing]:
    # A NaN or infinite energy is a dead chain: weight zero. One that was dead before stays dead, wherever it is now.
    known = jnp.isfinite(state.logdensity) & jnp.isfinite(population.state.logdensity)
    increment = jnp.where(known, state.logdensity - population.state.logdensity + gain, -jnp.inf)
    cess = conditional_ess(population.log_weight, increment)
    population = population._replace(state=state, log_weight=population.log_weight + increment)
    alive = jnp.any(jnp.isfinite(population.log_weight))
    ess = jnp.where(alive, effective_sample_size(population.log_weight) / increment.size, 0.0)
    due = (ess < threshold) & alive
    tail = pareto_tail(population.log_weight)
    population = jax.tree.map(partial(jnp.where, due), _resampled(population, rng_key, tail.nats), population)
    return population, Reweighing(increment, ess, cess, tail, due)


@jax.jit
def resample(population: Population, rng_key) -> Population:
    """Systematic resampling: equal weights, their mean folded into the log evidence, its error into the account."""
    return on_islands(_resampled, population, _keys(population, rng_key))


def _resampled(population: Population, rng_key, tail_nats=None) -> Population:
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
