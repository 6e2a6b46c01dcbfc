"""From an annealed run of a model to its posterior: the run's draws, and further ones that go on from them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..annealing.devices import everywhere
from ..annealing.draws import further_draws
from ..annealing.plan import PlannedLevel
from ..annealing.settings import Settings
from ..diagnose.islands import in_order, layout
from ..diagnose.result import AnnealedRun, TemperedRun
from .joint import JointDensity
from .model_call import ModelCall
from .posterior import Posterior


def posterior_of(
    call: ModelCall, joint: JointDensity, run: AnnealedRun, rng_key, *, num_samples: int, thinning: int, **kept: Any
) -> Posterior:
    """What a run found of a model; arguments as for `drawn`."""
    # Draws in the order of their islands are ArviZ's chains by a mere reshape, as are predictions made from them.
    islands = layout(run, num_samples)
    run = in_order(run, islands.particles)
    found = drawn(run, rng_key, num_samples=num_samples, thinning=thinning, **kept)
    return Posterior.of(call, joint, run, islands, **found)


def drawn(run: AnnealedRun, rng_key, *, num_samples: int, thinning: int, **kept: Any) -> dict[str, jax.Array]:
    """Flat positions [chains, draws, d], and acceptance_rate and is_divergent [chains, draws].

    Groups of replicas have their draws. Of a population the first draw of a chain ends its anneal; further ones lie
    `thinning` kernel steps apart, under the settings `kept` of the run: mesh and chain_batch_size.
    """
    rate = run.stats["acceptance_rate"][-1]
    if isinstance(run, TemperedRun):
        positions = run.samples.reshape(run.num_groups, -1, run.samples.shape[-1])
        shape = positions.shape[:2]
        return _named(positions, jnp.full(shape, rate), jnp.zeros(shape, bool))
    num_chains = len(run.samples)
    found = run.samples[:, None], jnp.full((num_chains, 1), rate), jnp.zeros((num_chains, 1), bool)
    if num_samples == 1:
        return _named(*found)
    settings = Settings.checked(num_chains=num_chains, num_steps=thinning, **kept)
    joint, mover, rng_key = everywhere((run.density, run.kernel.without_step_size(), rng_key), settings.mesh)
    planned = PlannedLevel(float(run.levels[-1]), float(run.stats["step_size"][-1]), run.scale)
    more = further_draws(
        joint, mover, run.samples, rng_key, planned, settings.in_pieces(joint, num_chains), num_samples=num_samples - 1
    )
    return _named(*(jnp.concatenate(pair, axis=1) for pair in zip(found, more, strict=True)))


def _named(*found) -> dict[str, jax.Array]:
    return dict(zip(("positions", "acceptance_rate", "is_divergent"), found, strict=True))
