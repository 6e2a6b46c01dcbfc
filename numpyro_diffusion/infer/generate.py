"""Data that a model itself generates, in place of those it has observed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from numpyro.primitives import Messenger


class generated(Messenger):
    """Replace observed values by draws of their distributions; factors stay what they are."""

    def __init__(self, fn=None, *, rng_key):
        self.rng_key = rng_key
        super().__init__(fn)

    def process_message(self, msg):
        if msg["type"] == "sample" and msg["is_observed"] and msg["fn"].event_shape != (0,):
            self.rng_key, key = jax.random.split(self.rng_key)
            shape = jnp.shape(msg["value"])[: jnp.ndim(msg["value"]) - len(msg["fn"].shape())]
            msg["value"] = jax.lax.stop_gradient(msg["fn"].sample(key, shape))
