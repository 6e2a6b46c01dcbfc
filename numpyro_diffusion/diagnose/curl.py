r"""How far a score is from being the gradient of anything.

A gradient has a symmetric Jacobian J. For a random probe v with independent normal entries

.. math:: E |\tfrac12 (J - J') v|^2 = |\tfrac12 (J - J')|_F^2, \qquad
          E (|J v|^2 + |J' v|^2) / 2 = |J|_F^2,

so one product with J and one with its transpose tell the share of J that belongs to no log density. Metropolis steps
along line integrals of the score are exact where that share is zero.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from ..checks.points import as_points
from ..density.abstract import check_density
from ..density.density import Density
from ..density.schedule import check_time
from ..errors import ShapeError, check_key


def score_curl(density: Density, x, t, rng_key) -> jax.Array:
    """Relative curl of the score: the size of the antisymmetric part of its Jacobian, over that of the Jacobian.

    Args:
        density: A density with a score.
        x: Points [*batch, *event_shape] at which to look; noised data, or samples, at time t.
        t: Noise level in [0, 1], a scalar or [*batch].
        rng_key: Key of the probes, one for each point.

    Returns:
        Relative curls [*batch] in [0, 1]: 0 for the gradient of a log density, up to rounding, 1 for a pure rotation.
        One probe tells that of one point by a factor; average over points.

    Raises:
        ShapeError: if shapes do not fit.
        ParameterError: if t is outside [0, 1].

    Cost: for each point about three scores.
    """
    turning, size = _squares(density, x, t, rng_key)
    return jnp.sqrt(turning / jnp.where(size > 0, size, 1.0))


def mean_curl(density: Density, x, t, rng_key) -> float:
    """Relative curl of the score over all points, as `score_curl`: root mean squares, so that flat places count little.

    Where a density is flat, inside of a box, its Jacobian is as good as zero, and what is left of it is mostly error.
    """
    turning, size = map(jnp.sum, _squares(density, x, t, rng_key))
    return float(jnp.sqrt(turning / jnp.where(size > 0, size, 1.0)))


def _squares(density, x, t, rng_key):
    """Squared sizes [*batch] of the antisymmetric part of the Jacobian and of the Jacobian, along one probe each."""
    check_density("score_curl", density)
    x, rng_key = as_points(x, density.event_shape), check_key(rng_key)
    check_time(t)
    batch, t = x.shape[: x.ndim - len(density.event_shape)], jnp.asarray(t, dtype=x.dtype)
    if t.shape not in ((), batch):
        raise ShapeError(f"t must be a scalar or match the batch of x, {batch}; got shape {t.shape}.")
    flat = x.reshape((-1, *density.event_shape))
    times = jnp.broadcast_to(t, batch).reshape(-1)
    keys = jax.random.split(rng_key, math.prod(batch))
    return tuple(values.reshape(batch) for values in _along_probes(density, flat, times, keys))


@jax.jit
def _along_probes(density, x, times, keys):
    def along_probe(point, t, key):
        probe = jax.random.normal(key, point.shape, point.dtype)
        _, transposed = jax.vjp(lambda y: jax.grad(density.log_density)(y, t), point)
        (back,) = transposed(probe)
        # The transpose of the transpose: networks may have rules for the reverse mode alone.
        _, twice = jax.vjp(lambda v: transposed(v)[0], probe)
        (forth,) = twice(probe)
        return jnp.sum((forth - back) ** 2) / 4, (jnp.sum(back**2) + jnp.sum(forth**2)) / 2

    return jax.vmap(along_probe)(x, times, keys)
