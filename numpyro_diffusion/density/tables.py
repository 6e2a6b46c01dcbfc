r"""Tables of noise levels as other codes keep them, turned into noise-to-signal ratios on the host.

With steps k = 0 .. K - 1 of growing noise:

.. math:: \bar\alpha_k = \prod_{j \le k} (1 - \beta_j), \qquad r_k = \sqrt{1 / \bar\alpha_k - 1}, \qquad
          r_k = e^{-\lambda_k / 2} \quad\text{of a log SNR } \lambda_k.

A last step without any signal (zero terminal SNR, Lin et al. 2024) has an infinite ratio: no density can be read there,
and it is left out, which moves no other step. Everything here is NumPy in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ..checks.numbers import finite_array, is_traced, said
from ..checks.text import shown
from ..errors import ParameterError, check_integer, check_number

#: Knots at which a function of time is read: its ratios are right at them, and log-linear in between.
NUM_KNOTS = 4097
#: Most levels of a table.
MOST_LEVELS = 100_000
#: How `diffusers` names its schedules of betas.
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")


def known_table(what: str, values: Any) -> np.ndarray:
    """One row of finite numbers, known and at least two; else ShapeError or ParameterError."""
    if is_traced(values):
        raise ParameterError(f"{what} must be known numbers: a schedule is static; got traced ones. Give an array.")
    table = finite_array(what, values, 1)
    if len(table) < 2:
        raise ParameterError(f"{what} must have at least two levels; got {len(table)}. Give one number a noise level.")
    return table


def _check_within(what: str, table: np.ndarray, low: float, high: float, remedy: str) -> None:
    wrong = np.flatnonzero(~((table > low) & (table < high)))
    if len(wrong):
        raise ParameterError(f"{what} must lie in ({low:g}, {high:g}); got {table[wrong[0]]:g} at {wrong[0]}. {remedy}")


def of_betas(betas: Any) -> np.ndarray:
    """Ratios r_k of the variances beta_k that each step adds; a last beta of one is left out."""
    table = known_table("betas", betas)
    table = table[:-1] if table[-1] == 1 else table
    _check_within("betas", table, 0, 1, "Give the variance that each step adds, first step first.")
    return np.sqrt(np.expm1(-np.cumsum(np.log1p(-table))))


def of_alphas_cumprod(alphas_cumprod: Any) -> np.ndarray:
    """Ratios r_k of abar_k, the share of variance that is signal; a last one of zero is left out."""
    table = known_table("alphas_cumprod", alphas_cumprod)
    table = table[:-1] if table[-1] == 0 else table
    _check_within("alphas_cumprod", table, 0, 1, "Give squares of the signal's scale, first step first.")
    return np.sqrt((1 - table) / table)


def of_sigmas(sigmas: Any) -> np.ndarray:
    """Ratios in increasing order of noise scales in either order; a zero at the end of less noise is left out."""
    table = known_table("sigmas", sigmas)
    table = table[::-1] if table[0] > table[-1] else table
    table = table[1:] if table[0] == 0 else table
    _check_within("sigmas", table, 0, math.inf, "Give standard deviations of the noise.")
    return table


def of_log_snr(log_snr: Any) -> np.ndarray:
    """Ratios of log(alpha^2 / sigma^2): a table by step, or a function of one t in [0, 1] at `NUM_KNOTS` times."""
    if isinstance(log_snr, Callable):
        times = np.linspace(0.0, 1.0, NUM_KNOTS)
        with jax.enable_x64(True), np.errstate(all="ignore"):
            values = [np.asarray(log_snr(t)) for t in times]
        for t, value in zip(times, values, strict=True):
            if value.shape != () or value.dtype.kind not in "fiu" or not np.isfinite(value):
                raise ParameterError(
                    f"log_snr must give one finite number for t in [0, 1]; got {said(value)} at t = {t:.4g}. Where it "
                    "is infinite at an end, keep off it: lambda t: log_snr(1e-3 + 0.998 * t)."
                )
        log_snr = np.array(values)
    with np.errstate(over="ignore"):
        return np.exp(-0.5 * known_table("log_snr", log_snr))


def karras(sigma_min: float, sigma_max: float, rho: float, num: int) -> np.ndarray:
    """The increasing sigmas of Karras et al. (2022), Eq. 5."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return (low + np.linspace(0, 1, num) * (high - low)) ** rho


def betas_of(config: Mapping[str, Any]) -> np.ndarray:
    """The betas that a config of `diffusers` describes: `trained_betas`, or a named schedule of them."""
    if config.get("trained_betas") is not None:
        betas = known_table("trained_betas", config["trained_betas"])
    else:
        num = check_integer("num_train_timesteps", config.get("num_train_timesteps", 1000), 2, MOST_LEVELS)
        start = check_number("beta_start", config.get("beta_start", 1e-4), 0, 1, ends="()")
        end = check_number("beta_end", config.get("beta_end", 0.02), 0, 1, ends="()")
        match config.get("beta_schedule", "linear"):
            case "linear":
                betas = np.linspace(start, end, num)
            case "scaled_linear":
                betas = np.linspace(start**0.5, end**0.5, num) ** 2
            case "squaredcos_cap_v2":
                # Nichol and Dhariwal (2021), Eq. 17.
                signal = np.cos((np.linspace(0, 1, num + 1) + 0.008) / 1.008 * np.pi / 2) ** 2
                betas = np.minimum(1 - signal[1:] / signal[:-1], 0.999)
            case "sigmoid":
                betas = start + (end - start) / (1 + np.exp(-np.linspace(-6, 6, num)))
            case other:
                raise ParameterError(
                    f"beta_schedule must be one of {', '.join(BETA_SCHEDULES)}; got {shown(other)}. Give the betas "
                    "themselves: nd.NoiseSchedule.from_betas(scheduler.betas)."
                )
    return _without_last_signal(betas) if config.get("rescale_betas_zero_snr") else betas


def _without_last_signal(betas: np.ndarray) -> np.ndarray:
    """Betas whose last step has no signal left: sqrt(abar) shifted and scaled (Lin et al. 2024, Algorithm 1)."""
    root = np.exp(0.5 * np.cumsum(np.log1p(-betas)))
    signal = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return 1 - signal / np.append(1.0, signal[:-1])
