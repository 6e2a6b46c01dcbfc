r"""Densities of vectors given a condition: what they stand on, and whether they are normalised under each.

Noise is never so large that a condition which moves the mean is forgotten, and losses see derivatives of log p alone:
over a Gaussian that does not know the condition, :math:`\log Z(c)` is whatever the network makes it. Classes therefore
stand on a Gaussian each. Where the condition is no class, Z is measured, by draws y of the data's Gaussian q,

.. math:: Z(c, r) = E_q \frac{p(y, r \mid c)}{q(y, r)} .
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ..density.energy import EnergyDensity
from ..density.gaussian import log_normal
from ..density.mixture import MixtureBase

#: Numbers that the covariances of all classes may have.
MOST_NUMBERS = 10**7
#: Conditions and draws to measure by, noise-to-signal ratios in standard deviations of the data.
NUM_CONDITIONS, NUM_DRAWS, RATIOS = 8, 2048, (20.0, 2.0)
#: Nats that are no finding, and standard errors.
MOST_NATS, SURE = 0.1, 4.0


def base_of_classes(x, conditions) -> MixtureBase | None:
    """A Gaussian for each class where conditions [n, c] are one-hot, with some points of each; else None."""
    rows, size = np.asarray(conditions, dtype=np.float64), x[0].size
    if not (np.all((rows == 0) | (rows == 1)) and np.all(rows.sum(axis=1) == 1)):
        return None
    if rows.sum(axis=0).min() < 2 or rows.shape[1] * size**2 > MOST_NUMBERS:
        return None
    return MixtureBase.fit(x, rows)


def unnormalised(density, conditions, rng_key) -> str | None:
    """What speaks against the normalisers of a density by condition; None where nothing does, or nothing is known."""
    if conditions is None or not isinstance(density, EnergyDensity) or not density.is_calibrated:
        return None
    if density.config.takes_images:
        return None
    pick_key, draw_key = jax.random.split(rng_key)
    index = np.asarray(jax.random.randint(pick_key, (NUM_CONDITIONS,), 0, len(conditions)))
    given = np.append(np.asarray(conditions, np.float32)[index], np.ones((NUM_CONDITIONS, 1), np.float32), axis=1)
    given = np.append(given, np.zeros((1, given.shape[1]), np.float32), axis=0)
    std, worst, found = float(jnp.sqrt(jnp.mean(density.eigenvalues))), MOST_NATS, None
    for level, ratio in enumerate(RATIOS):
        r = np.clip(ratio * std, *np.asarray(density.sigmas, dtype=np.float64))
        log_z, error = (np.asarray(a) for a in _log_z(density, r, jax.random.fold_in(draw_key, level), given))
        sure = np.where(np.isfinite(log_z), np.abs(log_z) - SURE * error, -np.inf)
        if sure.max() > worst:
            worst, found = sure.max(), (ratio, log_z)
    if found is None:
        return None
    ratio, log_z = found
    return (
        f"{density!r} is not normalised by condition: at noise of {ratio:g} standard deviations log Z is from "
        f"{log_z[:-1].min():.2f} to {log_z[:-1].max():.2f} nats over {NUM_CONDITIONS} conditions of the data, and "
        f"{log_z[-1]:.2f} without one. Samples of one condition are right for all that, but log densities of several "
        "cannot be compared, nor mixed: measure those that you compare, nd.recalibrate(rng_key, density.given("
        "condition)), or train a density for each."
    )


@jax.jit
def _log_z(density, r, rng_key, conditions):
    """log Z and its standard error [c + 1 conditions] at the ratio r, by draws that all share."""
    variance = density.eigenvalues + r**2
    u = jnp.sqrt(variance) * jax.random.normal(rng_key, (NUM_DRAWS, variance.size))
    y, log_q = jax.vmap(density.moments.axes.point)(u), jax.vmap(lambda u: log_normal(u, variance))(u)

    def measured(condition):
        log_weights = jax.vmap(lambda y: density.log_prob_at(y, r, condition))(y) - log_q
        log_z = jax.nn.logsumexp(log_weights) - jnp.log(NUM_DRAWS)
        return log_z, jnp.std(jnp.exp(log_weights - log_z)) / jnp.sqrt(NUM_DRAWS)

    return jax.lax.map(measured, conditions)
