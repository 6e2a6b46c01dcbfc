r"""Densities of vectors given a condition: what they stand on, and whether they are normalised under each.

Noise is never so large that a condition which moves the mean is forgotten, and losses see derivatives of log p alone:
over a Gaussian that does not know the condition, :math:`\log Z(c)` is whatever the network makes it. Classes therefore
stand on a Gaussian each, and numbers on one whose mean and spread follow them. The offset b knows the condition, too:
of a ring whose radius is the condition log Z(c) is from -.56 to .86 without that, from -.03 to .18 with it (3,000
steps, one seed). Z is measured all the same, by draws y of the condition's Gaussian q, widened,

.. math:: Z(c, r) = E_q \frac{p(y, r \mid c)}{q(y, r)} .
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ..density.base import Base
from ..density.energy import EnergyDensity
from ..density.mixture import MixtureBase
from ..density.regression import RegressionBase
from ..networks.config import NetworkConfig

#: Numbers that a base may have, and rows that one which follows numbers is fitted to.
MOST_NUMBERS, FEWEST = 10**7, 16
#: Conditions and draws to measure by, noise-to-signal ratios in standard deviations of the data.
NUM_CONDITIONS, NUM_DRAWS, RATIOS = 8, 2048, (20.0, 2.0, 0.5)
#: Nats that are no finding, and standard errors.
MOST_NATS, SURE = 0.1, 4.0
#: Effective draws, as a share, with less of which nothing is known.
LEAST_SHARE = 0.1
#: Variance of what is drawn, relative to that of the density's Gaussian.
WIDENED = 1.5


def base_of(x, conditions) -> Base | None:
    """What data [n, *event_shape] under conditions [n, c] stand on: None where they are too many numbers, or too few.

    A Gaussian for each class where conditions are one-hot, with some points of each; one that follows them else.
    """
    rows, size = np.asarray(conditions, dtype=np.float64), x[0].size
    if np.all((rows == 0) | (rows == 1)) and np.all(rows.sum(axis=1) == 1) and rows.sum(axis=0).min() > 1:
        return MixtureBase.fit(x, rows) if rows.shape[1] * size**2 <= MOST_NUMBERS else None
    if len(x) < FEWEST or (rows.shape[1] + size) * max(rows.shape[1], size) > MOST_NUMBERS:
        return None
    return RegressionBase.fit(x, rows)


def conditioned(network, conditions, form: str, *, is_calibrated: bool):
    """The network's configuration for conditions [n, c], or None, of a calibrated energy or something else.

    An energy of form "residual" has a height beside its point.
    """
    network = dataclasses.replace(network, condition_size=0 if conditions is None else int(conditions.shape[-1]))
    if not isinstance(network, NetworkConfig):
        return network
    return dataclasses.replace(
        network, condition_offset=is_calibrated and conditions is not None, scalar_outputs=int(form == "residual")
    )


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
    noise = jax.random.normal(rng_key, (NUM_DRAWS, density.eigenvalues.size))

    def measured(condition):
        q = density._moments(condition)
        q = q._replace(variance=WIDENED * q.variance).noised(1.0, r)
        y = jax.vmap(q.at)(noise)
        log_p = jax.vmap(lambda y: density.log_prob_at(y - density.mean, r, condition))(y)
        log_weights = log_p - jax.vmap(q.log_prob)(y)
        log_z = jax.nn.logsumexp(log_weights) - jnp.log(NUM_DRAWS)
        spread = jnp.std(jnp.exp(log_weights - log_z))
        known = 1 / (1 + spread**2) > LEAST_SHARE
        return log_z, jnp.where(known, spread / jnp.sqrt(NUM_DRAWS), jnp.inf)

    return jax.lax.map(measured, conditions)
