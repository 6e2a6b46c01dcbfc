"""What a run by replica exchange carries from piece to piece, and keeps in a file."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..kernels import KernelState
from ..plan import Plan
from .ladder import Ladder, Tally


class TemperingState(NamedTuple):
    """Rungs with the `centres` [K] of their bridges, the ladder now, the evaluations per group that placing them took,
    and what the ladder's pieces gave.

    `warming` are the tallies of pieces that warmed the ladder up, `tallies` those of the others, with their `draws`
    [n, G, *event_shape] and the draws' `founders` [n, G].
    """

    plan: Plan
    centres: np.ndarray
    ladder: Ladder
    placing_evaluations: float
    warming: tuple[Tally, ...] = ()
    tallies: tuple[Tally, ...] = ()
    draws: tuple[np.ndarray, ...] = ()
    founders: tuple[np.ndarray, ...] = ()

    @property
    def num_done(self) -> int:
        return len(self.warming) + len(self.tallies)


def stacked(tallies: tuple[Tally, ...]) -> Tally:
    """Tallies of pieces as one of [B, K, G]."""
    return Tally(*(np.stack(values) for values in zip(*tallies, strict=True)))


def packed(state: TemperingState) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and facts by name of a state, for `disk.runs.Keeper`."""
    arrays: dict[str, Any] = {name: a for name, a in state.plan._asdict().items() if a is not None}
    arrays |= {"centres": state.centres} | {f"ladder.{i}": a for i, a in enumerate(jax.tree.leaves(state.ladder))}
    for name in ("warming", "tallies"):
        if rows := getattr(state, name):
            arrays |= {f"{name}.{field}": a for field, a in stacked(rows)._asdict().items()}
    arrays |= {name: np.stack(rows) for name in ("draws", "founders") if (rows := getattr(state, name))}
    return arrays, {"placing_evaluations": state.placing_evaluations}


def unpacked(arrays: dict[str, Any], facts: dict[str, Any]) -> TemperingState:
    """The state that was packed; KeyError, TypeError, ValueError or IndexError for anything else."""

    def rows(name) -> Any:
        columns = [arrays[f"{name}.{field}"] for field in Tally._fields if f"{name}.turns" in arrays]
        return tuple(Tally(*values) for values in zip(*columns, strict=True))

    structure = jax.tree.structure(Ladder(KernelState(0, 0, 0, 0), 0, 0))  # pyright: ignore
    leaves = [jnp.asarray(arrays[f"ladder.{i}"]) for i in range(structure.num_leaves)]
    return TemperingState(
        Plan(arrays["levels"], arrays["step_sizes"], arrays.get("scales")),
        arrays["centres"],
        jax.tree.unflatten(structure, leaves),
        float(facts["placing_evaluations"]),
        rows("warming"),
        rows("tallies"),
        tuple(arrays.get("draws", ())),
        tuple(arrays.get("founders", ())),
    )
