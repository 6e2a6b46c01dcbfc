"""Rewards: positive functions of one terminal state, in JAX or, through `on_host`, of a batch in Python."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.text import check_name, shown
from ..errors import ArgumentTypeError, ParameterError, ShapeError
from .environment import Environment, State
from .graph import CHUNK, Graph

Reward = Callable[[State], jax.Array]

#: What functions on the host have raised last: JAX keeps the text of it, not the error.
_raised: list[Exception] = []


def on_host_errors(function: Callable) -> Callable:
    """The function, what it raises remembered for `own_errors`."""

    @functools.wraps(function)
    def called(*args):
        try:
            return function(*args)
        except Exception as error:
            _raised[:] = [error]
            raise

    return called


@contextlib.contextmanager
def own_errors():
    """Raise what a function on the host raised, in place of the JaxRuntimeError that JAX makes of it."""
    _raised.clear()
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not _raised:
            raise
        raise _raised.pop() from error


class on_host:
    """A reward in JAX of a function that runs in Python: of molecules, say, by a library that knows no JAX.

    Args:
        function: Takes a batch of terminal states, a pytree of NumPy arrays [n, ...], and returns rewards [n].
        name: What it is, for checkpoints: a run goes on only with a reward of the same name.
    """

    #: The power and environment that it was made for; None if for any.
    beta: float | None = None
    environment: Environment | None = None

    def __init__(self, function: Callable[[Any], np.ndarray], name: str):
        if not callable(function):
            raise ArgumentTypeError(f"function must take a batch of states; got {shown(function)}.")
        if not name:
            raise ParameterError(f"name must be text that says what the function is, for checkpoints; got {name!r}.")
        check_name(name)
        self.function, self.name = function, name

    def __call__(self, state: State) -> jax.Array:
        """The reward of one state; under vmap the function sees the whole batch at once."""
        dims = [jnp.ndim(leaf) for leaf in jax.tree.leaves(state)]

        @on_host_errors
        def called(*leaves):
            batch = np.shape(leaves[0])[: np.ndim(leaves[0]) - dims[0]]
            flat = [np.reshape(a, (-1, *np.shape(a)[np.ndim(a) - d :])) for a, d in zip(leaves, dims, strict=True)]
            found = self.function(jax.tree.unflatten(jax.tree.structure(state), flat))
            if np.size(found) != math.prod(batch):
                count = math.prod(batch)
                raise ShapeError(f"{self.name} must return a reward of each state, [{count}]; got {np.shape(found)}.")
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
    one = lambda i: number_of(reward, environment.state_of(i))
    return jax.lax.map(one, index, batch_size=CHUNK)


def check_reward(environment: Environment, reward: Any, beta: float) -> None:
    """Raise unless it is a function, made for this environment and power where it was made for one."""
    if not callable(reward):
        raise ArgumentTypeError(f"reward must be a function of one state; got {shown(reward)}. Wrap it in one.")
    if isinstance(reward, on_host) and reward.environment not in (None, environment):
        raise ParameterError(
            f"a reward must be of the environment it was made for; got one of {reward.environment!r} for "
            f"{environment!r}. Make it for this one."
        )
    if isinstance(reward, on_host) and reward.beta not in (None, beta):
        raise ParameterError(
            f"beta must be that of the reward, {reward.beta:g}, which shares it among derivations; got {beta:g}. Give "
            "beta=reward.beta, or make the reward for another."
        )


def number_of(reward: Reward, state: State) -> jax.Array:
    """The reward of a state that is being traced; ArgumentTypeError, ShapeError unless it is one real number."""
    try:
        found = reward(state)
    except jax.errors.JAXTypeError as error:
        raise ArgumentTypeError(
            "a reward must be a function that JAX can trace; this one asks for the values of a state, by NumPy or an "
            "if. Write it with jax.numpy and jnp.where, or wrap it: gflownet.on_host(function of a batch, name)."
        ) from error
    try:
        value = jnp.asarray(found)
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(f"a reward must be one number of one state; got {shown(found)}. Return it.") from error
    if jnp.iscomplexobj(value):
        raise ArgumentTypeError("a reward must be real; got a complex number. Take jnp.abs or its real part.")
    if value.shape:
        raise ShapeError(f"a reward must be one number of one state; got shape {value.shape}. Sum it, or see jax.vmap.")
    return value.astype(float)


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
