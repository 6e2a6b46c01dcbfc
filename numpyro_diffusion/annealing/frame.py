r"""The preconditioned frame: coordinates u in which a density has roughly unit scale at every noise level.

.. math:: x = m_t + L_t u, \qquad q(u, t) = p(m_t + L_t u, t) \, |\det L_t|,

with m_t and L_t the mean and symmetric square root of the covariance of the density's Gaussian approximation
(`Density.gaussian`). At t = 1 q is close to N(0, I), one step size nearly serves all levels, and going to the next
level at fixed u carries each chain along; the log determinants make that change of variables exact.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..density.abstract import gaussian_at
from ..density.axes import DenseAxes
from ..density.density import Density
from ..density.gaussian import Gaussian

FRAMES = ("whitened", "identity")


class Frame(NamedTuple):
    """x = m + L S v: the mean m of a Gaussian, the symmetric root L of its covariance, a preconditioner S.

    `root` is L S [d, d], one product a point; None along cosines, for images, where no such matrix fits. Without a
    Gaussian u is x itself, which no product rounds. `scale` is S [d, d], lower triangular; None where v is u = S v.
    `log_det` = log det L, without S, which is the same at all levels but for a constant.
    """

    gaussian: Gaussian | None
    root: jax.Array | None
    log_det: jax.Array
    scale: jax.Array | None = None

    @classmethod
    def of(cls, gaussian: Gaussian) -> Frame:
        """The frame in which a Gaussian is the standard one."""
        std = jnp.sqrt(gaussian.variance)
        is_dense = isinstance(gaussian.axes, DenseAxes)
        return cls(gaussian, gaussian.matrix_function(jnp.sqrt) if is_dense else None, jnp.sum(jnp.log(std)))

    def scaled(self, scale) -> Frame:
        """The frame with a preconditioner S [d, d]."""
        if self.gaussian is None:
            return self._replace(gaussian=Gaussian.standard(len(scale)), root=scale, scale=scale)
        assert self.root is not None  # preconditioners are dense, and so are their frames
        return self._replace(root=self.root @ scale, scale=scale)

    def point(self, v, event_shape):
        """v [d] to x [*event_shape]."""
        if self.gaussian is None:
            return v.reshape(event_shape)
        mean, variance, axes = self.gaussian
        moved = axes.point(jnp.sqrt(variance) * axes.coordinates(v)) if self.root is None else self.root @ v
        return (mean + moved).reshape(event_shape)

    def coordinates(self, x):
        """x [*event_shape] to v [d]."""
        if self.gaussian is None:
            return jnp.ravel(x)
        mean, variance, axes = self.gaussian
        return self.unscaled(axes.point(axes.coordinates(jnp.ravel(x) - mean) / jnp.sqrt(variance)))

    def gradient(self, g):
        """The gradient in x [d] of what has the gradient g [d] in v."""
        if self.gaussian is None:
            return g
        if self.scale is not None:
            g = jax.scipy.linalg.solve_triangular(self.scale, g, lower=True, trans=1)
        _, variance, axes = self.gaussian
        return axes.point(axes.coordinates(g) / jnp.sqrt(variance))

    def position(self, x):
        """x [*event_shape] to u [d]."""
        return self.rescaled(self.coordinates(x))

    @property
    def is_scaled(self) -> bool:
        """Whether there is a preconditioner."""
        return self.scale is not None

    def rescaled(self, v):
        """u = S v [d]."""
        return v if self.scale is None else self.scale @ v

    def unscaled(self, u):
        """v = S^{-1} u [d]."""
        return u if self.scale is None else jax.scipy.linalg.solve_triangular(self.scale, u, lower=True)


def frame_at(density: Density, t, frame_kind: str) -> Frame:
    """The frame of a density at time t; the kind is one of `FRAMES`, of which "identity" is x itself."""
    return Frame.of(gaussian_at(density, t)) if frame_kind == "whitened" else Frame(None, None, jnp.zeros(()))


def start(density: Density, rng_key, frame_kind: str) -> tuple[jax.Array, jax.Array]:
    """An exact draw u [d], in the frame at t = 1, of the density that chains start from, and its log density there."""
    frame = frame_at(density, 1.0, frame_kind)
    x, log_prob = density.start(rng_key)
    return frame.coordinates(x), log_prob + frame.log_det


def start_log_prob(density: Density, u, frame_kind: str) -> jax.Array:
    """Log density in u of what chains start from at t = 1."""
    frame = frame_at(density, 1.0, frame_kind)
    return density.start_log_prob(jnp.ravel(frame.point(u, density.event_shape))) + frame.log_det
