"""What flows are worth: their policies in every state, objects that they build, and log probabilities.

A flow here is whatever has an `environment`, `models` with `actions`, and `combined`, the formula over these.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from .graph import Graph, log_reaching, of_states
from .policy import Actions
from .walk import batched, walk, walk_back

#: Paths that are walked together, with a network and in tables.
CHUNK, CHUNK_OF_TABLES = 4096, 2**20


class LogProb(NamedTuple):
    """Log probabilities [...] in nats, and their standard errors; 0 where they are exact."""

    log_prob: jax.Array
    error: jax.Array


@jax.jit
def tabulated(flow) -> Actions:
    return of_states(flow.actions, flow.environment)


def tabulated_forward(flow, graph: Graph) -> jax.Array:
    """log P_F [S, A] of a flow; -inf where an action is not legal, or a state never reached."""
    return jnp.where(graph.forward, flow.tabulated().forward, -jnp.inf)


@jax.jit
def exact_log_probs(flow, graph: Graph) -> jax.Array:
    """The formula's logarithm [S] of every state, of the exact log probabilities of its models."""

    def one(model):
        forward = tabulated_forward(model, graph)
        return log_reaching(graph, forward, max_length=flow.environment.max_length) + forward[:, -1]

    return jax.vmap(flow.combined, in_axes=1)(jnp.stack([one(model) for model in flow.models]))


@partial(jax.jit, static_argnames="num_samples")
def walked(flow, rng_key, *, num_samples: int):
    def one(key):
        return walk(key, flow.environment, lambda state: flow.actions(state).forward, flow.environment.max_length).last

    return batched(one, num_samples, CHUNK, jax.random.split(rng_key, num_samples))


@partial(jax.jit, static_argnames=("max_length", "num_samples"))
def walked_there(graph: Graph, forward, rng_key, *, max_length: int, num_samples: int):
    def one(key):
        return walk(key, graph, lambda state: forward[state], max_length).last

    return batched(one, num_samples, CHUNK_OF_TABLES, jax.random.split(rng_key, num_samples))


@partial(jax.jit, static_argnames="num_paths")
def estimated(flow, rng_key, states, *, num_paths: int) -> LogProb:
    environment = flow.environment

    def of_model(model, key, state):
        keys = jax.random.split(key, num_paths)
        return log_mean(
            jax.vmap(lambda k: walk_back(k, environment, model.actions, state, environment.max_length))(keys)
        )

    def one(key, state):
        keys = jax.random.split(key, len(flow.models))
        found = [of_model(model, k, state) for model, k in zip(flow.models, keys, strict=True)]
        values, errors = (jnp.stack(column) for column in zip(*found, strict=True))
        value, slopes = jax.value_and_grad(flow.combined)(values)
        stops = environment.legal(state)[-1]
        return LogProb(jnp.where(stops, value, -jnp.inf), jnp.sqrt(jnp.sum((slopes * errors) ** 2)))

    count = len(jax.tree.leaves(states)[0])
    return batched(one, count, max(1, CHUNK // num_paths), jax.random.split(rng_key, count), states)


def log_mean(log_weight) -> LogProb:
    """log mean exp(log_weight) of draws [n], and its standard error by their scatter, infinite if one rules."""
    value = logsumexp(log_weight) - jnp.log(log_weight.size)
    relative = jnp.exp(log_weight - jnp.where(jnp.isfinite(value), value, 0.0))
    variance = jnp.var(relative, ddof=1) / log_weight.size
    return LogProb(value, jnp.where(variance < 1, jnp.sqrt(variance / jnp.maximum(1 - variance, 1e-9)), jnp.inf))
