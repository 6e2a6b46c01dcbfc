r"""Environments: how an object is built step by step, as a directed acyclic graph of states.

From the initial state s_0 a *forward action* leads to the next state, and the last of them, *stop*, ends the path: the
state x in which it is taken is the object. States where stop is legal are the terminal states. A *backward action*
takes one step back, and the two are in bijection as edges of the graph: if action a leads from s to s', then
`undoing(s, a)` leads from s' back to s, and `redoing(s', b)` is the action that leads there again. So a path and its
reverse are the same edges, and with a forward policy P_F and a backward policy P_B

.. math:: P_F(\tau) = \prod_t P_F(a_t | s_t), \qquad P_B(\tau | x) = \prod_t P_B(b_t | s_{t+1}) .

An environment is written for ONE state, a pytree of arrays of fixed shapes, in JAX; `vmap` does the rest. It is static:
a frozen dataclass, say, which compares and hashes by value, so that flows know whether they live in the same one.
"""

from __future__ import annotations

import abc
from typing import Any

import jax

#: A pytree of arrays of fixed shapes.
State = Any


class Environment(abc.ABC):
    """A directed acyclic graph of states, with stop as the last forward action.

    Every method takes one unbatched state and actions as integer scalars, must be traceable by JAX, and may return
    anything for an action that is not legal (but no error): its result is then thrown away.
    """

    @property
    @abc.abstractmethod
    def num_actions(self) -> int:
        """Number of forward actions; the last, `num_actions - 1`, is stop."""

    @property
    @abc.abstractmethod
    def num_backward_actions(self) -> int:
        """Number of backward actions; there is none that undoes stop, because that is known."""

    @property
    @abc.abstractmethod
    def max_length(self) -> int:
        """The most actions of any path, stop included."""

    @property
    def num_states(self) -> int | None:
        """Number of indices of states, where `index` and `state_of` are known and all of them fit into memory."""
        return None

    @abc.abstractmethod
    def initial_state(self) -> State:
        """The state s_0 that every path starts from."""

    @abc.abstractmethod
    def step(self, state: State, action: jax.Array) -> State:
        """The state that a forward action other than stop leads to."""

    @abc.abstractmethod
    def step_back(self, state: State, backward_action: jax.Array) -> State:
        """The state that a backward action leads to."""

    @abc.abstractmethod
    def legal(self, state: State) -> jax.Array:
        """Which forward actions are legal, bool [num_actions]; at least one in every state."""

    @abc.abstractmethod
    def legal_backward(self, state: State) -> jax.Array:
        """Which backward actions are legal, bool [num_backward_actions]; none in the initial state alone."""

    @abc.abstractmethod
    def undoing(self, state: State, action: jax.Array) -> jax.Array:
        """The backward action that leads from `step(state, action)` back to `state`."""

    @abc.abstractmethod
    def redoing(self, state: State, backward_action: jax.Array) -> jax.Array:
        """The forward action that leads from `step_back(state, backward_action)` to `state`."""

    @abc.abstractmethod
    def features(self, state: State) -> jax.Array:
        """What networks see of a state: floats [num_features], or a pytree for a network of one's own."""

    def index(self, state: State) -> jax.Array:
        """The number of a state in 0 ... num_states - 1, where `num_states` is not None."""
        raise NotImplementedError

    def state_of(self, index: jax.Array) -> State:
        """The state of a number; any state for a number that has none of its own."""
        raise NotImplementedError
