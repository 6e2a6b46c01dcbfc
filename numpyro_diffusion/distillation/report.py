r"""An energy beside the score model that it was distilled from.

By noise level r, over noised held-out points: the *mismatch* :math:`E |r (\nabla \log p - s)|^2 / d` of the two scores,
beside how far each is from the noise itself, :math:`E |r \nabla \log p + \varepsilon|^2 / d`, of which the best
possible score keeps a part. Then log Z, the mean held-out log density beside the teacher's by its probability flow, and
the Frechet distance from the data of samples of both, drawn by reverse diffusion with the same key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..annealing.anneal import anneal
from ..annealing.calibration import calibration_report
from ..annealing.reverse import Reverse
from ..checks.text import columns
from ..density.abstract import check_density
from ..density.density import Density
from ..density.energy import is_energy
from ..diagnose.feature_metrics import frechet_distance
from ..errors import ArgumentTypeError, ShapeError, check_integer, check_key
from ..train.data import Points, check_finite
from .teacher import check_teacher, score, takes_images

#: Points whose scores are compared at a level, and images that are evaluated together.
NUM_POINTS, IMAGE_BATCH = 2048, 64


@dataclasses.dataclass(repr=False)
class DistillationReport:
    """What `distillation_report` has found.

    Attributes:
        noise_to_signal: [K] ratios r, increasing; the rest by level:
        mismatch: [K] mean square of r times the difference of scores, per dimension.
        noise_error, teacher_noise_error: [K] mean square errors of the predicted noise per dimension.
        log_z, log_z_error: log of the energy's integral at t = 0 in nats, and its error; NaN where not measured.
        nats, teacher_nats: Mean log density of held-out data with the noise of the energy's resolution, in nats;
            `nats_error` [2] their standard errors.
        frechet, teacher_frechet: Frechet distances of samples from the data.
        frechet_floor: That of as many other data, which the sample size alone makes; NaN where there are too few.
        student, teacher: Names.
    """

    noise_to_signal: np.ndarray
    mismatch: np.ndarray
    noise_error: np.ndarray
    teacher_noise_error: np.ndarray
    log_z: float
    log_z_error: float
    nats: float
    teacher_nats: float
    nats_error: tuple[float, float]
    frechet: float
    teacher_frechet: float
    frechet_floor: float
    student: str
    teacher: str

    def __repr__(self):
        return f"DistillationReport({self.student} of {self.teacher}, {self.nats:.3f} and {self.teacher_nats:.3f} nats)"

    def __str__(self):
        rows = [["noise-to-signal", "mismatch", "noise error", "teacher's"]]
        levels = zip(self.noise_to_signal, self.mismatch, self.noise_error, self.teacher_noise_error, strict=True)
        rows += [[f"{r:.4g}", *(f"{value:.5f}" for value in values)] for r, *values in levels]
        whole = [
            ["", "student", "teacher"],
            ["log Z", f"{self.log_z:.3f} +- {self.log_z_error:.3f}", "-"],
            ["held-out nats", *(f"{n:.3f} +- {e:.3f}" for n, e in zip(self._nats, self.nats_error, strict=True))],
            [f"Frechet (data {self.frechet_floor:.3g})", f"{self.frechet:.4g}", f"{self.teacher_frechet:.4g}"],
        ]
        return f"{self.student}, beside {self.teacher}\n{columns(rows)}\n\n{columns(whole, num_left=1)}"

    @property
    def _nats(self) -> tuple[float, float]:
        return self.nats, self.teacher_nats


def distillation_report(
    rng_key: jax.Array,
    density: Density,
    teacher: Density,
    data: Any,
    *,
    features: Callable[[Any], Any] | None = None,
    num_levels: int = 8,
    num_samples: int | None = None,
    num_likelihoods: int = 500,
    num_chains: int = 1000,
    progress_bar: bool = False,
) -> DistillationReport:
    """An energy density beside the score model it was distilled from, on held-out data.

    Args:
        rng_key: JAX random key.
        density: What `nd.distil` returned, given a condition where the teacher is.
        teacher: The score model.
        data: Points [n, *event_shape] that neither was trained on.
        features: `(points [n, *event_shape]) -> [n, k]`, of which Frechet distances are taken; the points themselves
            by default, for which they compare means and covariances.
        num_levels: Noise levels, geometric over the density's range.
        num_samples: Samples for the Frechet distances; as many as there are data, at most 2,000, by default.
        num_likelihoods: Data whose log densities are compared; 0 for none, as of images the teacher's take long.
        num_chains: Chains of the annealed run that measures log Z beyond two dimensions; 0 does not measure it, as for
            images, for which it takes too long.
        progress_bar: Show how runs go.

    Raises:
        ArgumentTypeError: if the density is no trained energy, or the teacher no score model.
        ShapeError: if event shapes differ.
        ParameterError: for NaN in the data, and settings out of range.

    Cost: of scores 2 x 2,048 evaluations a level; log Z as `calibration_report`; probability flows of 500 points; and
    two runs of reverse diffusion, which take most of the time.
    """
    rng_key = check_key(rng_key)
    check_density("nd.distillation_report", density)
    if not is_energy(density):
        raise ArgumentTypeError(f"nd.distillation_report takes a trained energy first; got {density!r}. See nd.distil.")
    check_teacher("nd.distillation_report", teacher)
    x = np.asarray(data)
    if not density.event_shape == teacher.event_shape == x.shape[1:] or len(x) < 2:
        raise ShapeError(
            "density, teacher and data [n, *event_shape], n >= 2, must have one event shape; got "
            f"{density.event_shape}, {teacher.event_shape} and data {x.shape}."
        )
    check_finite(Points(x))
    check_integer("num_levels", num_levels)
    keys = jax.random.split(rng_key, 4)
    ratios = np.geomspace(float(density.sigmas[0]), float(density.sigmas[1]), num_levels)  # pyright: ignore
    levels = np.array([_errors(density, teacher, x[:NUM_POINTS], r, keys[0]) for r in ratios]).T
    log_z, log_z_error = _log_z(density, keys[1], num_chains, progress_bar)
    held_out = _held_out(density, teacher, x[: check_integer("num_likelihoods", num_likelihoods, 0)], keys[2])
    count = check_integer("num_samples", min(len(x), 2000) if num_samples is None else num_samples, 2)
    distances = _distances(density, teacher, x, count, features, keys[3], progress_bar)
    return DistillationReport(
        noise_to_signal=ratios, mismatch=levels[0], noise_error=levels[1], teacher_noise_error=levels[2],
        log_z=log_z, log_z_error=log_z_error, nats=float(held_out[0].mean()), teacher_nats=float(held_out[1].mean()),
        nats_error=(_error(held_out[0]), _error(held_out[1])),
        frechet=distances[0], teacher_frechet=distances[1], frechet_floor=distances[2],
        student=repr(density), teacher=repr(teacher),
    )  # fmt: skip


def _errors(density, teacher, x, r: float, rng_key) -> np.ndarray:
    """[3]: the mismatch of scores of noised points at one level, and the errors of both predicted noises."""
    x = jnp.asarray(x, dtype=float).reshape(len(x), -1)
    eps = jax.random.normal(rng_key, x.shape)
    batch = IMAGE_BATCH if takes_images(teacher) else NUM_POINTS
    pieces = [slice(i, i + batch) for i in range(0, len(x), batch)]
    return np.mean(np.concatenate([_squares(density, teacher, x[s], eps[s], r) for s in pieces]), axis=0)


@jax.jit
def _squares(density, teacher, x, eps, r):
    def one(x, eps):
        ours, theirs = (r * score(model, x + r * eps, r) for model in (density, teacher))
        return jnp.stack([jnp.mean(e**2) for e in (ours - theirs, ours + eps, theirs + eps)])

    return jax.vmap(one)(x, eps)


def _log_z(density, rng_key, num_chains: int, progress_bar: bool) -> tuple[float, float]:
    if np.prod(density.event_shape) <= 2:
        report = calibration_report(density)
    elif num_chains and not takes_images(density):
        report = calibration_report(density, rng_key=rng_key, num_chains=num_chains, progress_bar=progress_bar)
    else:
        return float("nan"), float("nan")
    return float(report.log_z[-1]), float(report.log_z_error[-1])


def _held_out(density, teacher, x, rng_key) -> tuple[np.ndarray, np.ndarray]:
    """Log densities of both, in y = x / alpha, of data with the noise of the density's resolution r."""
    if not len(x):
        return np.full(1, np.nan), np.full(1, np.nan)
    r = density.resolution
    y = x + r * np.asarray(jax.random.normal(rng_key, x.shape))

    def log_prob(model):
        t = float(model.schedule.time(r))
        alpha = float(model.schedule.alpha(t))
        return np.asarray(model.log_prob(alpha * y, t)) + y[0].size * np.log(alpha)

    return log_prob(density), log_prob(teacher)


def _error(values) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def _distances(density, teacher, x, count: int, features, rng_key, progress_bar) -> tuple[float, float, float]:
    """Frechet distances from the data of the density's samples, the teacher's, and other data."""
    features = features or (lambda points: points.reshape(len(points), -1))
    reference = features(x)
    runs = [anneal(rng_key, d, Reverse(), num_chains=count, progress_bar=progress_bar) for d in (density, teacher)]
    ours, theirs = (frechet_distance(features(np.asarray(run.samples)), reference) for run in runs)
    half = len(x) // 2
    return ours, theirs, frechet_distance(reference[:half], reference[half:]) if half >= 2 else float("nan")
