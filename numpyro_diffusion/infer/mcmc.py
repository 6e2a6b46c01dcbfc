"""Annealed MCMC of a NumPyro model with diffusion priors: posterior samples and evidence."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ..annealing.anneal import anneal
from ..annealing.blas_threads import single_threaded_blas
from ..annealing.devices import checked_mesh, everywhere
from ..annealing.draws import further_draws
from ..annealing.kernels import Kernel, check_kernel
from ..annealing.plan import PlannedLevel
from ..annealing.settings import Settings
from ..diagnose.findings import findings
from ..diagnose.islands import in_order, layout
from ..diagnose.result import AnnealedRun
from ..diagnose.summary import evidence, listed
from ..errors import NotRunError, check_integer, check_key, check_untraced
from .handlers import check_view
from .joint import JointDensity
from .model_call import ModelCall, name_of
from .posterior import Posterior, asked_for, with_aliases
from .setup import check_model, check_no_start, prepare

#: What `az.from_numpyro(mcmc)` reads besides `model` and `get_samples`, as of ArviZ's own adapters.
OF_ADAPTER = ("sample_dims", "sample_shape", "_args", "_kwargs", "get_sample_stats")


class AnnealedMCMC:
    """Posterior of a NumPyro model with diffusion priors, by annealed MCMC from noise to data.

    The surface is that of `numpyro.infer.MCMC`. Chains are particles: they start from exact draws at t = 1, where
    priors are Gaussian and the likelihood counts nothing, and are moved jointly in all latents while the noise falls
    and the likelihood comes in; their weights give the evidence.

    Args:
        model: NumPyro model with at least one latent `DiffusionPrior` site. Other latents must be continuous.
        kernel: ULA, MALA, UHMC, HMC or BlackJAX; HMC of two leapfrogs by default.
        num_chains: Population size.
        num_samples: Draws per chain at t = 0. The first ends the anneal; further ones go on from there, so that
            R-hat and ESS have something to compare.
        thinning: Kernel steps between two draws at t = 0.
        accuracy, num_steps, levels, level_ess, resample_threshold, metric, chain_batch_size, mesh, checkpoint_path: As
            for `nd.anneal`. Draws beyond the first are not in the checkpoint.
        view: How the model sees a noisy latent: "gaussian", "denoised", "scaled" or "x"; see `infer.handlers`.
        likelihood_power: None, or a function t -> lambda falling from 1 at t = 0 to 0 at t = 1; by default it follows
            the noise, see `infer.likelihood`.
        progress_bar: Show levels, acceptance and ESS.

    Raises:
        TypeError: if `model` is no function or `kernel` no kernel.
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
        num_chains: int = Settings.num_chains,
        num_samples: int = 1,
        thinning: int = 5,
        accuracy: float | None = None,
        num_steps: int | None = None,
        levels: Any = None,
        level_ess: float | None = None,
        resample_threshold: float = 0.5,
        metric: str = "pilot",
        view: str = "gaussian",
        likelihood_power=None,
        chain_batch_size: int | None = None,
        mesh: Mesh | None = None,
        checkpoint_path: str | Path | None = None,
        progress_bar: bool = True,
    ):
        check_model(model)
        check_view(view)
        self._model, self.kernel, self.num_chains = model, check_kernel("kernel must be", kernel), num_chains
        self.num_samples, self.thinning = check_integer("num_samples", num_samples), check_integer("thinning", thinning)
        self.view, self.likelihood_power, self.progress_bar = view, likelihood_power, progress_bar
        self._posterior: Posterior | None = None
        self._options = {
            "num_chains": num_chains, "accuracy": accuracy, "num_steps": num_steps, "levels": levels,
            "level_ess": level_ess, "resample_threshold": resample_threshold, "metric": metric,
            "chain_batch_size": chain_batch_size,
            "mesh": checked_mesh(mesh, num_chains), "checkpoint_path": checkpoint_path, "progress_bar": progress_bar,
        }  # fmt: skip

    @single_threaded_blas
    def run(self, rng_key, *args, extra_fields: tuple[str, ...] = (), init_params=None, **kwargs) -> None:
        """Anneal the model's posterior.

        Args:
            rng_key: JAX random key.
            *args, **kwargs: The model's arguments, of any kind. What the model reads, these and globals, attributes, a
                closure, it reads now: other arrays of the same shapes compile nothing anew, a model that computes
                something else does.
            extra_fields: Those always kept, or NumPyro's names of them: potential_energy, accept_prob, diverging.
            init_params: Must be None.

        Raises:
            ParameterError: for `init_params` (chains start from exact draws at t = 1), unknown extra fields, NaN among
                the data, or a site whose log density is NaN at the start.
            UnsupportedModelError: for models that cannot be annealed; the message names the site.
            ShapeError: if an observed value does not fit its distribution.
            ScoreOnlyError: for a score-only prior with a BlackJAX algorithm that accepts by log densities.
        """
        check_no_start(init_params)
        check_untraced("nd.AnnealedMCMC.run", rng_key, args, kwargs)
        rng_key = check_key(rng_key)
        aliases = asked_for(extra_fields)
        began = time.perf_counter()
        setup_key, anneal_key, more_key = jax.random.split(rng_key, 3)
        call, joint = prepare(setup_key, ModelCall.of(self.model, args, kwargs, self.view), self.likelihood_power)
        run = anneal(anneal_key, joint, self.kernel, **self._options)
        # Draws in the order of their islands are ArviZ's chains by a mere reshape, as are predictions made from them.
        islands = layout(run, self.num_samples)
        run = in_order(run, islands.particles)
        # All at once: a run that fails leaves the results of the last one, whole.
        self._posterior = Posterior.of(call, joint, run, islands, **self._draw(joint, run, more_key))
        self._aliases, self.seconds = aliases, time.perf_counter() - began

    def _draw(self, joint: JointDensity, run: AnnealedRun, rng_key) -> dict[str, jax.Array]:
        """Flat positions [chains, draws, d], and acceptance_rate and is_divergent [chains, draws]."""
        found = (
            run.samples[:, None],
            jnp.full((self.num_chains, 1), run.stats["acceptance_rate"][-1]),
            jnp.zeros((self.num_chains, 1), bool),
        )
        if self.num_samples > 1:
            kept = {name: self._options[name] for name in ("mesh", "chain_batch_size")}
            settings = Settings.checked(num_chains=self.num_chains, num_steps=self.thinning, **kept)
            joint, mover, rng_key = everywhere((joint, run.kernel.without_step_size(), rng_key), settings.mesh)
            planned = PlannedLevel(float(run.levels[-1]), float(run.stats["step_size"][-1]), run.scale)
            more = further_draws(
                joint, mover, run.samples, rng_key, planned, settings.in_pieces(joint, self.num_chains),
                num_samples=self.num_samples - 1,
            )  # fmt: skip
            found = (jnp.concatenate(pair, axis=1) for pair in zip(found, more, strict=True))
        return dict(zip(("positions", "acceptance_rate", "is_divergent"), found, strict=True))

    def __repr__(self):
        more = f", num_samples={self.num_samples}" if self.num_samples > 1 else ""
        return f"AnnealedMCMC({name_of(self._model)}, {self.kernel!r}, num_chains={self.num_chains}{more})"

    @property
    def model(self):
        """The NumPyro model."""
        return self.arviz_adapter().model if _asked_by_arviz() else self._model

    def __getattr__(self, name):
        if name in OF_ADAPTER:
            return getattr(self.arviz_adapter(), name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    # What has been found.

    @property
    def _found(self) -> Posterior:
        if self._posterior is None:
            raise NotRunError("nothing has been run yet. Call run(rng_key, ...) first.")
        return self._posterior

    @property
    def annealed(self) -> AnnealedRun:
        """The run in flat unconstrained coordinates, with its statistics by level.

        Raises:
            RuntimeError: before `run`.
        """
        return self._found.run

    @property
    def joint(self) -> JointDensity:
        """The model's joint density of one flat point, at every noise level."""
        return self._found.joint

    @property
    def log_evidence(self) -> float:
        """Estimate of log p(y) in nats; for a prior that is not normalised (products), plus log of its integral."""
        return self.annealed.log_evidence

    @property
    def log_evidence_error(self) -> float:
        """Standard error of `log_evidence`."""
        return self.annealed.log_evidence_error

    @property
    def log_weights(self) -> jax.Array:
        """Log weights [num_chains]; all zero after resampling."""
        return self.annealed.log_weights

    @property
    def evaluations_per_chain(self) -> int:
        """Evaluations of value and gradient per chain, without the pilot's, `annealed.pilot_evaluations`."""
        more = (self.num_samples - 1) * self.thinning * self.kernel.evaluations_per_step
        return self.annealed.evaluations_per_chain + more

    @property
    def last_state(self):
        """Unconstrained values of the last draws by site, [num_chains, ...]."""
        return jax.vmap(self.joint.unravel)(self._found.positions[:, -1])

    def get_samples(self, group_by_chain: bool = False) -> dict[str, jax.Array]:
        """Draws of latent and deterministic sites, [num_chains * num_samples, ...].

        They weigh alike unless resampling was switched off: then see `log_weights`. Particles come island by island,
        relatives side by side; see `islands`.

        Args:
            group_by_chain: Keep [num_chains, num_samples, ...].
        """
        samples = self._found.samples
        return self.arviz_adapter().get_samples() if _asked_by_arviz() else _grouped(samples, group_by_chain)

    def get_extra_fields(self, group_by_chain: bool = False) -> dict[str, jax.Array]:
        """One value per draw of log_weight, ancestor, acceptance_rate, is_divergent and log_density.

        So too of those that `run` was asked for under NumPyro's names.
        """
        return _grouped(with_aliases(self._found.fields, self._aliases), group_by_chain)

    def arviz_adapter(self):
        """What `az.from_numpyro` takes; see `infer.arviz`."""
        from .arviz import AnnealedMCMCAdapter  # slow to import

        return AnnealedMCMCAdapter(self._found)

    def to_datatree(self, *, log_likelihood: bool = True, **groups):
        """ArviZ DataTree with groups posterior, sample_stats, log_likelihood, annealing; see `infer.arviz`."""
        from .arviz import to_datatree

        tree = to_datatree(self._found, log_likelihood=log_likelihood, **groups)
        tree.attrs["evaluations_per_chain"] = self.evaluations_per_chain
        return tree

    def print_summary(self, prob: float = 0.9, exclude_deterministic: bool = True) -> None:
        """Print moments and intervals of every latent, the evidence, and what speaks against the run.

        n_eff and r_hat are ArviZ's (ess_bulk, r_hat), of the particles in islands; nan where they would mean nothing.

        Args:
            prob: Mass of the shortest intervals, in [0, 1].
            exclude_deterministic: Leave out deterministic sites.

        Raises:
            RuntimeError: before `run`.
            ParameterError: if `prob` is out of range.
        """
        run, found = self.annealed, findings(self.annealed)
        print(
            self._found.table(prob, exclude_deterministic),
            self._found.islands.note,
            f"{run.kernel!r}: {self.num_chains} chains, {len(run.levels)} levels, "
            f"{self.evaluations_per_chain} evaluations per chain and {run.pilot_evaluations:.0f} for the pilot, "
            f"{self.seconds:.1f} s",
            f"log evidence {evidence(run)}",
            f"findings {len(found) or 'none'}",
            *listed(found),
            sep="\n",
        )


def _asked_by_arviz() -> bool:
    """Whether the method or property that asks is called by ArviZ's converter.

    ArviZ takes adapters of other inference objects than its own two and treats all else as one. An adapter has `model`
    and `get_samples` as well, but of samples [chain, draw, ...], where NumPyro's are flat.
    """
    return sys._getframe(2).f_globals.get("__name__") == "arviz_base.io_numpyro"


def _grouped(values, group_by_chain):
    if group_by_chain:
        return dict(values)
    return {k: v.reshape((-1, *v.shape[2:])) for k, v in values.items()}
