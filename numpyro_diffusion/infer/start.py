"""What annealing starts from at t = 1: every diffusion prior replaced by the Gaussian it almost is there."""

from __future__ import annotations

import jax

from ..density.density import Density
from ..pytree import register


@register(data=("density",), static=("schedule", "event_shape", "name"))
class StartDensity(Density):
    """The start of a density (`Density.start`), itself a density that can be drawn from; the same at every t."""

    def __init__(self, density: Density):
        self.density, self.schedule, self.event_shape, self.name = density, density.schedule, density.event_shape, None

    def log_density(self, x, t):
        return self.density.start_log_prob(x.ravel())

    def sample(self, rng_key, num_samples: int, t=1.0) -> jax.Array:
        """Exact draws [num_samples, *event_shape]."""
        draw = jax.vmap(lambda key: self.density.start(key)[0])
        return draw(jax.random.split(rng_key, num_samples)).reshape(num_samples, *self.event_shape)

    def gaussian(self, t):
        return self.density.gaussian(t)

    def with_schedule(self, schedule):
        return StartDensity(self.density.with_schedule(schedule))
