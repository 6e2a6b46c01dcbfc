"""What replica exchange says against a run: pairs of levels that hardly swap, and replicas that do not come through."""

from __future__ import annotations

import numpy as np

from ..result_fields import RunFields, TemperedFields

#: Rate of exchanges below which a pair of levels holds up all replicas.
LEAST_SWAPS = 0.05
#: Round trips, all groups together, below which draws hang on where the ladder began.
LEAST_TOURS = 20


def stuck(run: RunFields):
    """Pairs of levels that hardly exchange replicas, and too few round trips."""
    assert isinstance(run, TemperedFields)
    rate, levels = np.asarray(run.stats["swap_rate"]), run.levels
    # Written so that a NaN counts as none.
    low = ~(rate >= LEAST_SWAPS)
    if low.any():
        worst = int(np.argmin(np.nan_to_num(rate)))
        above = "the start" if worst == 0 else f"t = {levels[worst - 1]:.3g}"
        closer = f"more levels than {len(levels)}" if run.levels_given else "level_ess closer to 1"
        yield (
            f"{low.sum()} of {len(rate)} pairs of levels hardly exchange replicas, least {above} and "
            f"t = {levels[worst]:.3g} ({rate[worst]:.1%}). Use {closer}, or more num_steps."
        )
    if (tours := int(np.sum(run.tours))) < LEAST_TOURS:
        yield (
            f"{tours} replicas came from fresh draws at t = 1 to t = 0, of {run.num_groups} groups in {run.num_sweeps} "
            "sweeps: draws hang on where the ladder began, and modes may be missed or weigh wrongly. Use a larger "
            "num_samples or thinning."
        )
