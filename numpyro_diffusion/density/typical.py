r"""What data look like to the energy that was trained on them, and whether a run's samples look like that.

An energy is trained where there are data; elsewhere it is an extrapolation, and may have a well far deeper than any it
was taught, a *false well*, in which every chain ends at a healthy acceptance rate. Data noised to the ratio r have log
densities of a narrow range (a Gaussian's has standard deviation :math:`\sqrt{d / 2}` nats), so the quantiles of

.. math:: \ell(r) = \log p(y_0 + r \varepsilon, r) + c(r)

by noise level tell samples from what is not: much likelier points than data are no better samples. The measured
normaliser c is left in, so that what `nd.recalibrate` changes later shifts nothing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from .energy import EnergyDensity

#: Of log densities of noised data, at so many noise levels, from so many points: of images fewer, as they cost more.
QUANTILES = (0.001, 0.01, 0.5, 0.99, 0.999)
NUM_LEVELS, NUM_POINTS, NUM_IMAGES, IMAGE_BATCH = 16, 4096, 512, 128


def typical_log_probs(density, x, conditions, rng_key) -> jax.Array | None:
    """What `nd.fit` records of an energy as its field `typical`.

    Of data x [n, *event_shape], of which a fixed number is drawn, and their conditions [n, c] or None.

    Returns:
        [1 or 2, 1 + Q, K]: log r, increasing, and below it the quantiles of log p + c: without a condition, and, where
        there are conditions, given each point's own. None if a log density is not finite, or there is none.

    Cost: 4,096 evaluations a level at 16 levels, 512 for images. Weights are traced: one program for equal shapes.
    """
    if not isinstance(density, EnergyDensity):
        return None
    count = NUM_IMAGES if density.config.takes_images else NUM_POINTS
    draw_key, noise_key = jax.random.split(rng_key)
    index = np.asarray(jax.random.randint(draw_key, (count,), 0, len(x)))
    y = np.asarray(x)[index].reshape(count, -1) - np.asarray(density.mean)
    nothing = density.no_condition
    given = [None if nothing is None else np.zeros((count, nothing.size), np.float32)]
    if conditions is not None:
        given.append(np.append(np.asarray(conditions, np.float32)[index], np.ones((count, 1), np.float32), axis=1))
    plain = density._replace(log_z=density.log_z.at[1].set(0.0), typical=None)
    low, high = np.log(np.asarray(density.sigmas, dtype=np.float64))
    log_ratios = np.linspace(low, high, NUM_LEVELS)
    table = np.array([np.vstack([log_ratios, _quantiles(plain, y, log_ratios, noise_key, c)]) for c in given])
    return jnp.asarray(table, dtype=float) if np.all(np.isfinite(table)) else None


def _quantiles(density, y, log_ratios, rng_key, condition) -> np.ndarray:
    """Quantiles [Q, K] of log p of points y [n, d] noised to each of the ratios."""
    rows = []
    for level, r in enumerate(np.exp(log_ratios)):
        log_probs = noised_log_probs(density, y, r, jax.random.fold_in(rng_key, level), condition)[1]
        rows.append(np.quantile(log_probs, QUANTILES))
    return np.transpose(rows)


def noised_log_probs(density, y, r: float, rng_key, condition) -> tuple[np.ndarray, np.ndarray]:
    """Centred points y [n, d] noised to the ratio r, and log p of these [n], given conditions [n, c + 1] or None."""
    batch = IMAGE_BATCH if density.config.takes_images else NUM_POINTS
    noisy = y + r * np.asarray(jax.random.normal(rng_key, y.shape))
    pieces = [slice(i, i + batch) for i in range(0, len(y), batch)]
    found = [_log_probs(density, noisy[s], r, None if condition is None else condition[s]) for s in pieces]
    return noisy, np.concatenate(found).astype(np.float64)


@jax.jit
def _log_probs(density, y, r, condition):
    # Not in a loop: convolutions are slow there on CPUs. A condition of None is mapped over as it is.
    return jax.vmap(lambda point, c: density.log_prob_at(point, r, c))(y, condition)
