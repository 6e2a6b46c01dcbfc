"""Annealed posteriors of NumPyro models as ArviZ data.

`AnnealedMCMCAdapter` is what ArviZ reads; to `az.from_numpyro` an `AnnealedMCMC` is as good as its adapter.
`to_datatree` adds what only an annealed run has: statistics by noise level, evidence, and pointwise log likelihoods
computed in batches. Particles are laid out as `chain`s of `draw`s as `islands` says.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import arviz as az
import jax
import numpy as np
import xarray as xr
from arviz_base.io_numpyro import NumPyroInferenceAdapter, infer_dims
from numpyro import validation_enabled

from ..diagnose.datatree import attributes, layout_attributes, statistics_by_level
from ..diagnose.weights import normalised
from .joint import JointDensity
from .masks import likelihood_dataset
from .names import name_of, named, plain, readable

if TYPE_CHECKING:
    from .mcmc import AnnealedMCMC

#: Draws whose log likelihoods are computed at once.
BATCH_SIZE = 256
#: ArviZ's names of extra fields.
NAMES = {"is_divergent": "diverging", "log_density": "lp"}


class AnnealedMCMCAdapter(NumPyroInferenceAdapter):
    """An `AnnealedMCMC` that has been run, as `az.from_numpyro` reads it.

    Dimensions are named after plates, event dimensions by `infer={"event_dims": [...]}` or else `{site}_dim_{i}`; names
    that a DataTree cannot hold are replaced (`names`: readable ones by site).

    Raises:
        RuntimeError: before `run`.
    """

    posterior: Any
    model: Any
    sample_shape: Any
    _args: Any
    _kwargs: Any

    def __init__(self, mcmc: AnnealedMCMC):
        _ = mcmc.annealed
        source = mcmc._source
        self.names = readable([*mcmc._samples, *_observed(mcmc)])
        with_names = named(source.seeded(), self.names)

        def quiet(*args, **kwargs):
            # ArviZ traces the model wherever an init strategy leads, which need not be valid.
            with validation_enabled(False):
                return with_names(*args, **kwargs)

        shape: Any = mcmc._islands.shape
        super().__init__(mcmc, quiet, source.args, source.kwargs, shape)

    @property
    def sample_dims(self) -> list[str]:
        return ["chain", "draw"]

    def get_samples(self, seed=None, **kwargs) -> dict[str, Any]:
        """Latent and deterministic sites [chain, draw, ...]."""
        samples = self.posterior.get_samples(group_by_chain=True)
        return self._laid_out(self.named(samples))

    def get_sample_stats(self, **kwargs) -> dict[str, Any]:
        """One value per draw [chain, draw], under ArviZ's names.

        `weight` sums to one; `particle` is the draw's place along the first axis of `get_samples(group_by_chain=True)`.
        """
        fields = dict(self.posterior._fields)
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


def to_datatree(mcmc: AnnealedMCMC, *, log_likelihood: bool = True, **groups) -> xr.DataTree:
    """An annealed posterior as ArviZ data.

    Args:
        mcmc: An `AnnealedMCMC` that has been run.
        log_likelihood: Whether to add the log likelihood of every observation, which `az.loo` and `az.compare` read;
            as many numbers as draws times observations. What is masked is left out.
        **groups: As for `az.from_numpyro`: prior, posterior_predictive, predictions, constant_data, coords, dims, ...
            Names are those of the model.

    Returns:
        The groups of `az.from_numpyro` (posterior, sample_stats, observed_data and those given), log_likelihood, and
        `annealing` as of `nd.AnnealedRun.to_datatree`. Attributes: log_evidence, log_evidence_error,
        evaluations_per_chain, model, kernel. A variable whose name had to be replaced ("a.x" for "a/x") has the
        attribute `site`; the posterior's attribute `layout` tells what R-hat and ESS are worth.

    Raises:
        RuntimeError: before `run`.
    """
    adapter, run = AnnealedMCMCAdapter(mcmc), mcmc.annealed
    groups = adapter.renamed(groups)
    inferred, coords = adapter.dims(groups.pop("extra_event_dims", None)), groups.get("coords")
    dims = groups.setdefault("dims", inferred)
    groups.setdefault("pred_dims", inferred)
    with warnings.catch_warnings():
        # One draw per chain is how R-hat and ESS are withheld, not a mistake.
        warnings.filterwarnings("ignore", "Found chain dimension to be longer", UserWarning)
        tree = az.from_numpyro(adapter, **groups)
        tree = tree.filter(lambda group: group.name != "observed_data")  # With factors, and as ArviZ traces it.
        if observed := adapter.named(_observed(mcmc)):
            data = az.dict_to_dataset(observed, dims=dims, coords=coords, sample_dims=[])
            tree["observed_data"] = xr.DataTree(data)
        if observed and log_likelihood:
            values = {k: v.reshape(adapter.sample_shape + v.shape[1:]) for k, v in _log_likelihoods(mcmc).items()}
            masks = adapter.named(_masks(mcmc))
            tree["log_likelihood"] = xr.DataTree(likelihood_dataset(adapter.named(values), masks, dims, coords))
    tree["annealing"] = xr.DataTree(statistics_by_level(run))
    tree["posterior"].attrs |= layout_attributes(run, mcmc._islands)
    for group in tree.children.values():
        for site, name in adapter.names.items():
            if site != name and name in group.data_vars:
                group[name].attrs["site"] = site
    more = {"model": name_of(mcmc.model), "evaluations_per_chain": int(mcmc.evaluations_per_chain)}
    tree.attrs |= attributes(run, **more)
    return tree


# What the model was when it was run.


def _observed(mcmc: AnnealedMCMC) -> dict[str, np.ndarray]:
    """Observed values by site; factors have none."""
    return mcmc._source.observed


def _masks(mcmc: AnnealedMCMC) -> dict[str, np.ndarray]:
    """Which entries of a log likelihood count, by site where not all do."""
    found = {}
    for name, mask in _at_all_draws(mcmc, "counted").items():
        # One that depends on latents leaves in what it leaves in at any draw.
        if not (mask := mask.any(axis=0)).all():
            found[name] = mask
    return found


def _log_likelihoods(mcmc: AnnealedMCMC) -> dict[str, np.ndarray]:
    """Log likelihoods [N, ...] by site at all draws."""
    return {name: value for name, value in _at_all_draws(mcmc, "log_likelihood").items() if name in _observed(mcmc)}


def _at_all_draws(mcmc: AnnealedMCMC, program: str) -> dict[str, np.ndarray]:
    positions = mcmc._positions.reshape(-1, mcmc._positions.shape[-1])
    return {name: np.asarray(value) for name, value in _map(mcmc.joint, positions, program=program).items()}


@partial(jax.jit, static_argnames="program")
def _map(joint: JointDensity, positions, *, program: str):
    return jax.lax.map(lambda z: joint.call(program, z), positions, batch_size=BATCH_SIZE)
