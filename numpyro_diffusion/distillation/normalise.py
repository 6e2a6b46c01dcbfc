"""log Z of a density just trained: measured, with as much effort as it takes, and taken out."""

from __future__ import annotations

import math
import warnings

import jax
import numpy as np

from ..annealing.calibration import MOST_RUN_ERROR, log_z_by_annealing, recalibrate, without
from ..density.energy import EnergyDensity
from ..errors import DiagnosticWarning, ParameterError, warn

#: Standard error of log Z, in nats, that is good enough, and the efforts of annealed runs until it is reached, each
#: some six times the one before.
TARGET = 0.25
EFFORTS = (
    {"num_chains": 1_000, "num_steps": 2, "levels_per_knot": 1},
    {"num_chains": 2_000, "num_steps": 3, "levels_per_knot": 2},
    {"num_chains": 4_000, "num_steps": 4, "levels_per_knot": 4},
)


def normalised(rng_key, density: EnergyDensity, progress_bar: bool) -> EnergyDensity:
    """The density less its log Z, or, with a warning, as it is where that cannot be told to a nat."""
    if math.prod(density.event_shape) <= 2:
        try:
            return recalibrate(rng_key, density, method="quadrature")
        except ParameterError as error:
            return _as_it_is(density, str(error))
    best, error = None, math.inf
    for number, effort in enumerate(EFFORTS):
        key = jax.random.fold_in(rng_key, number)
        with warnings.catch_warnings():
            # That log Z is not zero is what these runs are for, and whether they know it their error says.
            warnings.simplefilter("ignore", DiagnosticWarning)
            run, log_z = log_z_by_annealing(key, density, None, **effort, progress_bar=progress_bar)
        if not run.is_complete:
            return _as_it_is(density, "the run that measures it was interrupted")
        if run.log_evidence_error < error and np.all(np.isfinite(log_z.found)):
            best, error = log_z, run.log_evidence_error
        if error <= TARGET:
            break
    if best is None or not error <= MOST_RUN_ERROR:
        return _as_it_is(density, f"the best run found it with an error of {error:.3g} nats")
    return without(density, best)


def _as_it_is(density: EnergyDensity, why: str) -> EnergyDensity:
    warn(
        f"log Z of {density!r} was not taken out: {why}. nd.recalibrate(rng_key, density, num_chains=...) tries again."
    )
    return density
