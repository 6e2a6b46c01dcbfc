r"""A NumPyro model with diffusion priors as a density at every noise level: what is annealed.

For latents x (diffusion priors) and theta (everything else, in unconstrained coordinates), and data y,

.. math::
    \gamma(x, \theta; t) = p(x, t) \; p(\theta \mid \hat x) \, |J(\theta)| \; p(y \mid \hat x, \theta)^{\lambda(t)},
    \qquad \lambda(0) = 1, \quad \lambda(1) = 0,

is an unnormalised density of one flat point whose integral at t = 0 is the evidence p(y). Its start at t = 1 is exact:
x from the Gaussian its prior is there, theta from its own distribution, which is drawn ancestrally.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..density.abstract import gaussian_at
from ..density.axes import DenseAxes
from ..density.density import Density
from ..density.gaussian import Gaussian
from ..density.path import Place
from ..errors import UnsupportedModelError
from ..program import Traced, fingerprint
from ..pytree import register
from .model_call import Site, ravel, typed_key, unravel


@register(
    data=("programs", "bound", "siblings", "moments", "powers", "zeros", "widenings"),
    static=(
        "sites", "view", "version", "has_zeros", "schedule", "event_shape", "has_log_density", "is_calibrated", "name",
    ),
)  # fmt: skip
class JointDensity(Density):
    """The joint density of a model's latents; made by `setup.prepare`.

    Attributes:
        programs: What the model computed when it was traced, with all the data it read; by name, see `model_call`.
        bound: Densities and spectra of the diffusion priors by site name.
        siblings: In a Gibbs block the values of the sites that other blocks own, else None.
        sites: The latents in the order of the flat point.
        moments: Those of the ancestral draws of the other latents, uncorrelated; of no meaning for the priors' sites.
        powers: Likelihood power [2, knots]: noise-to-signal ratios (log) and lambda there.
        zeros: What stands for the zeros of every observed site, see `zeros`.
        widenings: By name, how observed Normal sites are widened; they have powers of their own.
        has_zeros: Whether the likelihood is zero at draws of the prior.
        version: Text that sets a state apart from one of another run, for programs that NumPyro compiles.
    """

    def __init__(self, name: str, bound, sites: tuple[Site, ...], view: str, moments: Gaussian):
        densities = [b.density for b in bound.values()]
        self.name, self.bound, self.sites, self.view, self.moments = name, bound, sites, view, moments
        self.programs: dict[str, Traced] = {}
        self.siblings, self.widenings, self.zeros, self.version = None, {}, {}, ""
        self.powers, self.has_zeros = jnp.zeros((2, 2)), False
        self.schedule = densities[0].schedule
        self.event_shape = (sum(site.size for site in sites),)
        self.has_log_density = all(d.has_log_density for d in densities)
        # Whether the integral at t = 0 is p(y), with no unknown constant of a prior in it.
        self.is_calibrated = all(d.is_calibrated for d in densities)

    def likelihood_power(self, t) -> jax.Array:
        """lambda(t) of the observed sites that are not widened."""
        return self._power(self.powers, t)

    def _power(self, table, t):
        log_ratio = jnp.log(jnp.maximum(self.schedule.noise_to_signal(t), 1e-30))
        power = jnp.interp(log_ratio, table[0], table[1])
        # Exactly 0 and 1 at the ends, whatever the rounding.
        return jnp.where(t <= 0, 1.0, jnp.where(t >= 1, 0.0, power))

    def widths(self, t) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Variance and power of every widened site at noise level t."""
        r = self.schedule.noise_to_signal(t)
        return {name: (w.variance(r), self._power(w.powers, t)) for name, w in self.widenings.items()}

    def unravel(self, z) -> dict[str, jax.Array]:
        """Flat point [d] to unconstrained values by site."""
        return unravel(self.sites, z)

    def ravel(self, values: dict[str, Any]) -> jax.Array:
        """Unconstrained values by site to the flat point [d]."""
        return ravel(self.sites, values)

    def is_prior(self) -> jax.Array:
        """Which coordinates [d] of the flat point belong to diffusion priors."""
        return jnp.concatenate([jnp.full(site.size, site.is_prior) for site in self.sites])

    def call(self, name: str, *args):
        """What the model's program of that name makes of further arguments."""
        return self.programs[name](self.bound, self.siblings, *args)

    def log_density(self, x, t):
        return self.call("log_prob", x, t, self.likelihood_power(t), self.widths(t))

    def _score_only(self, x) -> dict[str, tuple[Density, jax.Array]]:
        """By site, the priors that have only a score, and their points [n, *event_shape]."""
        values, scored = self.unravel(x), {k: b.density for k, b in self.bound.items() if not b.density.has_log_density}
        return {name: (density, values[name].reshape((-1, *density.event_shape))) for name, density in scored.items()}

    @property
    def has_increments(self):
        return all(prior.density.has_increments for prior in self.bound.values())

    def increment(self, rng_key, start, end):
        # Where there is only a score, the log density is zero: it gains what is known.
        total, ends = self.log_density(*end) - self.log_density(*start), self._score_only(end.x)
        for number, (name, (density, points)) in enumerate(self._score_only(start.x).items()):

            def gain(key, x, x_to, density=density):
                return density.increment(key, Place(x, start.t), Place(x_to, end.t))

            keys = jax.random.split(jax.random.fold_in(rng_key, number), len(points))
            total += jnp.sum(jax.vmap(gain)(keys, points, ends[name][1]))
        return total

    def first_log_density(self, x):
        scored = self._score_only(x).values()
        first = sum(jnp.sum(jax.vmap(density.first_log_density)(points)) for density, points in scored)
        return self.log_density(x, jnp.ones(())) + first

    def start(self, rng_key):
        x = self.call("start", typed_key(rng_key))
        return x, self.start_log_prob(x)

    def start_log_prob(self, x):
        return self.call("start_log_prob", x)

    def constrain(self, z) -> dict[str, jax.Array]:
        """Latent and deterministic sites of a flat point [d]."""
        return self.call("constrain", z)

    def gaussian(self, t):
        """Blocks: the prior's Gaussian for every point of a diffusion prior, the ancestral moments for the others."""
        (mean, variance, axes), start = self.moments, 0
        vectors = axes.vectors
        for site in self.sites:
            here = slice(start, start + site.size)
            start += site.size
            if site.is_prior:
                block = gaussian_at(self.bound[site.name].density, t)
                points = site.size // block.mean.size
                mean = mean.at[here].set(jnp.tile(block.mean, points))
                variance = variance.at[here].set(jnp.tile(block.variance, points))
                vectors = vectors.at[here, here].set(jnp.kron(jnp.eye(points), block.axes.vectors))
        return Gaussian(mean, variance, DenseAxes(vectors))

    def with_schedule(self, schedule):
        raise UnsupportedModelError(
            "the joint density of a model keeps the schedule of its priors. Convert these, inside of the model: "
            "nd.DiffusionPrior(density.with_schedule(...))."
        )

    def identity(self) -> dict[str, str]:
        programs = [self.programs[name] for name in sorted(self.programs)]
        return {
            "model": fingerprint([p.program for p in programs]) + str(self.sites),
            "data": fingerprint([p.captured for p in programs]),
            "priors": f"{[b.density for b in self.bound.values()]} {fingerprint(self.bound)}",
            "schedule": repr(self.schedule),
            "view": self.view,
            "likelihood power": fingerprint((self.powers, self.widenings)),
        }
