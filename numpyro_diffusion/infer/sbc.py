r"""Simulation-based calibration of a NumPyro model: are posteriors right on average over the prior?

Every simulation draws latents from the prior and data from the latents by the model itself, anneals the posterior of
these data, and ranks the truth among the draws, as `diagnose.sbc_result` says. Besides latents, the log likelihood of
the data is ranked: it sees what ranks of latents cannot, such as posteriors that ignore the data (Modrak et al. 2023,
arXiv:2211.02383).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpyro.handlers import condition, trace
from tqdm.auto import tqdm

from ..diagnose.sbc_result import SBCResult, rank_of
from ..disk.runs import Interrupt, Keeper, sole_writer
from ..errors import (
    ArgumentTypeError,
    DiagnosticWarning,
    InterruptWarning,
    ParameterError,
    UnsupportedModelError,
    check_integer,
    check_key,
    check_untraced,
    warn,
)
from ..program import fingerprint, versions
from ..program import trace as trace_program
from .handlers import drawn, generated
from .mcmc import AnnealedMCMC
from .model_call import ModelCall
from .setup import prepare
from .sites import is_data, is_jacobian

KIND = "sbc"
#: Numbers of a simulation that are no ranks.
OF_RUN = ("log_evidence", "log_evidence_error", "has_findings", "evaluations_per_chain")


def sbc(
    rng_key: jax.Array,
    mcmc: AnnealedMCMC,
    *args,
    num_simulations: int = 100,
    observed: tuple[str, ...] | None = None,
    quantities: Callable[[dict], dict] | None = None,
    checkpoint_path: str | Path | None = None,
    progress_bar: bool = True,
    **kwargs,
) -> SBCResult:
    """Simulation-based calibration: ranks of truths drawn from the prior among draws of their posteriors.

    Args:
        rng_key: JAX random key. Simulation i depends on it and on i only.
        mcmc: An `AnnealedMCMC`: its model, kernel and settings. It is left as it is.
        *args, **kwargs: The model's arguments. Data among them give shapes; their values are replaced by simulated ones
            at the observed sites. Arguments may also be None for data, as for prior predictive draws.
        num_simulations: How many posteriors are sampled.
        observed: Names of the sites that hold data; all sites with `obs` by default. Name them where data are None.
        quantities: Function of one draw's values by site; what it returns by name is ranked instead of every latent.
        checkpoint_path: File to keep finished simulations in. With the same arguments they are not repeated; more of
            them may be asked for.
        progress_bar: Show simulations.

    Ctrl-C ends it after the simulation in hand, a second one at once; what is done is returned, with a warning.

    Returns:
        SBCResult, for `nd.coverage`, `nd.plots.plot_sbc` and `az.plot_ecdf_pit(result.to_datatree())`.

    Raises:
        TypeError: if `mcmc` is no AnnealedMCMC.
        ParameterError: if no site is observed, or one named in `observed` is missing.
        UnsupportedModelError: for models with `numpyro.factor`, whose prior is not what the model draws.
        NotImplementedError: for a prior that cannot be drawn: give it a `sampler`, see `nd.DiffusionPrior`.
        CheckpointError: if `checkpoint_path` cannot be written, is damaged, in use, or of other arguments.

    Cost: that of `num_simulations` runs; programs are compiled once, for data of one shape.
    """
    check_untraced("nd.sbc", rng_key, args, kwargs)
    if not isinstance(mcmc, AnnealedMCMC):
        raise ArgumentTypeError(f"nd.sbc takes an nd.AnnealedMCMC(model, ...); got {type(mcmc).__name__}.")
    rng_key, num_simulations = check_key(rng_key), check_integer("num_simulations", num_simulations)
    simulator = _Simulator(mcmc, args, kwargs, observed, quantities)
    rows: list[dict[str, np.ndarray]] = []
    with sole_writer(checkpoint_path):
        identity = {} if checkpoint_path is None else {"kind": KIND} | simulator.identity(rng_key)
        keeper = Keeper(checkpoint_path, identity, 60.0)
        rows += keeper.load(_unpacked) or []
        with tqdm(total=num_simulations, initial=min(len(rows), num_simulations), disable=not progress_bar,
                  desc="sbc") as bar, Interrupt() as interrupt:  # fmt: skip
            try:
                while len(rows) < num_simulations and not interrupt.asked:
                    rows.append(simulator.simulate(rng_key, len(rows)))
                    bar.update()
                    keeper.keep(_packed, rows)
            except KeyboardInterrupt:
                pass
        if rows:
            keeper.keep(_packed, rows, now=True)
    if len(rows) < num_simulations:
        if not rows:
            raise KeyboardInterrupt
        again = "Run it again with the same arguments to go on." if keeper.path else "checkpoint_path= lets it go on."
        warn(InterruptWarning(f"interrupted after {len(rows)} of {num_simulations} simulations. {again}", len(rows)))
    return _result(rows[:num_simulations])


class _Simulator:
    """Draws of a model's prior and data, and ranks of what is drawn."""

    def __init__(self, mcmc: AnnealedMCMC, args, kwargs, observed, quantities):
        self.args, self.kwargs, self.quantities = args, kwargs, quantities
        self.observed = (observed,) if isinstance(observed, str) else observed
        self.model = mcmc._model
        self.mcmc = copy.copy(mcmc)
        self.mcmc._model = _conditioned(self.model)
        self.mcmc._options = mcmc._options | {"checkpoint_path": None, "progress_bar": False}
        self.mcmc._posterior, self.mcmc.post_warmup_state = None, None

    def draw(self, rng_key) -> tuple[dict[str, Any], dict[str, Any]]:
        """Values of all other sites, and data by observed site, as the model draws them."""
        latent_key, data_key = jax.random.split(rng_key)
        with_data = generated(drawn(self.model, latent_key), rng_key=data_key, names=tuple(self.observed or ()))
        sites = trace(with_data).get_trace(*self.args, **self.kwargs)
        names = [k for k, s in sites.items() if is_data(s)] if self.observed is None else list(self.observed)
        _check_sites(sites, names)
        data = {name: sites[name]["value"] for name in names}
        others = (k for k, s in sites.items() if s["type"] == "sample" and k not in data)
        return {k: sites[k]["value"] for k in others if not sites[k]["is_observed"]}, data

    def identity(self, rng_key) -> dict[str, Any]:
        """What decides the results, by name: the key, the model under its first data, and the settings."""
        sim_key, run_key, _ = _keys(rng_key, 0)
        call = ModelCall.of(self.mcmc._model, (self.draw(sim_key)[1], *self.args), self.kwargs, self.mcmc.view)
        mcmc, options = (
            self.mcmc,
            self.mcmc._options | {"mesh": None, "levels": fingerprint(self.mcmc._options["levels"])},
        )
        joint = prepare(jax.random.split(run_key, 3)[0], call, mcmc.likelihood_power)[1]
        settings = f"{mcmc.kernel!r} {mcmc.num_samples} {mcmc.thinning} {options}"
        made = "latents"
        if self.quantities is not None:
            draw = jax.eval_shape(joint.constrain, jax.ShapeDtypeStruct(joint.event_shape, joint.moments.mean.dtype))
            program = trace_program(self.quantities, draw)
            made = fingerprint((program.program, program.captured))
        told = {"rng_key": fingerprint(rng_key), "settings": settings, "quantities": made}
        return {**told, **joint.identity(), **versions()}

    def simulate(self, rng_key, i: int) -> dict[str, np.ndarray]:
        """Ranks and figures by name of simulation i."""
        sim_key, run_key, rank_key = _keys(rng_key, i)
        truth, data = self.draw(sim_key)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", DiagnosticWarning)
            self.mcmc.run(run_key, data, *self.args, **self.kwargs)
        found = self.mcmc._found
        if not found.run.is_complete and any("interrupted" in str(w.message) for w in told):
            raise KeyboardInterrupt
        ranked = found.beside(truth, self.quantities)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(rank_key)))
        row: dict[str, Any] = {"has_findings": any(issubclass(w.category, DiagnosticWarning) for w in told)}
        row |= {name: getattr(self.mcmc, name) for name in OF_RUN if name not in row}
        for name, (true, values) in ranked.items():
            row[f"rank {name}"], row[f"worth {name}"] = rank_of(true, values, found.particles, rng)
        return {name: np.asarray(value) for name, value in row.items()}


def _keys(rng_key, i: int):
    return jax.random.split(jax.random.fold_in(rng_key, i), 3)


def _conditioned(model):
    """The model as a function of data by site, and its own arguments."""

    def conditioned(data, *args, **kwargs):
        with condition(data=data):
            return model(*args, **kwargs)

    conditioned.__name__ = getattr(model, "__name__", type(model).__name__)
    return conditioned


def _check_sites(sites, names) -> None:
    known = [name for name, site in sites.items() if site["type"] == "sample"]
    if missing := [name for name in names if name not in known]:
        raise ParameterError(f"observed must name sample sites of the model, among {known}; got {missing[0]!r}.")
    if not names:
        raise ParameterError(
            "the model has no observed site. Give it data of the right shape, or name the sites that hold data: "
            "nd.sbc(rng_key, mcmc, ..., observed=('y',))."
        )
    for name, site in sites.items():
        if site["type"] == "sample" and site["is_observed"] and name not in names and not is_jacobian(site):
            raise UnsupportedModelError(
                f"site {name!r} is observed, but no data that the model draws: its truths would not come from the "
                "posterior's prior. Leave factors and fixed observations out, or name the site in observed=."
            )


def _packed(rows):
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}, {}


def _unpacked(arrays, facts) -> list[dict[str, np.ndarray]]:
    names = [name for name in arrays if name in OF_RUN or name.startswith(("rank ", "worth "))]
    return [{name: arrays[name][i] for name in names} for i in range(len(arrays[OF_RUN[0]]))]


def _result(rows) -> SBCResult:
    arrays, _ = _packed(rows)

    def of(kind):
        return {k.removeprefix(kind): v.astype(float) for k, v in arrays.items() if k.startswith(kind)}

    return SBCResult(of("rank "), of("worth "), **{name: arrays[name] for name in OF_RUN})
