"""Runs and bounds as ArviZ 1.x data: an xarray DataTree.

Annealed chains are particles: independent until they are resampled, each with one point at the end. They are laid out
as `chain` = 1, `draw` = N, on which `az.summary` gives means, intervals and standard errors; its ESS even sees the
copies that resampling leaves side by side. R-hat compares long chains with each other and means nothing here.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

import numpy as np
import xarray as xr

from .bounds import Bound
from .level import batch_log_prob
from .run import AnnealedRun, kernel_text

LAYOUT = (
    "one annealed particle per draw, all in chain 0. Particles are not successive states of a Markov chain: "
    "R-hat is meaningless, ESS and intervals are not. Judge the run by the annealing group."
)


def to_datatree(result: AnnealedRun | Bound) -> xr.DataTree:
    """A run or a bound as ArviZ data.

    Args:
        result: Result of `nd.anneal`, or of `nd.ais_bound`, `nd.raise_bound`, `nd.bdmc`.

    Returns:
        For a run the groups

        - `posterior`: x (chain = 1, draw = N, x_dim_0, ...).
        - `sample_stats`: log_weight, weight (sums to one) and, where there is a log density, lp; (chain, draw).
        - `annealing`: statistics by noise_level [K], with coordinates t and noise_to_signal, and with history kept
          chain_acceptance_rate and chain_log_weight_increment (chain = N, noise_level). Absent for reverse diffusion.

        For a bound the group `bounds`: lower, lower_error, upper, upper_error, gap, and a log weight per chain
        (log_weight_forward [chain], ...) or per point and repeat (log_weight_points [point, repeat]).

    Raises:
        TypeError: for anything else.
    """
    if isinstance(result, AnnealedRun):
        return _run_tree(result)
    if isinstance(result, Bound):
        return _bound_tree(result)
    raise TypeError(f"to_datatree takes the result of nd.anneal or of a bound; got {type(result).__name__}.")


def _attributes(**more) -> dict[str, Any]:
    # Numbers and strings only: netCDF stores no other attributes.
    try:
        version = metadata.version("numpyro-diffusion")
    except metadata.PackageNotFoundError:  # Run from a source tree that was never installed.
        version = "unknown"
    return {"inference_library": "numpyro_diffusion", "inference_library_version": version, **more}


def _run_tree(run):
    samples, log_weights = np.asarray(run.samples), np.asarray(run.log_weights, dtype=float)
    axes = [f"x_dim_{i}" for i in range(samples.ndim - 1)]
    particles = {"chain": [0], "draw": np.arange(len(samples))}
    coords = {**particles, **{axis: np.arange(n) for axis, n in zip(axes, samples.shape[1:], strict=True)}}
    posterior = xr.Dataset({"x": (("chain", "draw", *axes), samples[None])}, coords, attrs={"layout": LAYOUT})

    stats = {"log_weight": log_weights, "weight": _normalised(log_weights)}
    if run.density.has_log_density:
        stats["lp"] = np.asarray(batch_log_prob(run.density, run.samples, float(run.levels[-1])))
    sample_stats = xr.Dataset({k: (("chain", "draw"), v[None]) for k, v in stats.items()}, particles)

    groups = {"posterior": posterior, "sample_stats": sample_stats}
    if run.stats:
        groups["annealing"] = _annealing(run)
    attrs = _attributes(
        formula=repr(run.density),
        kernel=kernel_text(run.kernel),
        log_evidence=float(run.log_evidence),
        log_evidence_error=float(run.log_evidence_error),
        evaluations_per_chain=int(run.evaluations_per_chain),
    )
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **groups})


def _normalised(log_weights):
    if not np.any(np.isfinite(log_weights)):
        return np.full(len(log_weights), np.nan)
    weights = np.exp(log_weights - log_weights.max())
    return weights / weights.sum()


def _annealing(run):
    ratio = np.asarray(run.density.schedule.noise_to_signal(np.asarray(run.levels)), dtype=float)
    coords = {
        "noise_level": np.arange(len(run.levels)),
        "t": ("noise_level", np.asarray(run.levels)),
        "noise_to_signal": ("noise_level", ratio),
    }
    values = {name: (("noise_level",), np.asarray(value)) for name, value in run.stats.items()}
    if run.history:
        coords["chain"] = np.arange(len(run.samples))
        values |= {f"chain_{k}": (("chain", "noise_level"), np.asarray(v).T) for k, v in run.history.items()}
    note = "from noise to data; ess and conditional_ess are shares of the chains; chain i here is draw i of posterior"
    return xr.Dataset(values, coords, attrs={"description": note})


def _bound_tree(bound):
    scalars = {name: float(getattr(bound, name)) for name in ("lower", "lower_error", "upper", "upper_error")}
    scalars["gap"] = scalars["upper"] - scalars["lower"]
    values: dict[str, Any] = {name: ((), value) for name, value in scalars.items()}
    weights = {name: np.asarray(w) for name, w in bound.log_weights.items()}
    # Forward and reverse runs share `chain` unless their numbers of chains differ.
    alike = len({w.shape for w in weights.values()}) == 1
    for name, w in weights.items():
        dims = ("point", "repeat") if w.ndim == 2 else ("chain",) if alike else (f"{name}_chain",)
        values[f"log_weight_{name}"] = (dims, w)
    levels = np.asarray(bound.levels)
    coords = {"noise_level": np.arange(len(levels)), "t": ("noise_level", levels)}
    attrs = {"kind": bound.kind, "description": "stochastic bounds in nats; NaN where the method gives none"}
    return xr.DataTree.from_dict(
        {"/": xr.Dataset(attrs=_attributes()), "bounds": xr.Dataset(values, coords, attrs=attrs)}
    )
