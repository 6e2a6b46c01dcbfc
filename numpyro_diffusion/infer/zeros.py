r"""Likelihoods that are zero somewhere, to a power: how chains are let in where none explains the data yet.

A zero to any power is zero, so that a likelihood that is zero at nearly every start would let hardly a chain begin.
To a power :math:`\lambda` it is therefore

.. math:: p(y \mid x)^\lambda \text{ where } p > 0, \qquad q(\lambda) \, p_0^\lambda \text{ where } p = 0, \qquad
          q(\lambda) = \max(1 - \lambda, c) \, \frac{(1 - \lambda) (1 + \rho)}{1 - \lambda + \rho},

for every observation by itself: 1 at :math:`\lambda = 0`, p itself at :math:`\lambda = 1`, and in between less than the
least likelihood p_0 > 0 that draws of the prior have, by a penalty on every observation that cannot be explained. Down
to their share c among these draws it follows the power: as many chains are then on either side of the wall. There it
stays until the finest noise, where :math:`1 - \lambda = \rho`, as a chain that still crosses weighs 1 / q.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.primitives import Messenger


class Zeros(NamedTuple):
    """What stands for the zeros of one observed site.

    Attributes:
        least: log p_0.
        share: c, of the observations that draws of the prior can explain.
        finest: rho.
    """

    least: Any = 0.0
    share: Any = 0.0
    finest: Any = 0.0

    def log_penalty(self, power) -> Any:
        """log q(lambda), -inf at 1."""
        left = 1 - power
        narrow = left * (1 + self.finest) / jnp.maximum(left + self.finest, 1e-30)
        return jnp.log(jnp.maximum(left, self.share) * narrow)


class zeros(Messenger):
    """Tell observed sites what stands for their zeros: `of` holds `Zeros` by name."""

    def __init__(self, fn=None, of: dict[str, Zeros] | None = None):
        self.of = of or {}
        super().__init__(fn)

    def process_message(self, msg):
        if msg["type"] == "sample" and msg["name"] in self.of:
            msg["infer"] = {**msg["infer"], "zeros": self.of[msg["name"]]}


class ToPower(dist.MaskedDistribution):
    """The law of an observation that counts to a power in [0, 1], which its site's scale brings: not at all at 0."""

    pytree_data_fields = ("power", "zeros")

    def __init__(self, base_dist: dist.Distribution, power: Any, zeros: Zeros):
        super().__init__(base_dist, power > 0)
        self.power, self.zeros = power, zeros

    def log_prob(self, value, intermediates=None):
        """Log density; where that is -inf, what the power makes log q(power) + power * log p_0."""
        # The mask is laid over a value of the shape of the bounds, which a latent that is summed out gives more axes.
        value = jnp.broadcast_to(value, jnp.broadcast_shapes(jnp.shape(value), self.shape()))
        log_prob = super().log_prob(value, intermediates)
        power = jnp.clip(self.power, 1e-12, 1.0)
        return jnp.where(jnp.isneginf(log_prob), self.zeros.least + self.zeros.log_penalty(power) / power, log_prob)
