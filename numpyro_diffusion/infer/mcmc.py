"""Annealed MCMC of a NumPyro model with diffusion priors: posterior samples and evidence."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from ..annealing.anneal import anneal
from ..annealing.blas_threads import single_threaded_blas
from ..annealing.kernels import HMC, Kernel
from ..annealing.settings import Settings
from ..annealing.tempering.engine import KIND as TEMPERING
from ..annealing.tempering.engine import Usual, check_engine, refuse
from ..checks.calls import CheckedCall
from ..checks.room import make_room
from ..errors import ParameterError, check_integer, check_key, check_untraced
from .arguments import OF_KERNEL, checked_draws, checked_levels, model_and_kernel, spread
from .handlers import check_view
from .joint import JointDensity
from .kernel import AnnealedKernel
from .model_call import ModelCall, name_of
from .posterior import Posterior, check_fields
from .refresh import FRESH, check_same_latents, refreshed_run
from .results import Results
from .setup import check_no_start, prepare
from .state import MCMCState, check_same, check_state, drawn

#: Settings that an `AnnealedKernel` has as well.
DEFAULTS: dict[str, Any] = {
    "num_steps": None, "level_ess": None, "metric": "pilot", "view": "gaussian",
    "likelihood_power": None,
}  # fmt: skip
#: Conditional ESS between levels where the likelihood is zero in places: weights at a wall have heavier tails.
OF_ZEROS = 0.98


class AnnealedMCMC(Results, CheckedCall, kernel=HMC):
    """Posterior of a NumPyro model with diffusion priors, by annealed MCMC from noise to data.

    The surface is that of `numpyro.infer.MCMC`, with the model in the kernel's place. Chains are particles: they start
    from exact draws at t = 1, where priors are Gaussian and the likelihood counts nothing, and are moved jointly in all
    latents while the noise falls and the likelihood comes in; their weights give the evidence.

    Args:
        model: NumPyro model with at least one latent `DiffusionPrior` site, which may be transformed, by other latents
            too (`infer.transformed`). Discrete latents are summed out (`infer.enumeration`). Or an `AnnealedKernel`,
            whose model, moves and settings are taken.
        kernel: ULA, MALA, UHMC, HMC or BlackJAX; HMC of two leapfrogs by default.
        engine: "annealing", or "tempering" for many draws of few chains, see `nd.anneal`: chains are then groups of
            replicas, resample_threshold has no meaning, and predictor, mesh, accuracy and num_islands are refused.
        num_warmup: Number of noise levels, as for `AnnealedKernel`; the same as an integer for `levels`. Left out, a
            pilot finds how many are needed, which is best.
        num_chains: Population size, 1,000 by default: some hundreds, where NUTS takes four. Or 4 groups of replicas.
        num_samples, thinning: Draws per chain at t = 0, of which every thinning-th is kept. The first that is kept ends
            the anneal; further ones go on from there, so that R-hat and ESS have something to compare. One by default;
            of groups of replicas 1,000, five sweeps apart, or as many sweeps as `thinning` says.
        num_steps: Moves per noise level, and per draw at t = 0.
        accuracy, levels, level_ess, resample_threshold, metric, predictor: As for `nd.anneal`. By default levels keep
            0.95 in conditional ESS, or 0.98 where the likelihood is zero in places, weighted reverse steps lead to them
            where the pilot finds that these pay, and there is one move at each; `accuracy` places fewer or more,
            without such steps.
        chain_batch_size, mesh, num_islands, checkpoint_path: As for `nd.anneal`. Draws beyond the first are not in the
            checkpoint.
        view: How the model sees a noisy latent: "gaussian", "denoised", "scaled" or "x"; see `infer.handlers`.
        likelihood_power: None, or a function t -> lambda falling from 1 at t = 0 to 0 at t = 1; by default it follows
            the noise, see `infer.likelihood`.
        postprocess_fn: What makes samples of a draw's unconstrained values by site; by default they are the latent and
            deterministic sites.
        chain_method: "vectorized" advances chains together, "parallel" shares them among all local devices if these
            divide `num_chains`, "sequential" takes one at a time. The samples are the same.
        progress_bar: Show levels, acceptance and ESS.
        progress_rate, jit_model_args: Taken as they come: every level is shown, and data never are part of what is
            compiled.

    Raises:
        TypeError: if `model` is no function or `kernel` no kernel; for kernels of NumPyro's, with the right call.
        ParameterError: for values out of range.

    Example:
        >>> mcmc = nd.AnnealedMCMC(model, nd.HMC(), num_chains=1000)
        >>> mcmc.run(rng_key, y)
        >>> mcmc.print_summary(); mcmc.log_evidence
    """

    def __init__(
        self,
        model,
        kernel: Kernel | None = None,
        *,
        engine: str = "annealing",
        num_warmup: int | None = None,
        num_samples: int | None = None,
        num_chains: int | None = None,
        thinning: int | None = None,
        accuracy: float | None = None,
        num_steps: int | None = None,
        levels: Any = None,
        level_ess: float | None = None,
        resample_threshold: float = 0.5,
        metric: str = "pilot",
        predictor: bool | None = None,
        view: str = "gaussian",
        likelihood_power=None,
        postprocess_fn=None,
        chain_method: str = "vectorized",
        chain_batch_size: int | None = None,
        mesh: Mesh | None = None,
        num_islands: int = Settings.num_islands,
        checkpoint_path: str | Path | None = None,
        progress_bar: bool = True,
        progress_rate: int | None = None,
        jit_model_args: bool = False,
    ):
        given = {"num_steps": num_steps, "level_ess": level_ess, "metric": metric, "view": view}
        given["likelihood_power"] = likelihood_power
        self._model, self.kernel, given = model_and_kernel(model, kernel, given, DEFAULTS)
        self.view, self.likelihood_power = given.pop("view"), given.pop("likelihood_power")
        check_view(self.view)
        usual, draws = (Usual, Usual.num_samples) if check_engine(engine) == TEMPERING else (Settings, 1)
        self.num_chains = check_integer("num_chains", usual.num_chains if num_chains is None else num_chains)
        # Sweeps between two draws of a group of replicas, which are kept all unless a thinning is asked for.
        sweeps, thinning = (Usual.thinning, 1) if thinning is None else (thinning, thinning)
        self.num_samples, self.thinning = checked_draws(draws if num_samples is None else num_samples, thinning)
        self.num_warmup = num_warmup
        if postprocess_fn is not None and not callable(postprocess_fn):
            raise ParameterError(f"postprocess_fn must be a function of values by site; got {postprocess_fn!r}.")
        self.postprocess_fn, self.chain_method = postprocess_fn, chain_method
        self.progress_bar, self.progress_rate, self.jit_model_args = progress_bar, progress_rate, jit_model_args
        mesh, chain_batch_size = spread(chain_method, self.num_chains, mesh, chain_batch_size)
        self._options = given | {
            "num_chains": self.num_chains, "levels": checked_levels(num_warmup, levels),
            "chain_batch_size": chain_batch_size, "mesh": mesh, "checkpoint_path": checkpoint_path,
            "progress_bar": progress_bar, "accuracy": accuracy,
        }  # fmt: skip
        self._num_draws = self.num_samples // self.thinning
        if check_engine(engine) == TEMPERING:
            refuse(predictor=predictor, num_islands=num_islands != 1)
            self._options |= {"engine": engine, "num_samples": self._num_draws, "thinning": sweeps}
            self._num_draws = 1  # a group of replicas has all of its draws when the run ends
        else:
            of_anneal = {"resample_threshold": resample_threshold, "predictor": predictor, "num_islands": num_islands}
            self._options |= of_anneal
        self._posterior: Posterior | None = None
        self._warm: MCMCState | None = None
        self._last: MCMCState | None = None

    @single_threaded_blas
    def run(self, rng_key, *args, extra_fields: tuple[str, ...] = (), init_params=None, **kwargs) -> None:
        """Anneal the model's posterior; from a `post_warmup_state`, draw on at t = 0.

        Args:
            rng_key: JAX random key.
            *args, **kwargs: The model's arguments, of any kind. What the model reads, these and globals, attributes, a
                closure, it reads now, or from a `post_warmup_state` as it was read then: other arrays of the same
                shapes compile nothing anew, a model that computes something else does.
            extra_fields: Those always kept, or NumPyro's names of them: potential_energy, accept_prob, diverging; and
                "z.site" for unconstrained values, "~z.site" to leave a site out of the samples.
            init_params: Must be None.

        Raises:
            ParameterError: for `init_params` (chains start from exact draws at t = 1), unknown extra fields, NaN among
                the data, a site whose log density is NaN at the start, or other arguments than those of the
                `post_warmup_state`.
            UnsupportedModelError: for models that cannot be annealed; the message names the site.
            ShapeError: if an observed value does not fit its distribution.
            ScoreOnlyError: for a score-only prior with a BlackJAX algorithm that accepts by log densities.
        """
        self._run(rng_key, args, kwargs, extra_fields, init_params, self._num_draws)

    @single_threaded_blas
    def warmup(
        self,
        rng_key,
        *args,
        extra_fields: tuple[str, ...] = (),
        collect_warmup: bool = False,
        init_params=None,
        **kwargs,
    ) -> None:
        """Anneal, and no more: `run` then goes on from `post_warmup_state`, with the same arguments.

        Arguments and errors are those of `run`; `collect_warmup` must be False.
        """
        if collect_warmup:
            raise ParameterError(
                "collect_warmup is not taken: before t = 0 chains are draws of noisy densities, not of the posterior. "
                "For those call nd.anneal(rng_key, mcmc.joint, keep_history=True)."
            )
        self._warm = None
        self._run(rng_key, args, kwargs, extra_fields, init_params, 1)
        self.post_warmup_state = self._last

    @single_threaded_blas
    def refresh(self, rng_key, *args, **kwargs) -> None:
        """Take the last run's draws to the posterior given other arguments, such as more data, at t = 0 alone.

        Draws are weighed by what their log joint densities gain, in stages if that is much, resampled, and moved by the
        kernel; the log evidence gains the log of the mean weight (Chopin 2002; see `annealing.refresh`, also for the
        cost: that of a few levels). A posterior too far away is run afresh, which a finding says.

        Args:
            rng_key, *args, **kwargs: As for `run`; the model must have the same latents.

        Raises:
            RuntimeError: before `run`, or after one that ended early.
            UnsupportedModelError: if the latents differ.
            ParameterError: for kernels that are not adjusted; and all that `run` raises.
        """
        old, began = self._found, time.perf_counter()
        check_untraced("nd.AnnealedMCMC.refresh", rng_key, args, kwargs)
        make_room()
        setup_key, move_key, anneal_key, more_key = jax.random.split(check_key(rng_key), 4)
        call, joint = prepare(setup_key, ModelCall.of(self._model, args, kwargs, self.view), self.likelihood_power)
        check_same_latents(old.joint, joint)
        run = refreshed_run(move_key, old.run, joint, self._options["chain_batch_size"])
        if run is None:
            # The checkpoint is that of other data.
            run = anneal(anneal_key, joint, self.kernel, **dict[str, Any](self._effort(joint), checkpoint_path=None))
            run.remarks = (FRESH,)
        state = MCMCState.after(run, more_key, call, joint)
        self._draw(state, self._num_draws, self._fields, began, is_first=True)

    def _run(self, rng_key, args, kwargs, extra_fields, init_params, num_draws: int) -> None:
        check_no_start(init_params)
        check_untraced("nd.AnnealedMCMC.run", rng_key, args, kwargs)
        make_room()
        rng_key = check_key(rng_key)
        began, state = time.perf_counter(), self._warm
        call = ModelCall.of(self._model, args, kwargs, self.view)
        setup_key, anneal_key, more_key = jax.random.split(rng_key, 3)
        if state is not None:
            check_same(state, call)
            fields, state = check_fields(extra_fields, state.joint), state._replace(rng_key=more_key)
        else:
            call, joint = prepare(setup_key, call, self.likelihood_power)
            fields = check_fields(extra_fields, joint)
            run = anneal(anneal_key, joint, self.kernel, **self._effort(joint))
            state = MCMCState.after(run, more_key, call, joint)
        self._draw(state, num_draws, fields, began, is_first=self._warm is None)

    def _effort(self, joint: JointDensity) -> dict[str, Any]:
        """What `anneal` is given; by default levels lie closer where a likelihood is zero in places."""
        by_default = all(self._options.get(name) is None for name in ("levels", "level_ess", "accuracy", "engine"))
        if not (joint.has_zeros and by_default and self._options["metric"] == "pilot"):
            return self._options
        num_steps = self._options["num_steps"]
        return self._options | {"level_ess": OF_ZEROS, "num_steps": 1 if num_steps is None else num_steps}

    def _draw(self, state: MCMCState, num_draws: int, fields: list[str], began: float, *, is_first: bool) -> None:
        kept = {name: self._options[name] for name in ("mesh", "chain_batch_size")}
        settings = Settings.checked(num_chains=len(state.run.samples), num_steps=state.run.num_steps, **kept)
        found, last = drawn(state, num_draws, self.thinning, settings, self.postprocess_fn, is_first=is_first)
        # All at once: a run that fails leaves the results of the last one, whole.
        self._posterior, self._last, self._fields = found, last, fields
        self.seconds = time.perf_counter() - began

    def __repr__(self):
        more = f", num_samples={self.num_samples}" if self.num_samples > 1 else ""
        return f"AnnealedMCMC({name_of(self._model)}, {self.kernel!r}, num_chains={self.num_chains}{more})"

    @property
    def sampler(self) -> AnnealedKernel:
        """The same sampler as a kernel for `numpyro.infer.MCMC`."""
        given = {name: self._options.get(name, getattr(self, name, None)) for name in OF_KERNEL}
        return AnnealedKernel(self._model, self.kernel, **{k: v for k, v in given.items() if v is not None})

    @property
    def post_warmup_state(self) -> MCMCState | None:
        """Where `run` goes on from, at t = 0, if not None: set by `warmup`, or to a `last_state`.

        Chains keep the weights and the evidence of the anneal.
        """
        return self._warm

    @post_warmup_state.setter
    def post_warmup_state(self, state: MCMCState | None) -> None:
        check_state(state)
        self._warm = state
