r"""How far the likelihood is let in at each noise level.

For y = A x_0 + e with information F about x_0 and a Gaussian prior, the likelihood of a view :math:`\hat x_t` is the
original one widened by what x_0 may still be given x_t, a covariance S_t with S_0 = 0. A power of

.. math:: \lambda(t) \propto \frac{1}{1 + f_t}, \qquad f_t = \text{largest eigenvalue of } S_t^{1/2} F S_t^{1/2},

has the same precision in the best measured direction. F is estimated from the gradients of the log likelihood at data
that the model itself generates; lambda is shifted and scaled to be exactly 0 at t = 1 and 1 at t = 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ParameterError
from .joint import JointDensity

KNOTS = 128


def knots(joint: JointDensity) -> jax.Array:
    """Noise-to-signal ratios [knots] of tables over the noise level."""
    low, high = joint.schedule.noise_range
    spread = float(jnp.sqrt(jnp.mean(joint.gaussian(0.0).variance)))
    return jnp.geomspace(max(low, 1e-6 * spread), high, KNOTS)


@jax.jit
def data_draws(joint: JointDensity, rng_key, draws):
    """Points [n, d] as at t = 0: draws of the start, with x from the Gaussian its prior is like there."""
    noise = jax.random.normal(rng_key, draws.shape)
    return jnp.where(joint.is_prior(), jax.vmap(joint.gaussian(0.0).at)(noise), draws)


def likelihood_powers(joint: JointDensity, rng_key, draws, ratios, likelihood_power=None):
    """Table [2, knots] of log noise-to-signal ratios and lambda there, from data-like points [n, d].

    Raises:
        ParameterError: if a given function leaves [0, 1].
    """
    if likelihood_power is None:
        return _matched_powers(joint, rng_key, draws, ratios)
    values = np.asarray([float(likelihood_power(float(t))) for t in joint.schedule.time(ratios)])
    if not (np.all(np.isfinite(values)) and np.all((values >= 0) & (values <= 1))):
        raise ParameterError(f"likelihood_power must map t to [0, 1]; got {values.min()} to {values.max()}.")
    return jnp.stack([jnp.log(ratios), jnp.asarray(values, dtype=float)])


@jax.jit
def _matched_powers(joint, rng_key, draws, ratios):
    """lambda(t) of the module, at the knots."""
    _, variance, axes = joint.gaussian(0.0)
    keys = jax.random.split(rng_key, len(draws))
    # Gradients of the log likelihood of data generated at each draw, at t = 0.
    scores = jax.vmap(lambda key, z: jax.grad(lambda z: joint.call("generated", key, z))(z))(keys, draws)
    scores = jnp.where(joint.is_prior(), scores, 0.0)
    fine = jnp.all(jnp.isfinite(scores), axis=1, keepdims=True)
    scores = jnp.where(fine, scores, 0.0)
    # Draws with a tiny noise scale inform without bound: no draw counts more than the median one.
    scores = scores @ axes.vectors
    whitened = scores * jnp.sqrt(variance)
    norm = jnp.linalg.norm(whitened, axis=1, keepdims=True)
    median = jnp.nanmedian(jnp.where(fine, norm, jnp.nan))
    scores = scores * jnp.minimum(1.0, median / jnp.maximum(norm, 1e-30))
    information = scores.T @ scores / jnp.maximum(fine.sum(), 1)

    def matched(r):
        root = jnp.sqrt(variance * r**2 / (variance + r**2))
        return 1 / (1 + jnp.linalg.eigvalsh(root[:, None] * information * root)[-1])

    values = jax.vmap(matched)(ratios)
    least = values[-1]
    values = jnp.clip((values - least) / jnp.maximum(1 - least, 1e-6), 0.0, 1.0)
    # Where the likelihood says nothing about x, let it in with the noise.
    plain = 1 / (1 + ratios**2 / jnp.mean(variance))
    return jnp.stack([jnp.log(ratios), jnp.where(least < 1 - 1e-3, values, plain)])
