r"""The noise levels of an annealed kernel: the pilot's plan, read at as many levels as the user has warm-up steps.

The pilot places P levels a fixed conditional ESS apart. A fractional index into them, s in [0, P - 1], is thus a clock
that runs at constant conditional ESS; K levels at equal steps of s keep it equal between them,

.. math:: s_k = k \frac{P - 1}{K - 1}, \qquad \text{ESS}_K \approx \text{ESS}_P^{\,((P - 1)/(K - 1))^2}.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..annealing.level import Level, level_at
from ..annealing.plan import Plan
from ..density.schedule import NoiseSchedule
from ..errors import warn
from .joint import JointDensity


def read_plan(plan: Plan, schedule: NoiseSchedule, count: int) -> Plan:
    """`count` levels at equal steps of the plan's index, the first at t = 1, the last at t = 0.

    Log noise-to-signal ratios, log step sizes and scales are interpolated linearly.
    """
    ratios = schedule.ratios(plan.levels)
    # The last level may have no noise at all: on its way there the ratio falls as fast as on the step before.
    fall = ratios[-2] / ratios[-3] if len(ratios) > 2 else 1e-2
    ratios[-1] = max(ratios[-1], ratios[-2] * fall)
    index, where = np.arange(len(ratios)), np.linspace(0.0, len(ratios) - 1, count)
    levels = np.array(schedule.time(jnp.exp(jnp.asarray(np.interp(where, index, np.log(ratios))))), dtype=float)
    levels[0], levels[-1] = 1.0, 0.0
    steps = np.exp(np.interp(where, index, np.log(plan.step_sizes)))
    if plan.scales is None:
        return Plan(levels, steps)
    low = np.minimum(where.astype(int), len(ratios) - 2)
    share = (where - low)[:, None, None]
    return Plan(levels, steps, (1 - share) * plan.scales[low] + share * plan.scales[low + 1])


def warn_if_few(plan: Plan, count: int, level_ess: float) -> None:
    """Warn where `count` levels are so few that fewer than half of the chains would survive each of them."""
    ess = level_ess ** (((len(plan.levels) - 1) / (count - 1)) ** 2)
    if ess < 0.5:
        warn(
            f"num_warmup = {count} levels are few: the pilot placed {len(plan.levels)}, and so far apart only about "
            f"{ess:.0%} of the chains would keep their weight at each. Set num_warmup to {len(plan.levels)} or more."
        )


@jax.jit
def tabulate(joint: JointDensity, plan: Plan) -> Level:
    """The levels of a plan, stacked, without the density that they share; memory K d^2, or twice that with scales."""

    def one(row: Plan):
        level: Any = level_at(joint, row.levels, "whitened", row.step_sizes, row.scales)
        # Of the frame, moves need the mean and the root.
        gaussian = level.frame.gaussian._replace(variance=None, axes=None)
        return level._replace(density=None, frame=level.frame._replace(gaussian=gaussian))

    return jax.lax.map(one, jax.tree.map(lambda a: jnp.asarray(a, dtype=float), plan))
