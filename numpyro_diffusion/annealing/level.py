r"""One noise level as chains see it: the log density they move on, in preconditioned coordinates, and their moves.

With :math:`x = m_t + L_t u` the frame's coordinates and S a lower triangular preconditioner, chains move
:math:`v = S^{-1} u`; the log densities of u and of v differ by a constant, which is left out.
"""

from __future__ import annotations

from typing import NamedTuple

import jax

from ..density.density import Density
from . import frame as frames
from .kernels import Kernel, KernelState


class LogDensity(NamedTuple):
    """v -> log q(u, t) at one level, u = scale v; see `log_density_in_frame`."""

    density: Density
    t: jax.Array
    frame: frames.Frame

    def __call__(self, v):
        return _log_prob(self, v)


# Compiled with its callers, but traced once for all of them.
@jax.jit
def _log_prob(at: LogDensity, v):
    return at.density.log_density(at.frame.point(v, at.density.event_shape), at.t) + at.frame.log_det


def log_density_in_frame(density: Density, t, frame_kind: str, scale=None) -> LogDensity:
    """The log density that chains move on at time t, of v = scale^{-1} u; without a scale [d, d], v is u."""
    frame = frames.frame_at(density, t, frame_kind)
    if scale is not None:
        assert frame.root is not None  # preconditioners are dense, and so are their frames
        frame = frame._replace(root=frame.root @ scale)
    return LogDensity(density, t, frame)


def to_scale(u, scale):
    """v = scale^{-1} u of chains [N, d], for a lower triangular scale or None."""
    return u if scale is None else jax.scipy.linalg.solve_triangular(scale, u.T, lower=True).T


def from_scale(v, scale):
    """u = scale v of chains [N, d]."""
    return v if scale is None else v @ scale.T


def jittered(rng_key, step_size, scale):
    """Step size of one move: times U(0.5, 1) under a preconditioner.

    In coordinates of unit covariance a tuned trajectory is close to half a turn (three leapfrogs of size 1): chains
    would flip between x and -x, and keep their distance from the mean, at a healthy acceptance rate.
    """
    return step_size if scale is None else step_size * jax.random.uniform(rng_key, minval=0.5, maxval=1.0)


def move(kernel: Kernel, state: KernelState, logdensity_fn, rng_key, step_size, scale, *, num_steps: int):
    """One chain after `num_steps` steps of a kernel: (state, info [num_steps])."""

    def one_step(state, key):
        move_key, jitter_key = jax.random.split(key)
        return kernel.step(move_key, state, logdensity_fn, jittered(jitter_key, step_size, scale))

    return jax.lax.scan(one_step, state, jax.random.split(rng_key, num_steps))
