"""What an annealed run found of a model: its draws by site, extra fields by draw, and the table of a summary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.diagnostics import hpdi

from ..checks.text import columns, shown
from ..diagnose.expectations import MOST_PARETO_K, Estimate, Particles, mean_of, particles_of
from ..diagnose.islands import Layout
from ..diagnose.result import AnnealedRun
from ..diagnose.weights import evenly
from ..errors import ArgumentTypeError, ParameterError, check_number
from .joint import JointDensity
from .model_call import ModelCall

#: Extra fields, those always kept.
FIELDS = ("log_weight", "log_density", "acceptance_rate", "is_divergent", "ancestor")
#: NumPyro's names of some, given where they are asked for; a potential energy is minus the log density.
ALIASES = {"potential_energy": "log_density", "accept_prob": "acceptance_rate", "diverging": "is_divergent"}
#: Draws at which a program is evaluated at once, and at which the log density is.
BATCH_SIZE, LARGE_BATCH_SIZE = 256, 512


class Posterior(NamedTuple):
    """Draws of a model's latents, in the order of their islands.

    Attributes:
        call, joint: The model as it was read, and its joint density.
        run: The anneal, in flat unconstrained coordinates.
        islands: How the draws are laid out as ArviZ's chains.
        positions: Flat points [chains, draws, d].
        samples: Latent and deterministic sites [chains, draws, ...].
        fields: One value per draw [chains, draws], by the names in `FIELDS`.
        num_moves: Moves per chain after the anneal.
    """

    call: ModelCall
    joint: JointDensity
    run: AnnealedRun
    islands: Layout
    positions: jax.Array
    samples: dict[str, jax.Array]
    fields: dict[str, jax.Array]
    num_moves: int = 0

    @classmethod
    def of(
        cls, call: ModelCall, joint: JointDensity, run: AnnealedRun, islands: Layout, positions, *,
        num_moves: int, postprocess_fn: Callable | None = None, **fields,
    ) -> Posterior:  # fmt: skip
        """The draws at flat positions, with further fields of them; `postprocess_fn` makes samples of unconstrained
        values by site, instead of what the model says."""
        for name, values in {"log_weight": run.log_weights, "ancestor": run.ancestors}.items():
            # One of every particle, which all of its draws share, or one of every draw.
            fields[name] = jnp.broadcast_to(values.reshape(len(positions), -1), positions.shape[:2])
        if joint.has_log_density:
            fields["log_density"] = _log_density(joint, positions)
        if postprocess_fn is None:
            samples = _constrain(joint, positions)
        else:
            samples = jax.vmap(jax.vmap(lambda z: postprocess_fn(joint.unravel(z))))(positions)
        if not isinstance(samples, dict):
            raise ArgumentTypeError(f"postprocess_fn must make a dict of arrays by name; got {type(samples).__name__}.")
        return cls(call, joint, run, islands, positions, samples, fields, num_moves)

    def on_host(self) -> Posterior:
        """The same with its draws as NumPy arrays."""
        held = {name: jax.device_get(getattr(self, name)) for name in ("positions", "samples", "fields")}
        return self._replace(**held)

    def by_site(self, program: str) -> dict[str, np.ndarray]:
        """What one of the model's programs makes of all draws [N, ...], by site."""
        flat = self.positions.reshape(-1, self.positions.shape[-1])
        return {name: np.asarray(value) for name, value in _map(self.joint, flat, program=program).items()}

    def beside(self, truth: dict[str, Any], quantities: Callable | None = None) -> dict[str, tuple[Any, np.ndarray]]:
        """What a true value of every latent gives by name, beside what the draws [M, ...] give.

        That is every latent, or what `quantities` makes of one draw's values by site; and the data's log likelihood.
        """
        at = self.call.flat(self.joint.bound, truth)
        both = jnp.concatenate([at[None], self.positions.reshape(-1, at.size)])
        found: dict[str, Any] = _constrain(self.joint, both[None])
        found = {name: value[0] for name, value in found.items()}
        if quantities is None:
            found = {site.name: found[site.name] for site in self.joint.sites}
        else:
            found = _asked(quantities, found)
        likelihood = _map(self.joint, both, program="log_likelihood").values()
        found["log_likelihood"] = sum(value.reshape(len(both), -1).sum(axis=1) for value in likelihood)
        return {name: (np.asarray(value[0]), np.asarray(value[1:])) for name, value in found.items()}

    def table(self, prob: float, exclude_deterministic: bool) -> str:
        """Moments, the shortest interval of mass `prob`, errors and R-hat of every number, a line each.

        Columns are NumPyro's, with the mean's standard error (mcse) and the effective number of draws by families of
        particles; R-hat (rank-normalised) is ArviZ's, of the islands. Means that rest on few families are named below.
        """
        check_number("prob", prob, 0.0, 1.0, "0.9 is usual.")
        sites, particles = {site.name for site in self.joint.sites}, self.particles
        limits = f"{50 * (1 - prob):.1f}%", f"{50 * (1 + prob):.1f}%"
        lines: list[Sequence[str]] = [(" " * 10, "mean", "mcse", "std", "median", *limits, "n_eff", "r_hat")]
        heavy = []
        for name, values in particles.samples.items():
            if name in sites or not exclude_deterministic:
                mean, others = _statistics(np.asarray(values, dtype=float), particles, self.islands, prob)
                for index in np.ndindex(values.shape[1:]):
                    label = f"{name}[{','.join(map(str, index))}]" if index else name
                    first = f"{mean.value[index]:.2f}", f"{mean.error[index]:.2g}"
                    lines.append((label, *first, *(f"{value[index]:.2f}" for value in others)))
                    if mean.pareto_k[index] > MOST_PARETO_K:
                        heavy.append(f"{label} ({mean.pareto_k[index]:.2f})")
        table = columns(lines, least=8)
        if heavy:
            more = f" and {len(heavy) - 5} more" if len(heavy) > 5 else ""
            table += f"\nfew families of particles rule the errors of {', '.join(heavy[:5])}{more}: Pareto k above "
            table += f"{MOST_PARETO_K}. Use quantiles, or more num_chains."
        return table

    @property
    def particles(self) -> Particles:
        """Values by site [chains * draws, ...], with their weights and families."""
        run, (chains, draws) = self.run, self.positions.shape[:2]
        flat = {name: value.reshape(chains * draws, *value.shape[2:]) for name, value in self.samples.items()}
        each = chains * draws // len(run.log_weights)
        return particles_of(flat, run.log_weights, run.ancestors, run.num_islands, each)


def check_fields(names: Iterable[str], joint: JointDensity) -> list[str]:
    """The extra fields that `run` was asked for; ParameterError for those there are not, of the sites' names too."""
    names, latents = list(names), [f"z.{site.name}" for site in joint.sites]
    point = jax.ShapeDtypeStruct(joint.event_shape, jnp.result_type(float))
    shown = jax.eval_shape(partial(joint.call, "constrain"), point) if names else ()
    known = (*FIELDS, *ALIASES, *latents, *(f"~z.{site}" for site in shown))
    if unknown := [name for name in names if name not in known]:
        raise ParameterError(f"extra_fields must be among {known}; got {unknown[0]!r}.")
    return names


def with_aliases(found: Posterior, names: list[str]) -> dict[str, jax.Array]:
    """The fields, and those asked for under NumPyro's names, where they are known (a score has no potential energy)."""
    fields = dict(found.fields)
    for name in ("diverging", *names):
        if name.startswith("z."):
            fields[name] = jax.vmap(jax.vmap(found.joint.unravel))(found.positions)[name[2:]]
        elif ALIASES.get(name) in fields:
            value = fields[ALIASES[name]]
            fields[name] = -value if name == "potential_energy" else value
    return fields


def grouped(values: dict, by_chain: bool) -> dict:
    """Values [chains, draws, ...] by name as they are, or of all draws, one after another."""
    return dict(values) if by_chain else {k: v.reshape((-1, *v.shape[2:])) for k, v in values.items()}


def _asked(quantities: Callable, draws: dict[str, Any]) -> dict[str, Any]:
    """What a user's function makes of every draw, numbers by name."""
    try:
        found = jax.vmap(quantities)(draws)
    except KeyError as error:
        raise ParameterError(f"quantities asks for {error}; a draw has the sites {', '.join(draws)}.") from error
    if not isinstance(found, Mapping):
        raise ArgumentTypeError(
            f"quantities must return numbers by name, as lambda draw: {{'first': draw['x'][0]}}; got {shown(found)}."
        )
    return dict(found)


@jax.jit
def _constrain(joint: JointDensity, positions):
    return jax.vmap(jax.vmap(joint.constrain))(positions)


@jax.jit
def _log_density(joint: JointDensity, positions):
    return jax.lax.map(
        lambda z: joint.log_density(z, jnp.zeros(())),
        positions.reshape(-1, positions.shape[-1]),
        batch_size=LARGE_BATCH_SIZE,
    ).reshape(positions.shape[:2])


@partial(jax.jit, static_argnames="program")
def _map(joint: JointDensity, positions, *, program: str):
    return jax.lax.map(lambda z: joint.call(program, z), positions, batch_size=BATCH_SIZE)


def _statistics(values, particles: Particles, islands: Layout, prob: float) -> tuple[Estimate, Sequence[np.ndarray]]:
    """Of draws [chains * draws, ...] the mean, and what follows it in the table, each [...]."""
    found = mean_of(values, particles)
    even = values[evenly(particles.weight)]
    # All of the draws, at most.
    lower, upper = hpdi(even, min(prob, 1 - 0.5 / len(even)))
    spread = even.std(axis=0, ddof=1) if len(even) > 1 else np.full(even.shape[1:], np.nan)
    r_hat = _r_hat(values.reshape(islands.shape + values.shape[1:]))
    return found, (spread, np.median(even, axis=0), lower, upper, found.num_effective, r_hat)


def _r_hat(values) -> np.ndarray:
    chains, draws, *rest = values.shape
    # ArviZ logs an error for each number of which it has too few draws.
    if draws < 4 or chains < 2:
        return np.full(rest, np.nan)
    from arviz_stats.base import array_stats  # slow to import

    # Numbers that never change have an R-hat of 0 / 0.
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Any = array_stats.rhat(values, chain_axis=0, draw_axis=1)
        return np.asarray(found)
