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
from ..errors import ParameterError

FRAMES = ("whitened", "identity")


class Frame(NamedTuple):
    """x = m + L u, with m the mean of a Gaussian and L the symmetric root of its covariance; `log_det` = log det L.

    `root` is L [d, d], one product a point; None along cosines, for images, where no such matrix fits. Without a
    Gaussian u is x itself, which no product rounds.
    """

    gaussian: Gaussian | None
    root: jax.Array | None
    log_det: jax.Array

    @classmethod
    def of(cls, gaussian: Gaussian) -> Frame:
        """The frame in which a Gaussian is the standard one."""
        std = jnp.sqrt(gaussian.variance)
        is_dense = isinstance(gaussian.axes, DenseAxes)
        return cls(gaussian, gaussian.matrix_function(jnp.sqrt) if is_dense else None, jnp.sum(jnp.log(std)))

    def scaled(self, scale) -> Frame:
        """x of v with u = S v, for a scale S [d, d]; what there is of `coordinates` and `log_det` stays that of u."""
        if self.gaussian is None:
            return self._replace(gaussian=Gaussian.standard(len(scale)), root=scale)
        assert self.root is not None  # preconditioners are dense, and so are their frames
        return self._replace(root=self.root @ scale)

    def point(self, u, event_shape):
        """u [d] to x [*event_shape]."""
        if self.gaussian is None:
            return u.reshape(event_shape)
        mean, variance, axes = self.gaussian
        moved = axes.point(jnp.sqrt(variance) * axes.coordinates(u)) if self.root is None else self.root @ u
        return (mean + moved).reshape(event_shape)

    def coordinates(self, x):
        """x [*event_shape] to u [d]."""
        if self.gaussian is None:
            return jnp.ravel(x)
        mean, variance, axes = self.gaussian
        return axes.point(axes.coordinates(jnp.ravel(x) - mean) / jnp.sqrt(variance))


def frame_at(density: Density, t, kind: str) -> Frame:
    """The frame of a density at time t; "identity" is x itself.

    Raises:
        ParameterError: if the kind is unknown.
    """
    if kind not in FRAMES:
        raise ParameterError(f"frame must be one of {FRAMES}; got {kind!r}.")
    return Frame.of(gaussian_at(density, t)) if kind == "whitened" else Frame(None, None, jnp.zeros(()))


def start(density: Density, rng_key, kind: str) -> tuple[jax.Array, jax.Array]:
    """An exact draw u [d], in the frame at t = 1, of the density that chains start from, and its log density there."""
    frame = frame_at(density, 1.0, kind)
    x, log_prob = density.start(rng_key)
    return frame.coordinates(x), log_prob + frame.log_det


def start_log_prob(density: Density, u, kind: str) -> jax.Array:
    """Log density in u of what chains start from at t = 1."""
    frame = frame_at(density, 1.0, kind)
    return density.start_log_prob(jnp.ravel(frame.point(u, density.event_shape))) + frame.log_det
