"""Further draws at one noise level, from points of a run."""

from __future__ import annotations

from functools import partial

import jax
from jax.sharding import Mesh

from ..density.density import Density
from . import frame as frames
from .kernels import Kernel, init
from .level import from_scale, log_density_in_frame, move, to_scale
from .population import chain_keys, map_chains


@partial(jax.jit, static_argnames=("num_samples", "thinning", "frame", "chain_batch_size", "mesh"))
def extend(
    density: Density, kernel: Kernel, x, rng_key, t, step_size, scale=None,
    *, num_samples: int, thinning: int, frame: str, chain_batch_size: int | None, mesh: Mesh | None = None,
):  # fmt: skip
    """Go on from points x [N, *event_shape] at one level, a draw every `thinning` steps.

    Returns:
        Draws [N, num_samples, *event_shape], acceptance rates and divergences [N, num_samples].
    """
    at = frames.frame_at(density, t, frame)
    logdensity_fn = log_density_in_frame(density, t, frame, scale)

    def one(shared, key, x, momentum_key):
        kernel, logdensity_fn, at, step_size, scale = shared
        v = to_scale(at.coordinates(x)[None], scale)[0]
        state = init(v, jax.random.normal(momentum_key, v.shape), logdensity_fn)

        def draw(state, key):
            state, info = move(kernel, state, logdensity_fn, key, step_size, scale, num_steps=thinning)
            return state, (state.position, info.acceptance_rate.mean(), info.is_divergent.any())

        _, (v, rate, divergent) = jax.lax.scan(draw, state, jax.random.split(key, num_samples))
        u = from_scale(v, scale)
        return jax.vmap(lambda p: at.point(p, x.shape))(u), rate, divergent

    move_key, momentum_key = jax.random.split(rng_key)
    keys, momentum_keys = chain_keys(move_key, len(x)), chain_keys(momentum_key, len(x))
    shared = kernel, logdensity_fn, at, step_size, scale
    return map_chains(one, shared, keys, x, momentum_keys, chain_batch_size=chain_batch_size, mesh=mesh)
