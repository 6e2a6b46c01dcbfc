"""How well a density is normalised, and the last correction: measuring log Z(t) and taking it out."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .anneal import anneal
from .density import Density
from .energy import NORMALISER_KNOTS, EnergyDensity
from .errors import ArgumentTypeError, ParameterError, ShapeError
from .kernels import HMC, Kernel


@dataclasses.dataclass
class CalibrationReport:
    """Normalisers, and mode weights where modes were given, by noise level.

    Attributes:
        levels: [K] times; `noise_to_signal` [K] their ratios.
        log_z: [K] log of the density's integral at each level (0 when calibrated); `log_z_error` [K], 0 for quadrature.
        mode_weights: [K, M], or None; NaN where the noise has merged the modes.
        method: "quadrature" or "anneal".
        formula: The density's formula.
    """

    levels: np.ndarray
    noise_to_signal: np.ndarray
    log_z: np.ndarray
    log_z_error: np.ndarray
    mode_weights: np.ndarray | None
    method: str
    formula: str

    @property
    def drift(self) -> float:
        """Largest |Z(t) - 1| over the levels."""
        return float(np.max(np.abs(np.expm1(self.log_z))))

    def mode_weight_error(self, weights=None) -> float:
        """Largest deviation of a mode's weight from `weights` (equal by default) over the levels; NaN without modes."""
        if self.mode_weights is None:
            return float("nan")
        weights = np.full(self.mode_weights.shape[1], 1 / self.mode_weights.shape[1]) if weights is None else weights
        return float(np.nanmax(np.abs(self.mode_weights - np.asarray(weights))))

    def __str__(self):
        lines = [
            f"{self.formula}: normaliser by {self.method}",
            f"{'t':>8} {'sigma/alpha':>12} {'Z':>10}  mode weights",
        ]
        for i, t in enumerate(self.levels):
            modes = "" if self.mode_weights is None else " ".join(f"{w:.3f}" for w in self.mode_weights[i])
            lines.append(f"{t:8.4f} {self.noise_to_signal[i]:12.5f} {np.exp(self.log_z[i]):10.4f}  {modes}")
        lines.append(f"largest |Z - 1|: {self.drift:.4f}")
        return "\n".join(lines)


def calibration_report(
    density: Density,
    *,
    levels: Any = None,
    modes: Any = None,
    method: str | None = None,
    rng_key: jax.Array | None = None,
    kernel: Kernel | None = None,
    num_chains: int = 4000,
    progress_bar: bool = False,
) -> CalibrationReport:
    """log Z(t) of a density at several noise levels, and the weights of its modes.

    Args:
        density: A density with log densities.
        levels: Times, decreasing; 12 geometric ones down to t = 0 by default.
        modes: Centres [M, d] of the data's modes. A mode's weight is the mass nearest to it, given at levels whose
            noise is below an eighth of the least distance between modes; above, neighbours leak into each other.
        method: "quadrature" on a grid (d <= 2, the default there) or "anneal" (any d).
        rng_key, kernel, num_chains, progress_bar: For "anneal"; key 0 and HMC by default.

    Raises:
        ShapeError: for quadrature in more than two dimensions, or modes of another dimension.
        ScoreOnlyError: if there is no log density.
    """
    density.require_log_density("nd.calibration_report")
    size = int(np.prod(density.event_shape, initial=1))
    method = method or ("quadrature" if size <= 2 else "anneal")
    if method not in ("quadrature", "anneal"):
        raise ParameterError(f"method must be 'quadrature' or 'anneal'; got {method!r}.")
    if method == "quadrature" and size > 2:
        raise ShapeError(f"quadrature needs at most 2 dimensions; got {size}. Use method='anneal'.")
    if modes is not None:
        modes = np.asarray(modes, dtype=float)
        if modes.ndim != 2 or modes.shape[1] != size:
            raise ShapeError(f"modes must have shape [M, {size}]; got {modes.shape}.")
    schedule = density.schedule
    if method == "anneal":
        run = anneal(
            jax.random.key(0) if rng_key is None else rng_key, density, kernel or HMC(), num_chains=num_chains,
            levels=levels, level_ess=0.98, progress_bar=progress_bar,
        )  # fmt: skip
        ratios = np.asarray(schedule.noise_to_signal(run.levels))
        error = run.log_evidence_error * np.linspace(0, 1, len(run.levels)) ** 0.5
        return CalibrationReport(run.levels, ratios, run.stats["log_evidence"], error, None, method, repr(density))
    levels = schedule.levels(12, smallest=0.004) if levels is None else np.asarray(levels, dtype=float)
    ratios, log_z, weights = np.asarray(schedule.noise_to_signal(levels)), [], []
    for t, r in zip(levels, ratios, strict=True):
        points, mass = _grid(density, float(t), float(r))
        log_z.append(np.log(mass.sum()))
        if modes is not None:
            gaps = np.linalg.norm(modes[:, None] - modes[None], axis=-1) + 1e9 * np.eye(len(modes))
            if r < gaps.min() / 8:
                at = np.asarray(schedule.alpha(t)) * modes
                near = np.argmin(((points[:, None] - at) ** 2).sum(-1), axis=1)
                weights.append(np.bincount(near, mass, len(modes)) / mass.sum())
            else:
                weights.append(np.full(len(modes), np.nan))
    log_z = np.asarray(log_z)
    found = None if modes is None else np.asarray(weights)
    return CalibrationReport(levels, ratios, log_z, np.zeros_like(log_z), found, method, repr(density))


def _grid(density, t, r):
    """Grid points [n, d] and the density's mass in their cells, fine enough for the noise at ratio r."""
    gaussian = density.gaussian(t)
    size = int(np.prod(density.event_shape, initial=1))
    alpha = float(density.schedule.alpha(t))
    if gaussian is None:
        centre, spread = np.zeros(size), np.full(size, np.hypot(alpha, float(density.schedule.sigma(t))))
    else:
        centre, spread = np.asarray(gaussian.mean), np.sqrt(np.diag(np.asarray(gaussian.covariance)))
    # A smooth integrand of width r needs no finer step for the trapezoidal rule; the data's own detail sets the rest.
    finest = 0.005 * float(spread.max())
    axes = []
    for c, s in zip(centre, spread, strict=True):
        half = 5.5 * s
        step = max(1.2 * alpha * r, finest, 2 * half / 1200)
        axes.append(np.linspace(c - half, c + half, int(2 * half / min(step, s / 4)) + 1))
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, size)
    cell = float(np.prod([a[1] - a[0] for a in axes]))
    log_prob = _log_prob_in_pieces(density, jnp.asarray(points, dtype=float), t)
    return points, np.exp(np.asarray(log_prob, dtype=np.float64)) * cell


@jax.jit
def _log_prob_in_pieces(density, points, t):
    def one(x):
        return density._log_prob(x.reshape(density.event_shape), t)

    return jax.lax.map(one, points, batch_size=16_384)


def recalibrate(
    rng_key,
    density: EnergyDensity,
    kernel: Kernel | None = None,
    *,
    num_chains: int = 10_000,
    num_steps: int = 2,
    levels_per_knot: int = 1,
    progress_bar: bool = True,
) -> EnergyDensity:
    """The density with its measured log Z(t) subtracted at every noise level.

    An annealed run with a level at each knot in log sigma estimates log Z there; what it finds becomes part of the
    density (and of its checkpoint), interpolated between knots. A finding z of standard error e is shrunk by
    z^2 / (z^2 + e^2), so that a density better calibrated than the run can measure stays as it is. Weights of isolated
    modes stay: only training can set them.

    Args:
        rng_key: JAX random key.
        density: A trained energy density, calibrated or not.
        kernel: HMC by default.
        num_chains, num_steps: Effort of the run, see `anneal`.
        levels_per_knot: Levels for each of the 64 knots; more in high dimension.

    Raises:
        TypeError: if the density is not a trained energy.
        ParameterError: if levels_per_knot < 1.
    """
    if not isinstance(density, EnergyDensity):
        raise ArgumentTypeError(
            f"nd.recalibrate takes a trained energy density; got {density!r}. Recalibrate its leaves."
        )
    if levels_per_knot < 1:
        raise ParameterError(f"levels_per_knot must be >= 1; got {levels_per_knot}.")
    low, high = np.log(np.asarray(density.sigmas))
    knots = np.linspace(low, high, NORMALISER_KNOTS)
    fine = np.linspace(high, low, (NORMALISER_KNOTS - 1) * levels_per_knot + 1)
    times = np.asarray(density.schedule.time(np.exp(fine)), dtype=float)
    inner = times[(times > 0) & (times < 1)]
    levels = np.concatenate([[1.0], inner, [0.0]])
    run = anneal(
        rng_key, density, kernel or HMC(), num_chains=num_chains, num_steps=num_steps, levels=levels,
        progress_bar=progress_bar,
    )  # fmt: skip
    # Levels beyond the trained range count for its ends, where the density stays the same.
    ratios = np.clip(np.asarray(density.schedule.noise_to_signal(levels)), np.exp(low), np.exp(high))
    found = run.stats["log_evidence"]
    # The error grows along the levels as a random walk does.
    error = run.log_evidence_error * np.sqrt(np.arange(len(found)) / (len(found) - 1))
    found = found * found**2 / (found**2 + error**2 + 1e-12)
    found = np.interp(knots, np.log(ratios)[::-1], found[::-1])
    old = np.interp(knots, *np.asarray(density.log_z))
    return density._replace(log_z=jnp.asarray(np.stack([knots, old + found]), dtype=float))
