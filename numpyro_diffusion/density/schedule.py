r"""Noise schedules in closed form: variance preserving and variance exploding, of continuous time.

What a schedule is stands in `abstract_schedule`; those of models from elsewhere, tables and flows, in `tabulated`.
"""

from __future__ import annotations

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..checks.numbers import array_of, check_squares_held, floats, is_traced, positive
from ..errors import ParameterError, ScheduleError
from .abstract_schedule import floating
from .tabulated import LinearFlow, NoiseSchedule, TabulatedSchedule

__all__ = [
    "LinearFlow", "NoiseSchedule", "TabulatedSchedule", "VarianceExploding", "VariancePreserving", "check_time",
]  # fmt: skip


def _check_numbers(schedule, at_least_zero: tuple[str, ...] = ()) -> None:
    """Turn the fields that are no text into floats, or raise ParameterError."""
    for field in dataclasses.fields(schedule):
        if field.type == "float":
            name, remedy = field.name, "Leave it out for a usual one."
            value = positive(name, getattr(schedule, name), remedy, or_zero=name in at_least_zero)
            if is_traced(value):
                raise ParameterError(
                    f"{name} must be a number, and known: a schedule is static; got a traced one. Give a float."
                )
            object.__setattr__(schedule, name, value)


def _check_ratio(name: str, given: float, ratio: float) -> None:
    """Raise where the squares of noise-to-signal ratios are no floats: variances would be zero or infinite."""
    remedy = "100 is usual at t = 1, with data of unit scale."
    check_squares_held("noise-to-signal ratios", ratio, 8, remedy, f" from {name}={given}")


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
        _check_numbers(self)
        if self.beta_max <= self.beta_min:
            raise ParameterError(f"beta_max must exceed beta_min; got {self.beta_max} and {self.beta_min}.")
        if self.shape == "linear":
            # Where that is beyond doubles, it is beyond their squares by far.
            minus_log_alpha = min((self.beta_min + self.beta_max) / 4, 354.0)
            _check_ratio("beta_max", self.beta_max, math.sqrt(math.expm1(2 * minus_log_alpha)))
            return
        _check_ratio("sigma_max", self.sigma_max, self.sigma_max)
        # Neighbouring times below 1 differ by eps / 2, and their ratios by a factor of two at most up to here.
        most = 4 / math.pi / float(np.finfo(floats()).eps)
        if self.sigma_max > most:
            raise ParameterError(
                f"sigma_max of the cosine schedule must be at most {most:.2g}: beyond, {floats()} cannot tell its "
                f"levels near t = 1 apart; got {self.sigma_max:.6g}. 100 is usual; scale the data instead."
            )

    @classmethod
    def cosine(cls, sigma_max: float = 100.0) -> VariancePreserving:
        """The cosine schedule with noise-to-signal ratio `sigma_max` at t = 1."""
        return cls("cosine", sigma_max=sigma_max)

    @classmethod
    def linear(cls, beta_min: float = 0.1, beta_max: float = 20.0) -> VariancePreserving:
        """The linear schedule of Ho et al. in continuous time."""
        return cls("linear", beta_min=beta_min, beta_max=beta_max)

    def _log_alpha(self, t):
        t = floating(t)
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def _angles(self, t):
        """theta t, and where that is large pi / 2 - theta t: the difference itself would round to nothing."""
        full, left = math.atan(self.sigma_max), math.atan(1 / self.sigma_max)
        t = floating(t)
        angle = full * t
        is_large = angle > 0.25 * math.pi
        return angle, jnp.where(is_large, left + full * (1 - t), 1.0), is_large

    def alpha(self, t):
        if self.shape == "cosine":
            angle, rest, is_large = self._angles(t)
            return jnp.where(is_large, jnp.sin(rest), jnp.cos(angle))
        return jnp.exp(self._log_alpha(t))

    def sigma(self, t):
        if self.shape == "cosine":
            return jnp.sin(math.atan(self.sigma_max) * floating(t))
        return jnp.sqrt(-jnp.expm1(2 * self._log_alpha(t)))

    def signal_lost(self, t):
        if self.shape == "cosine":
            return 2 * jnp.sin(0.5 * math.atan(self.sigma_max) * floating(t)) ** 2
        return -jnp.expm1(self._log_alpha(t))

    def noise_to_signal(self, t):
        if self.shape == "cosine":
            angle, rest, is_large = self._angles(t)
            return jnp.where(is_large, 1 / jnp.tan(rest), jnp.tan(jnp.where(is_large, 0.0, angle)))
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
        _check_numbers(self, at_least_zero=("sigma_min",))
        if not self.sigma_min < self.sigma_max:
            raise ParameterError(f"need 0 <= sigma_min < sigma_max; got {self.sigma_min} and {self.sigma_max}.")
        _check_ratio("sigma_max", self.sigma_max, self.sigma_max)
        info = np.finfo(floats())
        if self.sigma_min > 0:
            _check_ratio("sigma_min", self.sigma_min, self.sigma_min)
            if self.sigma_max / self.sigma_min - 1 < 1e3 * info.eps:
                raise ParameterError(
                    f"{info.dtype} cannot tell levels between sigma_min={self.sigma_min} and "
                    f"sigma_max={self.sigma_max} apart. Set them further apart."
                )
        # Where rho is small, little noise is at times that are no floats; where it is large, so is much noise.
        least = -math.log(self.sigma_min / self.sigma_max if self.sigma_min else 1e-6) / -math.log(info.tiny)
        most = math.inf if self.sigma_min > 0 else 2 / float(info.eps)
        if not least <= self.rho <= min(most, 1e15):
            raise ParameterError(
                f"rho must lie in [{least:.2g}, {min(most, 1e15):.2g}], for {info.dtype} to tell the levels of this "
                f"schedule apart; got {self.rho:.6g}. 7 is usual."
            )

    @property
    def _start(self) -> tuple[float, float]:
        """q = (sigma_min / sigma_max)^(1 / rho), and 1 - q."""
        if self.sigma_min == 0:
            return 0.0, 1.0
        log_q = math.log(self.sigma_min / self.sigma_max) / self.rho
        return math.exp(log_q), -math.expm1(log_q)

    def alpha(self, t):
        return jnp.ones_like(jnp.asarray(t, dtype=float))

    def signal_lost(self, t):
        return jnp.zeros_like(jnp.asarray(t, dtype=float))

    def noise_to_signal(self, t):
        t, (q, step) = jnp.asarray(t), self._start
        if q < 0.5:
            return self.sigma_max * (q + t * step) ** self.rho
        # A base close to 1 would round, and rho would multiply that.
        return self.sigma_max * jnp.exp(self.rho * jnp.log1p(-(1 - t) * step))

    def time(self, noise_to_signal):
        share, (q, step) = jnp.asarray(noise_to_signal) / self.sigma_max, self._start
        if q < 0.5:
            return jnp.clip((share ** (1 / self.rho) - q) / step, 0.0, 1.0)
        return jnp.clip(1 + jnp.expm1(jnp.log(share) / self.rho) / step, 0.0, 1.0)


def check_time(t) -> None:
    """Raise ParameterError unless t lies in [0, 1]; traced values pass."""
    if isinstance(t, Tracer):
        return
    value = array_of("t", t, "a number in [0, 1] (0 is data, 1 is noise)", ParameterError)
    if not np.all((value >= 0) & (value <= 1)):
        raise ParameterError(f"t must lie in [0, 1] (0 is data, 1 is noise); got {t}.")


def check_overlap(what: str, *schedules: NoiseSchedule) -> None:
    """Raise ScheduleError where two schedules have no noise-to-signal ratio in common."""
    (low, high), (other_low, other_high) = (schedule.noise_range for schedule in schedules)
    if high < other_low or other_high < low:
        raise ScheduleError(
            f"{what} needs one schedule, and these do not overlap: noise-to-signal ratios from {low:.4g} to {high:.4g} "
            f"and from {other_low:.4g} to {other_high:.4g}. Convert the density that is known at the other's ratios, "
            "as closed forms are, with density.with_schedule(...)."
        )
