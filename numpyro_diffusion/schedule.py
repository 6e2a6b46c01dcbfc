r"""Noise schedules: how much signal and how much noise a point carries at time t.

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
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from .errors import ParameterError


class NoiseSchedule(abc.ABC):
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
            ParameterError: if `num_levels` < 2.
        """
        if num_levels < 2:
            raise ParameterError(f"num_levels must be at least 2; got {num_levels}. One level cannot anneal.")
        low, high = self.noise_range
        if low > 0:
            ratios = np.geomspace(high, low, num_levels)
            times = np.array(self.time(ratios))
        else:
            times = np.append(np.array(self.time(np.geomspace(high, smallest, num_levels - 1))), 0.0)
        times[0], times[-1] = 1.0, 0.0
        return times


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ParameterError(f"{name} must be positive and finite; got {value}.")


@dataclasses.dataclass(frozen=True)
class VariancePreserving(NoiseSchedule):
    r"""Variance preserving: :math:`\alpha_t^2 + \sigma_t^2 = 1`, exact data at t = 0.

    `cosine` (Nichol and Dhariwal 2021): :math:`\sigma_t / \alpha_t = \tan(\theta t)`; `sigma_max` is that at t = 1.
    `linear` (Ho et al. 2020): :math:`\log \alpha_t = -\tfrac14 t^2 (\beta_1 - \beta_0) - \tfrac12 t \beta_0`.
    """

    shape: str = "cosine"
    sigma_max: float = 100.0
    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self):
        if self.shape not in ("cosine", "linear"):
            raise ParameterError(f"shape must be 'cosine' or 'linear'; got {self.shape!r}.")
        _positive(sigma_max=self.sigma_max, beta_min=self.beta_min, beta_max=self.beta_max)
        if self.beta_max <= self.beta_min:
            raise ParameterError(f"beta_max must exceed beta_min; got {self.beta_max} and {self.beta_min}.")

    @classmethod
    def cosine(cls, sigma_max: float = 100.0) -> VariancePreserving:
        """The cosine schedule with noise-to-signal ratio `sigma_max` at t = 1."""
        return cls("cosine", sigma_max=sigma_max)

    @classmethod
    def linear(cls, beta_min: float = 0.1, beta_max: float = 20.0) -> VariancePreserving:
        """The linear schedule of Ho et al. in continuous time."""
        return cls("linear", beta_min=beta_min, beta_max=beta_max)

    def _log_alpha(self, t):
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def alpha(self, t):
        if self.shape == "cosine":
            return jnp.cos(math.atan(self.sigma_max) * jnp.asarray(t))
        return jnp.exp(self._log_alpha(jnp.asarray(t)))

    def noise_to_signal(self, t):
        t = jnp.asarray(t)
        if self.shape == "cosine":
            return jnp.tan(math.atan(self.sigma_max) * t)
        return jnp.sqrt(jnp.expm1(-2 * self._log_alpha(t)))

    def time(self, noise_to_signal):
        r = jnp.asarray(noise_to_signal)
        if self.shape == "cosine":
            return jnp.clip(jnp.arctan(r) / math.atan(self.sigma_max), 0.0, 1.0)
        minus_log_alpha = 0.5 * jnp.log1p(r**2)
        slope, b = self.beta_max - self.beta_min, self.beta_min
        # The stable root of slope/4 t^2 + b/2 t = -log alpha.
        return jnp.clip(4 * minus_log_alpha / (b + jnp.sqrt(b**2 + 4 * slope * minus_log_alpha)), 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class VarianceExploding(NoiseSchedule):
    r"""Variance exploding: :math:`\alpha_t = 1`, :math:`\sigma_t` from `sigma_min` to `sigma_max`.

    .. math:: \sigma_t = (\sigma_{min}^{1/\rho} + t (\sigma_{max}^{1/\rho} - \sigma_{min}^{1/\rho}))^\rho

    (Karras et al. 2022, Eq. 5). `sigma_min` = 0 makes t = 0 exact data.
    """

    sigma_min: float = 0.0
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self):
        _positive(sigma_max=self.sigma_max, rho=self.rho)
        if not 0 <= self.sigma_min < self.sigma_max:
            raise ParameterError(f"need 0 <= sigma_min < sigma_max; got {self.sigma_min} and {self.sigma_max}.")

    def alpha(self, t):
        return jnp.ones_like(jnp.asarray(t, dtype=float))

    def noise_to_signal(self, t):
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (low + jnp.asarray(t) * (high - low)) ** self.rho

    def time(self, noise_to_signal):
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return jnp.clip((jnp.asarray(noise_to_signal) ** (1 / self.rho) - low) / (high - low), 0.0, 1.0)
