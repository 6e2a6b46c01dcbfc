"""Backward paths: from points at the last level through the kernel's steps to noise, with their log weights."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from ..density.density import Density
from . import frame as frames
from .kernels import Kernel, KernelState, init
from .level import log_density_in_frame
from .memory import default_batch_size
from .pilot import Plan
from .population import chain_keys, map_chains
from .progress import Progress


def backward(
    rng_key, density: Density, kernel: Kernel, x, schedule: Plan, progress: Progress,
    *, num_steps: int, frame: str, chain_batch_size: int | None = None,
):  # fmt: skip
    """Log weights [n] of backward paths from points x [n, *event_shape]."""
    kernel, chain_batch_size = kernel.without_step_size(), chain_batch_size or default_batch_size(density, len(x))
    position, logdensity = _enter(density, x, float(schedule.levels[-1]), frame=frame)
    log_w = jnp.zeros(len(x))
    steps = list(zip(schedule.levels, schedule.step_sizes, strict=True))[::-1]
    progress.begin(len(steps))
    for i, (t, step_size) in enumerate(steps):
        key = jax.random.fold_in(rng_key, i)
        position, logdensity, log_w = _retreat(
            density, kernel, position, logdensity, log_w, key, float(t), float(step_size),
            num_steps=num_steps, frame=frame, chain_batch_size=chain_batch_size,
        )  # fmt: skip
        progress.step()
    return log_w + logdensity - _leave(density, position, frame=frame)


@partial(jax.jit, static_argnames=("frame",))
def _enter(density, x, t, *, frame):
    at = frames.frame_at(density, t, frame)
    position = jax.vmap(at.coordinates)(x)
    return position, jax.vmap(log_density_in_frame(density, t, frame))(position)


@partial(jax.jit, static_argnames=("frame",))
def _leave(density, position, *, frame):
    return jax.vmap(lambda u: frames.start_log_prob(density, u, frame))(position)


@partial(jax.jit, static_argnames=("num_steps", "frame", "chain_batch_size"))
def _retreat(
    density, kernel, position, logdensity, log_w, rng_key, t, step_size, *, num_steps, frame, chain_batch_size
):
    """Change to level t, weigh the change, and take the kernel's steps there."""
    logdensity_fn = log_density_in_frame(density, t, frame)

    def one(shared, key, u):
        kernel, logdensity_fn, step_size = shared
        state = init(u, jnp.zeros_like(u), logdensity_fn)

        def step(carry: KernelState, key):
            return kernel.step(key, carry, logdensity_fn, step_size)

        end, info = jax.lax.scan(step, state, jax.random.split(key, num_steps))
        return state.logdensity, end.position, end.logdensity, info.log_weight.sum()

    keys = chain_keys(rng_key, len(position))
    entered, position, left, ratio = map_chains(
        one, (kernel, logdensity_fn, step_size), keys, position, chain_batch_size=chain_batch_size
    )
    # Forward this change gains log gamma_t(less noise) - log gamma_t(more noise) at the same point.
    return position, left, log_w + logdensity - entered - ratio
