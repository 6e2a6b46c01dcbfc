r"""One chain of an annealed kernel: its state, its start at t = 1, and its step to the next noise level.

With u the coordinates in the frame of the level, :math:`\gamma_k` the joint density there and :math:`K_k` the moves,

.. math::
    \log w_k = \log w_{k-1} + \log \gamma_k(u_{k-1}) - \log \gamma_{k-1}(u_{k-1}), \qquad u_k \sim K_k(u_{k-1}, \cdot).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..annealing import frame as frames
from ..annealing.kernels import Kernel
from ..annealing.level import Level
from .handlers import seen
from .joint import JointDensity


class Frozen(NamedTuple):
    """What steps share and never change: the joint density, less the model's arguments, and the levels [K].

    In the state, so that compiled programs take the densities' weights as arguments.
    """

    joint: JointDensity
    levels: Level

    def level(self, k, joint: JointDensity) -> Level:
        """Level k of a joint density with the arguments of the moment; k is clipped to those there are."""
        one = jax.tree.map(lambda a: a[jnp.clip(k, 0, len(self.levels.t) - 1)], self.levels)
        return one._replace(density=joint)


class AnnealedState(NamedTuple):
    """State of one chain, or of chains [N, ...]; `frozen` has no chain axis where NumPyro runs chains "vectorized".

    Attributes:
        i: Steps taken.
        z: Unconstrained values by site. A noisy x_t is given as the model sees it (its view), which is x at t = 0.
        potential_energy: -log of the joint density at the present noise level, in unconstrained coordinates.
        noise_level: t of the last step, 0 after warm-up.
        accept_prob: Mean acceptance probability over the step's moves.
        step_size: The largest of those moves, in the level's own coordinates.
        log_weight: AIS log weight; it stands still after warm-up, and is NaN where there is none.
        diverging: Whether any of the moves diverged.
        rng_key: Key of the next step.
        position, momentum: The chain [d] in the frame of its level.
        frozen: Densities and levels.
    """

    i: Any
    z: Any
    potential_energy: Any
    noise_level: Any
    accept_prob: Any
    step_size: Any
    log_weight: Any
    diverging: Any
    rng_key: Any
    position: Any
    momentum: Any
    frozen: Any


def start(first: Level, rng_key, *, weighted: bool) -> AnnealedState:
    """An exact draw at the first level, t = 1."""
    position_key, momentum_key, rng_key = jax.random.split(rng_key, 3)
    u, log_prob = frames.start(first.density, position_key, "whitened")
    return AnnealedState(
        i=jnp.zeros((), int),
        z=_seen(first, first.frame.unscaled(u)),
        potential_energy=first.frame.log_det - log_prob,
        noise_level=first.t,
        accept_prob=jnp.zeros(()),
        step_size=first.step_size,
        log_weight=jnp.full((), 0.0 if weighted else jnp.nan),
        diverging=jnp.zeros((), bool),
        rng_key=rng_key,
        position=u,
        momentum=jax.random.normal(momentum_key, u.shape),
        frozen=None,
    )


def advance(
    kernel: Kernel, state: AnnealedState, before: Level, level: Level, weighs, *, num_steps: int
) -> AnnealedState:
    """Take a chain from the level `before` to the next, or on at the same one; if it `weighs`, it gains log weight."""
    fresh = level.enter(state.position, state.momentum)
    rng_key, move_key = jax.random.split(state.rng_key)
    moved, info = level.move(kernel, move_key, fresh, num_steps)
    old = before.frame.log_det - state.potential_energy
    known = jnp.isfinite(fresh.logdensity) & jnp.isfinite(old)
    increment = jnp.where(known, fresh.logdensity - old + info.log_weight.sum(), -jnp.inf)
    return state._replace(
        i=state.i + 1,
        z=_seen(level, moved.position),
        potential_energy=level.frame.log_det - moved.logdensity,
        noise_level=level.t,
        accept_prob=info.acceptance_rate.mean(),
        step_size=level.step_size,
        log_weight=jnp.where(weighs, state.log_weight + increment, state.log_weight),
        diverging=info.is_divergent.any(),
        rng_key=rng_key,
        position=level.leave(moved).position,
        momentum=moved.momentum,
    )


def _seen(level: Level, v):
    """Unconstrained values by site at coordinates v, as the model sees them; x itself at t = 0."""
    joint: Any = level.density
    values = joint.unravel(level.point(v))
    for name, (density, spectrum) in joint.bound.items():
        view = seen(joint.view, density, values[name], level.t, spectrum)
        values[name] = jnp.where(level.t > 0, view, values[name])
    return values
