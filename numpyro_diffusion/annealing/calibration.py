"""How well a density is normalised, and the last correction: measuring log Z(t) and taking it out."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..checks.fields import check_choice
from ..density.abstract import check_density
from ..density.density import Density
from ..density.energy import NORMALISER_KNOTS, EnergyDensity, is_energy
from ..density.schedule import check_time
from ..diagnose.normaliser import levels_of
from ..diagnose.result import AnnealedRun
from ..errors import ArgumentTypeError, DiagnosticWarning, ParameterError, ShapeError, warn
from .anneal import anneal
from .kernels import Kernel

#: Nats above which an error is warned of: of a quadrature, and of a run that is to become a normaliser (an error then).
MOST_ERROR, MOST_RUN_ERROR = 0.01, 1.0


@dataclasses.dataclass(repr=False)
class CalibrationReport:
    """Normalisers, and mode weights where modes were given, by noise level.

    Attributes:
        levels: [K] times; `noise_to_signal` [K] their ratios.
        log_z: [K] log of the density's integral at each level (0 when calibrated).
        log_z_error: [K] its error in nats. For quadrature what two resolutions and two extents differ by, infinite
            where log p is no number; for a run its standard error, NaN where it has none.
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
        weights = 1 / self.mode_weights.shape[1] if weights is None else np.asarray(weights)
        return float(np.nanmax(np.abs(self.mode_weights - weights)))

    def __repr__(self):
        what = f"{self.formula}, by {self.method}, {len(self.levels)} levels"
        return f"CalibrationReport({what}, largest |Z - 1| {self.drift:.4f})"

    def __str__(self):
        lines = [
            f"{self.formula}: normaliser by {self.method}",
            f"{'t':>8} {'sigma/alpha':>12} {'Z':>10}" + ("" if self.mode_weights is None else "  mode weights"),
        ]
        for i, t in enumerate(self.levels):
            modes = "" if self.mode_weights is None else " ".join(f"{w:.3f}" for w in self.mode_weights[i])
            lines.append(f"{t:8.4f} {self.noise_to_signal[i]:12.5f} {np.exp(self.log_z[i]):10.4f}  {modes}".rstrip())
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
        levels: Times in [0, 1], in any order (decreasing for "anneal"); 12 geometric ones down to t = 0 by default.
        modes: Centres [M, d] of the data's modes. A mode's weight is the mass nearest to it, given at levels whose
            noise is below an eighth of the least distance between modes; above, neighbours leak into each other.
        method: "quadrature" (d <= 2, the default there; see `quadrature` and `normaliser`) or "anneal" (any d).
        rng_key, kernel, num_chains, progress_bar: For "anneal"; key 0 and HMC by default.

    Raises:
        ShapeError: for quadrature in more than two dimensions, or modes of another dimension.
        ScoreOnlyError: if there is no log density.
        ParameterError: if the integral is infinite, or no mass is found.

    Warns:
        DiagnosticWarning: where the quadrature's error exceeds 0.01 nats, or log p is NaN or +inf.

    Cost: of quadrature, some 10^5 evaluations a level in two dimensions, 10^4 in one.
    """
    density.require_log_density("nd.calibration_report")
    size = int(np.prod(density.event_shape, initial=1))
    method = method or ("quadrature" if size <= 2 else "anneal")
    check_density("nd.calibration_report", density)
    if method not in ("quadrature", "anneal"):
        raise ParameterError(f"method must be 'quadrature' or 'anneal'; got {method!r}.")
    if method == "quadrature" and size > 2:
        raise ShapeError(f"quadrature needs at most 2 dimensions; got {size}. Use method='anneal'.")
    if modes is not None:
        modes = np.asarray(modes, dtype=float)
        if modes.ndim != 2 or modes.shape[1] != size:
            raise ShapeError(f"modes must have shape [M, {size}]; got {modes.shape}.")
    # What functions of the user's compute is read once, here.
    density, schedule = jax.tree.map(lambda a: a, density), density.schedule
    measured, weights = (), None
    if method == "anneal":
        rng_key = jax.random.key(0) if rng_key is None else rng_key
        run = anneal(rng_key, density, kernel, num_chains=num_chains, levels=levels, progress_bar=progress_bar)
        levels, log_z = run.levels, run.stats["log_evidence"]
        error = _grown(run.log_evidence_error, len(levels))
    else:
        levels = schedule.levels(12, smallest=0.004) if levels is None else _checked_levels(levels)
        measured = levels_of(density, levels)
        weights = None if modes is None else np.stack([_mode_weights(level, modes) for level in measured])
        log_z, error = (np.array([getattr(level, name) for level in measured]) for name in ("log_z", "error"))
    ratios = np.asarray(schedule.noise_to_signal(levels))
    report = CalibrationReport(levels, ratios, log_z, error, weights, method, repr(density))
    _warn(report, measured)
    return report


def _grown(error: float, count: int) -> np.ndarray:
    """The error of log Z at each of `count` levels: it grows as a random walk does; unknown, it is so everywhere."""
    return np.full(count, error) if not np.isfinite(error) else error * np.sqrt(np.linspace(0, 1, count))


def _check_run(run) -> None:
    what = f"log Z = {run.log_evidence:.3g} +- {run.log_evidence_error:.3g} nats"
    if not run.is_complete:
        raise ParameterError(f"the run was interrupted before its last level: {what}. Run nd.recalibrate to its end.")
    if not np.all(np.isfinite(run.stats["log_evidence"])) or not run.log_evidence_error <= MOST_RUN_ERROR:
        raise ParameterError(
            f"a normaliser is taken out only if its error is at most {MOST_RUN_ERROR:g} nat; the run found {what}. Use "
            "more num_chains, num_steps or levels_per_knot, or a kernel that fits; the density is as it was."
        )


def _checked_levels(levels) -> np.ndarray:
    check_time(levels)
    levels = np.atleast_1d(np.asarray(levels, dtype=float))
    if levels.ndim != 1 or not len(levels):
        raise ShapeError(f"levels must be times [K], at least one; got shape {levels.shape}.")
    return levels


def _mode_weights(level, modes) -> np.ndarray:
    """Share [M] of the mass nearest to each mode; NaN where the noise has merged them."""
    gaps = np.linalg.norm(modes[:, None] - modes[None], axis=-1) + np.where(np.eye(len(modes)), np.inf, 0.0)
    if not level.ratio < gaps.min() / 8:
        return np.full(len(modes), np.nan)
    points, mass = level.integral.nodes()
    points, mass = points[mass > 0], mass[mass > 0]
    nearest = np.argmin(np.stack([np.sum((points - mode) ** 2, axis=1) for mode in modes]), axis=0)
    return np.bincount(nearest, mass, len(modes)) / mass.sum()


def _warn(report: CalibrationReport, measured) -> None:
    """Say at which levels two resolutions or two extents disagree, and where log p is no number."""
    for level in measured:
        if MOST_ERROR < level.error < np.inf:
            warn(
                f"{report.formula} at t = {level.t:.4g}: two resolutions or extents of the quadrature differ by "
                f"{level.error:.2g} nats, more than {MOST_ERROR}: log Z = {level.log_z:.3f} is not to be trusted "
                "further. The density has detail too fine for the numbers or the evaluations there: rescale its "
                "coordinates to order one around 0, or leave that level out."
            )
        if len(level.strange):
            warn(
                f"{report.formula} at t = {level.t:.4g}: log_prob is NaN or +inf at {len(level.strange)} points of the "
                f"quadrature, first at x = {level.alpha * level.strange[0]}, and counts as zero density there. Make it "
                "finite or -inf, and check density.log_prob around that point."
            )


class LogZ(NamedTuple):
    """log Z of a density at its knots in log r [knots], and the standard errors [knots] of what was found."""

    knots: np.ndarray
    found: np.ndarray
    error: np.ndarray


def recalibrate(
    rng_key,
    density: EnergyDensity,
    kernel: Kernel | None = None,
    *,
    method: str = "anneal",
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
        method: "anneal", or "quadrature" at every third knot (d <= 2), which takes neither key nor kernel.
        num_chains, num_steps: Effort of the run, see `anneal`.
        levels_per_knot: Levels for each of the 64 knots; more in high dimension.

    Raises:
        TypeError: if the density is not a trained energy.
        ShapeError: for quadrature in more than two dimensions.
        ParameterError: if levels_per_knot < 1, or the run did not measure log Z: interrupted, or with an error that is
            not finite or above a nat; or if the integral is infinite.
    """
    if not is_energy(density):
        rule = "nd.recalibrate takes a trained energy density"
        raise ArgumentTypeError(f"{rule}; got {density!r}. Recalibrate its leaves.")
    check_choice("method", method, ("anneal", "quadrature"))
    if method == "quadrature":
        return without(density, log_z_by_quadrature(density))
    if levels_per_knot < 1:
        raise ParameterError(f"levels_per_knot must be >= 1; got {levels_per_knot}.")
    effort = {"num_chains": num_chains, "num_steps": num_steps, "levels_per_knot": levels_per_knot}
    run, log_z = log_z_by_annealing(rng_key, density, kernel, **effort, progress_bar=progress_bar)
    _check_run(run)
    return without(density, log_z)


def log_z_by_annealing(
    rng_key, density: EnergyDensity, kernel: Kernel | None, *, num_chains: int, num_steps: int, levels_per_knot: int,
    progress_bar: bool,
) -> tuple[AnnealedRun, LogZ]:  # fmt: skip
    """log Z at the knots by an annealed run with a level at each, and the run."""
    low, high, knots = _knots(density)
    fine = np.linspace(high, low, (NORMALISER_KNOTS - 1) * levels_per_knot + 1)
    times = np.asarray(density.schedule.time(np.exp(fine)), dtype=float)
    levels = np.concatenate([[1.0], times[(times > 0) & (times < 1)], [0.0]])
    effort = {"num_chains": num_chains, "num_steps": num_steps, "levels": levels}
    with warnings.catch_warnings():
        # What it finds is no fault of this run, but what is measured.
        warnings.filterwarnings("ignore", "(?s).*where the normalised density", DiagnosticWarning)
        run = anneal(rng_key, density, kernel, **effort, progress_bar=progress_bar)
    # Levels beyond the trained range count for its ends, where the density stays the same.
    ratios = np.clip(np.asarray(density.schedule.noise_to_signal(run.levels)), np.exp(low), np.exp(high))
    found, error = run.stats["log_evidence"], _grown(run.log_evidence_error, len(run.levels))
    at_knots = (np.interp(knots, np.log(ratios)[::-1], values[::-1]) for values in (found, error))
    return run, LogZ(knots, *at_knots)


def log_z_by_quadrature(density: EnergyDensity) -> LogZ:
    """log Z by quadrature, in one or two dimensions, at every third knot and by splines between; its errors."""
    from scipy.interpolate import CubicSpline  # slow to import

    _, _, knots = _knots(density)
    few = knots[::3]
    report = calibration_report(density, levels=np.asarray(density.schedule.time(np.exp(few))), method="quadrature")
    return LogZ(knots, CubicSpline(few, report.log_z)(knots), np.interp(knots, few, report.log_z_error))


def _knots(density) -> tuple[float, float, np.ndarray]:
    low, high = np.log(np.asarray(density.sigmas))
    return low, high, np.linspace(low, high, NORMALISER_KNOTS)


def without(density: EnergyDensity, log_z: LogZ) -> EnergyDensity:
    """The density less log Z, each finding shrunk by what its error leaves of it."""
    found = log_z.found * log_z.found**2 / (log_z.found**2 + log_z.error**2 + 1e-12)
    old = np.interp(log_z.knots, *np.asarray(density.log_z))
    return density._replace(log_z=jnp.asarray(np.stack([log_z.knots, old + found]), dtype=float))
