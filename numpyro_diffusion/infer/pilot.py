"""The pilot of an annealed kernel, for a whole model or for a Gibbs block of it.

A block is tuned on all sites together: its levels and step sizes suit the values the others will take, and its scales
are those of the covariance that is left given the others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from numpyro.distributions import biject_to
from numpyro.infer.gibbs import GIBBS_SITES_KWARG, prototype_trace

from ..annealing.kernels import Kernel
from ..annealing.pilot import plan
from ..annealing.plan import Plan
from ..annealing.settings import Settings
from ..density.gaussian import Gaussian
from ..errors import ScoreOnlyError, UnsupportedModelError
from ..program import array_digest
from ..pytree import replace
from .joint import JointDensity
from .setup import build_joint, read_model
from .source import Programs, Source


class Pilot(NamedTuple):
    """A pilot run, what it was run for, and the part of it that concerns a block.

    Attributes:
        source, identity: The model that was run, and what it computed, with what data and priors.
        siblings: The sites that other blocks own.
        joint, plan: Density of all sites, and what the pilot found for it.
        block, block_plan: The same for the block's own sites; equal where there are no siblings.
        transforms: From unconstrained values, of a Gibbs block's sites.
    """

    source: Source
    identity: str
    siblings: frozenset[str]
    joint: JointDensity
    plan: Plan
    block: JointDensity
    block_plan: Plan
    transforms: dict[str, Any]


def run_pilot(
    source: Source, siblings: frozenset[str], kernel: Kernel, known: Pilot | None, settings: Settings, likelihood_power
) -> Pilot:
    """Run the pilot of a model, less the sites that other blocks of a Gibbs kernel own.

    Args:
        source: The model, not yet read.
        siblings: The sites of other blocks.
        kernel: What moves the chains.
        known: An earlier pilot, which serves where the model computes the same with the same data.
        settings, likelihood_power: Those of the kernel and of `setup.joint_density`.

    Raises:
        ScoreOnlyError: for a score-only prior with a Metropolis-adjusted kernel.
        UnsupportedModelError: for a block without a diffusion prior, or with a support that depends on other sites;
            and, like ShapeError and ParameterError, as for `setup.joint_density`.
    """
    # A fixed key: the plan is a property of the model and its data, whichever chain asks first.
    trace_key, other_key, joint_key, plan_key = jax.random.split(jax.random.key(0), 4)
    transforms, values = {}, None
    if siblings:
        first, other = (
            prototype_trace(source.model, key, source.args, source.kwargs) for key in (trace_key, other_key)
        )
        transforms = _transforms(first, other, siblings)
        values = {k: first[k]["value"] for k in siblings}
        # All sites are annealed together, except for discrete ones, which cannot be.
        discrete = {k: v for k, v in values.items() if first[k]["fn"].support.is_discrete}
        source = source._replace(kwargs={**source.kwargs, GIBBS_SITES_KWARG: discrete})
    first_key, second_key, *joint_keys = jax.random.split(joint_key, 4)
    source, bound = read_model((first_key, second_key), source)
    if kernel.is_adjusted and not all(b.density.has_log_density for b in bound.values()):
        raise ScoreOnlyError(
            f"{type(kernel).__name__} accepts by log densities, but a diffusion prior of the model has only a score. "
            "Use nd.ULA or nd.UHMC with a step_size, or train an energy density."
        )
    identity = _identity(source, bound)
    if known is not None and known.identity == identity and known.siblings == siblings:
        return known
    joint = build_joint(joint_keys, source, bound, likelihood_power=likelihood_power)
    names = tuple(site.name for site in joint.sites if site.name not in siblings)
    block = _block(joint, source, names, values) if siblings else joint
    found = plan(plan_key, joint, kernel, None, settings)
    scales = _scales(joint, names, found.scales)
    return Pilot(source, identity, siblings, joint, found, block, found._replace(scales=scales), transforms)


def _identity(source: Source, bound) -> str:
    """Digest of what a model computes: of its start, its likelihood and its sites, its data and its priors."""
    made = source.traced(("start", "constrain", "site_log_probs"), bound)
    structure = jax.tree.structure(bound)
    return f"{[p.program.digest for p in made.values()]} {_arrays((made, bound))} {hash(structure)} {source.sites}"


def _arrays(tree) -> str:
    return " ".join(array_digest(leaf) for leaf in jax.tree.leaves(tree))


def _transforms(first, other, siblings):
    """Transforms of a block's sites, from two traces with different values."""
    transforms = {}
    for name, site in first.items():
        if site["type"] != "sample" or site["is_observed"] or name in siblings:
            continue
        if site["fn"].support != other[name]["fn"].support:
            raise UnsupportedModelError(
                f"the support of site {name!r} depends on other sites, and a Gibbs block cannot follow it. Put both "
                "sites into one block."
            )
        transforms[name] = biject_to(site["fn"].support)
    return transforms


def _block(joint: JointDensity, source: Source, names: tuple[str, ...], siblings) -> JointDensity:
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
    made = source._replace(sites=block.sites).traced(of_block, bound, siblings, widths=block.widths(1.0))
    return replace(block, programs=Programs(**made))


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
    ends = np.cumsum([site.size for site in joint.sites])
    parts = [np.arange(end - s.size, end) for s, end in zip(joint.sites, ends, strict=True) if s.name in names]
    return np.concatenate([np.zeros(0, int), *parts])
