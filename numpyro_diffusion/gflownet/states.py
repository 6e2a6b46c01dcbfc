"""States that users give, and environments whose states can be listed, checked."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.text import shown
from ..errors import NotKnownError, ShapeError
from .contract import check_environment
from .environment import Environment, State
from .graph import is_enumerable


def as_states(states: State, environment: Environment) -> tuple[State, tuple[int, ...]]:
    """States [n, ...] and the shape of their batch; ShapeError for other shapes or types."""
    likes, treedef = jax.tree.flatten(jax.eval_shape(environment.initial_state))
    shapes = [like.shape for like in likes]
    try:
        given = treedef.flatten_up_to(states)
        arrays = [jnp.asarray(a) for a in given]
    except (TypeError, ValueError, OverflowError) as error:
        raise ShapeError(
            f"states must be {treedef} with shapes [*batch, ...] of {shapes}; got {shown(states)}."
        ) from error
    pairs = list(zip(arrays, likes, strict=True))
    batches = {a.shape[: a.ndim - like.ndim] for a, like in pairs}
    if len(batches) != 1 or not all(a.shape[a.ndim - like.ndim :] == like.shape for a, like in pairs):
        raise ShapeError(f"states must have shapes [*batch, ...] of {shapes}; got {[a.shape for a in arrays]}.")
    if not all(np.can_cast(a.dtype, like.dtype, "same_kind") for a, like in pairs):
        raise ShapeError(f"states must be of types {[b.dtype for b in likes]}; got {[a.dtype for a in arrays]}.")
    # JAX takes the last 32 bits of a longer integer without a word, which are those of another state.
    if any(isinstance(a, np.ndarray) and np.any(np.asarray(b) != a) for a, b in zip(given, arrays, strict=True)):
        raise ShapeError(f"states must be numbers that {[b.dtype for b in likes]} can hold; got {shown(states)}.")
    (batch,) = batches
    return treedef.unflatten([a.astype(like.dtype).reshape(-1, *like.shape) for a, like in pairs]), batch


def require_listed(environment: Any, purpose: str) -> None:
    """Raise unless it is an environment whose states can be listed."""
    check_environment(environment)
    if not is_enumerable(environment):
        raise NotKnownError(
            f"{purpose} needs states that can be listed; {environment!r} has no num_states. Give it num_states, index "
            "and state_of if it is small, or estimate with flow.estimated_log_prob."
        )
