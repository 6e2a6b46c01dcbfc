"""Where chains of `AnnealedMCMC` stand at t = 0, and draws that go on from there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..annealing.devices import everywhere
from ..annealing.draws import further_draws
from ..annealing.plan import PlannedLevel
from ..annealing.settings import Settings
from ..diagnose.islands import in_order, layout
from ..diagnose.result import AnnealedRun, TemperedRun
from ..errors import ArgumentTypeError, ParameterError
from .joint import JointDensity
from .model_call import ModelCall
from .posterior import Posterior


class MCMCState(NamedTuple):
    """Chains at t = 0: what `last_state` is, and what `post_warmup_state` may be set to.

    Attributes:
        z: Unconstrained values by site, [num_chains, ...].
        rng_key: A key for the draws after these.
        call, joint: The model as it was read, and its joint density.
        run: The anneal that led here, with its weights; its particles are in the order of `z`.
    """

    z: dict[str, Any]
    rng_key: Any
    call: ModelCall
    joint: JointDensity
    run: AnnealedRun

    @classmethod
    def after(cls, run: AnnealedRun, rng_key, call: ModelCall, joint: JointDensity) -> MCMCState:
        """The state when a run has ended."""
        return cls(jax.vmap(joint.unravel)(run.samples), rng_key, call, joint, run)


def check_state(state) -> None:
    """Raise ArgumentTypeError for what no chains can go on from, ParameterError for replicas."""
    if state is not None and not isinstance(state, MCMCState):
        raise ArgumentTypeError(
            f"post_warmup_state must be the last_state of an AnnealedMCMC, or None; got {type(state).__name__}."
        )
    if state is not None and isinstance(state.run, TemperedRun):
        raise ParameterError(
            "replicas have all of their draws when a run ends, and do not go on from a state. Ask for as many by "
            "num_samples, or for those of other data by refresh(rng_key, ...)."
        )


def check_same(state: MCMCState, call: ModelCall) -> None:
    """Raise ParameterError where a state belongs to another model, or to other arguments than it is called with."""
    if call.model is not state.call.model or call.view != state.call.view or not state.call.is_called_like(call):
        raise ParameterError(
            "the chains of post_warmup_state were annealed for another model or other arguments; from where they stand "
            "neither their weights nor their evidence would hold. Set post_warmup_state = None, and run anneals anew."
        )


def drawn(
    state: MCMCState, num_draws: int, thinning: int, settings: Settings, postprocess_fn: Callable | None, *,
    is_first: bool,
) -> tuple[Posterior, MCMCState]:  # fmt: skip
    """Draws at t = 0, `thinning` steps apart, each of as many moves as a level has; and where the chains stand then.

    `is_first` says that the state itself is the first draw.
    """
    islands = layout(state.run, num_draws)
    # Draws in the order of their islands are ArviZ's chains by a mere reshape, as are predictions made from them.
    run, joint, count = in_order(state.run, islands.particles), state.joint, len(islands.particles)
    moves, wanted = settings.num_steps * thinning, 0
    draw_key, rng_key = jax.random.split(state.rng_key)
    rate = run.stats["acceptance_rate"][-1]
    if isinstance(run, TemperedRun):
        positions = run.samples.reshape(run.num_groups, -1, run.samples.shape[-1])
        shape = positions.shape[:2]
        found = [(positions, jnp.full(shape, rate), jnp.zeros(shape, bool))]
    else:
        x = jax.vmap(joint.ravel)(state.z)[islands.particles]
        found = [(x[:, None], jnp.full((count, 1), rate), jnp.zeros((count, 1), bool))] if is_first else []
        wanted = num_draws - is_first
    if wanted:
        settings = dataclasses.replace(settings, num_steps=moves)
        joint, kernel, draw_key = everywhere((joint, run.kernel.without_step_size(), draw_key), settings.mesh)
        planned = PlannedLevel(float(run.levels[-1]), float(run.stats["step_size"][-1]), run.scale)
        pieces = settings.in_pieces(joint, count)
        found.append(further_draws(joint, kernel, x, draw_key, planned, pieces, num_samples=wanted))
    draws = (jnp.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
    kept = dict(zip(("positions", "acceptance_rate", "is_divergent"), draws, strict=True))
    posterior = Posterior.of(
        state.call, state.joint, run, islands, num_moves=wanted * moves, postprocess_fn=postprocess_fn, **kept
    )
    z = jax.vmap(state.joint.unravel)(kept["positions"][:, -1])
    return posterior, MCMCState(z, rng_key, state.call, state.joint, run)
