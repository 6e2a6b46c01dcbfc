"""Many points through one log density."""

from __future__ import annotations

import jax

from .density import Density


@jax.jit
def batch_log_prob(density: Density, x: jax.Array, t) -> jax.Array:
    """Log densities [N] of x [N, *event_shape] at one t. Weights are traced: retraining compiles nothing anew."""
    return jax.vmap(lambda point: density.log_density(point, t))(x)
