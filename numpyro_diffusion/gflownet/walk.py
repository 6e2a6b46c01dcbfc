r"""Paths through an environment, forwards by a policy and backwards from an object, and what they weigh.

A place to walk is an `Environment`, or its `Graph`, where states are numbers. Paths have `max_length` actions; those
that have stopped stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .environment import Environment, State
from .graph import Graph
from .policy import Actions, uniform

Place = Environment | Graph


class Path(NamedTuple):
    """One path of T = max_length actions.

    Attributes:
        states: [T, ...] where each action was taken; from the stop on, the object.
        actions: [T] forward actions, stop at the end and ever after.
        undone: [T] backward action that undoes each of them in the next state; 0 from the stop on.
        is_on: [T] whether the path had not stopped before.
        last: The object.
    """

    states: State
    actions: jax.Array
    undone: jax.Array
    is_on: jax.Array
    last: State


def choose(is_first, first, second):
    """One of two states."""
    return jax.tree.map(lambda a, b: jnp.where(is_first, a, b), first, second)


def walk(rng_key, place: Place, log_forward: Callable[[State], jax.Array], max_length: int) -> Path:
    """A path by the log probabilities [A] that `log_forward(state)` gives."""

    def step(carry, key):
        state, is_on = carry
        log_prob = log_forward(state)
        stop = log_prob.size - 1
        action = jnp.where(is_on, jax.random.categorical(key, log_prob), stop)
        moves = action != stop
        following = choose(moves, place.step(state, action), state)
        undone = jnp.where(moves, place.undoing(state, action), 0)
        return (following, moves), (state, action, undone, is_on)

    start = place.initial_state(), jnp.ones((), bool)
    (last, _), steps = jax.lax.scan(step, start, jax.random.split(rng_key, max_length))
    return Path(*steps, last)


def explored(log_forward, legal, exploration) -> jax.Array:
    """Log probabilities [A] of a policy that takes any legal action at random with probability `exploration`."""
    return jnp.logaddexp(jnp.log1p(-exploration) + log_forward, jnp.log(exploration) + uniform(legal))


def log_weight(path: Path, actions: Actions) -> jax.Array:
    """log P_F(path) - log P_B(path | object), of the policies [T, A] and [T, B] in the path's states."""
    stop = actions.forward.shape[-1] - 1
    taken = jnp.take_along_axis(actions.forward, path.actions[:, None], axis=1)[:, 0]
    # The state after the last action is the object, where a path of full length has stopped: there is no step there.
    following = jnp.roll(actions.backward, -1, axis=0)
    undone = jnp.take_along_axis(following, path.undone[:, None], axis=1)[:, 0]
    moved = path.is_on & (path.actions != stop)
    return jnp.sum(jnp.where(path.is_on, taken, 0.0)) - jnp.sum(jnp.where(moved, undone, 0.0))


def walk_back(rng_key, place: Place, policies: Callable[[State], Actions], last: State, max_length: int) -> jax.Array:
    """log P_F(path) - log P_B(path | object) of one path back from an object: its exponential has mean p(object)."""

    def step(carry, key):
        state, actions, total = carry
        moves = jnp.any(place.legal_backward(state))
        backward = jnp.where(moves, jax.random.categorical(key, actions.backward), 0)
        before = choose(moves, place.step_back(state, backward), state)
        found = policies(before)
        gain = found.forward[place.redoing(state, backward)] - actions.backward[backward]
        return (before, found, total + jnp.where(moves, gain, 0.0)), None

    actions = policies(last)
    start = last, actions, actions.forward[-1]
    return jax.lax.scan(step, start, jax.random.split(rng_key, max_length - 1))[0][2]


def batched(fn: Callable, count: int, limit: int, *args: Any):
    """`fn(*row)` of every row of arrays [count, ...], at most `limit` at a time."""
    if count <= limit:
        return jax.vmap(fn)(*args)
    return jax.lax.map(lambda row: fn(*row), args, batch_size=limit)
