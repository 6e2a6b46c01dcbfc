"""Further draws at one noise level, from points of a run."""

from __future__ import annotations

from functools import partial

import jax

from ..density.density import Density
from .devices import chain_keys
from .frame import frame_at
from .kernels import Kernel
from .level import level_at
from .plan import PlannedLevel
from .settings import Settings


@partial(jax.jit, static_argnames=("num_samples", "settings"))
def further_draws(
    density: Density, kernel: Kernel, x, rng_key, planned: PlannedLevel, settings: Settings, *, num_samples: int
):
    """Draws [N, num_samples, *event_shape], each `settings.num_steps` steps on, from points x [N, *event_shape].

    With them acceptance rates and divergences [N, num_samples].
    """
    frame = frame_at(density, planned.t, settings.frame)
    level = level_at(density, planned.t, settings.frame, planned.step_size, planned.scale)

    def one(shared, key, x, momentum_key):
        frame, level, kernel = shared
        u = frame.coordinates(x)

        def draw(state, key):
            state, info = level.move(kernel, key, state, settings.num_steps)
            return state, (level.point(state.position), info.acceptance_rate.mean(), info.is_divergent.any())

        state = level.enter(u, jax.random.normal(momentum_key, u.shape))
        return jax.lax.scan(draw, state, jax.random.split(key, num_samples))[1]

    move_key, momentum_key = jax.random.split(rng_key)
    keys, momentum_keys = chain_keys(move_key, len(x)), chain_keys(momentum_key, len(x))
    return settings.map_chains(one, (frame, level, kernel), keys, x, momentum_keys)
