"""`verdict`: whether a composition will work, from the pilot alone."""

from __future__ import annotations

from typing import Any

import jax

from ..density.density import Density
from ..diagnose.verdict import Verdict
from .anneal import prepared
from .blas_threads import single_threaded_blas
from .effort import expected
from .kernels import Kernel
from .pilot import planned
from .progress import Progress
from .settings import Settings


@single_threaded_blas
def verdict(
    rng_key: jax.Array, density: Density, kernel: Kernel | None = None, *, num_chains: int = Settings.num_chains,
    accuracy: float | None = None, num_steps: int | None = None, levels: Any = None, level_ess: float | None = None,
    progress_bar: bool = True, **settings,
) -> Verdict:  # fmt: skip
    """Whether `nd.anneal` with the same arguments will work, and how well, for the price of its pilot.

    Args:
        rng_key, density, kernel, levels, **settings: As for `anneal`, which with the same key runs the same pilot.
        progress_bar: Show what the pilot is at.

    Returns:
        Verdict.

    Raises:
        ParameterError, ScheduleError, TracedError, ScoreOnlyError: as `anneal`.

    Cost: that of the pilot, and one evaluation of every factor at its chains.
    """
    metric = settings.get("metric", Settings.metric)
    effort = Settings.of_effort(levels, level_ess, num_steps, accuracy, num_chains, metric)
    rng_key, density, mover, checked = prepared(
        "nd.verdict", rng_key, density, kernel, num_chains=num_chains, **effort, **settings
    )
    pilot_key, _, _ = jax.random.split(rng_key, 3)
    with Progress("verdict", progress_bar) as progress:
        plan, pilot = planned(pilot_key, density, mover, levels, checked, progress.say, always=True)
    assert pilot is not None and isinstance(mover, Kernel)  # one was asked for, and nothing stands in its place
    return expected(pilot, density, mover, plan, checked, levels_given=levels is not None)
