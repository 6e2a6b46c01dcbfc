r"""The rungs of a ladder: noise levels, stacked, in as little memory as moves and exchanges need.

A rung's frame is :math:`x = m + L u` and its moves take v with u = S v (see `frame`). Moves see of S no more than
:math:`L S S' L'`, and so the lower triangular R with :math:`R R' = L S S' L'` takes the place of S,

.. math:: x = m + R v, \qquad u = L^{-1} R v, \qquad v = R^{-1} L u .

Exchanges apply L along the axes of its Gaussian, which noise leaves alone: in most cases one set of axes serves all
rungs, and R is the only matrix that each has of its own.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...density.axes import Axes
from ...density.density import Density
from ...density.gaussian import Gaussian
from ..frame import Frame
from ..level import Level, level_at
from ..plan import Plan


class Scaled(NamedTuple):
    """A frame with a preconditioner that holds no matrix but `upper` R' [d, d]; L is along the axes of its Gaussian."""

    gaussian: Gaussian
    upper: jax.Array
    log_det: jax.Array

    is_scaled = True

    @classmethod
    def of(cls, frame: Frame) -> Scaled:
        """What takes the place of a frame."""
        assert frame.gaussian is not None and frame.root is not None  # it is dense
        return cls(frame.gaussian, jnp.linalg.qr(frame.root.T)[1], frame.log_det)

    def point(self, v, event_shape):
        """v [d] to x [*event_shape]."""
        return (self.gaussian.mean + v @ self.upper).reshape(event_shape)

    def unscaled(self, u):
        """u [d] to v [d]."""
        _, variance, axes = self.gaussian
        moved = axes.point(jnp.sqrt(variance) * axes.coordinates(u))
        return jax.scipy.linalg.solve_triangular(self.upper, moved, trans=1)

    def rescaled(self, v):
        """v [d] to u [d]."""
        _, variance, axes = self.gaussian
        return axes.point(axes.coordinates(v @ self.upper) / jnp.sqrt(variance))


class Rungs(NamedTuple):
    """Levels [K], without what all of them share: the density, and `axes` of their Gaussians where these are the same
    and needed at all."""

    levels: Level
    axes: Axes | None = None

    def whole(self, level: Level, density: Density) -> Level:
        """One of the levels with what is shared."""
        if self.axes is not None:
            frame: Any = level.frame
            level = level._replace(frame=frame._replace(gaussian=frame.gaussian._replace(axes=self.axes)))
        return level._replace(density=density)


def rungs(density: Density, plan: Plan, frame_kind: str) -> Rungs:
    """The levels of a plan, stacked."""
    levels: Any = _levels(density, plan, frame_kind)
    if plan.scales is None:
        return Rungs(levels)
    gaussian = levels.frame.gaussian
    first = jax.tree.map(lambda a: a[0], gaussian.axes)
    # Noise leaves axes alone, but not in products of differing ones.
    if not all(bool(jnp.all(a == b)) for a, b in zip(*map(jax.tree.leaves, (gaussian.axes, first)), strict=True)):
        return Rungs(levels)
    return Rungs(levels._replace(frame=levels.frame._replace(gaussian=gaussian._replace(axes=None))), first)


@partial(jax.jit, static_argnames="frame_kind")
def _levels(density: Density, plan: Plan, frame_kind: str) -> Level:
    def one(row: Plan):
        level = level_at(density, row.levels, frame_kind, row.step_sizes, row.scales)._replace(density=None)
        if level.frame.root is None:
            return level
        if level.frame.scale is not None:
            return level._replace(frame=Scaled.of(level.frame))
        # Of the frame, moves need the mean and the root.
        assert level.frame.gaussian is not None
        gaussian = level.frame.gaussian._replace(variance=None, axes=None)
        return level._replace(frame=level.frame._replace(gaussian=gaussian))

    return jax.vmap(one)(jax.tree.map(lambda a: jnp.asarray(a, dtype=float), plan))


def each(fn, density: Density, rungs: Rungs, *arrays, batch_size: int | None = None):
    """fn(level, *values of one replica) for all [K, G], `batch_size` replicas together."""

    def at(level, *values):
        return jax.vmap(partial(fn, rungs.whole(level, density)))(*values)

    num_rungs, num_groups = jax.tree.leaves(arrays)[0].shape[:2]
    if batch_size is None or batch_size >= num_rungs * num_groups:
        return jax.vmap(at)(rungs.levels, *arrays)
    count = max(1, batch_size // num_groups)
    return jax.lax.map(lambda row: at(*row), (rungs.levels, *arrays), batch_size=count)
