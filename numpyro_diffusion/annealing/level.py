r"""One noise level as chains see it: the log density that they move on, how they enter, move and leave.

Chains move v, of which the frame makes :math:`x = m_t + L_t S v`. The log densities of u = S v and of v differ by a
constant, which is left out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from ..density.density import Density
from ..density.path import Place
from .frame import Frame, frame_at
from .kernels import Kernel, KernelState, StepInfo, init


class Level(NamedTuple):
    """A noise level, made by `level_at`; its methods concern one chain.

    Attributes:
        density, t: What is sampled, at this time.
        frame: x of the coordinates v of moves.
        step_size: Of the moves, in their coordinates.
    """

    density: Density
    t: Any
    frame: Frame
    step_size: Any = None

    def point(self, v) -> jax.Array:
        """x [*event_shape] of the coordinates v [d] of moves."""
        return self.frame.point(v, self.density.event_shape)

    def log_prob(self, v) -> jax.Array:
        """Log density of u, at v."""
        return _log_prob(self.density, self.t, self.frame, v)

    def gain(self, rng_key, before: Level, start, u) -> jax.Array:
        """Log density of u here less that of `start` at the level before, by a score along the path between them."""
        starts = (before, start), (self, u)
        places = (Place(level.point(level.frame.unscaled(u)), level.t) for level, u in starts)
        return self.density.increment(rng_key, *places) + self.frame.log_det - before.frame.log_det

    def enter(self, u, momentum, logdensity=None) -> KernelState:
        """A chain at u, for the moves of this level: one evaluation of value and gradient.

        `logdensity` is that of u here, where the density cannot tell: with a score only, it is known by `gain`.

        THE ONLY PLACE WHERE A CHAIN'S STATE BEGINS. A cached log density and gradient belong to the level they were
        computed at, so that they are computed anew at each, also where t stays and a Gibbs sibling has changed.
        Carried across, chains reject and accept against the wrong density, at healthy acceptance rates, and silently
        sample another law.
        """
        state = init(self.frame.unscaled(u), momentum, self.log_prob)
        return state if logdensity is None else state._replace(logdensity=logdensity)

    def leave(self, state: KernelState) -> KernelState:
        """The chain at u again; its gradient stays that in v."""
        return state._replace(position=self.frame.rescaled(state.position)) if self.frame.is_scaled else state

    def step(self, kernel: Kernel, rng_key, jitter_key, state: KernelState) -> tuple[KernelState, StepInfo]:
        """One step of a kernel, of random length under a preconditioner."""
        if self.frame.is_scaled:
            return kernel.jittered_step(rng_key, jitter_key, state, self.log_prob, self.step_size)
        return kernel.step(rng_key, state, self.log_prob, self.step_size)

    def move(self, kernel: Kernel, rng_key, state: KernelState, num_steps: int) -> tuple[KernelState, StepInfo]:
        """A chain after `num_steps` steps, and what they report [num_steps]."""

        def one_step(state, key):
            move_key, jitter_key = jax.random.split(key)
            return self.step(kernel, move_key, jitter_key, state)

        return jax.lax.scan(one_step, state, jax.random.split(rng_key, num_steps))


# Compiled with its callers, but traced once for all of them.
@jax.jit
def _log_prob(density: Density, t, frame, v):
    return density.log_density(frame.point(v, density.event_shape), t) + frame.log_det


def level_at(density: Density, t, frame_kind: str, step_size=None, scale=None) -> Level:
    """The level of a density at time t in a frame, with what moves there take."""
    frame = frame_at(density, t, frame_kind)
    return Level(density, t, frame if scale is None else frame.scaled(scale), step_size)
