r"""What every noise schedule offers: scales of signal and noise at time t, and times of given ratios.

.. math:: x_t = \alpha_t x_0 + \sigma_t \varepsilon, \qquad \varepsilon \sim N(0, I), \quad t \in [0, 1].

Noise grows with t: t = 0 is data, t = 1 is almost pure noise. What distinguishes two densities is
only the noise-to-signal ratio :math:`r_t = \sigma_t / \alpha_t`; :math:`\alpha_t` is a choice of
units. A density known under one schedule is therefore known under every other:

.. math:: p'(x, t') = (\alpha_t / \alpha'_{t'})^d \, p(x \alpha_t / \alpha'_{t'}, t)
          \quad\text{where}\quad r_t = r'_{t'}.

Schedules are static: frozen, hashable, compared by value.
"""

from __future__ import annotations

import abc
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.numbers import floats
from ..errors import ParameterError

#: Numbers of times that share a compiled program are rounded up to multiples of this.
PIECE = 256


def floating(t) -> jax.Array:
    """t as an array of floating-point numbers."""
    return jnp.asarray(t, dtype=jnp.result_type(t, float))


@partial(jax.jit, static_argnames="schedule")
def _ratios(times, *, schedule):
    return schedule.noise_to_signal(times)


class AbstractSchedule(abc.ABC):
    """Signal scale `alpha(t)` and noise scale `sigma(t)` for t in [0, 1], both for traced t."""

    @abc.abstractmethod
    def noise_to_signal(self, t) -> jax.Array:
        """r_t = sigma_t / alpha_t, strictly increasing in t."""

    @abc.abstractmethod
    def time(self, noise_to_signal) -> jax.Array:
        """The t in [0, 1] at which sigma_t / alpha_t has the given value; clipped to the schedule's range."""

    @abc.abstractmethod
    def alpha(self, t) -> jax.Array:
        """Signal scale alpha_t."""

    def sigma(self, t) -> jax.Array:
        """Noise scale sigma_t."""
        return self.alpha(t) * self.noise_to_signal(t)

    def signal_lost(self, t) -> jax.Array:
        """1 - alpha_t, accurate where it is small: what moves a point far from the origin at little noise."""
        return 1 - self.alpha(t)

    def ratios(self, times) -> np.ndarray:
        """Noise-to-signal ratios [K] of times [K], on the host: one compiled program, however many there are."""
        times = np.asarray(times, dtype=float)
        padded = np.zeros(-(-max(len(times), 1) // PIECE) * PIECE, dtype=jnp.result_type(float))
        padded[: len(times)] = times
        return np.array(_ratios(padded, schedule=self), dtype=float)[: len(times)]

    @property
    def noise_range(self) -> tuple[float, float]:
        """Noise-to-signal ratios at t = 0 and t = 1."""
        with jax.ensure_compile_time_eval():
            return float(self.noise_to_signal(0.0)), float(self.noise_to_signal(1.0))

    def levels(self, num_levels: int, smallest: float = 0.002) -> np.ndarray:
        """Decreasing times t [num_levels] from 1 to 0, geometric in the noise-to-signal ratio.

        Args:
            num_levels: Number of noise levels, at least 2; the last is t = 0.
            smallest: The last ratio above that of t = 0 when the latter is zero, in data units.

        Raises:
            ParameterError: if `num_levels` < 2, or so many levels are no different floats.
        """
        if num_levels < 2:
            raise ParameterError(f"num_levels must be at least 2; got {num_levels}. One level cannot anneal.")
        low, high = self.noise_range
        if low == 0 and not 0 < smallest < high:
            raise ParameterError(
                f"smallest must lie in (0, {high:.4g}), below the noise-to-signal ratio at t = 1; got {smallest:.4g}. "
                "Lower it, or scale the data: noise at t = 1 must drown them."
            )
        ratios = np.geomspace(high, low, num_levels) if low > 0 else np.geomspace(high, smallest, num_levels - 1)
        with jax.ensure_compile_time_eval():
            times = np.array(self.time(ratios))
        times = times if low > 0 else np.append(times, 0.0)
        times[0], times[-1] = 1.0, 0.0
        if not np.all(np.diff(times) < 0):
            raise ParameterError(
                f"{floats()} cannot tell {num_levels} levels of {self} apart. Use fewer, or another sigma_max."
            )
        return times
