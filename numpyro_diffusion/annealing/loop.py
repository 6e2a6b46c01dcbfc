"""The loop over noise levels: from the exact start at t = 1 to chains at t = 0.

One compiled program serves all levels; the loop itself runs on the host, which gives progress bars, early failure,
checkpoints and interrupts for free and costs nothing against the work of a level.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from ..density.density import Density
from ..disk.runs import Keeper
from ..errors import warn
from . import population as populations
from .history import History
from .kernels import Kernel
from .population import LevelStats
from .progress import Progress
from .reverse import Reverse
from .settings import Settings
from .state import RunState, packed


def descend(
    state: RunState, density: Density, kernel: Kernel | Reverse, rng_key, settings: Settings, keeper: Keeper,
    history: History, progress: Progress,
) -> RunState:  # fmt: skip
    """Take a population through the levels that are left.

    An interrupt (Ctrl-C) ends it early, with a warning. So does a kernel that is not adjusted whose chains have left:
    the run's findings tell.

    Args:
        state: The run so far, at its start or between two levels.
        density, kernel, rng_key, settings: What to sample, a kernel without a step size, the key of all levels.
        keeper, history, progress: Where the state, and what each chain did, are kept, and shown.
    """
    times, num_chains = state.plan.levels, state.population.log_weight.size
    # All of them now: on CPUs a small program, like drawing one, waits until the level before has ended.
    keys = {i: jax.random.fold_in(rng_key, i) for i in range(state.num_done, len(times))}
    progress.begin(len(times), state.num_done)
    try:
        for i, key in keys.items():
            last = i == len(times) - 1
            if not kernel.is_adjusted and most_have_left(state.stats, num_chains):
                keeper.keep(packed, state, history.rows, settings.mesh, now=True)
                break
            # Before the last level's steps everything is resampled: equal weights, and the steps part the copies.
            population, due = state.population, 2.0 if last and settings.threshold > 0 else settings.threshold
            if state.collapsed:
                population, due = population._replace(log_weight=jnp.zeros_like(population.log_weight)), 0.0
            planned = state.plan.at(i, settings.predictor)
            population, level, chains = populations.advance(density, kernel, population, key, planned, due, settings)
            collapsed = state.collapsed
            if settings.weighted and settings.watches(density) and not collapsed:
                collapsed = float(level.conditional_ess) * num_chains < 2
                if collapsed:
                    _warn_of_collapse(density, i, times)
            history.add(chains)
            state = RunState(state.plan, population, (*state.stats, level), collapsed)
            keeper.keep(packed, state, history.rows, settings.mesh, now=last)
            if progress.shown:
                progress.step(t=f"{times[i]:.3f}", **_figures(level, density, settings))
    except KeyboardInterrupt:
        if state.num_done == 0:
            raise
        keeper.keep(packed, state, history.rows, settings.mesh, now=True)
        _warn_of_interrupt(state, keeper)
    return state


def most_have_left(stats: tuple[LevelStats, ...], num_chains: int) -> bool:
    """Whether more than half of the chains had left every scale when the last level ended."""
    return bool(stats) and 2 * int(stats[-1].escaped) > num_chains


def _figures(level: LevelStats, density: Density, settings: Settings) -> dict[str, str]:
    """What there is of a level, as texts by name."""
    moves = density.has_log_density and settings.num_steps > 0
    figures = {"acceptance": f"{float(level.acceptance_rate):.2f}"} if moves else {}
    return figures | ({"ess": f"{float(level.ess):.2f}"} if settings.weighted else {})


def _warn_of_collapse(density, i, times):
    warn(
        f"the weights collapsed at level {i + 1} of {len(times)} (t = {times[i]:.3g}): in "
        f"{math.prod(density.event_shape)} dimensions levels must lie closer, or chains be many more. The run goes on "
        "without weights and resampling, as plain annealed MCMC, and has no evidence. levels=None places levels; a "
        "resample_threshold keeps the weights."
    )


def _warn_of_interrupt(state: RunState, keeper: Keeper):
    done, times = state.num_done, state.plan.levels
    again = "Run it again with the same arguments to go on." if keeper.path else "checkpoint_path= makes runs resume."
    warn(
        f"interrupted after level {done} of {len(times)}: the samples are of the density at noise level "
        f"t = {times[done - 1]:.3g}, not at t = 0. {again}"
    )
