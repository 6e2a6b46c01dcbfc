"""Runs of flows as ArviZ 1.x data: an xarray DataTree."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import xarray as xr
from arviz_base import dict_to_dataset

from ..diagnose.datatree import WEIGHTED
from ..diagnose.weights import normalised
from ..program import versions


def to_datatree(run) -> xr.DataTree:
    """The groups posterior, sample_stats and paths of a `FlowRun`.

    Chains are islands, or one. Leaves of states are named x, or by their path in the pytree. Draws weigh by
    sample_stats.weight.
    """
    islands, log_weights = run.num_islands, np.asarray(run.log_weights, dtype=float)

    def dataset(values: dict[str, Any], **more):
        laid_out = {k: np.asarray(v).reshape(islands, -1, *np.shape(v)[1:]) for k, v in values.items()}
        return dict_to_dataset(laid_out, sample_dims=("chain", "draw"), **more)

    leaves = jax.tree_util.tree_leaves_with_path(run.samples)
    names = {jax.tree_util.keystr(where, simple=True, separator=".") or "x": leaf for where, leaf in leaves}
    alike = bool(np.ptp(log_weights) == 0)
    stats = {"log_weight": log_weights, "weight": normalised(log_weights), "ancestor": np.asarray(run.ancestors)}
    paths = xr.Dataset({name: (("action",), value) for name, value in run.stats.items()})
    root = xr.Dataset(
        attrs={
            "inference_library": "numpyro_diffusion",
            "inference_library_version": versions()["version of numpyro_diffusion"],
            "formula": repr(run.flow), "environment": repr(run.flow.environment),
            "log_evidence": float(run.log_evidence), "log_evidence_error": float(run.log_evidence_error),
        }
    )  # fmt: skip
    posterior = dataset(names, attrs={} if alike else {"weights": WEIGHTED})
    return xr.DataTree.from_dict({"/": root, "posterior": posterior, "sample_stats": dataset(stats), "paths": paths})
