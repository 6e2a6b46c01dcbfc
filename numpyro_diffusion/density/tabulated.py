r"""Noise schedules of models from elsewhere: tables of noise-to-signal ratios, and linear flows.

A table has ratios r_0 < ... < r_{K-1}; time t = k / (K - 1) is level k, and log r is linear in between. Which scale the
signal has is a convention:

.. math:: \alpha = 1 / \sqrt{1 + r^2} \;\text{(variance preserving)}, \qquad \alpha = 1 \;\text{(variance exploding)},
          \qquad \alpha = 1 / (1 + r) \;\text{(linear flow)}.

A network is not told t, but what its authors chose: a step k = t (K - 1), sigma, its logarithm. See `nd.from_*`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.numbers import check_squares_held, floats, is_traced, positive
from ..checks.text import shown
from ..errors import ArgumentTypeError, ParameterError, check_integer, check_number
from . import tables
from .abstract_schedule import AbstractSchedule, floating

#: How the signal's scale follows from the noise-to-signal ratio.
SCALINGS = ("variance_preserving", "variance_exploding", "linear_flow")


class NoiseSchedule(AbstractSchedule):
    """Signal scale `alpha(t)` and noise scale `sigma(t)` for t in [0, 1], both for traced t.

    `VariancePreserving` and `VarianceExploding` are closed forms; the constructors here read what came with a model.
    """

    @staticmethod
    def from_betas(betas: Any) -> TabulatedSchedule:
        r"""The schedule of a DDPM, of the variances beta_k [K] that its steps add (Ho et al. 2020), each in (0, 1).

        :math:`\bar\alpha_k = \prod_{j \le k} (1 - \beta_j)`, :math:`\sigma_k^2 = 1 - \bar\alpha_k`. Step k is time
        t = k / (K - 1). A last beta of one (zero terminal SNR) is left out.

        Raises:
            ParameterError, ShapeError: unless these are at least two numbers in (0, 1), in one row.
        """
        return TabulatedSchedule.of(tables.of_betas(betas), "variance_preserving")

    @staticmethod
    def from_alphas_cumprod(alphas_cumprod: Any) -> TabulatedSchedule:
        r"""The schedule of a DDPM, of its :math:`\bar\alpha_k` [K], decreasing in (0, 1); a last zero is left out.

        Raises:
            ParameterError, ShapeError: unless they are so.
        """
        return TabulatedSchedule.of(tables.of_alphas_cumprod(alphas_cumprod), "variance_preserving")

    @staticmethod
    def from_sigmas(sigmas: Any) -> TabulatedSchedule:
        """The schedule of a variance exploding model (EDM, NCSN), of its sigmas [K] in either order.

        Step k counts from the least noise. A zero at that end, where samplers stop, is no level and is left out.

        Raises:
            ParameterError, ShapeError: unless they are positive, and increase or decrease.
        """
        return TabulatedSchedule.of(tables.of_sigmas(sigmas), "variance_exploding")

    @staticmethod
    def from_log_snr(log_snr: Any, scaling: str = "variance_preserving") -> TabulatedSchedule:
        r"""A schedule by its log signal-to-noise ratio :math:`\log \alpha_t^2 / \sigma_t^2`, decreasing.

        Args:
            log_snr: One number a step [K], or a function of one t in [0, 1], which is read at 4097 times.
            scaling: The signal's scale: "variance_preserving", "variance_exploding" or "linear_flow".

        Raises:
            ParameterError, ShapeError: unless it is finite and decreases.
        """
        return TabulatedSchedule.of(tables.of_log_snr(log_snr), scaling, is_discrete=not callable(log_snr))

    @staticmethod
    def linear_flow(sigma_max: float = 1000.0) -> LinearFlow:
        """The schedule of rectified flows, x = (1 - tau) x_0 + tau eps; `sigma_max` is tau / (1 - tau) at t = 1."""
        return LinearFlow(sigma_max)

    @staticmethod
    def from_diffusers_config(config: Mapping[str, Any]) -> NoiseSchedule:
        """The schedule that a scheduler's config of `diffusers` describes (`scheduler_config.json` as a dict).

        ============================================= ===================== ==========================================
        keys                                          schedule              what networks are told (`timesteps=`)
        ============================================= ===================== ==========================================
        beta_schedule, beta_start, beta_end,          `from_betas`          "integer"
        trained_betas, rescale_betas_zero_snr
        sigma_min, sigma_max, rho, sigma_schedule     `from_sigmas`         log(sigma) / 4
        shift (FlowMatch...)                          `linear_flow`         1000 * sigma
        ============================================= ===================== ==========================================

        `prediction_type` says which constructor the network needs: "epsilon" `nd.from_noise_prediction`,
        "v_prediction" `nd.from_velocity`, "sample" `nd.from_denoiser`; FlowMatch networks `nd.from_flow`. EDM networks
        F have the denoiser c_skip x + c_out F(c_in x, log(sigma) / 4), c of `sigma_data` (Karras et al. 2022, Table 1).

        Raises:
            ParameterError: for a schedule that is not among these, by name.
        """
        return from_diffusers_config(config)

    def network_time(self, t) -> jax.Array:
        """The time that networks of this schedule are told: t itself, unless the schedule has a clock of its own."""
        return floating(t)


@dataclasses.dataclass(frozen=True, repr=False)
class TabulatedSchedule(NoiseSchedule):
    """Noise-to-signal ratios by level; made by `NoiseSchedule.from_betas` and its neighbours, or by `of`.

    `table` holds the ratios as bytes in double precision, so that thousands of them compare and hash as one.
    `is_discrete` says whether levels are the steps that a network was trained at, or knots of a continuous schedule.
    """

    table: bytes
    scaling: str = "variance_preserving"
    is_discrete: bool = True

    @classmethod
    def of(cls, ratios: Any, scaling: str, is_discrete: bool = True) -> TabulatedSchedule:
        """The schedule of increasing noise-to-signal ratios [K]."""
        return cls(np.asarray(ratios, dtype="<f8").tobytes(), scaling, is_discrete)

    def __post_init__(self):
        if self.scaling not in SCALINGS:
            raise ParameterError(f"scaling must be one of {', '.join(SCALINGS)}; got {shown(self.scaling)}.")
        table = self.levels_of_noise
        if not 2 <= len(table) <= tables.MOST_LEVELS:
            raise ParameterError(
                f"a table must have from 2 to {tables.MOST_LEVELS} levels with noise and signal; got {len(table)}. "
                "Give one number a noise level."
            )
        with np.errstate(over="ignore"):
            held = table.astype(floats())
        if len(wrong := np.flatnonzero(~(np.diff(held) > 0))):
            k = wrong[0]
            raise ParameterError(
                f"noise must grow from step to step, and {floats()} tell it; got noise-to-signal ratios "
                f"{table[k]:.10g} at step {k} and {table[k + 1]:.10g} at {k + 1}. Give the step of least noise first, "
                "each step once."
            )
        for k in (0, -1):
            remedy = "Leave out steps of hardly any noise or signal."
            check_squares_held("noise-to-signal ratios", float(table[k]), 8, remedy, f" at step {k % len(table)}")

    @functools.cached_property
    def levels_of_noise(self) -> np.ndarray:
        """Ratios [K] in double precision."""
        return np.frombuffer(self.table, dtype="<f8")

    @functools.cached_property
    def _steps(self) -> np.ndarray:
        """Differences of log ratios [K - 1], without those of large logarithms."""
        table = self.levels_of_noise
        return np.log1p(np.diff(table) / table[:-1])

    @property
    def num_steps(self) -> int:
        """Number of levels K."""
        return len(self.table) // 8

    def index(self, t) -> jax.Array:
        """The level t (K - 1) of a time, a whole number at the table's own times."""
        return floating(t) * (self.num_steps - 1)

    def alpha(self, t):
        r = self.noise_to_signal(t)
        match self.scaling:
            case "variance_preserving":
                return 1 / jnp.sqrt(1 + r**2)
            case "variance_exploding":
                return jnp.ones_like(r)
            case _:
                return 1 / (1 + r)

    def signal_lost(self, t):
        r = self.noise_to_signal(t)
        match self.scaling:
            case "variance_preserving":
                root = jnp.sqrt(1 + r**2)
                return r**2 / (root * (1 + root))
            case "variance_exploding":
                return jnp.zeros_like(r)
            case _:
                return r / (1 + r)

    def noise_to_signal(self, t):
        place = self.index(t)
        k = jnp.clip(place.astype(int), 0, self.num_steps - 2)
        ratios, steps = (jnp.asarray(a, dtype=place.dtype) for a in (self.levels_of_noise, self._steps))
        return ratios[k] * jnp.exp((place - k) * steps[k])

    def time(self, noise_to_signal):
        r = floating(noise_to_signal)
        ratios, steps = (jnp.asarray(a, dtype=r.dtype) for a in (self.levels_of_noise, self._steps))
        r = jnp.clip(r, ratios[0], ratios[-1])
        k = jnp.clip(jnp.searchsorted(ratios, r, side="right") - 1, 0, self.num_steps - 2)
        share = jnp.clip(jnp.log(r / ratios[k]) / steps[k], 0.0, 1.0)
        return jnp.clip((k + share) / (self.num_steps - 1), 0.0, 1.0)

    def __repr__(self) -> str:
        (low, high), kind = self.levels_of_noise[[0, -1]], "steps" if self.is_discrete else "knots"
        # Runs are known by what is printed: two tables must not print alike.
        digest = hashlib.sha256(self.table).hexdigest()[:8]
        span = f"{self.num_steps} {kind}, r from {low:.4g} to {high:.4g}"
        return f"TabulatedSchedule({span}, {self.scaling}, {digest})"


@dataclasses.dataclass(frozen=True)
class LinearFlow(NoiseSchedule):
    r"""Rectified flow: :math:`x = (1 - \tau) x_0 + \tau \varepsilon`, :math:`\tau = t \tau_1`; exact data at t = 0.

    :math:`\tau_1 / (1 - \tau_1)` is `sigma_max`: at :math:`\tau = 1` there is no signal left, and ratios are infinite.
    Networks are told :math:`\tau`, which is `sigma(t)` (Liu et al. 2023, Lipman et al. 2023).
    """

    sigma_max: float = 1000.0

    def __post_init__(self):
        remedy = "1000 is usual."
        value = positive("sigma_max", self.sigma_max, remedy)
        if is_traced(value):
            raise ParameterError("sigma_max must be known: a schedule is static; got a traced number. Give a float.")
        check_squares_held("noise-to-signal ratios", value, 8, remedy, f" from sigma_max={value}")
        if value > (most := 0.25 / float(np.finfo(floats()).eps)):
            raise ParameterError(
                f"sigma_max must be at most {most:.2g}: beyond, {floats()} cannot tell levels near t = 1 apart; got "
                f"{value:.6g}. {remedy}"
            )
        object.__setattr__(self, "sigma_max", value)

    def alpha(self, t):
        t = floating(t)
        return (1 - t) + t / (1 + self.sigma_max)

    def sigma(self, t):
        return floating(t) * (self.sigma_max / (1 + self.sigma_max))

    def signal_lost(self, t):
        return self.sigma(t)

    def noise_to_signal(self, t):
        return self.sigma(t) / self.alpha(t)

    def time(self, noise_to_signal):
        r = floating(noise_to_signal)
        return jnp.clip(r / (1 + r) * ((1 + self.sigma_max) / self.sigma_max), 0.0, 1.0)

    def network_time(self, t):
        return self.sigma(t)


def from_diffusers_config(config: Mapping[str, Any]) -> NoiseSchedule:
    """See `NoiseSchedule.from_diffusers_config`."""
    if not isinstance(config, Mapping):
        raise ArgumentTypeError(f"config must be a dict, as json.load reads it; got {shown(config)}.")
    kind = str(config.get("_class_name", ""))
    is_flow = "FlowMatch" in kind or config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction"
    has_betas = any(key in config for key in ("beta_schedule", "beta_start", "trained_betas"))
    if is_flow or ("shift" in config and not has_betas):
        num = check_integer("num_train_timesteps", config.get("num_train_timesteps", 1000), 2, tables.MOST_LEVELS)
        shift = check_number("shift", config.get("shift", config.get("flow_shift", 1.0)), 0, ends="()")
        # The last step before pure noise; tau' = shift tau / (1 + (shift - 1) tau) scales ratios tau / (1 - tau).
        return LinearFlow(shift * (num - 1))
    if has_betas:
        return NoiseSchedule.from_betas(tables.betas_of(config))
    if "sigma_max" in config:
        num = check_integer("num_train_timesteps", config.get("num_train_timesteps", 1000), 2, tables.MOST_LEVELS)
        low = check_number("sigma_min", config.get("sigma_min", 0.002), 0, ends="()")
        high = check_number("sigma_max", config["sigma_max"], low, ends="()")
        match config.get("sigma_schedule", "karras"):
            case "karras":
                rho = check_number("rho", config.get("rho", 7.0), 0.1, 1e3)
                return NoiseSchedule.from_sigmas(tables.karras(low, high, rho, num))
            case "exponential":
                return NoiseSchedule.from_sigmas(np.geomspace(low, high, num))
            case other:
                raise ParameterError(
                    f"sigma_schedule must be karras or exponential; got {shown(other)}. Give the sigmas themselves: "
                    "nd.NoiseSchedule.from_sigmas(scheduler.sigmas)."
                )
    raise ParameterError(
        f"config must have betas (beta_schedule, trained_betas), sigmas (sigma_min, sigma_max, rho) or a flow's shift; "
        f"got {kind or 'a config'} with {shown(sorted(map(str, config)))}. Give its table to "
        "nd.NoiseSchedule.from_alphas_cumprod or from_sigmas."
    )
