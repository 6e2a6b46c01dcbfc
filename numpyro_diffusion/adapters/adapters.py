"""Trained networks of any make as densities: `from_noise_prediction`, `from_velocity` and their siblings.

A network is called on one point, `fn([parameters,] x, time[, condition])`, or with `batched=True` on a batch of one, of
which `jax.vmap` makes one call of the network for many points. `density.adapted` has the formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..checks.fields import check_flag, check_instance, check_integers
from ..checks.numbers import is_traced, said
from ..checks.text import check_name
from ..density.adapted import AdaptedModel
from ..density.schedule import NoiseSchedule
from ..errors import ParameterError, ScheduleError, warn
from .check import FEWEST_DATA, check_model
from .frame import checked_points, frame_of
from .networks import network_of
from .probe import PointFunction, check_network
from .timesteps import checked_timesteps

#: Resolution of a network in continuous time that begins at no noise, in standard deviations of the data.
RESOLUTION = 0.002

ARGUMENTS = """
    Args:
        fn: The network, `(x [*event_shape], time) -> {returns}`: a function, a flax nnx module, a flax linen module
            with `parameters=variables`, an equinox module. Called `fn(parameters, x, time)` where parameters are given
            and `fn(x, time, condition)` where conditions are. Modules are put into evaluation mode, not those that a
            function of yours calls.
        event_shape: Shape of one point.
        schedule: The noise schedule that the network was trained under; `density.with_schedule` reads it under others.
        parameters: The weights, a pytree of arrays. What a function without parameters reads (closures, globals), and
            the state of an nnx module, is read when a run begins.
        timesteps: What the network is told as `time`: "time", the schedule's t in [0, 1] (the default in continuous
            time); for the K levels of a discrete schedule "integer", the nearest index 0..K-1, "fractional", the index
            as a float, "blended", the outputs at the two nearest ones, blended, or an array [K]; "sigma", "log_sigma",
            "log_snr"; "none" for a network that takes no time, an energy of which is one of data without noise; or a
            function of t.
        conditions: The condition that stands for none, an array or a class number of the shape and dtype that the
            network takes; a `jax.ShapeDtypeStruct` where it was trained without one.
        batched: Whether the network takes batches only, x [n, *event_shape], time [n], condition [n, ...].
        data_scale: Standard deviation of the data, a number or an array [*event_shape]; where annealing begins.
        data: Example points [n, *event_shape], to measure their mean and covariance instead, and to run
            `nd.check_model` on where there are enough of them: it warns of wrong conventions.
        name: Name for formulas; the function's own by default.

    Returns:
        A density{kind}.

    Raises:
        TypeError: if the network is not callable, or parameters are no arrays.
        ParameterError: if the network cannot be called like this, weights do not fit, it returns NaN at some levels,
            a discrete schedule comes without timesteps.
        ShapeError: if the network returns another shape.
        ScheduleError: for a flow network whose schedule is not the linear one.
"""


def _adapter(
    prediction: str, title: str, returns: str, kind: str = " with a score only"
) -> Callable[..., AdaptedModel]:
    """The public function for one kind of prediction."""

    def adapter(
        fn: Any,
        event_shape: tuple[int, ...],
        schedule: NoiseSchedule,
        *,
        parameters: Any = None,
        timesteps: Any = None,
        conditions: Any = None,
        batched: bool = False,
        data_scale: Any = 1.0,
        data: Any = None,
        name: str | None = None,
    ) -> AdaptedModel:
        event_shape = check_integers("event_shape", event_shape, remedy="Give the shape of one point.")
        check_instance("schedule", schedule, NoiseSchedule, remedy="Give the one the network was trained under.")
        check_flag("batched", batched)
        if prediction == "flow":
            _check_linear(schedule)
        points = checked_points(data, event_shape)
        with jax.ensure_compile_time_eval():
            moments = frame_of(event_shape, data_scale, points)
        check_name(name)
        network, timesteps = network_of(fn, parameters), checked_timesteps(timesteps, schedule)
        name = name or getattr(fn, "__name__", type(fn).__name__)
        density = adapted(
            network, prediction, schedule, timesteps, batched, _null(conditions), moments, event_shape, name
        )
        check_network(density)
        if points is not None:
            _check_on(density, points)
        return density

    adapter.__name__ = adapter.__qualname__ = f"from_{prediction}" + ("_prediction" if prediction == "noise" else "")
    adapter.__doc__ = f"{title}\n{ARGUMENTS.format(returns=returns, kind=kind)}"
    return adapter


def _check_on(density: AdaptedModel, points: np.ndarray) -> None:
    """Warn of what speaks against the model, where that can be said: of p(x) at all levels, outside of tracing."""
    is_known = density.condition is None or density.null is not None
    if is_known and not density.is_stretched and len(points) >= FEWEST_DATA and not isinstance(jnp.zeros(()), Tracer):
        for finding in check_model(density, points).findings:
            warn(f"{density!r}: {finding}")


def adapted(network, prediction, schedule, timesteps, batched, condition, moments, event_shape, name) -> AdaptedModel:
    """The density of a network and how it is called."""
    fn = PointFunction(network, schedule, timesteps, batched, () if prediction == "energy" else event_shape)
    first, _ = schedule.noise_range
    least = first or RESOLUTION * float(np.sqrt(np.mean(np.asarray(moments.variance, dtype=np.float64))))
    is_stretched = prediction == "energy" and isinstance(timesteps, str) and timesteps == "none"
    return AdaptedModel(
        fn, network.weights, condition, moments, prediction, schedule, least, is_stretched, event_shape, name
    )


def _null(conditions):
    """The condition that stands for none as an array, its layout where there is none, or None."""
    if conditions is None or isinstance(conditions, jax.ShapeDtypeStruct):
        return conditions
    if is_traced(conditions):
        raise ParameterError("conditions must be known; got a traced array. Make the density outside of jax.jit.")
    try:
        array = np.asarray(conditions)
        fine = array.dtype.kind in "iuf" or jnp.issubdtype(array.dtype, jnp.floating)
    except (TypeError, ValueError):
        fine = False
    if not fine or not np.all(np.isfinite(array.astype(np.float64))):
        raise ParameterError(
            f"conditions must be the one condition that stands for none, finite numbers; got {said(conditions)}. Give "
            "a jax.ShapeDtypeStruct of a condition where the network was trained without one."
        )
    with jax.ensure_compile_time_eval():
        return jnp.asarray(array)


def _check_linear(schedule) -> None:
    """Raise ScheduleError unless alpha + sigma = 1."""
    times = np.linspace(0.0, 1.0, 9)
    with jax.ensure_compile_time_eval():
        total = np.asarray(schedule.alpha(times)) * (1 + schedule.ratios(times))
    if not np.allclose(total, 1, atol=1e-3):
        raise ScheduleError(
            "a flow network predicts eps - x_0 on x = (1 - tau) x_0 + tau eps: signal and noise add up to one; under "
            f"{schedule} they add up to {total.min():.3g} to {total.max():.3g}. Give nd.NoiseSchedule.linear_flow(...)."
        )


from_noise_prediction = _adapter(
    "noise",
    "A network that predicts the noise eps in x = alpha x_0 + sigma eps as a density; its score is -eps / sigma.",
    "eps",
)
from_velocity = _adapter(
    "velocity",
    "A network that predicts v = alpha eps - sigma x_0 (Salimans and Ho 2022) as a density.",
    "v",
)
from_denoiser = _adapter(
    "denoiser",
    "A network that predicts the data x_0 as a density; its score is (alpha x_0 - x) / sigma^2.",
    "x_0",
)
from_flow = _adapter(
    "flow",
    "A network that predicts u = eps - x_0 in x = (1 - tau) x_0 + tau eps (rectified flow) as a density.",
    "u",
)
from_score = _adapter(
    "score",
    "A network that predicts the score grad_x log p(x, t), x in the network's own units, as a density.",
    "score",
)
from_energy = _adapter(
    "energy",
    "A network that computes an energy E, one number, as a density: log p(x, t) = -E(x, t) up to a constant of t.",
    "E []",
    " with a log density, whose normaliser is unknown",
)
