"""A user's function as a density or a factor.

What the function reads, globals, attributes, a closure, is read when it is called directly, and at the start of a run:
wherever the density is flattened, as at the door of every compiled function, it is traced into what it computes then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import ArgumentTypeError, ScheduleError, ShapeError
from ..program import Traced, indices_checked, trace
from ..pytree import register, replace
from .density import Density
from .gaussian import Gaussian
from .schedule import NoiseSchedule, VariancePreserving


@register(
    ("fn", "parameters", "moments"), ("event_shape", "schedule", "is_calibrated", "name", "origin"),
    before=lambda density: density.as_now(),
)  # fmt: skip
class FunctionDensity(Density):
    """A user's log density as a leaf; made by `as_density`."""

    def __init__(self, fn, event_shape, schedule, parameters, normalised, name, moments):
        self.fn, self.event_shape, self.schedule, self.parameters = fn, event_shape, schedule, parameters
        self.is_calibrated, self.name, self.moments, self.origin = normalised, name, moments, None

    def log_density(self, x, t):
        if self.origin is None:
            return self._call(*self._given, x, t)
        # Known under `origin`: p'(x, t') = (alpha/alpha')^d p(x alpha/alpha', t).
        there = self.origin.time(self.schedule.noise_to_signal(t))
        log_ratio = jnp.log(self.origin.alpha(there)) - jnp.log(self.schedule.alpha(t))
        jacobian = x.size * log_ratio if self.is_calibrated or self.moments is not None else 0.0
        return self._call(*self._given, x * jnp.exp(log_ratio), there) + jacobian

    @property
    def _given(self) -> tuple:
        return () if self.parameters is None else (self.parameters,)

    def _call(self, *args):
        with indices_checked():
            value = self.fn(*args)
        if jnp.shape(value) != ():
            raise ShapeError(
                f"the function of nd.as_density must return a scalar for one point; got shape {jnp.shape(value)}."
            )
        return value

    def as_now(self) -> FunctionDensity:
        """The density with its function as it computes now; itself where that has been done."""
        if isinstance(self.fn, Traced):
            return self
        x = jax.ShapeDtypeStruct(self.event_shape, jnp.result_type(float))
        return replace(self, fn=trace(self._call, *self._given, x, jax.ShapeDtypeStruct((), x.dtype)))

    def _moments(self):
        return self.moments

    def with_schedule(self, schedule):
        origin = self.origin or self.schedule
        (low, high), (new_low, new_high) = origin.noise_range, schedule.noise_range
        if new_low < low - 1e-6 or new_high > high * (1 + 1e-4):
            raise ScheduleError(
                f"{self!r} is known for noise-to-signal ratios in [{low:.4g}, {high:.4g}], but {schedule} "
                f"asks for [{new_low:.4g}, {new_high:.4g}]. Choose a schedule within that range."
            )
        return replace(self, schedule=schedule, origin=None if schedule == origin else origin)


def as_density(
    fn: Callable,
    event_shape: tuple[int, ...],
    schedule: NoiseSchedule | None = None,
    *,
    parameters: Any = None,
    mean=None,
    covariance=None,
    normalised: bool = False,
    name: str | None = None,
) -> Density:
    """Any function as a density or a factor, for instance a noise-conditional classifier log p(y | x, t).

    Args:
        fn: `(x [*event_shape], t) -> log density` in nats, or `(parameters, x, t) -> ...` when parameters are given.
        event_shape: Shape of one point.
        schedule: Noise schedule under which t is meant; variance preserving cosine by default.
        parameters: Pytree of arrays passed to `fn` as a traced argument. Weights that `fn` closes over would
            become constants of the compiled program instead.
        mean, covariance: Moments of the data distribution ([d], [d, d]) if `fn` is a density of its own. They
            set the annealing frame. A factor has none.
        normalised: Whether `fn` integrates to one at every noise level.
        name: Name for formulas; the function's own by default.

    Raises:
        TypeError: if `fn` is not callable.
        ShapeError: if only one moment is given or its shape is wrong.
    """
    if not callable(fn):
        raise ArgumentTypeError(f"nd.as_density takes a function (x, t) -> log density; got {type(fn).__name__}.")
    if not all(isinstance(n, int | np.integer) and n >= 1 for n in tuple(event_shape)):
        raise ShapeError(f"event_shape must be whole numbers >= 1; got {event_shape}.")
    event_shape = tuple(int(n) for n in event_shape)
    size = int(np.prod(event_shape, initial=1))
    moments = None
    if (mean is None) != (covariance is None):
        raise ShapeError("give both mean and covariance, or neither.")
    if mean is not None:
        mean, covariance = jnp.asarray(mean, dtype=float), jnp.asarray(covariance, dtype=float)
        if mean.shape != (size,) or covariance.shape != (size, size):
            raise ShapeError(
                f"mean and covariance must have shapes [{size}] and [{size}, {size}]; "
                f"got {mean.shape} and {covariance.shape}."
            )
        moments = Gaussian.of(mean, covariance)
    name = name or getattr(fn, "__name__", "f")
    return FunctionDensity(
        fn, event_shape, schedule or VariancePreserving.cosine(), parameters, normalised, name, moments
    )
