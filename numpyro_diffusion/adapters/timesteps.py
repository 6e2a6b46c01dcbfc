r"""What a network is told of the noise level: its time, an index into a table of levels, or a function of the noise.

At time t of the network's own schedule with K levels, t = k / (K - 1), the index k = (K - 1) t is told as it is
("fractional"), rounded ("integer"), or as the two whole numbers around it, whose outputs are blended linearly
("blended"). An array [K] says what the network is told at each level: the nearest entry of whole numbers, real ones
interpolated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.numbers import array_of, is_traced
from ..checks.text import shown
from ..density.tabulated import NoiseSchedule, TabulatedSchedule
from ..errors import ParameterError, ShapeError

INDICES = ("integer", "fractional", "blended")
TIMESTEPS = ("time", *INDICES, "sigma", "log_sigma", "log_snr", "none")


def num_levels(schedule: NoiseSchedule) -> int | None:
    """Number of levels of a discrete schedule, None for one in continuous time."""
    return schedule.num_steps if isinstance(schedule, TabulatedSchedule) and schedule.is_discrete else None


def checked_timesteps(timesteps: Any, schedule: NoiseSchedule) -> Any:
    """What `timesteps` of `nd.from_*` stands for: one of `TIMESTEPS`, an array [K] or a function.

    Raises:
        ParameterError: if it is missing for a discrete schedule, or nothing that is known, or an index without levels.
        ShapeError: if an array has not an entry for every level.
    """
    levels = num_levels(schedule)
    if timesteps is None:
        if levels is not None:
            raise ParameterError(
                f"{schedule} has {levels} discrete levels: say what the network is told of them. Give "
                "timesteps='integer' for the index 0, 1, ..., 'fractional' for the index as a float, an array "
                f"[{levels}] of what it is told at each level, or a function of t."
            )
        return "time"
    if callable(timesteps):
        return timesteps
    if isinstance(timesteps, str):
        if timesteps not in TIMESTEPS:
            raise ParameterError(
                f"timesteps must be one of {', '.join(TIMESTEPS)}, an array or a function of t; got {shown(timesteps)}."
            )
        if timesteps in INDICES and levels is None:
            raise ParameterError(
                f"timesteps={timesteps!r} counts the levels of a discrete schedule; {schedule} is in continuous time. "
                "Give timesteps='time', or the schedule as a table, nd.NoiseSchedule.from_betas(...) say."
            )
        return timesteps
    table = array_of("timesteps", timesteps, "an array [K] of real numbers. One for every level.")
    if is_traced(table):
        raise ParameterError("timesteps must be known; got a traced array. Make the density outside of jax.jit.")
    if table.ndim != 1 or len(table) < 2 or len(table) != (levels or len(table)):
        raise ShapeError(
            f"timesteps must have an entry for each level, [{levels or 'K'}]; got shape {table.shape}. Order them as "
            "the schedule's levels, from little noise to much."
        )
    if not np.all(np.isfinite(table)):
        raise ParameterError("timesteps must be finite; got NaN or infinity.")
    kind = np.asarray(timesteps).dtype.kind
    return table.astype(np.int32) if kind in "iu" else table


def told(timesteps: Any, schedule: NoiseSchedule) -> Callable[[Any, Any], list[tuple[Any, Any]]]:
    """(t, r) -> what the network is told, with weights that sum to one; nothing is told as None."""
    if callable(timesteps):
        return lambda t, r: [(jnp.asarray(timesteps(t)), 1.0)]
    if not isinstance(timesteps, str):
        return lambda t, r: [(_at(timesteps, t), 1.0)]
    if timesteps in INDICES:
        return lambda t, r: _indices(timesteps, schedule.index(t))  # pyright: ignore[reportAttributeAccessIssue]
    value = {
        "time": lambda t, r: schedule.network_time(t),
        "sigma": lambda t, r: schedule.alpha(t) * r,
        "log_sigma": lambda t, r: jnp.log(schedule.alpha(t) * r),
        "log_snr": lambda t, r: -2 * jnp.log(r),
        "none": lambda t, r: None,
    }[timesteps]
    return lambda t, r: [(value(t, r), 1.0)]


def written(timesteps: Any, schedule: NoiseSchedule) -> Any:
    """`timesteps` as a file holds it: a function as what it tells at each level, or "function" in continuous time."""
    if not callable(timesteps):
        return timesteps
    if (levels := num_levels(schedule)) is None:
        return "function"
    times = np.linspace(0.0, 1.0, levels, dtype=jnp.result_type(float))
    return np.asarray(jax.vmap(timesteps)(times))


def _at(table: np.ndarray, t):
    index = t * (len(table) - 1)
    if np.issubdtype(table.dtype, np.integer):
        return jnp.asarray(table)[jnp.round(index).astype(jnp.int32)]
    return jnp.interp(index, jnp.arange(len(table), dtype=index.dtype), jnp.asarray(table, dtype=index.dtype))


def _indices(kind: str, index) -> list[tuple[Any, Any]]:
    if kind == "fractional":
        return [(index, 1.0)]
    if kind == "integer":
        return [(jnp.round(index).astype(jnp.int32), 1.0)]
    below = jnp.floor(index)
    share = index - below
    above = jnp.where(share > 0, below + 1, below)  # there is none above the last
    return [(below.astype(jnp.int32), 1 - share), (above.astype(jnp.int32), share)]
