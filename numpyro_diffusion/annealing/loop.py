"""The loop over noise levels: from the exact start at t = 1 to chains at t = 0.

One compiled program serves all levels; the loop itself runs on the host, which gives progress bars, early failure,
checkpoints and interrupts for free and costs nothing against the work of a level.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from ..errors import warn
from . import population as populations
from .history import History
from .progress import Progress
from .saved import Descent, Keeper


def descend(
    descent: Descent, density, mover, rng_key, keeper: Keeper, history: History, progress: Progress,
    *, threshold: float, watched: bool, weighted: bool, predictor: bool, **settings,
) -> Descent:  # fmt: skip
    """Take a population through the levels that are left.

    An interrupt (Ctrl-C) ends it early, with a warning. So does a kernel that is not adjusted whose chains have left:
    the run's findings tell.

    Args:
        descent: The run so far, at its start or between two levels.
        density, mover, rng_key: What to sample, a kernel without a step size, and the key of all levels.
        keeper, history, progress: Where the state, and what each chain did, are kept, and shown.
        threshold: Resample below this share of ESS, and before the last level unless it is 0.
        watched: Whether to give up the weights where one level leaves less than two chains' worth of them.
        weighted, predictor, **settings: As for `population.advance`.
    """
    schedule = descent.plan
    times, steps = schedule.levels, schedule.step_sizes
    num_chains = descent.population.log_weight.size
    # All of them now: on CPUs a small program, like drawing one, waits until the level before has ended.
    keys = {i: jax.random.fold_in(rng_key, i) for i in range(descent.num_done, len(times))}
    progress.begin(len(times), descent.num_done)
    try:
        for i in range(descent.num_done, len(times)):
            if not mover.is_adjusted and most_have_left(descent.stats, num_chains):
                keeper.keep(descent, history.rows, now=True)
                break
            # Before the last level's steps everything is resampled: equal weights, and the steps part the copies.
            last = i == len(times) - 1 and threshold > 0
            population, due = descent.population, 2.0 if last else float(threshold)
            if descent.collapsed:
                population, due = population._replace(log_weight=jnp.zeros_like(population.log_weight)), 0.0
            population, level, chains = populations.advance(
                density, mover, population, keys[i], float(times[max(i - 1, 0)]),
                float(times[i]), float(steps[i]), due, schedule.scale(i),
                weighted=weighted, predictor=predictor and i > 0, **settings,
            )  # fmt: skip
            collapsed = descent.collapsed
            if weighted and watched and not collapsed and float(level.conditional_ess) * num_chains < 2:
                collapsed = True
                _warn_of_collapse(density, i, times)
            history.add(chains)
            descent = Descent(schedule, population, (*descent.stats, level), collapsed)
            keeper.keep(descent, history.rows, now=i == len(times) - 1)
            if progress.shown:
                progress.step(t=f"{times[i]:.3f}", **_figures(level, density.has_log_density, weighted))
    except KeyboardInterrupt:
        if descent.num_done == 0:
            raise
        keeper.keep(descent, history.rows, now=True)
        _warn_of_interrupt(descent, keeper)
    return descent


def most_have_left(stats, num_chains: int) -> bool:
    """Whether more than half of the chains had left every scale when the last level ended."""
    return bool(stats) and 2 * int(stats[-1].escaped) > num_chains


def _figures(level, accepts, weighted):
    """What there is of a level, as texts by name."""
    figures = {"acceptance": f"{float(level.acceptance_rate):.2f}"} if accepts else {}
    return figures | ({"ess": f"{float(level.ess):.2f}"} if weighted else {})


def _warn_of_collapse(density, i, times):
    warn(
        f"the weights collapsed at level {i + 1} of {len(times)} (t = {times[i]:.3g}): in "
        f"{math.prod(density.event_shape)} dimensions levels must lie closer, or chains be many more. The run goes on "
        "without weights and resampling, as plain annealed MCMC, and has no evidence. levels=None places levels; a "
        "resample_threshold keeps the weights."
    )


def _warn_of_interrupt(descent, keeper):
    done, times = descent.num_done, descent.plan.levels
    again = "Run it again with the same arguments to go on." if keeper.path else "checkpoint_path= makes runs resume."
    warn(
        f"interrupted after level {done} of {len(times)}: the samples are of the density at noise level "
        f"t = {times[done - 1]:.3g}, not at t = 0. {again}"
    )
