"""Chains that have left: further from every factor than any of its points, or nowhere.

Metropolis steps reject their way back; where there is only a score, nothing but this tells that steps were too long.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ..density.density import Density, Expression

#: Root mean square distance from the mean, in overall standard deviations, beyond which a chain has left a factor.
FAR = 30.0


def escaped(density: Density, t, x) -> jax.Array:
    """Which chains x [N, d] are not finite, or far from every factor and from the density's own approximation at t.

    Distances are in units of the scale in all directions together: narrow ones are not missed by being off them. What
    has no Gaussian approximation is not judged.
    """
    parts = density.leaves if isinstance(density, Expression) else ()
    known = [gaussian for part in (density, *parts) if (gaussian := part.gaussian(t)) is not None]
    lost = ~jnp.all(jnp.isfinite(x), axis=1)
    far = [jnp.mean((x - g.mean) ** 2, axis=1) > FAR**2 * jnp.mean(g.variance) for g in known]
    return lost | jnp.all(jnp.stack(far), axis=0) if far else lost
