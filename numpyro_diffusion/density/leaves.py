"""What the leaves of a formula are worth: each model is called once, under all its conditions together."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp

#: Most conditions of one model that are evaluated in one call.
TOGETHER = 64


def under_all(model: Any, conditions: Sequence[Any], call: Callable) -> list[Any]:
    """`call(model)`, or `call(model, condition)` where there is one, for all conditions of a model, in one call."""
    if len(conditions) == 1:
        return [call(model, *(c for c in conditions if c is not None))]
    filled = [model.no_condition if c is None else c for c in conditions]
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *filled)
    one = partial(call, model)
    if len(conditions) <= TOGETHER:
        found = jax.vmap(one)(stacked)
    else:
        # One piece is in memory at once, also where gradients would otherwise keep what every piece computes.
        found = jax.lax.map(jax.checkpoint(one), stacked, batch_size=TOGETHER)
    return [jax.tree.map(itemgetter(i), found) for i in range(len(conditions))]


def are_one(a: Any, b: Any) -> bool:
    """Whether two models are one, or copies whose fields are the very same, or models that are one."""
    if a is b or type(a) is not type(b) or not hasattr(a, "__dict__") or vars(a).keys() != vars(b).keys():
        return a is b
    # In one formula schedules and shapes are equal.
    fields = {field: value for field, value in vars(a).items() if field not in ("schedule", "event_shape")}
    return all(value is vars(b)[f] or (f == "model" and are_one(value, vars(b)[f])) for f, value in fields.items())


def place(known: list, value: Any, same: Callable[[Any, Any], bool] = operator.is_) -> int:
    """Where a value stands in a list; it is added where it does not."""
    where = next((i for i, one in enumerate(known) if same(one, value)), len(known))
    if where == len(known):
        known.append(value)
    return where
