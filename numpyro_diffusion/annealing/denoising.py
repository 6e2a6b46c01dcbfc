r"""A reverse diffusion step between two levels as a proposal of known density: it keeps weights, and evidence.

In variance exploding units y = x / alpha, between ratios r and r' < r, a chain at y moves and is weighed by

.. math:: y' \sim N(y + C \nabla \log \gamma_r(y), P), \quad P = (C^{-1} + V^{-1})^{-1}, \qquad
          w = \frac{\gamma_{r'}(y') \, N(y; y', C)}{\gamma_r(y) \, N(y'; y + C \nabla \log \gamma_r(y), P)},

whose backward kernel N(y; y', C) is the noising. Any C and P are right. C is what the density's Gaussian loses of its
covariance: the noise's :math:`r^2 - r'^2` for a diffusion model and for its posteriors, half of it for the product of
two. V is the covariance of one mode at r': the inverse of the Fisher information there, which in whitened coordinates
is taken to be F, as at r (`information`); without it, that of the Gaussian. Weights of Gaussians are constant. With the
variance of a single datum for P, weights are off by hundreds of nats in 80 dimensions; with the Gaussian's covariance
alone, steps must be far shorter once modes have parted.

In coordinates q that are standard normal under the Gaussian at r', in which C = diag(c) and g is the gradient, the
proposal and the ratio of both kernels are, for z ~ N(0, I),

.. math:: q' = q + c \, g + \sqrt{c} \, R z, \quad R R' = (I + \sqrt{c} \, F \sqrt{c})^{-1}, \qquad
          \log \frac{N(q; q', C)}{N(q'; q + c g, P)} = \frac{|z|^2 - |\sqrt{c} \, g + R z|^2}{2} + \log |R|,

where the drift c g is cut down along directions whose curvature would have it overshoot. There is no division by c: a
direction that loses nothing stays where it is, in y. Points are relative to the Gaussians' means, which move, in y,
only where factors of different covariances meet.

The gradient is that which the last move at r left: a step costs no evaluation more than carrying a chain along.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..density.abstract import gaussian_at
from ..density.axes import CosineAxes
from ..density.gaussian import Gaussian
from .kernels import KernelState
from .level import Level

#: Least share of its variance that a direction must lose to count.
LITTLE = 1e-6


class Denoising(NamedTuple):
    """The step between two levels, made by `denoising`; its methods concern one chain.

    Attributes:
        before, after: The levels, with the scales of their moves.
        gaussian: Of the density at the level after.
        centre: Mean of the density's Gaussian at the level before.
        ratio: alpha at the level after over alpha there.
        turn: Orthonormal directions [d, d] of q among the Gaussian's axes, scaled to unit variance, along which C is
            diagonal; None where the axes are.
        loss: c [d].
        damping: Of the drift, [d, d]; None for none.
        factor: Lower triangular K [d, d] with R = K^{-T}, or its diagonal [d].
        shift: Of log densities of u: what a step that only rescales x leaves of them.
    """

    before: Level
    after: Level
    gaussian: Gaussian
    centre: jax.Array
    ratio: jax.Array
    turn: jax.Array | None
    loss: jax.Array
    damping: jax.Array | None
    factor: jax.Array
    shift: jax.Array

    def move(self, noise, state: KernelState) -> tuple[jax.Array, jax.Array]:
        """A chain one step on, by standard normal noise [d]: u [d], and what its log weight gains beside the density.

        That is the log ratio of both kernels, and of the volumes of u.
        """
        x = jnp.ravel(self.before.point(self.before.frame.unscaled(state.position)))
        gradient = self.before.frame.gradient(state.logdensity_grad)
        drift = jnp.sqrt(self.loss) * self._along(gradient, self._root / self.ratio)
        return self._moved(noise, x, drift if self.damping is None else self.damping @ drift)

    def move_by_score(self, noise, x, score) -> tuple[jax.Array, jax.Array]:
        """The same from x [d] by the score [d] at the level after, at `carried(x)`, for the drift P V^{-1}."""
        return self._moved(noise, x, jnp.sqrt(self.loss) / (1 + self.loss) * self._along(score, self._root))

    def carried(self, x) -> jax.Array:
        """The point [d] at the level after that x [d] becomes without a step."""
        return self.gaussian.mean + self.ratio * (x - self.centre)

    def turned(self, noise) -> jax.Array:
        """Noise [d] of points as noise for a move, which then does not depend on signs that axes have by chance."""
        return self._along(noise, 1.0)

    def _moved(self, noise, x, drift):
        q, root = self._along(self.ratio * (x - self.centre), 1 / self._root), jnp.sqrt(self.loss)
        z = jnp.where(self.loss > 0, noise, 0.0)
        drawn = self._drawn(z)
        q = q + root * (drift + drawn)
        q = q if self.turn is None else self.turn @ q
        new = self.gaussian.mean + self.gaussian.axes.point(self._root * q)
        log_ratio = 0.5 * (jnp.sum(z**2) - jnp.sum(jnp.where(self.loss > 0, drift + drawn, 0.0) ** 2)) - self._log_det
        return self.after.frame.position(new), log_ratio - self.shift

    @property
    def _root(self):
        return jnp.sqrt(self.gaussian.variance)

    def _along(self, x, scale):
        """Of x [d] the coordinates along the Gaussian's axes, scaled, and then along those of C."""
        coordinates = scale * self.gaussian.axes.coordinates(x)
        return coordinates if self.turn is None else coordinates @ self.turn

    def _drawn(self, z):
        if self.factor.ndim == 1:
            return z / self.factor
        return jax.scipy.linalg.solve_triangular(self.factor, z, lower=True, trans=1)

    @property
    def _log_det(self):
        return jnp.sum(jnp.log(self.factor if self.factor.ndim == 1 else jnp.diag(self.factor)))


def denoising(before: Level, after: Level, information=None) -> Denoising:
    """The step from a level to the next."""
    density = after.density
    schedule = density.schedule
    old, new = gaussian_at(density, before.t), gaussian_at(density, after.t)
    ratio = schedule.alpha(after.t) / schedule.alpha(before.t)
    # Below the resolution nothing changes, and so nothing moves.
    is_alive = schedule.noise_to_signal(before.t) > density.resolution * (1 + 1e-6)
    turn = None
    if isinstance(new.axes, CosineAxes):
        lost = old.variance * ratio**2 / new.variance
    else:
        across = (new.axes.vectors.T @ old.axes.vectors) * jnp.sqrt(old.variance) * ratio
        across = across / jnp.sqrt(new.variance)[:, None]
        lost, turn = jnp.linalg.eigh(across @ across.T)
    c = jnp.where(is_alive & (lost > 1 + LITTLE), lost - 1, 0.0)
    factor, damping = jnp.sqrt(1 + c), None
    if information is not None:
        carried = new.axes.vectors.T @ old.axes.vectors
        carried = jnp.sqrt(c)[:, None] * (carried if turn is None else turn.T @ carried)
        curvature = carried @ information @ carried.T
        factor = jnp.linalg.cholesky(jnp.eye(c.size) + curvature)
        # At r itself; a step of more than one over it would end beyond the mode.
        e, vectors = jnp.linalg.eigh(curvature / jnp.sqrt((1 + c)[:, None] * (1 + c)))
        damping = (vectors / jnp.maximum(e, 1.0)) @ vectors.T
    shift = after.frame.log_det - before.frame.log_det - c.size * jnp.log(ratio)
    return Denoising(before, after, new, old.mean, ratio, turn, c, damping, factor, shift)
