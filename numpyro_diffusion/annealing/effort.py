r"""How much effort is enough: as many levels as the accuracy that is asked for takes, by what a coarse pilot measured.

The pilot's P levels lie far apart. From one to the next weights scatter by :math:`1 / c_k - 1`, with the conditional
ESS c, about with the square of the distance: its roots make a clock, on which K levels lie at equal distances. With the
pilot's error e of log Z, of n chains, the variance of log Z with K levels and N chains is about

.. math:: \frac1N \, n e^2 \Big(\frac{P - 1}{K - 1}\Big)^{\beta}, \qquad \beta = \frac34 .

Were increments of different levels independent, beta would be 1. The error is by families, and sees chains that do not
leave their modes, whose increments add up coherently however many levels there are: beta was measured between 0.9 (one
mode) and 0.4 (posteriors that part into many at large noise).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ..density.density import Density
from ..density.schedule import NoiseSchedule
from ..diagnose.verdict import Verdict, judged
from .kernels import Kernel
from .piloted import Piloted
from .plan import Plan
from .settings import Settings

#: The exponent beta.
FALL = 0.75
#: Conditional ESS between a pilot's levels that are only to be read at others.
PILOT_ESS = 0.8
#: Levels never lie closer than this conditional ESS: more of them cost more and hardly tell more.
CLOSEST_ESS = 0.99
MOST_LEVELS = 400
#: Conditional ESS of the pilot's levels below which they could not be placed as they should.
TOO_FAR = 0.4
#: Conditional ESS below which the distance between levels is as good as unknown.
LEAST_ESS = 1e-3


class Measured(NamedTuple):
    """What a pilot with weights measured: the `clock` [P] of its levels, and n times the `variance` of its log Z."""

    clock: np.ndarray
    variance: float

    @classmethod
    def by(cls, pilot: Piloted) -> Measured:
        share = np.nan_to_num([float(s.conditional_ess) for s in pilot.stats[1:]])
        scatter = 1 / np.clip(share, LEAST_ESS, 1 - 1e-6) - 1
        # Tails of weights between coarse levels are not those of a run, but for levels that lie too far apart.
        error = pilot.error(tails=bool(np.any(share < TOO_FAR)))
        # Of unknown error, where every chain was lost at a wall, say: as many levels as are of use.
        variance = math.inf if math.isnan(error) else pilot.num_chains * error**2
        return cls(np.concatenate([[0.0], np.cumsum(np.sqrt(scatter))]), variance)

    def variance_of(self, count: int) -> float:
        """N times the variance of log Z with so many levels."""
        return self.variance * ((len(self.clock) - 1) / (count - 1)) ** FALL

    def count(self, variance: float) -> int:
        """Levels that such a variance takes: no fewer than the pilot's, and none closer than is of use."""
        most = self.clock[-1] / math.sqrt(1 / CLOSEST_ESS - 1)
        asked = (len(self.clock) - 1) * (self.variance / variance) ** (1 / FALL)
        return max(len(self.clock), 1 + math.ceil(min(asked, most, MOST_LEVELS - 1)))


def expected(
    pilot: Piloted, density: Density, kernel: Kernel, plan: Plan, settings: Settings, *, levels_given: bool
) -> Verdict:
    """The verdict on a run by a plan that was made of the pilot's."""
    num_chains = settings.num_chains
    run = pilot.as_run(density, kernel, levels_given=levels_given)
    variance, alone = (pilot.num_chains * pilot.error(tails=tails) ** 2 for tails in (True, False))
    if not pilot.settings.weighted:
        variance = alone = math.nan
    elif settings.accuracy is not None and not levels_given:
        measured = Measured.by(pilot)
        variance, alone = (m.variance_of(len(plan.levels)) for m in (measured, measured._replace(variance=alone)))
    cost = pilot.evaluations(density, kernel) * pilot.num_chains / num_chains
    errors = math.sqrt(variance / num_chains), math.sqrt(alone / num_chains)
    return judged(run, num_chains, *errors, cost, settings.accuracy)


def adapted(pilot: Piloted, schedule: NoiseSchedule, num_chains: int, accuracy: float, reach: float = math.inf) -> Plan:
    """The pilot's plan at as many levels as a standard error `accuracy` of log Z takes with `num_chains`.

    Where levels would lie further apart than `reach` in the log noise-to-signal ratio, the pilot's lie between.
    """
    measured = Measured.by(pilot)
    count = measured.count(num_chains * accuracy**2)
    # What follows a pilot that gave up is one leap, which cannot be divided.
    if count == len(pilot.plan.levels) or not pilot.is_complete:
        return pilot.plan
    return read_plan(pilot.plan, schedule, count, measured.clock, reach)


def read_plan(plan: Plan, schedule: NoiseSchedule, count: int, clock=None, reach: float = math.inf) -> Plan:
    """`count` levels at equal steps of a plan's `clock`, by default its index; the first at t = 1, the last at t = 0.

    And those of the plan that lie in gaps of more than `reach` between log noise-to-signal ratios.
    Log noise-to-signal ratios, log step sizes, scales and information are interpolated linearly.
    """
    ratios = schedule.ratios(plan.levels)
    # The last level may have no noise at all: on its way there the ratio falls as fast as on the step before.
    fall = ratios[-2] / ratios[-3] if len(ratios) > 2 else 1e-2
    ratios[-1] = max(ratios[-1], ratios[-2] * fall)
    index = np.arange(len(ratios))
    clock = index if clock is None else clock
    where = np.interp(np.linspace(clock[0], clock[-1], count), clock, index)
    wide = np.abs(np.diff(np.interp(where, index, np.log(ratios)))) > reach
    between_them = [
        index[(index > low) & (index < high)] for low, high in zip(where[:-1][wide], where[1:][wide], strict=True)
    ]
    where = np.sort(np.concatenate([where, *between_them]))
    levels = np.array(schedule.time(jnp.exp(jnp.asarray(np.interp(where, index, np.log(ratios))))), dtype=float)
    levels[0], levels[-1] = 1.0, 0.0
    steps = np.exp(np.interp(where, index, np.log(plan.step_sizes)))
    low = np.minimum(where.astype(int), len(ratios) - 2)

    def between(matrices):
        if matrices is None:
            return None
        share = (where - low)[:, None, None]
        return (1 - share) * matrices[low] + share * matrices[low + 1]

    # A level is reached as the next of the plan's is.
    denoised = None if plan.denoised is None else plan.denoised[np.ceil(where - 1e-9).astype(int)]
    return Plan(levels, steps, between(plan.scales), denoised, between(plan.information))
