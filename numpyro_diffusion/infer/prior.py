"""A density as a NumPyro distribution, and what annealing of it starts from."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from ..checks.numbers import is_traced
from ..density.abstract import check_density
from ..density.density import Density, Expression
from ..density.proper import check_proper
from ..density.schedule import check_time
from ..diagnose.result import AnnealedRun
from ..errors import ArgumentTypeError, NotKnownError, ShapeError
from ..pytree import register, replace


class DiffusionPrior(dist.Distribution):
    """A density, trained, composed or in closed form, as the distribution of a latent variable.

    Inference with NumPyro's own algorithms sees it at `t`, by default the data (t = 0); `AnnealedMCMC` and
    `AnnealedKernel` take it through all noise levels. Where the density is zero (outside a box) `log_prob` is -inf, and
    NumPyro's algorithms refuse to start there.

    Args:
        density: Any density; its event shape is the distribution's.
        t: Noise level in [0, 1] at which `log_prob` is evaluated.
        sampler: Where `sample` gets its draws from: an `AnnealedRun` of this density (draws are taken from its samples
            with replacement, by weight), or a function `(rng_key, num_samples) -> x [num_samples, *event_shape]`, both
            at t = 0; at another `t` noise is added. Closed forms (`nd.exact`) need none, and use one that is given.
        validate_args: As for every NumPyro distribution.

    Raises:
        TypeError: if `density` is not a density.
        ParameterError: if t leaves [0, 1], or the exponents of a product sum to zero or less: no probability
            distribution is left at large noise.
        ShapeError: if the draws of a run have another shape, or t is not one number.

    Example:
        >>> x = numpyro.sample("x", nd.DiffusionPrior(ring * bar))
        >>> x = numpyro.sample("x", dist.TransformedDistribution(nd.DiffusionPrior(ring), AffineTransform(loc, scale)))
    """

    #: Set by the annealer, which may follow a score that has no log density.
    by_score = False

    def __init__(self, density: Density, t=0.0, *, sampler: AnnealedRun | Callable | None = None, validate_args=None):
        check_density("nd.DiffusionPrior", density)
        check_time(t)
        if np.ndim(t):
            raise ShapeError(f"t must be one number; got shape {np.shape(t)}. Use a prior for each noise level.")
        check_proper(density)
        self.density, self.t, self.bank = density, t, None
        self.sampler: Any = sampler
        if isinstance(sampler, AnnealedRun):
            shape = sampler.samples.shape[1:]
            if shape != density.event_shape:
                raise ShapeError(f"the run's samples have event shape {shape}, the density {density.event_shape}.")
            self.bank, self.sampler = (jnp.asarray(sampler.samples), jnp.asarray(sampler.log_weights)), None
        elif sampler is not None and not callable(sampler):
            raise ArgumentTypeError(
                f"sampler must be the result of nd.anneal or a function; got {type(sampler).__name__}."
            )
        super().__init__((), density.event_shape, validate_args=validate_args)

    def __repr__(self):
        try:
            t = f"{float(self.t):.3g}"
        except TypeError:  # Traced, an array, or a placeholder in a pytree.
            t = "..."
        return f"DiffusionPrior({self.density!r}{'' if t == '0' else f', t={t}'})"

    # A fixed order: NumPyro's automatic one follows the hash seed, and would permute leaves between two processes.
    def tree_flatten(self):
        return (self.density, self.t, self.bank), (self.sampler, self.by_score, self.batch_shape, self.event_shape)

    @classmethod
    def tree_unflatten(cls, aux, children):
        self = object.__new__(cls)
        self.density, self.t, self.bank = children
        self.sampler, self.by_score, batch_shape, event_shape = aux
        self._validate_args = False
        dist.Distribution.__init__(self, batch_shape, event_shape)
        return self

    @constraints.dependent_property(is_discrete=False)  # pyright: ignore[reportArgumentType]
    def support(self):
        """The reals, with the density's event dimensions."""
        # What NumPyro compares by identity, as mixtures do, must be its own object.
        known = {1: constraints.real_vector, 2: constraints.real_matrix}
        return known.get(len(self.event_shape)) or constraints.independent(constraints.real, len(self.event_shape))

    def at(self, t) -> DiffusionPrior:
        """The same prior at noise level t, traced or not."""
        return replace(self, t=t, _validate_args=False)

    def bind(self, density: Density) -> DiffusionPrior:
        """The same prior with other weights of the same formula; a score-only density may be used, by its score."""
        return replace(self, density=density, by_score=True, _validate_args=False)

    @validate_sample
    def log_prob(self, value, intermediates=None):
        """Log density in nats of points [*batch, *event_shape] at `t`.

        Raises:
            ScoreOnlyError: for a score-only density, which nd.AnnealedMCMC can use, by its score.
        """
        if not self.by_score:
            self.density.require_log_density("nd.DiffusionPrior.log_prob")
        return self.density._batched(self.density.log_density, value, self.t, ())

    def sample(self, key: Any, sample_shape=()):
        """Draws [*sample_shape, *event_shape] at `t`; of a `sampler` those at t = 0, with noise added.

        Raises:
            TypeError: if `sample_shape` is no tuple.
            NotImplementedError: for a density that is not in closed form, where no `sampler` is attached; for a
                composition at another t than 0, whose density there is not that of noisy draws.
        """
        if not isinstance(sample_shape, tuple | list):
            raise ArgumentTypeError(f"sample_shape must be a tuple, ({sample_shape},) say; got {sample_shape!r}.")
        count, exact = math.prod(sample_shape), getattr(self.density, "sample", None)
        if self.bank is not None:
            samples, log_weights = self.bank
            draws = self._noised(key, lambda key: samples[jax.random.categorical(key, log_weights, shape=(count,))])
        elif self.sampler is not None:
            draws = self._noised(key, lambda key: self.sampler(key, count))
        elif exact is not None:
            draws = exact(key, count, self.t)
        else:
            raise NotKnownError(
                f"{self.density!r} cannot be sampled in one step. Anneal it once and attach the result: "
                "run = nd.anneal(rng_key, density, nd.HMC()); nd.DiffusionPrior(density, sampler=run). "
                "For a posterior, use nd.AnnealedMCMC."
            )
        return draws.reshape(sample_shape + self.event_shape)

    def _noised(self, key, draw):
        """What `draw` draws by a key, at `t`."""
        if not is_traced(self.t) and self.t == 0:
            return draw(key)
        if isinstance(self.density, Expression):
            raise NotKnownError(
                f"draws of {self.density!r} at noise level t > 0 are not known: a composition's density there is not "
                "that of its noisy draws. Anneal to that level: nd.anneal(rng_key, density, levels=np.linspace(1, t))."
            )
        # Split, not folded in: the latter makes keys that a sampler's own splits may make.
        draw_key, noise_key = jax.random.split(key)
        alpha, sigma = self._noise()
        draws = draw(draw_key)
        return alpha * draws + sigma * jax.random.normal(noise_key, jnp.shape(draws))

    def _noise(self):
        """The alpha and sigma that lead from t = 0 to `t`."""
        alpha, sigma = self.density.schedule.alpha, self.density.schedule.sigma
        ratio = alpha(self.t) / alpha(0.0)
        return ratio, jnp.sqrt(jnp.maximum(sigma(self.t) ** 2 - (ratio * sigma(0.0)) ** 2, 0.0))

    @property
    def mean(self):
        return self._known_moments().mean.reshape(self.event_shape)

    @property
    def variance(self):
        return jnp.diag(self._known_moments().covariance).reshape(self.event_shape)

    def _known_moments(self):
        # A composition's Gaussian is an approximation that guides annealing, not its moments.
        moments = None if isinstance(self.density, Expression) else self.density._moments()
        if moments is None:
            raise NotKnownError(f"the moments of {self.density!r} are not known. Estimate them from samples.")
        return moments if not is_traced(self.t) and self.t == 0 else moments.noised(*self._noise())


@register(data=("density",), static=("schedule", "event_shape", "name"))
class StartDensity(Density):
    """The start of a density at t = 1 (`Density.start`), itself a density to draw from; the same at every t."""

    def __init__(self, density: Density):
        self.density, self.schedule, self.event_shape, self.name = density, density.schedule, density.event_shape, None

    def log_density(self, x, t):
        return self.density.start_log_prob(x.ravel())

    def sample(self, rng_key, num_samples: int, t=1.0) -> jax.Array:
        """Exact draws [num_samples, *event_shape]."""
        draw = jax.vmap(lambda key: self.density.start(key)[0])
        return draw(jax.random.split(rng_key, num_samples)).reshape(num_samples, *self.event_shape)

    def gaussian(self, t):
        return self.density.gaussian(t)

    def with_schedule(self, schedule):
        return StartDensity(self.density.with_schedule(schedule))
