"""Runs and bounds as ArviZ 1.x data: an xarray DataTree.

Annealed chains are particles: independent until they are resampled, each with one point at the end. `islands` lays
them out as the chains and draws that `az.summary` expects.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from arviz_base import dict_to_dataset

from ..density.abstract import batch_log_prob
from ..errors import ArgumentTypeError
from ..program import versions
from .expectations import Particles, mean_of
from .islands import Layout, layout, weigh_alike
from .result_fields import BoundFields, ResultFields, RunFields
from .weights import normalised

WEIGHTED = "draws weigh by sample_stats.weight, which summaries and loo ignore; the group estimates has weighted means."


def to_datatree(result: ResultFields) -> xr.DataTree:
    """A run or a bound as ArviZ data.

    Args:
        result: Result of `nd.anneal`, or of `nd.ais_bound`, `nd.raise_bound`, `nd.bdmc`.

    Returns:
        For a run the groups

        - `posterior`: x (chain, draw, x_dim_0, ...); chains are islands of particles, and their relatives lie side by
          side, see `islands`. The attribute `layout` tells what R-hat and ESS are worth.
        - `sample_stats`: log_weight, weight (sums to one), ancestor (founding chain), where there is a log density lp,
          and particle: which of `run.samples` a draw is; (chain, draw).
        - `estimates`: of x the mean, its error by families of particles, the effective number of draws, the Pareto k
          and, of several islands, the error between them, along `statistic`; see `nd.expectation`.
        - `annealing`: statistics by noise_level [K], with coordinates t and noise_to_signal, and with history kept
          chain_acceptance_rate and chain_log_weight_increment (particle = N, noise_level). Absent for reverse
          diffusion.

        For a bound the group `bounds`: lower, lower_error, upper, upper_error, gap, and a log weight per chain
        (log_weight_forward [chain], ...) or per point and repeat (log_weight_points [point, repeat]).

    Raises:
        TypeError: for anything else.
    """
    if isinstance(result, RunFields):
        return _run_tree(result)
    if isinstance(result, BoundFields):
        return _bound_tree(result)
    raise ArgumentTypeError(f"to_datatree takes the result of nd.anneal or of a bound; got {type(result).__name__}.")


def attributes(run: RunFields | None = None, **more) -> dict[str, Any]:
    """Attributes of a whole tree: which library made it, and what a run found; numbers and text alone, for netCDF."""
    found: dict[str, Any] = {"inference_library": "numpyro_diffusion"}
    found["inference_library_version"] = versions()["version of numpyro_diffusion"]
    if run is not None:
        found |= {"kernel": repr(run.kernel), "evaluations_per_chain": int(run.evaluations_per_chain)}
        found["pilot_evaluations"] = float(run.pilot_evaluations)
        found |= {name: float(getattr(run, name)) for name in ("log_evidence", "log_evidence_error")}
        if run.island_log_evidences is not None:
            found["island_log_evidences"] = [float(value) for value in run.island_log_evidences]
        if run.verdict is not None:
            found |= {"verdict": run.verdict.verdict, "verdict_score": float(run.verdict.score)}
    return found | more


def _run_tree(run):
    log_weights, islands = np.asarray(run.log_weights, dtype=float), layout(run)
    stats = {"log_weight": log_weights, "weight": normalised(log_weights), "particle": np.arange(len(log_weights))}
    if run.density.has_log_density:
        stats["lp"] = np.asarray(batch_log_prob(run.density, run.samples, float(run.levels[-1])))

    def dataset(values, attrs=None):
        laid_out = {k: v[islands.particles].reshape(islands.shape + v.shape[1:]) for k, v in values.items()}
        return dict_to_dataset(laid_out, sample_dims=("chain", "draw"), attrs=attrs)

    if run.ancestors is not None:
        stats["ancestor"] = np.asarray(run.ancestors)
    groups = {"posterior": dataset({"x": np.asarray(run.samples)}, layout_attributes(run, islands))}
    groups["estimates"] = estimates({"x": run.samples}, run.particles)
    groups["sample_stats"] = dataset(stats)
    if run.stats:
        groups["annealing"] = statistics_by_level(run)
    root = xr.Dataset(attrs=attributes(run, formula=repr(run.density)))
    return xr.DataTree.from_dict({"/": root, **groups})


def estimates(values: dict[str, Any], particles: Particles, **axes) -> xr.Dataset:
    """The group `estimates`, of draws [M, ...] by name; `axes` (dims, coords) are those of a posterior's variables."""
    found = {name: mean_of(np.asarray(value, dtype=float), particles) for name, value in values.items()}
    rows = ["value", "error", "num_effective", "pareto_k", *(["island_error"] if particles.island is not None else [])]
    stacked = {name: np.stack([getattr(e, row) for row in rows]) for name, e in found.items()}
    coords: dict[Any, Any] = {"statistic": ["mean", *rows[1:]]} | dict(axes.pop("coords", None) or {})
    attrs = {"description": "errors by families of related particles", "num_effective": particles.num_effective}
    found = dict_to_dataset(stacked, sample_dims=("statistic",), coords=coords, attrs=attrs, **axes)
    # netCDF would give back a text for a list of one.
    found.attrs.pop("sample_dims", None)
    return found


def layout_attributes(run: RunFields, islands: Layout) -> dict[str, str]:
    """Attributes of a posterior: what R-hat and ESS of its draws are worth, and whether these weigh alike."""
    alike = weigh_alike(run) and run.num_islands == 1
    return {"layout": islands.note, **({} if alike else {"weights": WEIGHTED})}


def statistics_by_level(run: RunFields) -> xr.Dataset:
    """The group `annealing`: statistics by noise level, and those of every chain if they were kept."""
    ratio = run.density.schedule.ratios(run.levels)
    coords = {
        "noise_level": np.arange(len(run.levels)),
        "t": ("noise_level", np.asarray(run.levels)),
        "noise_to_signal": ("noise_level", ratio),
    }
    values = {name: (("noise_level",), np.asarray(value)) for name, value in run.stats.items()}
    if run.history:
        coords["particle"] = np.arange(len(run.samples))
        values |= {f"chain_{k}": (("particle", "noise_level"), np.asarray(v).T) for k, v in run.history.items()}
    note = "from noise to data; ess and conditional_ess are shares of the chains; sample_stats.particle numbers these"
    return xr.Dataset(values, coords, attrs={"description": note})


def _bound_tree(bound):
    names = ("lower", "lower_error", "upper", "upper_error", "gap")
    values: dict[str, Any] = {name: ((), float(getattr(bound, name))) for name in names}
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
        {"/": xr.Dataset(attrs=attributes()), "bounds": xr.Dataset(values, coords, attrs=attrs)}
    )
