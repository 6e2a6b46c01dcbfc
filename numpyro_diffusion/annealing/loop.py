"""The loop over noise levels, from the exact start at t = 1 to chains at t = 0; what it carries, and keeps in a file.

One compiled program serves all levels; the loop itself runs on the host, which gives progress bars, early failure,
checkpoints and interrupts for free and costs nothing against the work of a level.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ..density.density import Density
from ..diagnose.verdict import Verdict
from ..disk.runs import Keeper
from ..errors import InterruptWarning, warn
from . import advance as onward
from .advance import ChainStats, LevelStats
from .devices import first_says, gathered
from .evidence import Account
from .history import History
from .kernels import Kernel, KernelState
from .ordering import ordered, resamples_soon
from .plan import Plan
from .population import Population, points
from .progress import Progress
from .reverse import Reverse
from .settings import Settings

KIND = "annealing"


class RunState(NamedTuple):
    """Plan, population, reports of the `num_done` levels behind it, whether weights were dropped, the verdict, and how
    many chains make a `piece`, None if all."""

    plan: Plan
    population: Population
    stats: tuple[LevelStats, ...] = ()
    collapsed: bool = False
    verdict: Verdict | None = None
    piece: int | None = None

    @property
    def num_done(self) -> int:
        return len(self.stats)

    @property
    def is_complete(self) -> bool:
        return self.num_done == len(self.plan.levels)

    @property
    def most_have_left(self) -> bool:
        """Whether more than half of the chains had left every scale when the last level ended."""
        return bool(self.stats) and 2 * int(self.stats[-1].escaped) > self.population.log_weight.size


def descend(
    state: RunState, density: Density, kernel: Kernel | Reverse, rng_key, settings: Settings, keeper: Keeper,
    history: History, progress: Progress, reference: Density | None = None,
) -> RunState:  # fmt: skip
    """Take a population through the levels that are left, with a kernel without a step size and the key of all levels.

    Reverse diffusion steps are weighed beside the `reference`, if there is one. An interrupt (Ctrl-C) ends the run
    early, with a warning. So does a kernel that is not adjusted whose chains have left: the run's findings tell.
    """
    times, num_chains = state.plan.levels, state.population.log_weight.size
    # All of them now: on CPUs a small program, like drawing one, waits until the level before has ended.
    keys = {i: jax.random.fold_in(rng_key, i) for i in range(state.num_done, len(times))}
    progress.begin(len(times), state.num_done)
    try:
        for i, key in keys.items():
            last = i == len(times) - 1
            if not kernel.is_adjusted and state.most_have_left:
                keeper.keep(packed, state, history.rows, settings.mesh, now=True)
                break
            # Before the last level's steps everything is resampled: equal weights, and the steps part the copies.
            population, due = state.population, 2.0 if last and settings.threshold > 0 else settings.threshold
            if state.collapsed:
                population, due = population._replace(log_weight=jnp.zeros_like(population.log_weight)), 0.0
            elif settings.weighted and resamples_soon(state.stats, due):
                x = points(density, population, float(times[i - 1]), frame_kind=settings.frame)
                population = ordered(population, x, settings.mesh)
            planned = state.plan.at(i)
            population, level, chains = onward.advance(
                density, kernel, population, key, planned, due, settings, reference
            )
            collapsed = state.collapsed
            if settings.weighted and settings.watches(density) and not collapsed:
                collapsed = float(level.conditional_ess) * num_chains < 2
                if collapsed:
                    _warn_of_collapse(density, i, times)
            history.add(chains)
            state = state._replace(population=population, stats=(*state.stats, level), collapsed=collapsed)
            if keeper.path is not None and first_says(last or keeper.is_due, settings.mesh):
                keeper.keep(packed, state, history.rows, settings.mesh, now=True)
            if progress.shown:
                progress.step(t=f"{times[i]:.3f}", **_figures(level, settings))
    except KeyboardInterrupt:
        if state.num_done == 0:
            raise
        keeper.keep(packed, state, history.rows, settings.mesh, now=True)
        _warn_of_interrupt(state, keeper)
    return state


def _figures(level: LevelStats, settings: Settings) -> dict[str, str]:
    """What there is of a level, as texts by name."""
    rate = float(level.acceptance_rate)
    figures = {"acceptance": f"{rate:.2f}"} if settings.num_steps > 0 and np.isfinite(rate) else {}
    return figures | ({"ess": f"{float(level.ess):.2f}"} if settings.weighted else {})


def _warn_of_collapse(density, i, times):
    warn(
        f"{density!r}: the weights collapsed at level {i + 1} of {len(times)} (t = {times[i]:.3g}): in "
        f"{math.prod(density.event_shape)} dimensions levels must lie closer, or chains be many more. The run goes on "
        "without weights and resampling, as plain annealed MCMC, and has no evidence. levels=None places levels; a "
        "resample_threshold keeps the weights."
    )


def _warn_of_interrupt(state: RunState, keeper: Keeper):
    done, times = state.num_done, state.plan.levels
    again = "Run it again with the same arguments to go on." if keeper.path else "checkpoint_path= makes runs resume."
    text = (
        f"interrupted after level {done} of {len(times)}: the samples are of the density at noise level "
        f"t = {times[done - 1]:.3g}, not at t = 0. {again}"
    )
    warn(InterruptWarning(text, done))


def packed(state: RunState, rows: Sequence[ChainStats], mesh: Mesh | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and facts by name of a state and the rows of its history, for `disk.runs.Keeper`."""
    arrays = {
        **{name: a for name, a in state.plan._asdict().items() if a is not None},
        **{f"population.{i}": np.asarray(a) for i, a in enumerate(gathered(jax.tree.leaves(state.population), mesh))},
        **{f"stats.{i}": a for i, a in enumerate(_columns(state.stats))},
        **{f"history.{i}": a for i, a in enumerate(_columns(rows[: state.num_done]))},
    }
    verdict = None if state.verdict is None else dataclasses.asdict(state.verdict)
    return arrays, {"collapsed": state.collapsed, "verdict": verdict, "piece": state.piece}


def unpacked(arrays: dict[str, Any], facts: dict[str, Any]) -> tuple[RunState, tuple[ChainStats, ...]]:
    """The state and the rows that were packed; KeyError, TypeError, ValueError or IndexError for anything else."""

    def rows(name, cls):
        columns = [arrays[f"{name}.{i}"] for i in range(len(cls._fields)) if f"{name}.{i}" in arrays]
        return tuple(cls(*values) for values in zip(*columns, strict=True))

    # Of which tracked chains have one more.
    count = sum(name.startswith("population.") for name in arrays)
    structure = jax.tree.structure(_POPULATION if count == jax.tree.structure(_POPULATION).num_leaves else _TRACKED)
    leaves = [jnp.asarray(arrays[f"population.{i}"]) for i in range(structure.num_leaves)]
    state = RunState(
        Plan(*(arrays.get(name) for name in Plan._fields)),  # pyright: ignore
        jax.tree.unflatten(structure, leaves),
        rows("stats", LevelStats),
        bool(facts["collapsed"]),
        Verdict.of(facts.get("verdict")),
        facts.get("piece"),
    )
    return state, rows("history", ChainStats)


def _columns(rows):
    return [np.stack([np.asarray(value) for value in column]) for column in zip(*rows, strict=True)]


_POPULATION = Population(KernelState(0, 0, 0, 0), 0, 0, 0, Account(0, 0, 0))  # pyright: ignore
_TRACKED = _POPULATION._replace(state=KernelState(0, 0, 0, 0, 0))
