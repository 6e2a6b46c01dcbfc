"""Samples of compositions of flows: weighted paths, resampled where few of them hold the weight."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from ..annealing.evidence import new_account
from ..annealing.population import Population, reweigh
from ..errors import ParameterError, check_integer, check_key, check_number, check_untraced
from .flow import AnyFlow, check_flow
from .routing import Along, Listed, guide_of
from .run import FlowRun
from .walk import batched

#: Paths that take a step together where networks are asked.
CHUNK = 1024


class StepStats(NamedTuple):
    """Of one step: see `FlowRun`."""

    ess: jax.Array
    conditional_ess: jax.Array
    pareto_k: jax.Array
    resampled: jax.Array
    going: jax.Array
    log_evidence: jax.Array


def sample(
    rng_key: jax.Array,
    flow: AnyFlow,
    *,
    num_samples: int = 10_000,
    resample_threshold: float = 0.5,
    num_islands: int = 1,
) -> FlowRun:
    """Weighted objects of a composition of flows, and the log of its sum over all objects.

    Paths follow the routing policy and weigh what it lacks, see `gflownet.routing`; the weights make the composition's
    distribution right, and their mean is an unbiased estimate of its sum. Where states can be listed this holds for
    any flows; elsewhere as far as the flows balance: P_F / P_B of every path to an object is the same.

    Args:
        rng_key: JAX random key.
        flow: A composition of flows, or a flow.
        num_samples: Number of paths.
        resample_threshold: Resample when ESS / N falls below it; 0 never does.
        num_islands: Populations that run side by side and are resampled by themselves.

    Returns:
        FlowRun.

    Raises:
        ArgumentTypeError, ParameterError: for what is no flow, and numbers out of range.
        TracedError: inside jax.jit, vmap, grad or scan.

    Cost: per path and action the policies of every flow, twice where states cannot be listed.
    """
    check_untraced("nd.gflownet.sample", rng_key)
    rng_key = check_key(rng_key)
    check_flow("nd.gflownet.sample", flow)
    num_samples, islands = check_integer("num_samples", num_samples, 2), check_integer("num_islands", num_islands)
    check_number("resample_threshold", resample_threshold, 0.0, 1.0)
    if num_samples % islands or num_samples < 2 * islands:
        raise ParameterError(
            f"num_islands must divide num_samples into islands of at least two; got {islands} for {num_samples}."
        )
    guide = guide_of(flow)
    population, stats, mass = _run(
        flow, guide, rng_key, float(resample_threshold), num_samples=num_samples, num_islands=islands
    )
    samples: Any = population.state.state
    if isinstance(guide, Listed):
        samples = jax.vmap(flow.environment.state_of)(samples)
    evidences = np.asarray(population.island_evidences(), dtype=np.float64)
    return FlowRun(
        samples=samples, log_weights=population.log_weights(), log_evidence=float(population.evidence()),
        log_evidence_error=float(population.evidence_error()), flow=flow,
        stats={name: np.asarray(value) for name, value in stats._asdict().items()}, ancestors=population.founders(),
        island_log_evidences=None if islands == 1 else evidences,
        visited=None if mass is None else np.asarray(mass, dtype=np.float64), is_exact=isinstance(guide, Listed),
    )  # fmt: skip


@partial(jax.jit, static_argnames=("num_samples", "num_islands"))
def _run(flow: AnyFlow, guide: Listed | Along, rng_key, threshold, *, num_samples: int, num_islands: int):
    """The population after the last action, statistics of every one, and mass [S] by visits where states are listed."""
    shape = (num_islands,) if num_islands > 1 else ()
    start = guide.start(flow)
    population = Population(
        jax.tree.map(lambda a: jnp.broadcast_to(a, (num_samples, *jnp.shape(a))), start), jnp.zeros(num_samples),
        jnp.arange(num_samples) % (num_samples // num_islands), jnp.full(shape, start.logdensity),
        new_account(num_samples, shape),
    )  # fmt: skip

    def advance(key, walker):
        step = guide.step(flow, walker, key)
        # A path that has stopped stays as it is.
        stay = jax.tree.map(partial(jnp.where, walker.is_on), step, step._replace(walker=walker, gain=jnp.zeros(())))
        return stay

    def step(carry, key):
        population, mass = carry
        if isinstance(guide, Listed):
            mass = mass + _ending(guide, flow, population)
        move_key, resample_key = jax.random.split(key)
        limit = num_samples if isinstance(guide, Listed) else CHUNK
        moved = batched(advance, num_samples, limit, jax.random.split(move_key, num_samples), population.state)
        population, found = reweigh(population, moved.walker, resample_key, threshold, moved.gain)
        stats = StepStats(
            jnp.min(found.ess), jnp.min(found.conditional_ess), jnp.max(found.tail.pareto_k),
            jnp.any(found.resampled), jnp.mean(moved.walker.is_on), population.evidence(),
        )  # fmt: skip
        return (population, mass), stats

    mass = jnp.zeros(guide.graph.num_states) if isinstance(guide, Listed) else None
    keys = jax.random.split(rng_key, flow.environment.max_length)
    (population, mass), stats = jax.lax.scan(step, (population, mass), keys)
    return population, stats, mass


def _ending(guide: Listed, flow: AnyFlow, population: Population):
    """Mass [S] of paths that stop now, in expectation over the stop."""
    walker: Any = population.state
    ends = jax.vmap(flow.combined, in_axes=1)(guide.ending)[walker.state] - walker.logdensity
    weight = jnp.exp(population.log_weights() + ends + _scale(population))
    return jnp.zeros(guide.graph.num_states).at[walker.state].add(jnp.where(walker.is_on, weight, 0.0))


def _scale(population: Population):
    """What turns log weights into shares of the evidence."""
    return population.evidence() - logsumexp(population.log_weights())
