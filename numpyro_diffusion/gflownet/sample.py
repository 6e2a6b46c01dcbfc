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
from ..checks.fields import check_choice
from ..checks.room import make_room
from ..errors import ParameterError, check_integer, check_key, check_number, check_untraced
from .flow import AnyFlow, check_flow
from .routing import Guide, Listed, guide_of, only
from .run import FEWEST, FlowRun, tail_of
from .walk import batched

#: Paths that take a step together where networks are asked.
CHUNK = 1024
#: Paths that try out each proposal: at least so many, and a share of all.
LEAST_PILOT, PILOT = 500, 0.1


class StepStats(NamedTuple):
    """Of one action: see `FlowRun`."""

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
    proposal: str | None = None,
    resample_threshold: float = 0.5,
    num_islands: int = 1,
) -> FlowRun:
    """Weighted objects of a composition of flows, and the log of its sum over all objects.

    Paths go by a policy that needs no training and weigh what it lacks, see `gflownet.routing`; the weights make the
    composition's distribution right, and their mean is an unbiased estimate of its sum. Where states can be listed this
    holds for any flows; elsewhere as far as the flows balance: P_F / P_B of every path to an object is the same.

    Args:
        rng_key: JAX random key.
        flow: A composition of flows, or a flow.
        num_samples: Number of paths.
        proposal: What paths go by: "routing", the composition itself; "flows", all its flows alike; or the name of one
            of them. None tries out all of these on a tenth of the paths each, and takes that of the smallest error.
        resample_threshold: Resample when ESS / N falls below it; 0 never does. Paths that go by flows alone weigh
            nothing until they stop, and are not resampled.
        num_islands: Populations that run side by side and are resampled by themselves.

    Returns:
        FlowRun.

    Raises:
        ArgumentTypeError, ParameterError: for what is no flow, and values out of range.
        TracedError: inside jax.jit, vmap, grad or scan.

    Cost: per path and action the policies of every flow, twice where states cannot be listed.
    """
    check_untraced("nd.gflownet.sample", rng_key)
    make_room()
    rng_key = check_key(rng_key)
    check_flow("nd.gflownet.sample", flow)
    num_samples, islands = check_integer("num_samples", num_samples, 2), check_integer("num_islands", num_islands)
    threshold = check_number("resample_threshold", resample_threshold, 0.0, 1.0)
    if num_samples % islands or num_samples < 2 * islands:
        raise ParameterError(
            f"num_islands must divide num_samples into islands of at least two; got {islands} for {num_samples}."
        )
    known = proposals(flow)
    run_key, pilot_key = jax.random.split(rng_key)
    if proposal is None:
        proposal = _best(pilot_key, flow, known, threshold, num_samples)
    chosen = known[check_choice("proposal", proposal, known, "None tries them all.")]
    guide = guide_of(flow, only(flow, *chosen))
    population, stats, visited = paths(
        guide, run_key, threshold * (0 in chosen), num_samples=num_samples, num_islands=islands
    )
    samples: Any = population.state.state
    if isinstance(guide, Listed):
        samples = jax.vmap(flow.environment.state_of)(samples)
    return FlowRun(
        samples=samples, log_weights=population.log_weights(), log_evidence=float(population.evidence()),
        log_evidence_error=_error(population), flow=flow, proposal=proposal,
        stats={name: np.asarray(value) for name, value in stats._asdict().items()}, ancestors=population.founders(),
        island_log_evidences=None if islands == 1 else np.asarray(population.island_evidences(), dtype=np.float64),
        visited=None if visited is None else np.asarray(visited, dtype=np.float64),
    )  # fmt: skip


def proposals(flow: AnyFlow) -> dict[str, tuple[int, ...]]:
    """What paths may go by: shares of `only` by name; two flows of one name are told apart by their number."""
    count = len(flow.models)
    if count == 1:
        return {"routing": (0,), repr(flow.models[0]): (1,)}
    names = [repr(model) for model in flow.models]
    named = {name if names.count(name) == 1 else f"{name} {i}": (i,) for i, name in enumerate(names, 1)}
    return {"routing": (0,), "flows": tuple(range(1, count + 1)), **named}


def _best(rng_key, flow: AnyFlow, known: dict[str, tuple[int, ...]], threshold: float, num_samples: int) -> str:
    """The proposal of the smallest error of a pilot run; routing where all are infinite."""
    count = min(num_samples, max(LEAST_PILOT, int(PILOT * num_samples)))
    errors = {}
    for i, (name, chosen) in enumerate(known.items()):
        key, guide = jax.random.fold_in(rng_key, i), guide_of(flow, only(flow, *chosen))
        population, _, _ = paths(guide, key, threshold * (0 in chosen), num_samples=count, num_islands=1)
        errors[name] = float(np.nan_to_num(_error(population), nan=np.inf))
    return min(errors, key=lambda name: errors[name])


def _error(population: Population) -> float:
    """Standard error of the log evidence, with tails as `tail_of` sees them, at the end alone; infinite of a few."""
    if population.log_weight.size < FEWEST:
        return np.inf
    account = population.account
    tails = np.asarray(population.log_weight).reshape(max(account.tail_nats.size, 1), -1)
    nats = jnp.stack([tail_of(weights).nats for weights in tails]).reshape(account.tail_nats.shape)
    account = account._replace(tail_nats=jnp.zeros_like(nats))
    return float(population._replace(account=account).evidence_error(nats))


@partial(jax.jit, static_argnames=("num_samples", "num_islands"))
def paths(guide: Guide, rng_key, threshold, *, num_samples: int, num_islands: int):
    """The population after the last action, statistics of every one, and visited mass [S] where states are listed."""
    shape, start = (num_islands,) if num_islands > 1 else (), guide.start()
    population = Population(
        jax.tree.map(lambda a: jnp.broadcast_to(a, (num_samples, *jnp.shape(a))), start), jnp.zeros(num_samples),
        jnp.arange(num_samples) % (num_samples // num_islands), jnp.full(shape, start.logdensity),
        new_account(num_samples, shape),
    )  # fmt: skip
    limit = num_samples if isinstance(guide, Listed) else CHUNK

    def move(key, walker):
        step = guide.step(walker, key)
        # A path that has stopped stays as it is.
        still = step._replace(walker=walker, gain=jnp.zeros(()))
        return jax.tree.map(partial(jnp.where, walker.is_on), step, still)

    def step(carry, key):
        population, visited = carry
        if isinstance(guide, Listed):
            visited = visited + _stopping(guide, population)
        move_key, resample_key = jax.random.split(key)
        moved = batched(move, num_samples, limit, jax.random.split(move_key, num_samples), population.state)
        population, found = reweigh(population, moved.walker, resample_key, threshold, moved.gain)
        stats = StepStats(
            jnp.min(found.ess), jnp.min(found.conditional_ess), jnp.max(found.tail.pareto_k),
            jnp.any(found.resampled), jnp.mean(moved.walker.is_on), population.evidence(),
        )  # fmt: skip
        return (population, visited), stats

    visited = jnp.zeros(guide.graph.num_states) if isinstance(guide, Listed) else None
    keys = jax.random.split(rng_key, guide.mix.flow.environment.max_length)
    (population, visited), stats = jax.lax.scan(step, (population, visited), keys)
    return population, stats, visited


def _stopping(guide: Listed, population: Population):
    """Mass [S] of paths that stop now, in expectation over the stop."""
    walker: Any = population.state
    ends = jax.vmap(guide.mix.flow.combined, in_axes=1)(guide.ending)[walker.state] - walker.logdensity
    weights = population.log_weights()
    mass = jnp.exp(weights - logsumexp(weights) + population.evidence() + ends)
    return jnp.zeros(guide.graph.num_states).at[walker.state].add(jnp.where(walker.is_on, mass, 0.0))
