r"""The pilot of an annealed kernel, and the levels that its chains take: its plan, read at as many as the warm-up has.

The pilot places P levels a fixed conditional ESS apart. A fractional index into them, s in [0, P - 1], is thus a clock
that runs at constant conditional ESS; K levels at equal steps of s keep it equal between them,

.. math:: s_k = k \frac{P - 1}{K - 1}, \qquad \text{ESS}_K \approx \text{ESS}_P^{\,((P - 1)/(K - 1))^2}.

A Gibbs block is tuned on all sites together: its levels and step sizes suit the values the others will take, and its
scales are those of the covariance that is left given the others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.handlers import substitute
from numpyro.infer.gibbs import GIBBS_SITES_KWARG, prototype_trace

from ..annealing.kernels import Kernel
from ..annealing.level import Level, level_at
from ..annealing.pilot import plan
from ..annealing.plan import Plan
from ..annealing.settings import Settings
from ..checks.room import make_room
from ..density.gaussian import Gaussian
from ..errors import UnsupportedModelError, warn
from ..program import array_digest
from ..pytree import replace
from .handlers import noise_level
from .joint import JointDensity
from .model_call import ModelCall
from .setup import build_joint, read_model
from .sites import is_latent


class Pilot(NamedTuple):
    """A pilot run, what it was run for, and the part of it that concerns a block.

    Attributes:
        call, identity: The model that was run, and what it computed, with what data and priors.
        siblings: The sites that other blocks own.
        joint, plan: Density of all sites, and what the pilot found for it.
        block, block_plan: The same for the block's own sites; equal where there are no siblings.
        values: Values of the siblings, such as others have for the block's own supports.
    """

    call: ModelCall
    identity: str
    siblings: frozenset[str]
    joint: JointDensity
    plan: Plan
    block: JointDensity
    block_plan: Plan
    values: dict[str, Any] | None


def run_pilot(
    call: ModelCall, siblings: frozenset[str], kernel: Kernel, known: Pilot | None, settings: Settings, likelihood_power
) -> Pilot:
    """Run the pilot of a model, less `siblings`, the sites that other blocks of a Gibbs kernel own.

    A `known` pilot serves where the model computes the same with the same data.

    Raises:
        ScoreOnlyError: for a score-only prior with a BlackJAX algorithm that accepts by log densities.
        UnsupportedModelError: for a block without a diffusion prior, or with a support that depends on other sites;
            and, like ShapeError and ParameterError, as for `setup.prepare`.
    """
    # A fixed key: the plan is a property of the model and its data, whichever chain asks first.
    trace_key, other_key, joint_key, plan_key = jax.random.split(jax.random.key(0), 4)
    values = None
    if siblings:
        model = noise_level(call.model)
        first = prototype_trace(model, trace_key, call.args, call.kwargs)
        own = {k: site["value"] for k, site in first.items() if is_latent(site) and k not in siblings}
        other = prototype_trace(substitute(model, data=own), other_key, call.args, call.kwargs)
        _check_supports(first, other, own)
        values = {k: first[k]["value"] for k in siblings}
        # All sites are annealed together, except for discrete ones, which cannot be.
        discrete = {k: v for k, v in values.items() if first[k]["fn"].support.is_discrete}
        call = call._replace(kwargs={**call.kwargs, GIBBS_SITES_KWARG: discrete})
    first_key, second_key, *joint_keys = jax.random.split(joint_key, 4)
    call, bound = read_model((first_key, second_key), call)
    identity = _identity(call, bound)
    if known is not None and known.identity == identity and known.siblings == siblings:
        return known
    make_room()
    joint = build_joint(joint_keys, call, bound, likelihood_power)
    call = call._replace(zeros=joint.zeros)
    kernel = kernel.suited(joint)
    names = tuple(site.name for site in joint.sites if site.name not in siblings)
    block = _block(joint, call, names, values) if siblings else joint
    found = plan(plan_key, joint, kernel, None, settings)
    scales = _scales(joint, names, found.scales)
    return Pilot(call, identity, siblings, joint, found, block, found._replace(scales=scales), values)


def _identity(call: ModelCall, bound) -> str:
    """Digest of what a model computes: of its start, its likelihood and its sites, its data and its priors."""
    made = call.traced(("start", "constrain", "site_log_probs"), bound)
    digests = [p.program.digest for p in made.values()] + [array_digest(a) for a in jax.tree.leaves((made, bound))]
    return f"{digests} {hash(jax.tree.structure(bound))} {call.sites}"


def _check_supports(first, other, names):
    """Refuse a block whose sites have other supports in two traces that differ in the siblings alone."""
    for name in names:
        if first[name]["fn"].support != other[name]["fn"].support:
            raise UnsupportedModelError(
                f"the support of site {name!r}, or what transforms its prior, depends on sites of another block, and a "
                "Gibbs block cannot follow it. Put these sites into one block."
            )


def _block(joint: JointDensity, call: ModelCall, names: tuple[str, ...], siblings) -> JointDensity:
    """The joint density of some of its sites, given values of the others like `siblings`."""
    kept = _indices(joint, names)
    bound = {name: joint.bound[name] for name in names if name in joint.bound}
    if not bound:
        raise UnsupportedModelError(
            f"none of the block's sites {list(names)} has a diffusion prior, so there is nothing to anneal. "
            "Give them to NUTS, and this kernel the sites with a nd.DiffusionPrior."
        )
    mean, variance, _ = joint.moments
    block = replace(
        joint, bound=bound, sites=tuple(site for site in joint.sites if site.name in names), event_shape=(len(kept),),
        moments=Gaussian.standard(len(kept))._replace(mean=mean[kept], variance=variance[kept]),
        has_log_density=all(b.density.has_log_density for b in bound.values()),
    )  # fmt: skip
    of_block = ("log_prob", "start", "start_log_prob", "constrain")
    programs = call._replace(sites=block.sites).traced(of_block, bound, siblings, widths=block.widths(1.0))
    return replace(block, programs=programs)


def _scales(joint: JointDensity, names: tuple[str, ...], scales):
    """Cholesky factors [P, b, b] of the covariance of a block given the rest, from factors [P, d, d] of the whole."""
    kept = _indices(joint, names)
    if scales is None or len(kept) == scales.shape[-1]:
        return scales
    whole = np.asarray(scales, dtype=float)
    precision = np.linalg.inv(whole @ np.swapaxes(whole, 1, 2))
    return np.linalg.cholesky(np.linalg.inv(precision[:, kept[:, None], kept]))


def _indices(joint, names):
    """Where the named sites lie in the flat point."""
    return np.flatnonzero(np.repeat([s.name in names for s in joint.sites], [s.size for s in joint.sites]))


def warn_if_few(plan: Plan, count: int, level_ess: float) -> None:
    """Warn where `count` levels are so few that fewer than half of the chains would survive each of them."""
    ess = level_ess ** (((len(plan.levels) - 1) / (count - 1)) ** 2)
    if ess < 0.5:
        warn(
            f"num_warmup = {count} levels are few: the pilot placed {len(plan.levels)}, and so far apart only about "
            f"{ess:.0%} of the chains would keep their weight at each. Set num_warmup to {len(plan.levels)} or more."
        )


@jax.jit
def tabulate(joint: JointDensity, plan: Plan) -> Level:
    """The levels of a plan, stacked, without the density that they share; memory K d^2, or twice that with scales."""

    def one(row: Plan):
        level: Any = level_at(joint, row.levels, "whitened", row.step_sizes, row.scales)
        # Of the frame, moves need the mean and the root.
        gaussian = level.frame.gaussian._replace(variance=None, axes=None)
        return level._replace(density=None, frame=level.frame._replace(gaussian=gaussian))

    return jax.lax.map(one, jax.tree.map(lambda a: jnp.asarray(a, dtype=float), plan))
