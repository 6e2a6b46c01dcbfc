r"""Normal likelihoods at noise level t: wider by what x_0 may still be, given x_t.

For y ~ N(J x_0, s^2) and a Gaussian prior, x_0 given x_t has the mean :math:`\hat x_t` and a covariance S_t, and so

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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.primitives import Messenger

from .handlers import is_jacobian

#: Draws of the other latents over which the squared sensitivities are averaged.
LINEARISATIONS = 16
#: Largest matrix of sensitivities; beyond it the site falls back to a power.
MOST_ENTRIES = 4_000_000


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


class widened(Messenger):
    """Widen observed Normal sites: `by` holds a variance [n] and a power for each; see `noise_level` for the power."""

    def __init__(self, fn=None, by: dict[str, tuple[Any, Any]] | None = None):
        self.by = by or {}
        super().__init__(fn)

    def process_message(self, msg):
        if msg["type"] != "sample" or msg["name"] not in self.by:
            return
        variance, power = self.by[msg["name"]]
        msg["fn"] = _wider(msg["fn"], variance.reshape(jnp.shape(msg["value"])))
        msg["infer"] = {**msg["infer"], "likelihood_power": power}


def _wider(fn: Any, variance):
    if isinstance(fn, dist.Normal):
        return dist.Normal(fn.loc, jnp.sqrt(jnp.asarray(fn.scale) ** 2 + variance))
    inner = _wider(fn.base_dist, variance)
    if isinstance(fn, dist.Independent):
        return inner.to_event(fn.reinterpreted_batch_ndims)
    return inner.mask(fn._mask) if isinstance(fn, dist.MaskedDistribution) else inner


def _normal(fn):
    """The Normal inside plates, `to_event` and masks, or None."""
    wrappers = (dist.Independent, dist.ExpandedDistribution, dist.MaskedDistribution)
    while isinstance(fn, wrappers):
        fn = fn.base_dist
    return fn if type(fn) is dist.Normal else None


def normal_parameters(site) -> tuple[jax.Array, jax.Array]:
    """Location and scale [n] of an observed Normal site."""
    normal: Any = _normal(site["fn"])
    loc, scale = (jnp.broadcast_to(v, jnp.shape(site["value"])).ravel() for v in (normal.loc, normal.scale))
    return loc, scale


def normal_sites(sites, size: int) -> tuple[str, ...]:
    """Names of the observed Normal sites of a trace that can be widened, for `size` latent dimensions."""
    return tuple(
        name
        for name, site in sites.items()
        if site["type"] == "sample" and site["is_observed"] and not is_jacobian(site)
        and _normal(site["fn"]) is not None and 0 < jnp.size(site["value"]) * size <= MOST_ENTRIES
    )  # fmt: skip


def widenings(joint, names: tuple[str, ...], draws, ratios) -> dict[str, Widening]:
    """Widenings of the named sites, from data-like points `draws` [m, d] and noise-to-signal ratios [knots]."""
    return _widenings(joint, draws[:LINEARISATIONS], ratios, names=names) if names else {}


@partial(jax.jit, static_argnames=("names",))
def _widenings(joint, draws, ratios, *, names):
    _, variance, axes = joint.gaussian(0.0)

    def predicted(z):
        return joint.call("predicted", z)

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
