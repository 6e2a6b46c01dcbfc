"""Where the next noise level lies, and how chains get there: what a pilot's population tells."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..density.density import Density
from ..diagnose.weights import conditional_ess, pareto_tail
from .denoising import denoising
from .level import level_at
from .plan import PlannedLevel
from .population import Population

#: How far the next level is looked for, in gaps between the two before, and how often that is halved before it is
#: interpolated.
REACH, HALVINGS = 3.0, 4
#: The furthest that a score-only density's next level is looked for, for the quadrature between levels: a factor of e.
SCORE_REACH = 1.0
#: How much more than carried chains steps may lose and still be taken. What a carried chain loses is where it lies,
#: and adds up from level to level until it has moved on; what a step loses is fresh noise, of conditional mean one
#: where the levels are diffusion (measured: as many families at twice the loss).
PREFERENCE = 2.0
#: Shape of the tail of a step's weights from which on chains are carried instead, and that where only levels between
#: follow, whose tails are lighter.
MOST_TAIL, MOST_COARSE_TAIL = 0.3, 0.7
#: Share of a coarse pilot's gap at which both ways are compared: about the gap of a run that is read off it.
FINE = 0.25


class Next(NamedTuple):
    """The next level: its time, its distance in the log noise-to-signal ratio, whether a reverse diffusion step is to
    lead there, and what of that is lost, the root of -log ESS."""

    t: jax.Array
    gap: jax.Array
    steps: jax.Array
    loss: jax.Array


@partial(jax.jit, static_argnames=("frame_kind", "ways", "is_coarse"))
def next_level(
    density: Density, population: Population, rng_key, before: PlannedLevel, target, smallest, gap, *,
    frame_kind: str, ways: tuple[bool, ...], is_coarse: bool = False,
) -> Next:  # fmt: skip
    """The least t' < t with conditional ESS >= target, by bisection in the log noise-to-signal ratio; 0 if it does.

    `ways` says how chains may get there, carried along (False) or by reverse diffusion steps (True). `gap`, the
    distance before, says how far to look. What is compared and interpolated is the root of -log ESS, which grows about
    linearly with the distance. A pilot that `is_coarse` carries its chains; which way is better is then asked, and its
    loss measured, at the share `FINE` of the distance, for the levels that a run has in between.
    """
    schedule, aim, t, state = density.schedule, jnp.sqrt(-jnp.log(target)), before.t, population.state
    start = level_at(density, t, frame_kind, scale=before.scale)
    noise = jax.random.normal(rng_key, state.position.shape)

    def lost(s, steps: bool):
        """The root of -log ESS at the time s."""
        level = level_at(density, s, frame_kind, scale=before.scale)
        u, gain = state.position, jnp.zeros(())
        if steps:
            u, gain = jax.vmap(denoising(start, level, before.information).move)(noise, state)
        if density.has_log_density:
            increment = jax.vmap(lambda u: level.log_prob(level.frame.unscaled(u)))(u) - state.logdensity
        else:
            increment = jax.vmap(partial(level.gain, jax.random.key(0), start))(state.position, u)
        increment += gain
        increment = jnp.where(jnp.isfinite(increment), increment, -jnp.inf)
        ess = conditional_ess(population.log_weight, increment)
        if steps and len(ways) > 1:
            # A tail of the weights of so few chains is a worse one of the run's, which no ESS tells.
            most = MOST_COARSE_TAIL if is_coarse else MOST_TAIL
            ess = jnp.where(pareto_tail(increment).pareto_k > most, 0.0, ess)
        return jnp.where(ess > 0, jnp.sqrt(jnp.maximum(-jnp.log(ess), 0.0)), jnp.inf)

    def best(s, ways=(False,) if is_coarse else ways):
        """The loss of the better way, and whether it is a step."""
        losses, are_steps = jnp.stack([lost(s, steps) for steps in ways]), jnp.asarray(ways)
        which = jnp.argmin(losses / jnp.where(are_steps, PREFERENCE, 1.0))
        return losses[which], are_steps[which]

    high, end = jnp.log(schedule.noise_to_signal(t)), jnp.log(smallest)
    reach = REACH * gap if density.has_log_density else jnp.minimum(REACH * gap, SCORE_REACH)
    low = jnp.minimum(jnp.maximum(end, high - reach), high - 1e-3)

    def halve(_, ends):
        (low, above), (near, below) = ends
        middle = (low + near) / 2
        halfway = middle, best(schedule.time(jnp.exp(middle)))[0]
        return jax.tree.map(partial(jnp.where, halfway[1] <= aim), ((low, above), halfway), (halfway, (near, below)))

    ends = (low, jnp.full_like(t, jnp.inf)), (high, jnp.zeros_like(t))
    (low, above), (near, below) = jax.lax.fori_loop(0, HALVINGS, halve, ends)
    found = near - (near - low) * (aim - below) / (above - below)
    # Always move: 2 % of a factor at least.
    found = jnp.minimum(found, high - 0.02)
    time = jnp.minimum(schedule.time(jnp.exp(found)), t * (1 - 1e-4))
    is_near = True if density.has_log_density else high - end <= SCORE_REACH
    time = jnp.where((best(jnp.zeros_like(t))[0] <= aim) & is_near, 0.0, time)
    compared = schedule.time(jnp.exp(high - FINE * (high - found))) if is_coarse else time
    loss, steps = best(compared, ways)
    return Next(time, high - found, steps, loss)
