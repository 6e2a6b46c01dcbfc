r"""Trained networks as densities: energy densities, calibrated or as in the paper, and score-only models.

All are written in variance exploding units y = x / alpha_t at the noise-to-signal ratio r = sigma_t / alpha_t, and read
under their schedule by log p(x, t) = log p(y, r) - d log alpha_t. With the data's mean mu and covariance
C = V Lambda V', preconditioned u = (Lambda + r^2)^{-1/2} V'(y - mu), and s^2 = tr C / d,

.. math::
    \log p(y, r) = \log N(y; \mu, C + r^2 I)
                   + \frac{s^2}{r^2 + s^2} \left[ b(r) - \frac{s}{r} E(u, r) \right] - c(r)

is the *calibrated* form. The Gaussian base is exact at large noise, where the bracket is switched off; the
offset b lets a bounded energy reach the height of a concentrated density; c is the measured log normaliser
(`numpyro_diffusion.recalibrate`), zero until measured. A Gaussian mixture can stand in for N(mu, C + r^2 I), with
weights that follow the condition (`mixture.MixtureBase`); then V = I, Lambda the variances, and c may differ by class.
Or mu, C, and with them u and s, are those given a condition of numbers (`regression.RegressionBase`).
The energy E is one of

    l2             E = |f|^2 / 2                  dae            E = |u - f|^2 / 2
    inner_product  E = u . f                      potential      E = -(r / s) phi(x, r)
    residual       E = (r / s) (g u . f + g^2 |f|^2 / 2) + h^2 / 2

of a network f(u, log r), with one output h more for "residual" of vectors, or of a bounded potential phi
(`networks.patches`). For images the axes V are cosines
(`axes`), U-Nets see z = (y - mu) / sqrt(r^2 + s^2) in place of u, in E and in f, and the factor before the bracket is
one: a condition moves the mean, which the base does not know. "residual" completes the square: with that factor log p
is -|u + g f|^2 / 2 and terms of r alone (of images f is taken in cosines), g^2 = s^2 / (r (r + s)). At f = 0 it is the
Gaussian and has the gradients of an inner product, and it is bounded above, by what a set of codimension d reaches; the
height h lets isolated modes lie at different ones: without it, their shares of a mixture in 30 dimensions were wrong by
factors of ten. The *uncalibrated* form is that of Du et al. (2023), with neither base nor offset, and so without a
known normaliser: log p = -(sqrt(r^2 + s^2) / r) E(u, r).

The score-only model is s(y, r) = grad log N(y; mu, C + r^2 I) + s / (r sqrt(r^2 + s^2)) f, the preconditioning of
Karras et al. (2022).
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ..checks.numbers import constant, is_traced
from ..errors import ParameterError, ShapeError
from ..networks.config import NetworkConfig, PatchConfig, UNetConfig
from ..pytree import register, replace
from .abstract import ConditionalModel
from .base import Base, check_base
from .condition import condition_of
from .density import Conditional, Density
from .gaussian import Gaussian, log_normal
from .mixture import MixtureBase
from .regression import RegressionBase
from .schedule import NoiseSchedule

__all__ = ["EnergyDensity", "NetworkConfig", "PatchConfig", "ScoreModel", "UNetConfig"]

PARAMETERISATIONS = ("l2", "dae", "inner_product", "residual")
NORMALISER_KNOTS = 64


@dataclasses.dataclass(eq=False, repr=False)
class _NetworkDensity(ConditionalModel, Density):
    """What energy densities and score models share: network, units, base Gaussian, and conditions.

    A condition [c + 1] ends in whether there is one.
    """

    _data = ("state", "moments", "sigmas", "log_z", "base", "class_log_z", "typical")
    _static = ("graphdef", "config", "parameterisation", "is_calibrated", "schedule", "event_shape", "name")

    graphdef: Any
    state: Any
    config: Any
    event_shape: tuple[int, ...]
    schedule: NoiseSchedule
    parameterisation: str
    #: The data's Gaussian: mu, and Lambda along the axes V.
    moments: Gaussian
    #: Range of noise-to-signal ratios.
    sigmas: Any
    is_calibrated: bool = False
    base: Base | None = None
    #: Measured log normaliser, knots in log r and values, and what that of each class has more; zero until measured.
    log_z: Any = None
    class_log_z: jax.Array | None = None
    #: Quantiles of log densities of noised data by noise level, or None where unknown; see `typical`.
    typical: jax.Array | None = None
    name: str | None = None

    def __post_init__(self):
        check_base(self)
        if self.log_z is None:
            knots = jnp.linspace(jnp.log(self.sigmas[0]), jnp.log(self.sigmas[1]), NORMALISER_KNOTS)
            self.log_z = jnp.stack([knots, jnp.zeros_like(knots)])

    @classmethod
    def fresh(cls, rng_key, config, event_shape, **fields):
        """With weights drawn by a key; `fields` are the other ones of the class."""
        graphdef, state = config.build(math.prod(event_shape), rng_key)
        return cls(graphdef, state, config, tuple(event_shape), **fields)

    @property
    def no_condition(self) -> jax.Array | None:
        """What stands for none: zeros [c + 1], or None where the network takes none."""
        return constant(np.zeros(self.config.condition_size + 1)) if self.config.condition_size else None

    def given(self, condition) -> Density:
        """The density p(x | condition) given a vector [c] or, where the network reads them, a caption; None for none.

        Raises:
            ShapeError: if the condition's length is not the network's, or the network takes none.
            ParameterError: if its numbers are not finite, or the base is a mixture and they name no class of it; as
                TextError for captions.
        """
        size, text = self.config.condition_size, self.config.text
        if size == 0:
            raise ShapeError(f"{self!r} was trained without conditions. Train with nd.fit(..., conditions=...).")
        if condition is None:
            return self
        if text is not None and not is_traced(condition):
            return Conditional(self, *text.condition(condition, f"{self!r}|"))
        condition = condition_of(condition, jax.ShapeDtypeStruct((size,), float), "Captions need UNetConfig(text=...).")
        if is_traced(condition):
            return Conditional(self, jnp.append(condition, 1.0), f"{self!r}|?")
        has_classes = isinstance(self.base, MixtureBase) and self.base.condition_size
        if has_classes and not (min(condition) >= 0 and sum(condition) > 0):
            raise ParameterError(
                f"a condition must weigh the classes of the mixture base, with weights >= 0; got {condition}. "
                "Give a one-hot vector, or None for no condition."
            )
        label = np.array2string(condition, precision=2, threshold=16, max_line_width=200)
        return Conditional(self, constant(np.append(condition, 1.0)), f"{self!r}|{label}")

    def with_schedule(self, schedule):
        return self._replace(schedule=schedule)

    def _replace(self, **changes):
        return replace(self, **changes)

    mean = property(lambda self: self.moments.mean, doc="mu [d].")
    eigenvalues = property(lambda self: self.moments.variance, doc="Lambda [d].")
    eigenvectors = property(
        lambda self: None if self.config.takes_images else self.moments.axes.vectors, doc="V [d, d]; None for cosines."
    )

    @property
    def resolution(self):
        # In NumPy where it can be: the caller may be traced.
        return self.sigmas[0] if is_traced(self.sigmas) else float(np.asarray(self.sigmas)[0])

    def _moments(self, condition=None):
        # Of the condition: a class has a mean and a covariance of its own, and the frame of annealing follows.
        return self.base.moments(condition) if isinstance(self.base, MixtureBase) else self._axes_seen(condition)

    def gaussian(self, t, condition=None):
        # Below the trained range the density stays what it is, and so does its frame: levels there would be wasted.
        alpha = self.schedule.alpha(t)
        return self._moments(condition).noised(alpha, jnp.maximum(self.schedule.sigma(t), alpha * self.sigmas[0]))

    def _units(self, x, t):
        """(y - mu, r clipped to the trained range below, log alpha)."""
        alpha = self.schedule.alpha(t)
        r = jnp.maximum(self.schedule.noise_to_signal(t), self.sigmas[0])
        return jnp.ravel(x) / alpha - self.mean, r, jnp.log(alpha)

    def _log_r(self, r):
        return jnp.clip(jnp.log(r), jnp.log(self.sigmas[0]), jnp.log(self.sigmas[1]))

    def _network(self, y, r, condition=None):
        """(What the network sees of centred y, and what it makes of it), both [d]."""
        if self.config.takes_images:
            seen = y / jnp.sqrt(r**2 + self._scale() ** 2)
        else:
            gaussian = self._axes_seen(condition)
            seen = gaussian.axes.coordinates(y - (gaussian.mean - self.mean)) / jnp.sqrt(gaussian.variance + r**2)
        modules = nnx.merge(self.graphdef, self.state)
        return seen, modules["network"](seen, self._log_r(r) / 4, self._condition_seen(condition))

    def _condition_seen(self, condition):
        """What the network sees of a condition [c + 1] or None: numbers that a base follows are standardised."""
        if condition is None or not isinstance(self.base, RegressionBase):
            return self.no_condition if condition is None else condition
        return jnp.append(condition[-1] * self.base.standard(condition[:-1]), condition[-1])

    def _axes_seen(self, condition=None):
        """The Gaussian that vectors are preconditioned by: the data's, or one that follows the condition."""
        if condition is None or not isinstance(self.base, RegressionBase):
            return self.moments
        given = self.base.moments(condition[:-1])
        return jax.tree.map(lambda a, b: jnp.where(condition[-1] > 0, a, b), given, self.moments)

    def _scale(self):
        return jnp.sqrt(jnp.mean(self.eigenvalues))


@register(_NetworkDensity._data, _NetworkDensity._static)
class EnergyDensity(_NetworkDensity):
    """A trained energy as a log density; see the module for the formula. Made by `fit` or `load`.

    `parameterisation` is one of "l2", "dae", "inner_product", "residual". `calibrated` adds the Gaussian base and
    the offset; with the calibrated losses the result is normalised at every noise level.
    """

    def log_density(self, x, t, condition=None):
        y, r, log_alpha = self._units(x, t)
        return self.log_prob_at(y, r, condition) - y.size * log_alpha

    def log_prob_at(self, y, r, condition=None):
        """log p(y, r) of centred y = x / alpha - mu [d] at noise-to-signal ratio r."""
        gaussian, modules = self._axes_seen(condition), nnx.merge(self.graphdef, self.state)
        s = jnp.sqrt(jnp.mean(gaussian.variance))
        if self.parameterisation == "potential":
            energy = -r / s * modules["network"](y + self.mean, r, self._log_r(r) / 4)
        else:
            energy = self._energy(y, r, s, condition)
        at_knots = partial(jnp.interp, jnp.log(r), self.log_z[0])
        log_z = at_knots(self.log_z[1])
        if not self.is_calibrated:
            return -jnp.sqrt(r**2 + s**2) / r * energy - log_z
        if not isinstance(self.base, MixtureBase):
            z = gaussian.axes.coordinates(y - (gaussian.mean - self.mean))
            base = log_normal(z, gaussian.variance + r**2)
        else:
            class_log_z = None if self.class_log_z is None else jax.vmap(at_knots)(self.class_log_z)
            base = self.base.log_prob(y + self.mean, r, condition, class_log_z)
        offset_at = partial(modules["offset"], condition=self._condition_seen(condition))
        offset = offset_at(self._log_r(r) / 4) - offset_at(jnp.log(self.sigmas[1]) / 4)
        # Where a condition moves the mean, a base that does not know it is never exact, however large the noise.
        share = 1.0 if self.config.takes_images else s**2 / (r**2 + s**2)
        return base + share * (y.size * offset - s / r * energy) - log_z

    def _energy(self, y, r, s, condition):
        seen, f = self._network(y, r, condition)
        if self.parameterisation == "l2":
            return 0.5 * jnp.sum(f**2)
        if self.parameterisation == "dae":
            return 0.5 * jnp.sum((seen - f) ** 2)
        if self.parameterisation == "inner_product":
            return jnp.sum(seen * f)
        height = f[y.size :]
        if self.config.takes_images:
            to_axes = self.moments.axes.coordinates
            u, f = to_axes(y) / jnp.sqrt(self.eigenvalues + r**2), to_axes(f)
        else:
            u, f = seen, f[: y.size]
        change = s / jnp.sqrt(r * (r + s)) * f
        return r / s * jnp.sum(u * change + 0.5 * change**2) + 0.5 * jnp.sum(height**2)


@register(_NetworkDensity._data, _NetworkDensity._static)
class ScoreModel(_NetworkDensity):
    """A trained score without a log density at a point: what it gains along paths is known, see `path`."""

    has_log_density = False

    def log_density(self, x, t, condition=None):
        # A function whose gradient is the score and whose value is zero: linear algebra of scores follows by itself.
        y, r, log_alpha = self._units(x, t)
        score = (self.score_at(y, r, condition) / jnp.exp(log_alpha)).reshape(self.event_shape)
        return zero_with_gradient(x, score)

    def score_at(self, y, r, condition=None):
        """Score of p(y, r) with respect to centred y [d] at noise-to-signal ratio r."""
        s, axes = self._scale(), self.moments.axes
        prior = -axes.point(axes.coordinates(y) / (self.eigenvalues + r**2))
        _, f = self._network(y, r, condition)
        return prior + s / (r * jnp.sqrt(r**2 + s**2)) * (f if self.config.takes_images else axes.point(f))


def is_energy(density: Density) -> bool:
    """Whether a density is a trained energy, under a condition or not."""
    return isinstance(density.model if isinstance(density, Conditional) else density, EnergyDensity)


def _zero(x, gradient):
    # Computed from both, so that under vmap the value is batched wherever the gradient is.
    return jnp.sum(0 * x) + jnp.sum(0 * gradient)


#: Zero, whose gradient with respect to x is `gradient`; that can be differentiated in turn, for divergences and curls.
zero_with_gradient = jax.custom_vjp(_zero)
# None: nothing flows back through the gradient itself, not even a backward pass of zeros.
zero_with_gradient.defvjp(
    lambda x, gradient: (_zero(x, gradient), gradient), lambda gradient, cotangent: (cotangent * gradient, None)
)
