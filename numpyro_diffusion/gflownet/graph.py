r"""All states of a small environment as tables, and what is known of policies there by dynamic programming.

With the reaching probability u(s), the chance that a path of the forward policy passes through s,

.. math::
    u(s_0) = 1, \qquad u(s') = \sum_{s \to s'} u(s) P_F(s' | s), \qquad p(x) = u(x) P_F(\mathrm{stop} | x),

and for a reward R and a backward policy the flow, whose forward policy samples R / Z exactly, is

.. math::
    F(s) = R(s) + \sum_{s \to s'} F(s') P_B(s | s'), \qquad P_F(s' | s) = F(s') P_B(s | s') / F(s), \qquad Z = F(s_0).

Everything is in logarithms, and of all states at once: one sweep an action of the longest path.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from ..errors import ParameterError
from .environment import Environment, State

#: States that are looked at together.
CHUNK = 4096


class Graph(NamedTuple):
    """Tables of an environment with S states, A forward actions (the last is stop) and B backward actions.

    It is walked like the environment: there states are their numbers.

    Attributes:
        forward: [S, A] which forward actions are legal; none in states that cannot be reached.
        child, undo: [S, A - 1] the state that an action leads to, and the backward action that undoes it.
        backward: [S, B] which backward actions are legal; none in states that cannot be reached.
        parent, redo: [S, B] the state that a backward action leads to, and the action that leads from there.
        initial: The initial state.
    """

    forward: jax.Array
    child: jax.Array
    undo: jax.Array
    backward: jax.Array
    parent: jax.Array
    redo: jax.Array
    initial: jax.Array

    @property
    def is_terminal(self) -> jax.Array:
        """[S] where stop is legal."""
        return self.forward[:, -1]

    @property
    def num_states(self) -> int:
        """S."""
        return len(self.forward)

    def initial_state(self):
        """As of an environment, and so are those below."""
        return self.initial

    def step(self, state, action):
        return self.child[state, action]

    def step_back(self, state, backward_action):
        return self.parent[state, backward_action]

    def legal(self, state):
        return self.forward[state]

    def legal_backward(self, state):
        return self.backward[state]

    def undoing(self, state, action):
        return self.undo[state, action]

    def redoing(self, state, backward_action):
        return self.redo[state, backward_action]


def is_enumerable(environment: Environment) -> bool:
    """Whether all states can be listed."""
    return environment.num_states is not None


def every_state(environment: Environment) -> State:
    """All states, a pytree of arrays [S, ...]."""
    return jax.vmap(environment.state_of)(jnp.arange(environment.num_states))


def of_states(fn, environment: Environment, *args):
    """`fn(state, *args)` of every state, [S, ...]."""

    def one(index):
        return fn(environment.state_of(index), *args)

    return jax.lax.map(one, jnp.arange(environment.num_states), batch_size=CHUNK)


@lru_cache(maxsize=16)
def graph_of(environment: Environment) -> Graph:
    """The tables of an environment whose states can be listed.

    Raises:
        ParameterError: if there is no terminal state, if paths run in circles or are longer than `max_length`, or if
            forward and backward actions are not the same edges.
    """
    # The environment decides, not what is being traced.
    with jax.ensure_compile_time_eval():
        graph, misnamed = jax.tree.map(np.asarray, _tables(environment))
        graph = _reached(graph, misnamed, environment)
        _check_edges(graph, environment)
        return jax.tree.map(jnp.asarray, graph)


@partial(jax.jit, static_argnums=0)
def _tables(environment: Environment) -> tuple[Graph, jax.Array]:
    """The tables, and which actions [S, A - 1] lead to a state that `state_of(index(state))` is not."""
    forward, backward = jnp.arange(environment.num_actions - 1), jnp.arange(environment.num_backward_actions)

    def one(state):
        children = jax.vmap(lambda a: environment.step(state, a))(forward)
        child = jax.vmap(environment.index)(children)
        parent = jax.vmap(lambda b: environment.index(environment.step_back(state, b)))(backward)
        undoing = jax.vmap(lambda a: environment.undoing(state, a))(forward)
        redoing = jax.vmap(lambda b: environment.redoing(state, b))(backward)
        return (
            environment.legal(state), child, undoing, environment.legal_backward(state), parent, redoing,
            jax.vmap(partial(_is_named, environment))(children), environment.index(state),
        )  # fmt: skip

    *tables, named, number = of_states(one, environment)
    legal, child, undoing, legal_backward, parent, redoing = tables
    # A number that is not its state's own stands for none, and what is not legal may lead anywhere.
    count = len(number)
    own = number == jnp.arange(count)
    forward, backward = legal & own[:, None], legal_backward & own[:, None]
    child = jnp.where(forward[:, :-1], jnp.clip(child, 0, count - 1), 0)
    parent = jnp.where(backward, jnp.clip(parent, 0, count - 1), 0)
    initial = environment.index(environment.initial_state())
    return Graph(forward, child, undoing, backward, parent, redoing, initial), forward[:, :-1] & ~named


def _is_named(environment: Environment, state: State) -> jax.Array:
    """Whether the number of a state is one of those there are, and gives the state back."""
    number, count = environment.index(state), environment.num_states or 0
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(environment.state_of(number)), strict=True)
    same = jnp.stack([jnp.allclose(a, b, equal_nan=True) for a, b in pairs])
    return jnp.all(same) & (number >= 0) & (number < count)


def _reached(graph: Graph, misnamed: np.ndarray, environment: Environment) -> Graph:
    """The tables without states that no path reaches; paths must end within `max_length` actions."""
    rule = "index and state_of must be inverse to each other: state_of(index(state)) must be every state itself"
    if not _is_named(environment, environment.initial_state()):
        raise ParameterError(f"{rule}; the initial state, of number {int(graph.initial)}, is not. Check both.")
    reached, max_length = np.zeros(graph.num_states, bool), environment.max_length
    front = np.array([int(graph.initial)])
    for _ in range(max_length):
        reached[front] = True
        if misnamed[front].any():
            where, action = (a[0] for a in np.nonzero(misnamed[front]))
            state = jax.tree.map(
                np.asarray, environment.step(environment.state_of(jnp.asarray(front[where])), jnp.asarray(action))
            )
            raise ParameterError(
                f"{rule}; {jax.tree.map(lambda a: a.tolist(), state)}, of number {int(environment.index(state))}, "
                f"is not. Check both; numbers are 0 to num_states - 1."
            )
        front = np.unique(graph.child[front][graph.forward[front, :-1]])
        if not front.size:
            break
    if front.size:
        raise ParameterError(
            f"paths must end within max_length = {max_length} actions, stop included; {front.size} states are reached "
            f"by longer ones, number {front[0]} first. Raise max_length, and see that actions do not lead in circles."
        )
    if not np.any(graph.forward[reached, -1]):
        raise ParameterError(
            "an environment needs a terminal state; stop is legal in none of the states that are reached. Let "
            "`legal(state)[-1]` be true where an object is complete."
        )
    stuck = np.flatnonzero(reached & ~graph.forward.any(1))
    if stuck.size:
        raise ParameterError(
            f"at least one action must be legal in every state; there is none in {stuck.size} states, such as number "
            f"{stuck[0]}. Let stop be legal there, or do not let paths lead there."
        )
    return graph._replace(forward=graph.forward & reached[:, None], backward=graph.backward & reached[:, None])


def _check_edges(graph: Graph, environment: Environment) -> None:
    """Raise unless every step forward is undone by one step back, and the other way round."""

    def fail(what, first, remedy):
        state = jax.tree.map(lambda a: np.asarray(a).tolist(), environment.state_of(first))
        raise ParameterError(f"forward and backward actions must be the same edges; {what} in state {state}. {remedy}")

    state, action = np.nonzero(graph.forward[:, :-1])
    child, undo = graph.child[state, action], graph.undo[state, action]
    known = (undo >= 0) & (undo < environment.num_backward_actions)
    undo = np.where(known, undo, 0)
    fine = known & graph.backward[child, undo] & (graph.parent[child, undo] == state)
    fine &= graph.redo[child, undo] == action
    if not fine.all():
        i = int(np.argmin(fine))
        fail(
            f"action {action[i]} is not undone by backward action {undo[i]}", int(state[i]),
            "Check undoing, step_back, legal_backward and redoing there.",
        )  # fmt: skip
    if graph.backward.sum() != len(state):
        edges = np.zeros_like(graph.backward)
        edges[child, undo] = True
        where, backward = np.nonzero(graph.backward & ~edges)
        what = f"backward action {backward[0]} undoes no action" if len(where) else "two actions are undone by one"
        fail(what, int(where[0]) if len(where) else int(graph.initial), "Check legal_backward and undoing.")


@partial(jax.jit, static_argnames="max_length")
def log_reaching(graph: Graph, log_forward, *, max_length: int) -> jax.Array:
    """log u [S] of a forward policy [S, A]."""

    def sweep(carry, _):
        mass, total = carry
        arriving = mass[graph.parent] + log_forward[graph.parent, graph.redo]
        mass = logsumexp(jnp.where(graph.backward, arriving, -jnp.inf), axis=1)
        return (mass, jnp.logaddexp(total, mass)), None

    start = jnp.full(graph.num_states, -jnp.inf).at[graph.initial].set(0.0)
    return jax.lax.scan(sweep, (start, start), None, length=max_length - 1)[0][1]


@partial(jax.jit, static_argnames="max_length")
def log_flow(graph: Graph, log_reward, log_backward, *, max_length: int) -> jax.Array:
    """log F [S] of log rewards [S], of terminal states alone, and a backward policy [S, B]."""
    ends = jnp.where(graph.is_terminal, log_reward, -jnp.inf)

    def sweep(flow, _):
        leaving = flow[graph.child] + log_backward[graph.child, graph.undo]
        inside = logsumexp(jnp.where(graph.forward[:, :-1], leaving, -jnp.inf), axis=1)
        return jnp.logaddexp(ends, inside), None

    return jax.lax.scan(sweep, ends, None, length=max_length - 1)[0]
