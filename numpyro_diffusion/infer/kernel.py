"""Annealed MCMC as a kernel of NumPyro's own `MCMC` and `Gibbs`: warm-up is the anneal."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
from numpyro.infer.gibbs import GIBBS_SITES_KWARG
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import is_prng_key

from ..annealing.effort import read_plan
from ..annealing.kernels import HMC, Kernel, check_kernel
from ..annealing.level import Level
from ..annealing.plan import Plan
from ..annealing.settings import Settings, is_weighted
from ..checks.calls import CheckedCall
from ..checks.numbers import is_traced
from ..errors import NotRunError, ParameterError
from ..program import fingerprint
from ..pytree import replace
from .handlers import check_view
from .joint import JointDensity
from .kernel_state import AnnealedState, Frozen, advance, start
from .model_call import ModelCall, name_of
from .pilot import Pilot, run_pilot, tabulate, warn_if_few
from .setup import check_model, check_no_start


class AnnealedKernel(CheckedCall, MCMCKernel, kernel=HMC):
    r"""Annealed MCMC as a kernel for `numpyro.infer.MCMC`, alone or as a block of `numpyro.infer.Gibbs`.

    One MCMC step is one noise level: the chain's log density is evaluated at the new level, the difference to the old
    one is added to the log weight, and `num_steps` moves follow. `num_warmup` is the number of levels from t = 1 to
    t = 0; steps after warm-up stay at t = 0, where the kernel leaves the posterior invariant.

    A pilot on the host finds where levels should lie, with what step sizes and scales. It depends on the model and its
    data alone, not on `rng_key` or the chains, runs once, and is frozen: all chains, however NumPyro runs them, share
    it. Chains start from exact draws at t = 1, so the mean of exp(log_weight) is an unbiased estimate of the evidence.
    Chains of NumPyro are separate and cannot be resampled: weights spread, and until a chain has mixed at t = 0 its
    draws should count by its weight. For evidences, and for posteriors with separate modes, `AnnealedMCMC` is better.

    In `Gibbs` only the block's own sites are annealed, given the present values of the others, which in turn see the
    view of x_t; the pilot runs on all sites together. After warm-up the block is a valid kernel for its conditional at
    t = 0. There are no weights then, log_weight is NaN. The other blocks adapt while the noise falls, so take a few
    hundred warm-up steps.

    The densities' weights travel in the state, where compiled programs see arguments. For data, too, to be arguments
    use `MCMC(..., jit_model_args=True)`. `chain_method="vectorized"` holds the weights once; the others hold them per
    chain.

    Args:
        model: NumPyro model as for `AnnealedMCMC`.
        kernel: ULA, MALA, UHMC, HMC or BlackJAX; HMC by default. Its step size is one number, or None to
            have it tuned; with metric "pilot" each move takes a random share of it between a half and all.
        num_steps: Moves per MCMC step.
        level_ess: Conditional ESS, as a share in (0, 1), between the pilot's levels. The kernel's own keep what
            `num_warmup` of them can; `pilot` tells how many the pilot took.
        metric: "pilot" moves in coordinates in which the pilot, or one of its modes, is about round, "frame" in the
            prior's own.
        view, likelihood_power: As for `AnnealedMCMC`.

    Raises:
        TypeError, ParameterError: as for `AnnealedMCMC`.

    Cost: per step and chain one evaluation of value and gradient, plus `num_steps` times the kernel's own.

    Example:
        >>> mcmc = MCMC(nd.AnnealedKernel(model), num_warmup=60, num_samples=100, num_chains=64,
        ...             chain_method="vectorized")
        >>> mcmc.run(rng_key, y, extra_fields=("log_weight",))
        >>> Gibbs([(nd.AnnealedKernel(model), ["x"]), (NUTS(model), None)])
    """

    sample_field: Any = "z"

    def __init__(
        self,
        model,
        kernel: Kernel | None = None,
        *,
        num_steps: int = Settings.num_steps,
        level_ess: float = Settings.level_ess,
        metric: str = "pilot",
        view: str = "gaussian",
        likelihood_power=None,
    ):
        check_model(model)
        kernel = check_kernel("kernel must be", kernel)
        if np.ndim(kernel.step_size):
            raise ParameterError(
                f"the step size must be one number, or None to have it tuned; got {np.size(kernel.step_size)} of them."
            )
        self._settings = Settings.checked(num_steps=num_steps, level_ess=level_ess, metric=metric, predictor=False)
        check_view(view)
        self._model, self.kernel, self.num_steps, self.level_ess = model, kernel, self._settings.num_steps, level_ess
        self.metric, self.view, self.likelihood_power = metric, view, likelihood_power
        self._found: Pilot | None = None
        self._sample_fn = None

    def __repr__(self):
        return f"AnnealedKernel({name_of(self._model)}, {self.kernel!r})"

    @property
    def model(self):
        """The NumPyro model."""
        return self._model

    @property
    def pilot(self) -> Plan:
        """Levels, step sizes and scales as the pilot placed them.

        Raises:
            RuntimeError: before the kernel has been initialised.
        """
        return self._pilot_run.plan

    @property
    def _pilot_run(self) -> Pilot:
        if self._found is None:
            raise NotRunError("there has been no pilot yet. Run the MCMC first.")
        return self._found

    @property
    def default_fields(self):
        """Fields that NumPyro collects unasked."""
        return (self.sample_field, "diverging")

    def get_diagnostics_str(self, state) -> str:
        """Noise level and acceptance, for the progress bar."""
        return f"t = {float(state.noise_level):.3f}, acc. prob = {float(state.accept_prob):.2f}"

    def init(self, rng_key, num_warmup, init_params, model_args, model_kwargs) -> AnnealedState:
        """Run the pilot, once for a model and its data, and draw chains at t = 1.

        Args:
            rng_key: One key, or one per chain [N].
            num_warmup: Number of levels.
            init_params: Must be None; ignored in `Gibbs`.
            model_args, model_kwargs: The model's arguments.

        Raises:
            ParameterError: if `num_warmup` < 2, for `init_params`, or for arguments that are being traced.
            ScoreOnlyError, UnsupportedModelError, ShapeError: as for `AnnealedMCMC.run`.
        """
        kwargs = model_kwargs or {}
        if num_warmup < 2:
            raise ParameterError(
                f"num_warmup must be at least 2, one step per noise level from t = 1 to t = 0; got {num_warmup}. "
                "Try 60: the kernel's `pilot` tells how many levels keep the conditional ESS at level_ess."
            )
        check_no_start(None if GIBBS_SITES_KWARG in kwargs else init_params)
        frozen = self._prepare(int(num_warmup), model_args, kwargs)
        joint = replace(self._pilot_run.block, siblings=kwargs.get(GIBBS_SITES_KWARG))
        begun = _begin(frozen.level(0, joint), rng_key, weighted=self._is_weighted(joint, kwargs))
        # NumPyro asks for this attribute to know whether `init` has run.
        self._sample_fn = self.sample
        return begun._replace(frozen=frozen)

    def sample(self, state: AnnealedState, model_args, model_kwargs) -> AnnealedState:
        """One step of one chain, or of chains in lockstep: the next noise level, or a further draw at t = 0."""
        kwargs = model_kwargs or {}
        frozen, single = state.frozen, is_prng_key(state.rng_key)
        joint = self._joint(frozen, model_args, kwargs)
        weighted = self._is_weighted(joint, kwargs)
        i = state.i if single else state.i[0]
        kernel = self.kernel.suited(joint)
        before, here, annealing = frozen.level(i - 1, joint), frozen.level(i, joint), i < len(frozen.levels.t)

        def step(chain):
            return advance(kernel, chain, before, here, annealing & weighted, num_steps=self.num_steps)

        chains = state._replace(frozen=None)
        return (step(chains) if single else jax.vmap(step)(chains))._replace(frozen=frozen)

    # What Gibbs needs.

    def refresh(self, state: AnnealedState, model_args, model_kwargs) -> AnnealedState:
        """The state with its potential energy at the present arguments; one chain."""
        joint = self._joint(state.frozen, model_args, model_kwargs or {})
        level = state.frozen.level(state.i - 1, joint)
        log_prob = level.log_prob(level.frame.unscaled(state.position))
        return state._replace(potential_energy=level.frame.log_det - log_prob)

    def wrap_model(self, wrapper) -> AnnealedKernel:
        """A kernel for `wrapper(model)`, with a pilot of its own."""
        return replace(self, _model=wrapper(self._model), _found=None, _sample_fn=None)

    def get_constrain_fn(self, model_args, model_kwargs):
        """Function from unconstrained to constrained values of the block's sites."""
        found = self._pilot_run
        block = replace(found.block, siblings=found.values)
        return lambda z: block.constrain(block.ravel(z))

    def postprocess_fn(self, model_args, model_kwargs):
        """Function from unconstrained values to latent and deterministic sites."""
        joint = self._pilot_run.joint
        return lambda z: joint.constrain(joint.ravel(z))

    # What is built from the model.

    def _joint(self, frozen: Frozen, args, kwargs) -> JointDensity:
        """The state's joint density, given the present values of Gibbs siblings, and the arguments where they differ.

        NumPyro compiles a step once and hands in later states and arguments. What the model read, its data too,
        therefore travels in the state; arguments that are traced (jit_model_args), or not those of the pilot (an MCMC
        that goes on with other data), are read from the model anew.
        """
        joint, call = replace(frozen.joint, siblings=kwargs.get(GIBBS_SITES_KWARG)), self._pilot_run.call
        new = ModelCall.of(self._model, args, kwargs)
        if not call.is_called_like(new):
            call = call._replace(args=new.args, kwargs=new.kwargs, sites=joint.sites)
            made = call.traced(("log_prob",), joint.bound, joint.siblings, joint.widths(1.0))["log_prob"]
            if is_traced((new.args, new.kwargs)):
                made = made.captured_from(joint.programs["log_prob"])
            return replace(joint, programs=joint.programs | {"log_prob": made})
        return joint

    def _is_weighted(self, joint, kwargs) -> bool:
        # Given other values at every sweep, there is no one path of densities to weigh along.
        return joint.has_log_density and is_weighted(joint, self.kernel) and not kwargs.get(GIBBS_SITES_KWARG)

    def _prepare(self, num_warmup, args, kwargs) -> Frozen:
        siblings = frozenset(kwargs.get(GIBBS_SITES_KWARG, {}))
        call = ModelCall.of(self._model, args, kwargs, self.view)
        if is_traced((call.args, call.kwargs)):
            raise ParameterError(
                "the model's arguments must be known when the kernel is initialised, for its pilot runs on them; got "
                "traced values. Map over chains (chain_method=jax.vmap), not over data."
            )
        # NumPyro may be inside jax.vmap or jax.pmap here; the pilot is not.
        with jax.ensure_compile_time_eval():
            found = run_pilot(call, siblings, self.kernel, self._found, self._settings, self.likelihood_power)
            self._found, block = found, found.block
            warn_if_few(found.plan, num_warmup, self.level_ess)
            levels = tabulate(block, read_plan(found.block_plan, block.schedule, num_warmup))
        # What the steps need, and no more: NumPyro holds it per chain unless these are vectorised.
        kept = {"log_prob": block.programs["log_prob"]}
        # NumPyro compiles what comes after a step, deterministic sites among it, with the arrays these read.
        digest = self.kernel.frozen(block.event_shape[0]).program_digest
        version = fingerprint((block.programs["constrain"].captured, digest))
        return Frozen(replace(block, programs=kept, version=version), levels)


@partial(jax.jit, static_argnames="weighted")
def _begin(first: Level, rng_key, *, weighted: bool) -> AnnealedState:
    """One chain, or one for each key [N], at the first level."""
    one = partial(start, first, weighted=weighted)
    return one(rng_key) if is_prng_key(rng_key) else jax.vmap(one)(rng_key)
