"""Annealed posteriors of NumPyro models as ArviZ data.

`AnnealedMCMCAdapter` is what `az.from_numpyro` takes; `to_datatree` adds what only an annealed run has: statistics by
noise level, evidence, and pointwise log likelihoods computed in batches. Particles of one draw each are laid out as
`chain` = 1, `draw` = num_chains (see `datatree.LAYOUT`); chains that went on at t = 0 as `chain` = num_chains.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from arviz_base.io_numpyro import NumPyroInferenceAdapter, infer_dims
from numpyro import validation_enabled
from numpyro.handlers import seed, substitute
from numpyro.infer import log_likelihood
from numpyro.primitives import Messenger

from ..datatree import LAYOUT, _annealing, _attributes, _normalised
from ..run import kernel_text
from .joint import JointDensity

if TYPE_CHECKING:
    from .mcmc import AnnealedMCMC

#: Draws whose log likelihoods are computed at once.
BATCH_SIZE = 256
WEIGHTED = "draws weigh by sample_stats.weight, which summaries and loo ignore; resample them first."
#: ArviZ's names of extra fields.
NAMES = {"is_divergent": "diverging", "log_density": "lp"}


class AnnealedMCMCAdapter(NumPyroInferenceAdapter):
    """An `AnnealedMCMC` that has been run, for `az.from_numpyro(mcmc.arviz_adapter(), ...)`.

    Dimensions are named after plates, event dimensions by `infer={"event_dims": [...]}` or else `{site}_dim_{i}`.

    Raises:
        RuntimeError: before `run`.
    """

    posterior: Any
    sample_shape: Any

    def __init__(self, mcmc: AnnealedMCMC):
        _ = mcmc.annealed
        joint: Any = mcmc.joint
        args, kwargs = joint.arguments.call()
        chains, draws = mcmc.num_chains, mcmc.num_samples
        shape: Any = (1, chains) if draws == 1 else (chains, draws)
        named = _name_dims(_seeded(joint))

        def model(*args, **kwargs):
            # ArviZ traces the model wherever an init strategy leads, which need not be valid.
            with validation_enabled(False):
                return named(*args, **kwargs)

        super().__init__(mcmc, model, args, kwargs, shape)

    @property
    def sample_dims(self) -> list[str]:
        return ["chain", "draw"]

    def get_samples(self, seed=None, **kwargs) -> dict[str, Any]:
        """Latent and deterministic sites [chain, draw, ...]."""
        return self._laid_out(self.posterior.get_samples(group_by_chain=True))

    def get_sample_stats(self, **kwargs) -> dict[str, Any]:
        """One value per draw [chain, draw], under ArviZ's names; `weight` sums to one."""
        fields = self.posterior.get_extra_fields(group_by_chain=True)
        weights = np.asarray(fields["log_weight"], dtype=float)
        fields["weight"] = _normalised(weights.ravel()).reshape(weights.shape)
        return self._laid_out({NAMES.get(name, name): value for name, value in fields.items()})

    def _laid_out(self, values) -> dict[str, Any]:
        return {k: np.asarray(v).reshape(self.sample_shape + v.shape[2:]) for k, v in values.items()}


def to_datatree(mcmc: AnnealedMCMC, *, log_likelihood: bool = True, **groups) -> xr.DataTree:
    """An annealed posterior as ArviZ data.

    Args:
        mcmc: An `AnnealedMCMC` that has been run.
        log_likelihood: Whether to add the log likelihood of every observation, which `az.loo` and `az.compare` read;
            as many numbers as draws times observations.
        **groups: As for `az.from_numpyro`: prior, posterior_predictive, predictions, constant_data, coords, dims, ...

    Returns:
        The groups of `az.from_numpyro` (posterior, sample_stats, observed_data and those given), log_likelihood, and
        `annealing` as of `nd.AnnealedRun.to_datatree`. Attributes: log_evidence, log_evidence_error,
        evaluations_per_chain, model, kernel.

    Raises:
        RuntimeError: before `run`.
    """
    adapter, run = AnnealedMCMCAdapter(mcmc), mcmc.annealed
    with warnings.catch_warnings():
        # Many short chains are the layout here, not a mistake.
        warnings.filterwarnings("ignore", "Found chain dimension to be longer", UserWarning)
        tree = az.from_numpyro(adapter, **groups)
        likelihoods = _log_likelihoods(adapter, mcmc, groups) if log_likelihood else None
    if "observed_data" in tree.children:
        # A factor is recorded as an observation without values: it is no data.
        data = tree["observed_data"].to_dataset()
        data = data[[name for name, value in data.items() if value.size]]
        tree["observed_data"] = xr.DataTree(data)
        if likelihoods is not None and data.data_vars:
            tree["log_likelihood"] = xr.DataTree(likelihoods[list(data.data_vars)])
    tree["annealing"] = xr.DataTree(_annealing(run))
    if adapter.sample_shape[0] == 1:
        tree["posterior"].attrs["layout"] = LAYOUT
    if np.ptp(np.asarray(mcmc.log_weights)) > 0:
        tree["posterior"].attrs["weights"] = WEIGHTED
    tree.attrs |= _attributes(
        model=str(run.density.name),
        kernel=kernel_text(run.kernel),
        log_evidence=float(mcmc.log_evidence),
        log_evidence_error=float(mcmc.log_evidence_error),
        evaluations_per_chain=int(mcmc.evaluations_per_chain),
    )
    return tree


def _log_likelihoods(adapter, mcmc, groups) -> xr.Dataset:
    values = _log_likelihood(mcmc.joint, mcmc.get_samples())
    data = {k: np.asarray(v).reshape(adapter.sample_shape + v.shape[1:]) for k, v in values.items()}
    dims: Any = groups.get("dims") or infer_dims(adapter.model, adapter._args, adapter._kwargs)
    return az.dict_to_dataset(data, coords=groups.get("coords"), dims=dims, skip_event_dims=True)


@jax.jit
def _log_likelihood(joint: JointDensity, samples):
    """Log likelihoods [N, ...] by site, of the model as it stands, at samples [N, ...]."""
    args, kwargs = joint.arguments.call()

    def one(values):
        return log_likelihood(_seeded(joint), values, *args, batch_ndims=0, **kwargs)

    return jax.lax.map(one, samples, batch_size=BATCH_SIZE)


def _seeded(joint):
    """The model with the subsampled plates of the run."""
    return substitute(seed(joint.model, jax.random.key(0)), data=joint.plates)


class _name_dims(Messenger):
    """Name every axis of every site, for ArviZ: by its plate where there is one.

    ArviZ puts the plates' names first, without regard to plates that leave axes between them, to time axes of `scan`
    and to event dimensions; so the names are all handed over as event dimensions.
    """

    def process_message(self, msg):
        if msg["type"] not in ("sample", "deterministic"):
            return
        frames, value = msg["cond_indep_stack"], msg["value"]
        shape = jnp.shape(value) if value is not None else msg["fn"].shape()
        names = [f"{msg['name']}_dim_{i}" for i in range(len(shape))]
        given = list((msg.get("infer") or {}).get("event_dims", []))
        if msg["type"] == "sample":
            batch = len(shape) - msg["fn"].event_dim
        else:
            batch = max((-frame.dim for frame in frames), default=0)
        for frame in frames:
            if 0 <= batch + frame.dim < len(shape) and shape[batch + frame.dim] == frame.size:
                names[batch + frame.dim] = frame.name
        if given and len(given) == len(shape) - batch:
            names[batch:] = given
        # Default names are numbered like ArviZ's own, which counts unnamed axes only.
        count = 0
        for i, name in enumerate(names):
            if name == f"{msg['name']}_dim_{i}":
                names[i], count = f"{msg['name']}_dim_{count}", count + 1
        msg["infer"] = {**(msg.get("infer") or {}), "event_dims": names}
        msg["cond_indep_stack"] = []
