"""Annealed posteriors of NumPyro models as ArviZ data.

`AnnealedMCMCAdapter` is what ArviZ reads; to `az.from_numpyro` an `AnnealedMCMC` is as good as its adapter.
`to_datatree` adds what only an annealed run has: statistics by noise level, evidence, and pointwise log likelihoods
computed in batches. Particles are laid out as `chain`s of `draw`s as `islands` says.
"""

from __future__ import annotations

import warnings
from typing import Any

import arviz as az
import numpy as np
import xarray as xr
from arviz_base.io_numpyro import NumPyroInferenceAdapter, infer_dims
from numpyro import validation_enabled

from ..diagnose.datatree import attributes, estimates, layout_attributes, statistics_by_level
from ..diagnose.weights import normalised
from .arviz_names import named, plain, readable
from .model_call import name_of
from .posterior import Posterior

#: ArviZ's names of extra fields.
NAMES = {"is_divergent": "diverging", "log_density": "lp"}


class AnnealedMCMCAdapter(NumPyroInferenceAdapter):
    """The posterior of an `AnnealedMCMC`, as `az.from_numpyro` reads it.

    Dimensions are named after plates, event dimensions by `infer={"event_dims": [...]}` or else `{site}_dim_{i}`; names
    that a DataTree cannot hold are replaced (`names`: readable ones by site).
    """

    posterior: Posterior
    model: Any
    sample_shape: Any
    _args: Any
    _kwargs: Any

    def __init__(self, posterior: Posterior):
        call = posterior.call
        self.names = readable([*posterior.samples, *call.observed])
        # ArviZ traces the model wherever an init strategy leads, which need not be valid.
        model = validation_enabled(False)(named(call.seeded(), self.names))
        shape: Any = posterior.islands.shape
        super().__init__(posterior, model, call.args, call.kwargs, shape)

    @property
    def sample_dims(self) -> list[str]:
        return ["chain", "draw"]

    def get_samples(self, seed=None, **kwargs) -> dict[str, Any]:
        """Latent and deterministic sites [chain, draw, ...]."""
        return self._laid_out(self.named(self.posterior.samples))

    def get_sample_stats(self, **kwargs) -> dict[str, Any]:
        """One value per draw [chain, draw], under ArviZ's names.

        `weight` sums to one; `particle` is the draw's place along the first axis of `get_samples(group_by_chain=True)`.
        """
        fields: dict[str, Any] = dict(self.posterior.fields)
        weights = np.asarray(fields["log_weight"], dtype=float)
        fields["weight"] = normalised(weights.ravel()).reshape(weights.shape)
        fields["particle"] = np.broadcast_to(np.arange(len(weights))[:, None], weights.shape)
        return self._laid_out({NAMES.get(name, name): value for name, value in fields.items()})

    def dims(self, extra_event_dims: dict[str, list[str]] | None = None) -> dict[str, list[str]]:
        """Names of all axes by site, the last ones as the user names them."""
        found = infer_dims(self.model, self._args, self._kwargs)
        for name, axes in (extra_event_dims or {}).items():
            known = found.get(name, [])
            found[name] = [*known[: max(len(known) - len(axes), 0)], *axes]
        return found

    def named(self, by_site: dict) -> dict:
        """Values under readable names."""
        return {self.names.get(name) or plain(name): value for name, value in by_site.items()}

    def renamed(self, groups: dict[str, Any]) -> dict[str, Any]:
        """Groups, coords and dims under readable names."""
        axes = {axis for names in self.dims().values() for axis in names}

        def axis_name(axis):
            # A label of draws is meant where no plate is called like them.
            return plain(axis) if plain(axis) in axes or "/" in axis else axis

        found = {}
        for name, value in groups.items():
            if isinstance(value, dict) and name == "coords":
                value = {axis_name(axis): labels for axis, labels in value.items()}
            elif isinstance(value, dict):
                value = self.named(value)
                if name in ("dims", "pred_dims", "extra_event_dims"):
                    value = {site: [a and axis_name(a) for a in axes] for site, axes in value.items()}
            found[name] = value
        return found

    def _laid_out(self, values) -> dict[str, Any]:
        return {k: np.asarray(v).reshape(self.sample_shape + v.shape[2:]) for k, v in values.items()}


def to_datatree(found: Posterior, *, log_likelihood: bool = True, **groups) -> xr.DataTree:
    """An annealed posterior as ArviZ data.

    Args:
        found: The posterior of an `AnnealedMCMC`.
        log_likelihood: Whether to add the log likelihood of every observation, which `az.loo` and `az.compare` read;
            as many numbers as draws times observations. What is masked is left out; where discrete latents were summed
            out, observations share them, and there is none.
        **groups: As for `az.from_numpyro`: prior, posterior_predictive, predictions, constant_data, coords, dims, ...
            Names are those of the model.

    Returns:
        The groups of `az.from_numpyro` (posterior, sample_stats, observed_data and those given), log_likelihood, and
        `estimates` and `annealing` as of `nd.AnnealedRun.to_datatree`. Attributes: log_evidence, log_evidence_error,
        evaluations_per_chain, model, kernel. A variable whose name had to be replaced ("a.x" for "a/x") has the
        attribute `site`; the posterior's attribute `layout` tells what R-hat and ESS are worth.

    Raises:
        RuntimeError: before `run`.
    """
    adapter, run, observed = AnnealedMCMCAdapter(found), found.run, found.call.observed
    groups = adapter.renamed(groups)
    inferred, coords = adapter.dims(groups.pop("extra_event_dims", None)), groups.get("coords")
    dims = groups.setdefault("dims", inferred)
    groups.setdefault("pred_dims", inferred)
    with warnings.catch_warnings():
        # One draw per chain is how R-hat and ESS are withheld, not a mistake.
        warnings.filterwarnings("ignore", "Found chain dimension to be longer", UserWarning)
        tree = az.from_numpyro(adapter, **groups)
        tree = tree.filter(lambda group: group.name != "observed_data")  # With factors, and as ArviZ traces it.
        if observed:
            data = az.dict_to_dataset(adapter.named(observed), dims=dims, coords=coords, sample_dims=[])
            tree["observed_data"] = xr.DataTree(data)
        if observed and log_likelihood and found.call.discrete is None:
            values = {k: v for k, v in found.by_site("log_likelihood").items() if k in observed}
            values = {k: v.reshape(adapter.sample_shape + v.shape[1:]) for k, v in values.items()}
            # A mask that depends on latents leaves in what it leaves in at any draw.
            masks = {name: mask.any(axis=0) for name, mask in found.by_site("counted").items()}
            data = likelihood_dataset(adapter.named(values), adapter.named(masks), dims, coords)
            tree["log_likelihood"] = xr.DataTree(data)
    tree["estimates"] = xr.DataTree(
        estimates(adapter.named(found.particles.samples), found.particles, dims=dims, coords=coords)
    )
    tree["annealing"] = xr.DataTree(statistics_by_level(run))
    tree["posterior"].attrs |= layout_attributes(run, found.islands)
    for group in tree.children.values():
        for site, name in adapter.names.items():
            if site != name and name in group.data_vars:
                group[name].attrs["site"] = site
    tree.attrs |= attributes(run, model=name_of(found.call.model))
    return tree


def likelihood_dataset(values: dict[str, np.ndarray], masks: dict[str, np.ndarray], dims, coords) -> xr.Dataset:
    """Log likelihoods [chain, draw, ...] by site, of the entries that count.

    A site that is masked in part keeps their labels as coordinates; several axes become one, `{site}_entry`. Sites of
    which nothing counts are left out; where there is no mask, all counts.
    """
    found: dict[str, xr.DataArray] = {}
    masks = {name: mask for name, mask in masks.items() if not mask.all()}
    # Whole sites first: those in part stand aside where labels differ.
    for name in sorted(values, key=lambda name: name in masks):
        array = az.dict_to_dataset({name: values[name]}, coords=coords, dims=dims, skip_event_dims=True)[name]
        if name in masks:
            if not masks[name].any():
                continue
            array = _aside(_in_part(array, name, masks[name]), name, found.values())
        found[name] = array
    return xr.Dataset({name: found[name] for name in values if name in found})


def _in_part(array: xr.DataArray, name: str, mask: np.ndarray) -> xr.DataArray:
    axes, places = array.dims[2:], np.nonzero(mask)
    if len(axes) == 1:
        return array.isel({axes[0]: places[0]})
    entry = f"{name}_entry"
    return array.isel({axis: xr.DataArray(place, dims=entry) for axis, place in zip(axes, places, strict=True)})


def _aside(array: xr.DataArray, name: str, others) -> xr.DataArray:
    """The array with names of its own for axes that others have with other labels."""

    def differs(axis, other) -> bool:
        return axis in other.coords and not other[axis].equals(array[axis])

    axes = [axis for axis in array.coords if axis not in ("chain", "draw")]
    return array.rename({a: f"{name}_{a}" for a in axes if any(differs(a, other) for other in others)})
