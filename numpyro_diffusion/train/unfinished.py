r"""Whether a calibrated density is visibly not trained yet: its log densities beside those of the smoothed data.

Data x_1 .. x_m, noised to the ratio r, have the law :math:`p_r = \frac1m \sum_i N(y; x_i, r^2 I)`. At its draws y, of
x_i each, the mean log density of whatever is normalised is at most that of p_r itself (Gibbs), and training that has
done anything beats p_r without the very point that y comes from, which is what one would draw by hand:

.. math:: E \log p_r^{(-i)}(y) \;\le\; E \log p(y, r) \;\le\; E \log p_r(y) .

In few dimensions both ends are close to each other and to the truth; in many they are far apart, and say nothing. With
conditions the data are those of the same condition.
"""

from __future__ import annotations

import jax
import numpy as np
from scipy.special import logsumexp

from ..density.energy import EnergyDensity
from ..density.typical import NUM_POINTS, noised_log_probs

#: Noise-to-signal ratios, in standard deviations of the data, at which to look; and data, and points of them.
RATIOS, NUM_DATA, NUM_DRAWS = (0.1, 0.2, 0.4, 0.8, 1.6), 2048, 512
#: Nats beyond the ends, per dimension, that are no finding; at least those of two. And standard errors of the mean.
MOST_NATS, MOST_ERRORS = 0.03, 3.0


def unfinished(density, x, conditions, rng_key) -> str | None:
    """What speaks against a density that was trained on x [n, *event_shape] and their conditions [n, c] or None.

    None where nothing does, and of what has no calibrated log density, or is of images.

    Cost: 5 x 4,096 evaluations.
    """
    if not isinstance(density, EnergyDensity) or not density.is_calibrated or density.config.takes_images:
        return None
    data_key, noise_key = jax.random.split(rng_key)
    index = np.asarray(jax.random.permutation(data_key, len(x)))[:NUM_DATA]
    y = np.asarray(x)[index].reshape(len(index), -1) - np.asarray(density.mean)
    given, alike = None, np.ones((1, len(y)), bool)
    source = np.resize(np.arange(len(y)), NUM_POINTS)  # as many as other looks have: one program
    if conditions is not None:
        known = np.asarray(conditions, np.float32)[index]
        given = np.append(known, np.ones((len(y), 1), np.float32), axis=1)[source]
        alike = np.all(known[source[:NUM_DRAWS], None] == known, axis=2)
    std, most = np.sqrt(np.mean(np.var(y, axis=0))), MOST_NATS * max(y.shape[1], 2)
    worst, finding = most, None
    for level, ratio in enumerate(RATIOS):
        r = ratio * std
        if not density.sigmas[0] <= r <= density.sigmas[1]:
            continue
        noisy, log_probs = noised_log_probs(density, y[source], r, jax.random.fold_in(noise_key, level), given)
        noisy, own = noisy[:NUM_DRAWS], log_probs[:NUM_DRAWS]
        with_own, without = _smoothed(noisy, y, r, source[:NUM_DRAWS], alike)
        for gap, how in ((without - own, "below"), (own - with_own, "above")):
            with np.errstate(invalid="ignore"):  # of data whose condition no other has
                off = np.mean(gap) - MOST_ERRORS * np.std(gap) / np.sqrt(len(gap))
            if off > worst:
                worst, finding = (
                    off,
                    (
                        f"at noise of {ratio:g} standard deviations its mean log density at the data is "
                        f"{np.mean(own):.3g} nats, {np.mean(gap):.2g} {how} that of the data smoothed alike "
                        f"(up to {most:.2g} are no fault)"
                    ),
                )
    return finding and (
        f"{density!r} is not trained yet: {finding}. Train longer, training=nd.TrainingConfig(num_steps=...), or see "
        "whether learning_rate, batch_size and network suit the data."
    )


def _smoothed(points, data, r, source, alike):
    """log p_r at points [k, d] that come from data[source], with and without those, of the data that are `alike`."""
    squares = np.sum(points**2, 1)[:, None] - 2 * points @ data.T + np.sum(data**2, 1)
    log_kernel = np.where(alike, -0.5 * squares / r**2, -np.inf)
    constant = 0.5 * data.shape[1] * np.log(2 * np.pi * r**2)
    count = np.sum(np.broadcast_to(alike, squares.shape), axis=1)
    with_own = logsumexp(log_kernel, axis=1) - np.log(count) - constant
    log_kernel[np.arange(len(points)), source] = -np.inf
    return with_own, logsumexp(log_kernel, axis=1) - np.log(np.maximum(count - 1, 1)) - constant
