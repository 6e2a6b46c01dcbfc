"""An annealed run on disk between two levels: kept as it goes, and taken up again after a kill, bit for bit."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..disk import format as checkpoint
from ..errors import CheckpointError
from ..program import check_same
from .devices import on_host
from .evidence import Account
from .kernels import KernelState
from .pilot import Plan
from .population import ChainStats, LevelStats, Population

KIND = "annealing"


class Descent(NamedTuple):
    """A run between two levels: plan, population, reports of the levels behind it, and whether weights were dropped."""

    plan: Plan
    population: Population
    stats: tuple[LevelStats, ...] = ()
    collapsed: bool = False

    @property
    def num_done(self) -> int:
        """Levels behind it."""
        return len(self.stats)


class Keeper:
    """Writes a run's state to a file every so often.

    Args:
        path: File, or None to keep nothing.
        identity: Settings and inputs of the run; a file of another run is refused.
        every_seconds: The most work a kill can lose.
        mesh: Devices that hold the chains.
    """

    def __init__(self, path, identity: dict[str, Any], every_seconds: float, mesh):
        self.path = None if path is None else Path(path)
        self.identity, self.every, self.mesh, self.saved = identity | {"kind": KIND}, every_seconds, mesh, None

    def load(self) -> tuple[Descent, tuple[ChainStats, ...]] | None:
        """The state in the file and the rows of its history, or None where there is no file.

        Raises:
            CheckpointError: if the file is damaged or belongs to another run.
        """
        if self.path is None or not self.path.exists():
            return None
        arrays, config = checkpoint.read(self.path, kind=KIND)
        check_same(self.path, config, self.identity)
        try:
            return _unpacked(arrays, config)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CheckpointError(f"{self.path} is intact but no state of an annealed run: {error}.") from error

    def keep(self, descent: Descent, rows, *, now: bool = False) -> None:
        """Write the state, and the rows of its history, if it is time to or `now`."""
        if self.path is None or not (now or self.saved is None or time.monotonic() - self.saved > self.every):
            return
        arrays, facts = _packed(descent, rows[: descent.num_done], self.mesh)
        if jax.process_index() == 0:
            checkpoint.write(self.path, arrays, self.identity | facts)
        self.saved = time.monotonic()


def _packed(descent: Descent, rows, mesh):
    """Arrays by name, floats as the integers of their bits: weights may be infinite, and every bit counts."""
    arrays = {
        "levels": descent.plan.levels,
        "step_sizes": descent.plan.step_sizes,
        **{f"population.{i}": a for i, a in enumerate(on_host(jax.tree.leaves(descent.population), mesh))},
        **{f"stats.{i}": a for i, a in enumerate(_columns(descent.stats))},
        **{f"history.{i}": a for i, a in enumerate(_columns(rows))},
    }
    if descent.plan.scales is not None:
        arrays["scales"] = descent.plan.scales
    arrays = {k: np.asarray(a) for k, a in arrays.items()}
    dtypes = {k: a.dtype.name for k, a in arrays.items()}
    bits = {k: a.view(f"u{a.dtype.itemsize}") if a.dtype.kind == "f" else a for k, a in arrays.items()}
    return bits, {"dtypes": dtypes, "collapsed": descent.collapsed}


def _columns(rows):
    return [np.stack([np.asarray(value) for value in column]) for column in zip(*rows, strict=True)]


def _unpacked(arrays, config):
    arrays = {k: a.view(config["dtypes"][k]) for k, a in arrays.items()}

    def rows(name, cls):
        columns = [arrays[f"{name}.{i}"] for i in range(len(cls._fields)) if f"{name}.{i}" in arrays]
        return tuple(cls(*values) for values in zip(*columns, strict=True))

    leaves = [jnp.asarray(arrays[f"population.{i}"]) for i in range(_POPULATION.num_leaves)]
    descent = Descent(
        Plan(arrays["levels"], arrays["step_sizes"], arrays.get("scales")),
        jax.tree.unflatten(_POPULATION, leaves),
        rows("stats", LevelStats),
        bool(config["collapsed"]),
    )
    return descent, rows("history", ChainStats)


_POPULATION = jax.tree.structure(Population(KernelState(0, 0, 0, 0), 0, 0, 0, Account(0, 0, 0)))  # pyright: ignore
