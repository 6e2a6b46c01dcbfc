r"""How the likelihood is let in as the noise falls: to a power, or wider by what x_0 may still be, given x_t.

For y = A x_0 + e with information F about x_0 and a Gaussian prior, x_0 given x_t has the mean :math:`\hat x_t` and a
covariance S_t with S_0 = 0, by which the likelihood of a view :math:`\hat x_t` is wider than the original. A power of

.. math:: \lambda(t) \propto \frac{1}{1 + f_t}, \qquad f_t = \text{largest eigenvalue of } S_t^{1/2} F S_t^{1/2},

has the same precision in the best measured direction. F is estimated from the gradients of the log likelihood at data
that the model itself generates; lambda is shifted and scaled to be exactly 0 at t = 1 and 1 at t = 0.

For a Normal likelihood, y ~ N(J x_0, s^2), the wider one is known,

.. math:: p(y \mid x_t) = N(y; J \hat x_t, s^2 I + J S_t J').

An observed Normal site therefore gets the variances s^2 + diag(J S_t J') instead of a power. Where measurements share
what is unknown, the diagonal alone would count it several times; a power

.. math:: \lambda_t = \frac{h_t}{\max(s^2 / D) + \mathrm{eig}_{max}(S_t^{1/2} J' D^{-1} J S_t^{1/2})}, \qquad
          D = s^2 + \mathrm{diag}(J S_t J'),

brings the best measured direction back to its precision; h_t lets the likelihood in at large noise, from exactly 0 at
t = 1. At t = 0 the site is unchanged. Unlike a power alone, the posterior of an unknown scale s stays smooth until
the noise is small: s^{-n} to a power, integrated over x, would favour large s, and chains would miss the small ones.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ParameterError
from .joint import JointDensity

#: Noise levels of a table of powers.
KNOTS = 128
#: Draws of the other latents over which the squared sensitivities are averaged.
LINEARISATIONS = 16


def knots(joint: JointDensity) -> jax.Array:
    """Noise-to-signal ratios [knots] of tables over the noise level."""
    low, high = joint.schedule.noise_range
    spread = float(jnp.sqrt(jnp.mean(joint.gaussian(0.0).variance)))
    return jnp.geomspace(max(low, 1e-6 * spread), high, KNOTS)


@jax.jit
def data_draws(joint: JointDensity, rng_key, draws):
    """Points [n, d] as at t = 0: draws of the start, with x from the Gaussian its prior is like there."""
    mean, variance, axes = joint.gaussian(0.0)
    noise = jax.random.normal(rng_key, draws.shape) * jnp.sqrt(variance)
    return jnp.where(joint.is_prior(), mean + jax.vmap(axes.point)(noise), draws)


def likelihood_powers(joint: JointDensity, rng_key, draws, ratios, likelihood_power=None):
    """Table [2, knots] of log noise-to-signal ratios and lambda, from points [n, d]; ParameterError beyond [0, 1]."""
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
    likelihood = jax.value_and_grad(lambda z, key: joint.call("generated", key, z))
    log_likelihoods, scores = jax.vmap(likelihood)(draws, keys)
    scores = jnp.where(joint.is_prior(), scores, 0.0)
    # Where a likelihood is zero, its gradient says nothing of how sharp it is.
    fine = jnp.all(jnp.isfinite(scores), axis=1, keepdims=True) & jnp.isfinite(log_likelihoods)[:, None]
    scores = jnp.where(fine, scores, 0.0)
    # Draws with a tiny noise scale inform without bound: no draw counts more than the median one.
    scores = scores @ axes.vectors
    whitened = scores * jnp.sqrt(variance)
    norm = jnp.linalg.norm(whitened, axis=1, keepdims=True)
    median = jnp.nanmedian(jnp.where(fine, norm, jnp.nan))
    scores = scores * jnp.minimum(1.0, median / jnp.maximum(norm, 1e-30))
    information = scores.T @ scores / jnp.maximum(fine.sum(), 1)

    def matched(r):
        root = jnp.sqrt(remaining(variance, r))
        return 1 / (1 + jnp.linalg.eigvalsh(root[:, None] * information * root)[-1])

    values = jax.vmap(matched)(ratios)
    least = values[-1]
    values = jnp.clip((values - least) / jnp.maximum(1 - least, 1e-6), 0.0, 1.0)
    # Where the likelihood says nothing about x, let it in with the noise.
    plain = 1 / (1 + ratios**2 / jnp.mean(variance))
    return jnp.stack([jnp.log(ratios), jnp.where(least < 1 - 1e-3, values, plain)])


class Widening(NamedTuple):
    """How one observed site widens with the noise.

    Attributes:
        squares: [n, d] squared sensitivities of its means to the eigen-coordinates of the priors.
        eigenvalues: [d] prior variances of these coordinates.
        powers: [2, knots] log noise-to-signal ratios, and lambda there.
    """

    squares: jax.Array
    eigenvalues: jax.Array
    powers: jax.Array

    def variance(self, r) -> jax.Array:
        """diag(J S_t J') [n] at the noise-to-signal ratio r."""
        return self.squares @ remaining(self.eigenvalues, r)


def remaining(eigenvalues, r):
    """Variances of x_0 given x_t in the eigenbasis of a Gaussian prior."""
    return eigenvalues * r**2 / (eigenvalues + r**2)


@partial(jax.jit, static_argnames="names")
def widenings(joint: JointDensity, draws, ratios, *, names: tuple[str, ...]) -> dict[str, Widening]:
    """Widenings of the named sites, from data-like points [m, d] and noise-to-signal ratios [knots]."""
    draws = draws[:LINEARISATIONS]
    _, variance, axes = joint.gaussian(0.0)

    predicted = partial(joint.call, "predicted")

    def sensitivities(z):
        jacobian = jax.jacfwd(lambda z: {name: loc for name, (loc, _) in predicted(z).items()})(z)
        return {name: jnp.where(joint.is_prior(), j, 0.0) @ axes.vectors for name, j in jacobian.items()}

    along = jax.lax.map(sensitivities, draws)
    scales = {name: jnp.median(s, 0) for name, (_, s) in jax.lax.map(predicted, draws).items()}
    # The likelihood comes in while x_hat still hardly moves.
    wide = 100 * jnp.max(variance)
    inside = wide / (wide + ratios**2)
    ramp = (inside - inside[-1]) / (1 - inside[-1])
    result = {}
    for name in names:
        squares = jnp.nan_to_num(jnp.mean(along[name] ** 2, 0))
        typical = jnp.nan_to_num(jnp.sqrt(squares)) * jnp.sign(along[name][0])
        noise = jnp.maximum(jnp.nan_to_num(scales[name], nan=1.0) ** 2, 1e-12)

        def power(r, squares=squares, typical=typical, noise=noise):
            left = remaining(variance, r)
            total = noise + squares @ left
            shared = (typical / jnp.sqrt(total)[:, None]) * jnp.sqrt(left)
            return 1 / (jnp.max(noise / total) + jnp.linalg.eigvalsh(shared.T @ shared)[-1])

        values = jnp.minimum(jax.lax.map(power, ratios), 1.0) * ramp
        result[name] = Widening(squares, variance, jnp.stack([jnp.log(ratios), values]))
    return result
