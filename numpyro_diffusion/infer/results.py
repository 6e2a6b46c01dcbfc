"""What an `AnnealedMCMC` has found: samples, evidence, summary, ArviZ data."""

from __future__ import annotations

import sys
from typing import Any

import jax

from ..annealing.kernels import Kernel
from ..diagnose.expectations import Particles
from ..diagnose.findings import findings
from ..diagnose.result import AnnealedRun
from ..diagnose.summary import evidence, listed
from ..errors import NotRunError
from .joint import JointDensity
from .posterior import Posterior, grouped, with_aliases
from .state import MCMCState

#: What `az.from_numpyro(mcmc)` reads besides `model` and `get_samples`, as of ArviZ's own adapters.
OF_ADAPTER = ("sample_dims", "sample_shape", "_args", "_kwargs", "get_sample_stats")


class Results:
    """The results of an `AnnealedMCMC`, which sets what stands here without a value."""

    kernel: Kernel
    num_chains: int
    seconds: float
    _model: Any
    _posterior: Posterior | None
    _last: MCMCState | None
    _fields: list[str]

    @property
    def model(self):
        """The NumPyro model."""
        return self.arviz_adapter().model if _asked_by_arviz() else self._model

    def __getattr__(self, name):
        if name in OF_ADAPTER:
            return getattr(self.arviz_adapter(), name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

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
        """Evaluations of value and gradient per chain, or per group of replicas, pilot excluded."""
        return self.annealed.evaluations_per_chain + self._found.num_moves * self.kernel.evaluations_per_step

    @property
    def last_state(self) -> MCMCState | None:
        """Where the chains stand after the last draws, unconstrained values by site in `z`; None before a run."""
        return self._last

    def transfer_states_to_host(self) -> None:
        """Move the draws from the device to the host's memory."""
        self._posterior = self._found.on_host()

    def get_samples(self, group_by_chain: bool = False) -> dict[str, jax.Array]:
        """Draws of latent and deterministic sites, [num_chains * num_samples, ...].

        They weigh alike unless resampling was switched off, or islands weigh by evidence: then see `log_weights`.
        Particles come island by island, relatives side by side; see `islands`.

        Args:
            group_by_chain: Keep [num_chains, num_samples, ...].
        """
        samples = {name: v for name, v in self._found.samples.items() if f"~z.{name}" not in self._fields}
        return self.arviz_adapter().get_samples() if _asked_by_arviz() else grouped(samples, group_by_chain)

    @property
    def particles(self) -> Particles:
        """Draws by site [num_chains * num_samples, ...] with their weights and families; see `nd.expectation`."""
        return self._found.particles

    def get_extra_fields(self, group_by_chain: bool = False) -> dict[str, jax.Array]:
        """One value per draw of log_weight, ancestor, acceptance_rate, is_divergent (diverging) and log_density.

        So too of those that `run` was asked for under NumPyro's names.
        """
        return grouped(with_aliases(self._found, self._fields), group_by_chain)

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

        mcse and n_eff are the mean's standard error and the number of independent draws of the same error, by families
        of particles (`nd.expectation`). r_hat is ArviZ's, of the particles in islands; nan where it means nothing.

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
            f"{run.kernel!r}: {len(self._found.positions)} chains, {len(run.levels)} levels, "
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
