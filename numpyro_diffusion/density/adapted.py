r"""A network that was trained elsewhere, as a density; made by `nd.from_noise_prediction` and its siblings.

A network sees :math:`x = \alpha (x_0 + r \varepsilon)` in its own units, those of the schedule it was trained under.
What it returns is turned into the predicted noise, and that into the score at y = x / alpha:

.. math::
    \text{noise} \; \hat\varepsilon, \qquad
    \text{denoiser} \; \hat\varepsilon = (y - \hat x_0) / r, \qquad
    \text{velocity} \; v = \alpha \varepsilon - \sigma x_0, \;
        \hat\varepsilon = (\sigma x + \alpha \hat v) / (\alpha^2 + \sigma^2), \\
    \text{flow} \; u = \varepsilon - x_0, \; \hat\varepsilon = x + \alpha \hat u \text{ for } \alpha + \sigma = 1,
    \qquad \text{score} \; \hat\varepsilon = -\sigma \hat s(x), \qquad \text{energy} \; \log p(x, t) = -E(x, t),

.. math:: \nabla_y \log p(y, r) = -\hat\varepsilon / r.

(Salimans and Ho 2022, Lipman et al. 2023, Karras et al. 2022.) Any schedule reads them by the ratio r. Below the least
ratio that the network knows the density stays what it is there: that is its `resolution`.

An energy of data without noise, one that takes no time, is no diffusion model. Here it becomes wide with the noise as
Gaussian data of its mean m and covariance C would, so that it can be annealed:
:math:`\log p(y, r) = -E(m + (C / (C + r^2))^{1/2} (y - m)) + \tfrac12 \log |C / (C + r^2)|`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.numbers import is_traced
from ..errors import ParameterError, ScheduleError, ShapeError
from ..program import Traced, trace
from ..pytree import register, replace
from .abstract import ConditionalModel
from .condition import condition_of
from .density import Conditional, Density
from .energy import zero_with_gradient
from .gaussian import Gaussian
from .schedule import NoiseSchedule

PREDICTIONS = ("noise", "velocity", "denoiser", "flow", "score", "energy")


class Live(NamedTuple):
    """Weights that are read when they are needed, as they are then: of a module that may be trained further."""

    read: Callable[[], Any]


@register(
    ("fn", "parameters", "null", "moments"),
    ("prediction", "origin", "schedule", "condition", "least", "is_stretched", "event_shape", "name"),
    before=lambda density: density.as_now(),
)  # fmt: skip
class AdaptedModel(ConditionalModel, Density):
    """A network that was trained elsewhere; see the module for the formulas.

    Attributes:
        fn: `(parameters, x, t, r, *condition) -> output` of one point x in the network's units.
        parameters: The network's weights, `Live` ones, or None.
        null: The condition that stands for none, or None.
        moments: Gaussian with the data's moments.
        prediction: What the network predicts, one of `PREDICTIONS`.
        origin: The schedule that the network was trained under; `schedule` is the one that it is read under.
        condition: Shape and dtype of a condition, or None where the network takes none.
        least: The resolution.
        is_stretched: Whether it is an energy of data without noise.
    """

    is_calibrated = False
    #: No table of typical log densities.
    typical = None

    def __init__(self, fn, parameters, condition, moments, prediction, origin, least, is_stretched, event_shape, name):
        self.fn, self.parameters, self.moments = fn, parameters, moments
        # `condition` is the one that stands for none, or a shape and dtype where there is none such.
        self.null = None if isinstance(condition, jax.ShapeDtypeStruct) else condition
        self.condition = None if condition is None else jax.ShapeDtypeStruct(condition.shape, condition.dtype)
        self.prediction, self.origin, self.schedule = prediction, origin, origin
        self.least, self.is_stretched, self.event_shape, self.name = least, is_stretched, event_shape, name

    @property
    def has_log_density(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.prediction == "energy"

    @property
    def resolution(self):
        return self.least

    @property
    def condition_ndim(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return 1 if self.condition is None else len(self.condition.shape)

    @property
    def no_condition(self):
        """The condition that stands for none, or None where the network takes none.

        Raises:
            ParameterError: if the network takes conditions, but none that stands for none.
        """
        if self.condition is not None and self.null is None:
            raise ParameterError(
                f"{self!r} has no condition that stands for none, so there is no unconditional density. Use "
                "density.given(condition), or give the null condition itself, conditions=array, where the network was "
                "trained with one."
            )
        return self.null

    def given(self, condition) -> Density:
        """The conditional density p(x | condition), on the same weights; None for the unconditional one.

        Raises:
            ShapeError: if the condition has not the shape of the network's, or the network takes none.
            ParameterError: if its numbers are not finite, or no class numbers where the network takes these.
        """
        if self.condition is None:
            raise ShapeError(
                f"{self!r} takes no conditions. Give conditions=..., the one that stands for none, to nd.from_*."
            )
        if condition is None:
            self.no_condition  # noqa: B018 -- raises where there is none
            return self
        dtype, remedy = self.condition.dtype, "Give texts as the network reads them, in numbers."
        condition = condition_of(condition, self.condition, remedy)
        if is_traced(condition):
            return Conditional(self, jnp.asarray(condition, dtype=dtype), f"{self!r}|?")
        label = np.array2string(condition.astype(dtype), precision=2, threshold=16, max_line_width=200)
        with jax.ensure_compile_time_eval():
            return Conditional(self, jnp.asarray(condition, dtype=dtype), f"{self!r}|{label}")

    def as_now(self) -> AdaptedModel:
        """The density with its network as it computes now; itself where that has been done."""
        if isinstance(self.fn, Traced):
            return self
        x, number = (jax.ShapeDtypeStruct(shape, jnp.result_type(float)) for shape in (self.event_shape, ()))
        condition = () if self.condition is None else (self.condition,)
        weights = self.weights
        return replace(self, fn=trace(self.fn, weights, x, number, number, *condition), parameters=weights)

    @property
    def weights(self):
        """The parameters as they are now."""
        return self.parameters.read() if isinstance(self.parameters, Live) else self.parameters

    def output(self, y, r, condition=None):
        """(x in the network's units, alpha, what the network returns) at y = x / alpha and noise-to-signal ratio r."""
        t = self.origin.time(r)
        alpha = self.origin.alpha(t)
        given = () if self.condition is None else (self.no_condition if condition is None else condition,)
        x = alpha * y
        return x, alpha, jnp.asarray(self.fn(self.weights, x, t, r, *given), dtype=y.dtype)

    def predicted_noise(self, y, r, condition=None) -> jax.Array:
        """The noise eps in y = x_0 + r eps that the network finds, as an array like y [*event_shape].

        Args:
            y: A point in variance exploding units, x / alpha.
            r: Noise-to-signal ratio; below the resolution the network is asked at the resolution.
            condition: The condition, or None for none.
        """
        r = jnp.maximum(r, self.least)
        if self.prediction == "energy":
            return -r * jax.grad(self._log_prob_at)(y, r, condition)
        x, alpha, output = self.output(y, r, condition)
        sigma = alpha * r
        if self.prediction == "denoiser":
            return (y - output) / r
        if self.prediction == "velocity":
            return (sigma * x + alpha * output) / (alpha**2 + sigma**2)
        if self.prediction == "flow":
            return x + alpha * output
        return -sigma * output if self.prediction == "score" else output

    def _log_prob_at(self, y, r, condition=None):
        """log p(y, r), of an energy."""
        log_scale = 0.0
        if self.is_stretched:
            mean, variance, axes = self.moments
            share = variance / (variance + r**2)
            shrunk = axes.point(jnp.sqrt(share) * axes.coordinates(jnp.ravel(y) - mean))
            y, r, log_scale = (mean + shrunk).reshape(y.shape), self.least, 0.5 * jnp.sum(jnp.log(share))
        _, alpha, energy = self.output(y, r, condition)
        return y.size * jnp.log(alpha) + log_scale - energy

    def log_density(self, x, t, condition=None):
        alpha = self.schedule.alpha(t)
        y, r = x / alpha, jnp.maximum(self.schedule.noise_to_signal(t), self.least)
        if self.has_log_density:
            return self._log_prob_at(y, r, condition) - x.size * jnp.log(alpha)
        score = -self.predicted_noise(y, r, condition) / (r * alpha)
        return zero_with_gradient(x, score)

    def _moments(self, condition=None):
        return self.moments

    def gaussian(self, t, condition=None) -> Gaussian | None:
        alpha = self.schedule.alpha(t)
        return self.moments.noised(alpha, jnp.maximum(self.schedule.sigma(t), alpha * self.least))

    def with_schedule(self, schedule: NoiseSchedule) -> AdaptedModel:
        (_, known), (_, asked) = self.origin.noise_range, schedule.noise_range
        if asked > known * (1 + 1e-4) and not self.is_stretched:
            raise ScheduleError(
                f"{self!r} was trained for noise-to-signal ratios up to {known:.4g}, but {schedule} asks for "
                f"{asked:.4g}. Read it under one that ends there, nd.VariancePreserving.cosine({known:.4g}) say, and "
                "the others of the formula with it."
            )
        return replace(self, schedule=schedule)

    def _replace(self, **changes):
        return replace(self, **changes)
