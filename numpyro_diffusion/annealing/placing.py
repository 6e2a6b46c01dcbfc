"""Where the next noise level lies, and how chains get there: what a pilot's population tells."""

from __future__ import annotations

from functools import partial

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
#: where the levels are diffusion (measured at 0.995, d = 80: 333 families for 280 with as many levels).
PREFERENCE = 2.0
#: Shape of the tail of a step's weights from which on chains are carried instead.
MOST_TAIL = 0.3


@partial(jax.jit, static_argnames=("frame_kind", "ways"))
def next_level(
    density: Density, population: Population, rng_key, before: PlannedLevel, target, smallest, gap, *,
    frame_kind: str, ways: tuple[bool, ...],
):  # fmt: skip
    """The least t' < t with conditional ESS >= target, by bisection in the log noise-to-signal ratio; 0 if it does.

    Returns it, its distance in that logarithm, and whether a reverse diffusion step leads there; `ways` says what is
    tried, carrying chains along (False) or such steps (True). `gap`, the distance before, says how far to look. What is
    compared and interpolated is the root of -log ESS, which grows about linearly with the distance.
    """
    schedule, aim, t, state = density.schedule, jnp.sqrt(-jnp.log(target)), before.t, population.state
    start = level_at(density, t, frame_kind, scale=before.scale)
    noise = jax.random.normal(rng_key, state.position.shape)

    def best(s):
        """The least root of -log ESS at the time s, and whether a step is what loses so little; all ways in a batch."""
        level = level_at(density, s, frame_kind, scale=before.scale)
        tried = [(state.position, jnp.zeros(population.log_weight.shape))]
        if any(ways):
            tried.append(jax.vmap(denoising(start, level, before.information).move)(noise, state))
        u, gain = jax.tree.map(lambda *a: jnp.stack(a), *[tried[steps] for steps in ways])
        if density.has_log_density:
            increment = jax.vmap(jax.vmap(lambda u: level.log_prob(level.frame.unscaled(u))))(u) - state.logdensity
        else:
            gained = jax.vmap(partial(level.gain, jax.random.key(0), start))
            increment = jax.vmap(gained, (None, 0))(state.position, u)
        return _least(population.log_weight, increment + gain, ways)

    high, end = jnp.log(schedule.noise_to_signal(t)), jnp.log(smallest)
    reach = REACH * gap if density.has_log_density else jnp.minimum(REACH * gap, SCORE_REACH)
    # Not beyond the finest noise, unless it is there already and something else, a likelihood say, is still to come in.
    low = jnp.where(high - end > 1e-3, jnp.maximum(end, high - reach), high - reach)
    is_near = True if density.has_log_density else high - end <= SCORE_REACH

    def place(ends, is_last):
        """The time between both ends, and its distance."""
        (low, above), (near, below) = ends
        # Always move: 2 % of a factor at least.
        found = jnp.minimum(near - (near - low) * (aim - below) / (above - below), high - 0.02)
        time = jnp.minimum(schedule.time(jnp.exp(found)), t * (1 - 1e-4))
        return jnp.where(is_last, 0.0, time), high - found

    def look(i, carry):
        """At t = 0, then half way between the ends, at last where the next level is: one program for all of them."""
        ends, is_last, _ = carry
        (low, above), (near, below) = ends
        middle = (low + near) / 2
        s = jnp.where(i > HALVINGS, place(ends, is_last)[0], jnp.where(i > 0, schedule.time(jnp.exp(middle)), 0.0))
        loss, is_step = best(s)
        halfway = middle, loss
        halved = jax.tree.map(partial(jnp.where, loss <= aim), ((low, above), halfway), (halfway, (near, below)))
        ends = jax.tree.map(partial(jnp.where, (i > 0) & (i <= HALVINGS)), halved, ends)
        return ends, jnp.where(i == 0, (loss <= aim) & is_near, is_last), is_step

    ends = (low, jnp.full_like(t, jnp.inf)), (high, jnp.zeros_like(t))
    no = jnp.zeros((), bool)
    ends, is_last, is_step = jax.lax.fori_loop(0, HALVINGS + 2, look, (ends, no, no))
    return *place(ends, is_last), is_step


def _least(log_weight, increment, ways: tuple[bool, ...]):
    """Of increments [ways, N] the least root of -log ESS, and whether it is a step's."""
    increment, are_steps = jnp.where(jnp.isfinite(increment), increment, -jnp.inf), jnp.asarray(ways)
    ess = jax.vmap(partial(conditional_ess, log_weight))(increment)
    if len(ways) > 1:
        # A tail of the weights of so few chains is a worse one of the run's, which no ESS tells.
        tail = pareto_tail(increment[ways.index(True)]).pareto_k
        ess = jnp.where(are_steps & (tail > MOST_TAIL), 0.0, ess)
    losses = jnp.where(ess > 0, jnp.sqrt(jnp.maximum(-jnp.log(ess), 0.0)), jnp.inf)
    which = jnp.argmin(losses / jnp.where(are_steps, PREFERENCE, 1.0))
    return losses[which], are_steps[which]
