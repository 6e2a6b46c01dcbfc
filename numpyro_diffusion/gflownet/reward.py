"""Rewards: positive functions of one terminal state, in JAX or, through `on_host`, of a batch in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.text import shown
from ..errors import ParameterError, ShapeError
from .environment import Environment, State
from .graph import CHUNK, Graph

Reward = Callable[[State], jax.Array]


class on_host:
    """A reward in JAX of a function that runs in Python: of molecules, say, by a library that knows no JAX.

    Args:
        function: Takes a batch of terminal states, a pytree of NumPy arrays [n, ...], and returns rewards [n].
        name: What it is, for checkpoints: a run goes on only with a reward of the same name.
    """

    def __init__(self, function: Callable[[Any], np.ndarray], name: str):
        self.function, self.name = function, name

    def __call__(self, state: State) -> jax.Array:
        """The reward of one state; under vmap the function sees the whole batch at once."""
        dims = [jnp.ndim(leaf) for leaf in jax.tree.leaves(state)]

        def called(*leaves):
            batch = np.shape(leaves[0])[: np.ndim(leaves[0]) - dims[0]]
            flat = [np.reshape(a, (-1, *np.shape(a)[np.ndim(a) - d :])) for a, d in zip(leaves, dims, strict=True)]
            found = self.function(jax.tree.unflatten(jax.tree.structure(state), flat))
            return np.asarray(found, dtype=shape.dtype).reshape(batch)

        shape = jax.ShapeDtypeStruct((), jnp.result_type(float))
        return jax.pure_callback(called, shape, *jax.tree.leaves(state), vmap_method="broadcast_all")


def log_rewards(environment: Environment, reward: Reward, graph: Graph) -> jax.Array:
    """Log rewards [S], -inf where a state is not terminal; every terminal state's reward must be positive."""
    index = np.flatnonzero(graph.is_terminal)
    values = _rewards(environment, reward, jnp.asarray(index))
    check_rewards(values, lambda i: environment.state_of(jnp.asarray(index[i])))
    return jnp.full(graph.num_states, -jnp.inf).at[index].set(jnp.log(values))


def _rewards(environment, reward, index):
    one = lambda i: jnp.asarray(reward(environment.state_of(i)), dtype=float)
    check_reward_shape(jax.eval_shape(one, index[0]).shape)
    return jax.lax.map(one, index, batch_size=CHUNK)


def check_reward_shape(shape: tuple[int, ...]) -> None:
    """Raise ShapeError unless a reward is one number."""
    if shape:
        raise ShapeError(f"a reward must be one number of one state; got shape {shape}. Sum it, or see jax.vmap.")


def check_rewards(values, state_of: Callable[[int], State] | None = None) -> None:
    """Raise ParameterError unless all rewards [n] are positive and finite; `state_of(i)` is the i-th one's state."""
    values = np.asarray(values)
    wrong = ~(np.isfinite(values) & (values > 0))
    if wrong.any():
        kinds = {"NaN": np.isnan(values), "infinite": np.isinf(values), "zero": values == 0, "negative": values < 0}
        counts = ", ".join(f"{int(found.sum())} {kind}" for kind, found in kinds.items() if found.any())
        what = f"rewards must be positive and finite; of {len(values)} there are {counts}"
        if state_of is not None:
            first = jax.tree.map(lambda a: np.asarray(a).tolist(), state_of(int(np.argmax(wrong))))
            what += f", the first in state {shown(first)}"
        remedy = "Give the reward a floor, jnp.maximum(reward, 1e-6) say, or make such states not terminal."
        raise ParameterError(f"{what}. {remedy}")
