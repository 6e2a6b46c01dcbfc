r"""A NumPyro model with diffusion priors as a density at every noise level: what is annealed.

For latents x (diffusion priors) and theta (everything else, in unconstrained coordinates), and data y,

.. math::
    \gamma(x, \theta; t) = p(x, t) \; p(\theta \mid \hat x) \, |J(\theta)| \; p(y \mid \hat x, \theta)^{\lambda(t)},
    \qquad \lambda(0) = 1, \quad \lambda(1) = 0,

is an unnormalised density of one flat point whose integral at t = 0 is the evidence p(y). Its start at t = 1 is exact:
x from the Gaussian its prior is there, theta from its own distribution, which is drawn ancestrally.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.handlers import seed, substitute, trace
from numpyro.infer.util import potential_energy, unconstrain_fn

from ..density import Density, gaussian_at, register_density
from ..gaussian import Gaussian
from .handlers import Bound, noise_level
from .start import StartDensity
from .widen import widened


class Site(NamedTuple):
    """A latent's place in the flat point: its name, unconstrained shape, and whether it has a diffusion prior."""

    name: str
    shape: tuple[int, ...]
    is_prior: bool

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@register_density(
    data=("arguments", "bound", "moments", "powers", "widenings", "plates"),
    static=("model", "sites", "view", "schedule", "event_shape", "has_log_density", "is_calibrated", "name"),
)
class JointDensity(Density):
    """The joint density of a model's latents; made by `setup.joint_density`.

    Attributes:
        model: The NumPyro model; static, so that a new function compiles anew.
        arguments: Its arguments; floating-point arrays are traced.
        bound: Densities and spectra of the diffusion priors by site name.
        sites: The latents in the order of the flat point.
        moments: Mean [d] and covariance [d, d] of the ancestral draws of the other latents, zero for the priors' sites.
        powers: Likelihood power [2, knots]: noise-to-signal ratios (log) and lambda there.
        widenings: By name, how observed Normal sites are widened; they have powers of their own.
        plates: Indices of subsampled plates, drawn once.
    """

    def __init__(self, model, arguments, bound, sites, moments, powers, widenings, plates, view):
        densities = [b.density for b in bound.values()]
        self.model, self.arguments, self.bound, self.sites = model, arguments, bound, sites
        self.moments, self.powers, self.widenings = moments, powers, widenings
        self.plates, self.view = plates, view
        self.schedule = densities[0].schedule
        self.event_shape = (sum(site.size for site in sites),)
        self.has_log_density = all(d.has_log_density for d in densities)
        # Whether the integral at t = 0 is p(y), with no unknown constant of a prior in it.
        self.is_calibrated = all(d.is_calibrated for d in densities)
        self.name = getattr(model, "__name__", type(model).__name__)

    def likelihood_power(self, t) -> jax.Array:
        """lambda(t) of the observed sites that are not widened."""
        return self._power(self.powers, t)

    def _power(self, table, t):
        log_ratio = jnp.log(jnp.maximum(self.schedule.noise_to_signal(t), 1e-30))
        power = jnp.interp(log_ratio, table[0], table[1])
        # Exactly 0 and 1 at the ends, whatever the rounding.
        return jnp.where(t <= 0, 1.0, jnp.where(t >= 1, 0.0, power))

    def unravel(self, z) -> dict[str, jax.Array]:
        """Flat point [d] to unconstrained values by site."""
        parts = jnp.split(z, np.cumsum([site.size for site in self.sites])[:-1])
        return {site.name: part.reshape(site.shape) for site, part in zip(self.sites, parts, strict=True)}

    def ravel(self, values: dict[str, Any]) -> jax.Array:
        """Unconstrained values by site to the flat point [d]."""
        return jnp.concatenate([jnp.ravel(values[site.name]) for site in self.sites])

    def is_prior(self) -> jax.Array:
        """Which coordinates [d] of the flat point belong to diffusion priors."""
        return jnp.concatenate([jnp.full(site.size, site.is_prior) for site in self.sites])

    def model_at(self, t, power=None, *, bound=None, rng_key=None):
        """The model at noise level t, as a function of its arguments.

        The likelihood is that of t, or the plain one to the given power.
        """
        model = self.model
        if power is None:
            r, power = self.schedule.noise_to_signal(t), self.likelihood_power(t)
            by = {name: (w.variance(r), self._power(w.powers, t)) for name, w in self.widenings.items()}
            model = widened(model, by)
        model = seed(model, jax.random.key(0) if rng_key is None else rng_key)
        model = substitute(model, data=self.plates)
        return noise_level(model, t=t, likelihood_power=power, view=self.view, bound=bound or self.bound)

    def _log_prob(self, x, t):
        args, kwargs = self.arguments.call()
        return -potential_energy(self.model_at(t), args, kwargs, self.unravel(x))

    def start(self, rng_key):
        args, kwargs = self.arguments.call()
        sites = trace(self._start_model(rng_key)).get_trace(*args, **kwargs)
        values = {site.name: sites[site.name]["value"] for site in self.sites}
        x = self.ravel(unconstrain_fn(self._start_model(), args, kwargs, values))
        return x, self.start_log_prob(x)

    def start_log_prob(self, x):
        args, kwargs = self.arguments.call()
        return -potential_energy(self._start_model(), args, kwargs, self.unravel(x))

    def _start_model(self, rng_key=None):
        bound = {name: Bound(StartDensity(b.density), b.spectrum) for name, b in self.bound.items()}
        return self.model_at(1.0, 0.0, bound=bound, rng_key=rng_key)

    def gaussian(self, t):
        """Blocks: the prior's Gaussian for every point of a diffusion prior, the ancestral moments for the others."""
        mean, covariance = self.moments
        start = 0
        for site in self.sites:
            stop = start + site.size
            if site.is_prior:
                block = gaussian_at(self.bound[site.name].density, t)
                points = site.size // block.mean.size
                mean = mean.at[start:stop].set(jnp.tile(block.mean, points))
                repeated = jnp.kron(jnp.eye(points), block.covariance)
                covariance = covariance.at[start:stop, start:stop].set(repeated)
            start = stop
        return Gaussian(mean, covariance)

    def with_schedule(self, schedule):
        bound = {k: Bound(b.density.with_schedule(schedule), b.spectrum) for k, b in self.bound.items()}
        return JointDensity(
            self.model,
            self.arguments,
            bound,
            self.sites,
            self.moments,
            self.powers,
            self.widenings,
            self.plates,
            self.view,
        )
