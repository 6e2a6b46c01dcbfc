r"""Likelihoods that are zero somewhere, to a power: how chains are let in where none explains the data yet.

A zero to any power is zero, so that a likelihood that is zero at nearly every start would let hardly a chain begin.
To a power :math:`\lambda` it is therefore

.. math:: p(y \mid x)^\lambda \text{ where } p > 0, \qquad (1 - \lambda) \, p_0^\lambda \text{ where } p = 0,

for every observation by itself: 1 at :math:`\lambda = 0`, p itself at :math:`\lambda = 1`, and in between less than the
least likelihood p_0 > 0 that draws of the prior have, by a penalty on every observation that cannot be explained.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.primitives import Messenger


class leasts(Messenger):
    """Tell observed sites of their least likelihoods: `of` holds log p_0 by name."""

    def __init__(self, fn=None, of: dict[str, Any] | None = None):
        self.of = of or {}
        super().__init__(fn)

    def process_message(self, msg):
        if msg["type"] == "sample" and msg["name"] in self.of:
            msg["infer"] = {**msg["infer"], "least": self.of[msg["name"]]}


class ToPower(dist.MaskedDistribution):
    """The law of an observation that counts to a power in [0, 1], which its site's scale brings: not at all at 0.

    `least` is log p_0.
    """

    pytree_data_fields = ("power", "least")

    def __init__(self, base_dist: dist.Distribution, power: Any, least: Any = 0.0):
        super().__init__(base_dist, power > 0)
        self.power, self.least = power, least

    def log_prob(self, value, intermediates=None):
        """Log density; where that is -inf, what the power makes log(1 - power) + power * least."""
        log_prob = super().log_prob(value, intermediates)
        power = jnp.clip(self.power, 1e-12, 1.0)
        return jnp.where(jnp.isneginf(log_prob), self.least + jnp.log1p(-power) / power, log_prob)
