r"""The noise levels of an annealed kernel: the pilot's plan, read at as many levels as the user has warm-up steps.

The pilot places P levels a fixed conditional ESS apart. A fractional index into them, s in [0, P - 1], is thus a clock
that runs at constant conditional ESS; K levels at equal steps of s keep it equal between them,

.. math:: s_k = k \frac{P - 1}{K - 1}, \qquad \text{ESS}_K \approx \text{ESS}_P^{\,((P - 1)/(K - 1))^2}.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..annealing.frame import frame_at
from ..annealing.pilot import Plan
from ..density.schedule import NoiseSchedule
from ..errors import warn
from .joint import JointDensity


class Levels(NamedTuple):
    """Per level [K, ...]: time, step size, frame x = mean + root u with its log determinant, and the moves' scale."""

    t: Any
    step_size: Any
    mean: Any
    root: Any
    log_det: Any
    scale: Any = None

    def at(self, k) -> Levels:
        """One level; k is clipped to those there are."""
        return jax.tree.map(lambda a: a[jnp.clip(k, 0, self.t.shape[0] - 1)], self)

    def point(self, u):
        """x [d] of frame coordinates u [d], for one level."""
        return self.mean + self.root @ u


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
def _frames(joint, times):
    return jax.lax.map(lambda t: frame_at(joint, t, "whitened"), times)


def tabulate(joint: JointDensity, plan: Plan) -> Levels:
    """A plan with the frames of its levels; memory 2 K d^2."""
    times = jnp.asarray(plan.levels, dtype=float)
    scales = None if plan.scales is None else jnp.asarray(plan.scales, dtype=float)
    frame = _frames(joint, times)
    steps = jnp.asarray(plan.step_sizes, dtype=float)
    return Levels(times, steps, frame.mean, frame.root, frame.log_det, scales)
