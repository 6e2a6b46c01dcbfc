r"""From a finished run to a density that has changed a little, such as a posterior with more data, at t = 0 alone.

Points x of the old density :math:`\gamma` are weighed and moved along

.. math:: \gamma^{1 - s} \gamma'^{\,s}, \qquad 0 = s_0 < s_1 < \dots < s_n = 1,

to the new one, :math:`\gamma'`. The next s is the furthest at which the conditional effective sample size stays above a
share; most often that is 1 at once. Points are resampled and moved by the run's kernel at every s, and log weights are
added to the run's log evidence (Chopin 2002, A sequential particle filter method for static models).
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..density.density import Density
from ..diagnose.result import AnnealedRun
from ..diagnose.weights import conditional_ess
from ..errors import NotRunError, ParameterError
from . import advance as onward
from .advance import LevelStats
from .evidence import new_account
from .frame import frame_at
from .kernels import KernelState
from .plan import PlannedLevel
from .population import Population, points
from .settings import Settings

#: Conditional effective sample size, as a share, that one stage keeps; and the most stages worth their evaluations.
SHARE, MOST_STAGES = 0.5, 6
#: How finely the next s is found.
HALVINGS = 12
#: Steps of the run's kernel on the way and at the new density, in those that the run took per level.
STEPS, LAST_STEPS = 1, 4
#: How fast log step sizes follow the acceptance from stage to stage.
PUSH = 1.0


def check_refreshable(run: AnnealedRun) -> None:
    """Refuse a run from whose samples there is no way on."""
    run.density.require_log_density("refresh")
    if not run.is_complete:
        raise NotRunError("the run ended early, and its samples are not those of t = 0. Call run(rng_key, ...) again.")
    if not run.kernel.is_adjusted:
        raise ParameterError(
            f"refresh moves points by Metropolis steps; the run's kernel is {run.kernel!r}. Use nd.HMC or nd.MALA, or "
            "call run(rng_key, ...) for a fresh run."
        )
    if not np.all(np.isfinite(np.asarray(run.samples))):
        raise NotRunError("the run has samples that are not finite. Call run(rng_key, ...) for a fresh run.")


def refreshed(rng_key, run: AnnealedRun, density: Density, settings: Settings) -> AnnealedRun | None:
    """A finished run's samples as ones of another density of the same points; None where that is too far away.

    `settings` are the run's, with as many chains as it has samples. Kernel, step size and preconditioner are the run's.

    Cost: per sample 3 evaluations, and for each of the run's `num_steps` 4 times the kernel's; a stage on the way takes
    4 more, and twice the kernel's for each of them.
    """
    settings = settings.in_pieces(density, settings.num_chains)
    x = run.samples.reshape(len(run.samples), -1)
    rng_key, key = jax.random.split(rng_key)
    ancestors = jnp.arange(len(x)) if run.ancestors is None else run.ancestors
    population = _begun(density, key, x, run.log_weights, ancestors, settings.frame)
    base = run.log_evidence - float(population.evidence())
    mover, step, target = (
        run.kernel.without_step_size(),
        float(run.stats["step_size"][-1]),
        run.kernel.target_acceptance,
    )
    share, evaluations, stats = 0.0, 0, []
    while share < 1:
        rng_key, key = jax.random.split(rng_key)
        old, new = _log_densities((run.density, density), population, settings)
        following = _next_share(population.log_weight, new - old, share)
        left = MOST_STAGES - len(stats)
        # As far again and again would not be far enough.
        if share + left * (following - share) < 1:
            return None
        is_last = following == 1
        at: Any = density if is_last else run.density ** jnp.asarray(1 - following) * density ** jnp.asarray(following)
        state = population.state._replace(logdensity=(1 - share) * old + share * new)
        population = population._replace(state=state)
        own = dataclasses.replace(settings, num_steps=(LAST_STEPS if is_last else STEPS) * run.num_steps)
        planned = PlannedLevel(0.0, step, run.scale, previous=0.0)
        population, level, _ = onward.advance(at, mover, population, key, planned, 2.0, own)
        stats.append(level)
        evaluations += 2 + (1 if is_last else 2) * (1 + own.num_steps * mover.evaluations_per_step)
        share, step = following, step * math.exp(PUSH * (float(level.acceptance_rate) - target))
    found = {name: np.stack([np.asarray(getattr(s, name)) for s in stats]) for name in LevelStats._fields}
    found["log_evidence"] = base + found["log_evidence"]
    return AnnealedRun(
        samples=points(density, population, 0.0, frame_kind=settings.frame),
        log_weights=population.log_weight,
        log_evidence=base + float(population.evidence()),
        log_evidence_error=math.hypot(run.log_evidence_error, float(population.evidence_error())),
        levels=np.zeros(len(stats)),
        stats=found,
        history=None,
        density=density,
        kernel=run.kernel,
        is_weighted=run.is_weighted,
        num_steps=run.num_steps,
        evaluations_per_chain=evaluations,
        ancestors=population.ancestor,
        scale=run.scale,
    )


def _next_share(log_weight, gain, share: float) -> float:
    """The furthest share up to 1 with a conditional ESS of `SHARE`, of points with `gain` [N] on the whole way."""

    def is_near(following):
        increment = (following - share) * jnp.where(jnp.isnan(gain), -jnp.inf, gain)
        return float(conditional_ess(log_weight, increment)) >= SHARE

    if is_near(1.0):
        return 1.0
    near, far = share, 1.0
    for _ in range(HALVINGS):
        middle = (near + far) / 2
        near, far = (middle, far) if is_near(middle) else (near, middle)
    return near


@partial(jax.jit, static_argnames="frame_kind")
def _begun(density: Density, rng_key, x, log_weights, ancestors, frame_kind: str) -> Population:
    """Points x [N, d] as a population at t = 0 whose log densities are unknown."""
    num_chains = len(x)
    u = jax.vmap(frame_at(density, 0.0, frame_kind).coordinates)(x)
    state = KernelState(u, jax.random.normal(rng_key, u.shape), jnp.zeros(num_chains), jnp.zeros_like(u))
    return Population(state, log_weights, ancestors, jnp.zeros(()), new_account(num_chains))


@partial(jax.jit, static_argnames="settings")
def _log_densities(densities: tuple[Density, Density], population: Population, settings: Settings):
    """Log densities in the second one's frame at t = 0, of either, at every point [N]."""
    old, new = densities

    def one(shared, u):
        (old, new), frame = shared
        x = frame.point(u, new.event_shape)
        return tuple(density.log_density(x, jnp.zeros(())) + frame.log_det for density in (old, new))

    return settings.map_chains(one, (densities, frame_at(new, 0.0, settings.frame)), population.state.position)
