"""What an environment promises, checked: its sizes and shapes, and along random paths that its edges fit together.

Where all states can be listed, `graph` checks every edge. Elsewhere nothing would say that actions are not undone, and
estimates would be wrong without a sign of it; so paths are walked before training, and each edge is looked at.
"""

from __future__ import annotations

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.fields import check_instance
from ..checks.text import shown
from ..errors import ArgumentTypeError, ParameterError, ShapeError, check_integer
from .environment import Environment
from .policy import uniform
from .walk import walk

#: States are numbered by 32-bit integers.
MOST_NUMBERS = 2**31 - 1
NUM_PATHS = 64
#: What may be wrong at an action, the first of them first.
FAULTS = (
    "at least one action must be legal in every state; there is none in state {}. Let stop be legal there.",
    "no backward action may be legal in the initial state; one is. Check legal_backward.",
    "paths must end within max_length actions, stop included; one goes on in state {}. Raise max_length, and see that "
    "actions do not lead in circles.",
    "forward and backward actions must be the same edges; the step that leads to state {} is not undone. Check "
    "undoing, step_back, legal_backward and redoing there.",
    "forward and backward actions must be the same edges; a backward action in state {} undoes no step. Check "
    "legal_backward, redoing and undoing there.",
)


def check_environment(environment: Environment) -> None:
    """Raise unless it is an environment whose sizes, shapes and types are those that `Environment` states."""
    check_instance("environment", environment, Environment)
    try:
        hash(environment)
    except TypeError as error:
        raise ArgumentTypeError(
            f"an environment must be hashable and compare by value; got {shown(environment)}. Make its class a "
            "dataclass(frozen=True), with tuples for lists and arrays."
        ) from error
    _check_shapes(environment)


@lru_cache(maxsize=64)
def _check_shapes(environment: Environment) -> None:
    num_actions = check_integer("num_actions", environment.num_actions)
    num_backward = check_integer("num_backward_actions", environment.num_backward_actions)
    check_integer("max_length", environment.max_length)
    state, action = jax.eval_shape(environment.initial_state), jax.ShapeDtypeStruct((), jnp.int32)
    promised = {
        "step": (environment.step, (state, action), state),
        "step_back": (environment.step_back, (state, action), state),
        "legal": (environment.legal, (state,), jax.ShapeDtypeStruct((num_actions,), bool)),
        "legal_backward": (environment.legal_backward, (state,), jax.ShapeDtypeStruct((num_backward,), bool)),
        "undoing": (environment.undoing, (state, action), action),
        "redoing": (environment.redoing, (state, action), action),
    }
    if environment.num_states is not None:
        remedy = "Leave num_states None where there are more states than fit into memory."
        check_integer("num_states", environment.num_states, 1, MOST_NUMBERS, remedy)
        promised |= {
            "index": (environment.index, (state,), action), "state_of": (environment.state_of, (action,), state)
        }  # fmt: skip
    for name, (method, args, wanted) in promised.items():
        try:
            found = jax.eval_shape(method, *args)
        except NotImplementedError as error:
            raise ArgumentTypeError(
                f"an environment with num_states must have {name}; {shown(environment)} does not. Write it, or leave "
                "num_states None."
            ) from error
        except jax.errors.JAXTypeError as error:
            raise ArgumentTypeError(
                f"an environment's methods must be functions that JAX can trace; {name} of {shown(environment)} asks "
                "for values, by NumPy or an if. Write it with jax.numpy and jnp.where."
            ) from error
        if not _alike(found, wanted):
            raise ShapeError(
                f"{name} of an environment must return {_described(wanted)}; that of {shown(environment)} returns "
                f"{_described(found)}. States keep the shapes and types of initial_state, and what is legal is bool."
            )


def _alike(found, wanted) -> bool:
    if jax.tree.structure(found) != jax.tree.structure(wanted):
        return False
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    # Numbers of actions and states may be integers of any kind.
    numbers = isinstance(wanted, jax.ShapeDtypeStruct) and wanted.shape == () and wanted.dtype == jnp.int32
    return all(
        a.shape == b.shape and (a.dtype == b.dtype or (numbers and jnp.issubdtype(a.dtype, jnp.integer)))
        for a, b in pairs
    )


def _described(tree) -> str:
    return str(jax.tree.map(lambda a: f"{a.dtype}{list(a.shape)}", tree))


@lru_cache(maxsize=64)
def check_paths(environment: Environment) -> None:
    """Raise ParameterError unless edges along random paths of any legal actions fit together, and the paths end."""
    faults, before, after = _walked(environment, jax.random.split(jax.random.key(0), NUM_PATHS))
    faults = np.asarray(faults)
    if faults.any():
        where = np.argwhere(faults)
        path, action, fault = where[np.argmin(where[:, 1])]
        state = jax.tree.map(lambda a: np.asarray(a)[path, action].tolist(), after if fault else before)
        raise ParameterError(FAULTS[fault].format(shown(state)))


@partial(jax.jit, static_argnums=0)
def _walked(environment: Environment, keys):
    """Which faults [n, T, F] there are at each action of paths, and the states [n, T] before and after it."""
    stop, equal = environment.num_actions - 1, lambda a, b: _all(jax.tree.map(jnp.array_equal, a, b))
    backward = jnp.arange(environment.num_backward_actions)

    def is_edge(state, action, following, back):
        """Whether an action and a backward action are one edge."""
        known = (back >= 0) & (back < backward.size) & (action >= 0) & (action < stop)
        fits = environment.legal(state)[action] & environment.legal_backward(following)[back]
        there, undone = equal(environment.step(state, action), following), environment.undoing(state, action) == back
        again, redone = (
            equal(environment.step_back(following, back), state),
            environment.redoing(following, back) == action,
        )
        return known & fits & there & undone & again & redone

    def at(state, action, following, undone, is_on):
        moves = is_on & (action != stop)
        back_edges = jax.vmap(
            lambda b: is_edge(environment.step_back(following, b), environment.redoing(following, b), following, b)
        )(backward)
        return jnp.stack([
            is_on & ~jnp.any(environment.legal(state)), jnp.zeros((), bool), jnp.zeros((), bool),
            moves & ~is_edge(state, action, following, undone),
            moves & jnp.any(environment.legal_backward(following) & ~back_edges),
        ])  # fmt: skip

    def one(key):
        path = walk(key, environment, lambda state: uniform(environment.legal(state)), environment.max_length)
        following = jax.tree.map(lambda a, b: jnp.concatenate([a[1:], b[None]]), path.states, path.last)
        faults = jax.vmap(at)(path.states, path.actions, following, path.undone, path.is_on)
        faults = faults.at[0, 1].set(jnp.any(environment.legal_backward(environment.initial_state())))
        return faults.at[-1, 2].set(path.is_on[-1] & (path.actions[-1] != stop)), path.states, following

    return jax.vmap(one)(keys)


def _all(tree):
    return jnp.all(jnp.stack(jax.tree.leaves(tree)))
