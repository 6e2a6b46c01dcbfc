"""An annealed run between two levels: what its loop carries, and what a file holds of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from .devices import on_host
from .evidence import Account
from .kernels import KernelState
from .plan import Plan
from .population import ChainStats, LevelStats, Population

KIND = "annealing"


class RunState(NamedTuple):
    """Plan, population, reports of the levels behind it, and whether weights were dropped."""

    plan: Plan
    population: Population
    stats: tuple[LevelStats, ...] = ()
    collapsed: bool = False

    @property
    def num_done(self) -> int:
        """Levels behind it."""
        return len(self.stats)

    @property
    def is_complete(self) -> bool:
        """Whether none is left."""
        return self.num_done == len(self.plan.levels)


def packed(state: RunState, rows: Sequence[ChainStats], mesh: Mesh | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and facts by name of a state and the rows of its history, for `disk.runs.Keeper`."""
    arrays = {
        "levels": state.plan.levels,
        "step_sizes": state.plan.step_sizes,
        **{f"population.{i}": a for i, a in enumerate(on_host(jax.tree.leaves(state.population), mesh))},
        **{f"stats.{i}": a for i, a in enumerate(_columns(state.stats))},
        **{f"history.{i}": a for i, a in enumerate(_columns(rows[: state.num_done]))},
    }
    scales = {} if state.plan.scales is None else {"scales": state.plan.scales}
    return arrays | scales, {"collapsed": state.collapsed}


def unpacked(arrays: dict[str, Any], facts: dict[str, Any]) -> tuple[RunState, tuple[ChainStats, ...]]:
    """The state and the rows that were packed; KeyError, TypeError, ValueError or IndexError for anything else."""

    def rows(name, cls):
        columns = [arrays[f"{name}.{i}"] for i in range(len(cls._fields)) if f"{name}.{i}" in arrays]
        return tuple(cls(*values) for values in zip(*columns, strict=True))

    leaves = [jnp.asarray(arrays[f"population.{i}"]) for i in range(_POPULATION.num_leaves)]
    state = RunState(
        Plan(arrays["levels"], arrays["step_sizes"], arrays.get("scales")),
        jax.tree.unflatten(_POPULATION, leaves),
        rows("stats", LevelStats),
        bool(facts["collapsed"]),
    )
    return state, rows("history", ChainStats)


def _columns(rows):
    return [np.stack([np.asarray(value) for value in column]) for column in zip(*rows, strict=True)]


_POPULATION = jax.tree.structure(Population(KernelState(0, 0, 0, 0), 0, 0, 0, Account(0, 0, 0)))  # pyright: ignore
