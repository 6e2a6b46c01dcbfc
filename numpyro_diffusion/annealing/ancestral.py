"""A population taken from noise to data by reverse diffusion: `nd.anneal(rng_key, density, nd.Reverse())`."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ..density.density import Density
from ..diagnose.result import AnnealedRun
from . import population as populations
from .devices import everywhere, gathered
from .levels import check_levels
from .progress import Progress
from .reverse import Reverse, reverse_step

#: Levels where none are given.
NUM_LEVELS = 250


@partial(jax.jit, static_argnames=("num_chains", "mesh"))
def _start(density, rng_key, *, num_chains, mesh):
    keys = populations.chain_keys(rng_key, num_chains)
    x = populations.map_chains(lambda density, key: density.start(key)[0], density, keys, mesh=mesh)
    return x.reshape(num_chains, *density.event_shape)


@partial(jax.jit, static_argnames=("chain_batch_size", "mesh"))
def _level(density, x, rng_key, t_from, t, *, chain_batch_size, mesh):
    keys = populations.chain_keys(rng_key, len(x))

    def step(shared, key, point):
        density, t_from, t = shared
        return reverse_step(density, key, point, t_from, t)

    return populations.map_chains(step, (density, t_from, t), keys, x, chain_batch_size=chain_batch_size, mesh=mesh)


def reverse_run(
    rng_key, density: Density, kernel: Reverse, levels, *, num_chains: int, chain_batch_size, mesh, progress_bar: bool
) -> AnnealedRun:
    """Reverse diffusion from exact draws at t = 1, a step per level; arguments as for `anneal`."""
    given = levels is not None
    if levels is None or (isinstance(levels, int | np.integer) and not isinstance(levels, bool)):
        levels = density.schedule.levels(NUM_LEVELS if levels is None else int(levels))
    levels = check_levels(levels)
    held, start_key, level_key = everywhere((density, *jax.random.split(rng_key)), mesh)
    with Progress("reverse", progress_bar) as progress:
        progress.begin(len(levels) - 1)
        x = _start(held, start_key, num_chains=num_chains, mesh=mesh)
        for i in range(1, len(levels)):
            key = jax.random.fold_in(level_key, i)
            x = _level(held, x, key, *map(float, levels[i - 1 : i + 1]), chain_batch_size=chain_batch_size, mesh=mesh)
            progress.step()
    return AnnealedRun(
        samples=gathered(x, mesh),
        log_weights=jnp.zeros(num_chains),
        log_evidence=float("nan"),
        log_evidence_error=float("nan"),
        levels=levels,
        stats={},
        history=None,
        density=density,
        kernel=kernel,
        is_weighted=False,
        num_steps=0,
        evaluations_per_chain=len(levels) - 1,
        levels_given=given,
    )
