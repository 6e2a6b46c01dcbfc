"""What a finished run of a model gives for the same model with other data."""

from __future__ import annotations

from ..annealing.refresh import check_refreshable, refreshed
from ..annealing.settings import Settings
from ..diagnose.result import AnnealedRun
from ..errors import UnsupportedModelError, warn
from .joint import JointDensity

FRESH = (
    "the new posterior is too far from the old one to be reached from its draws, and was sampled anew, at the cost of "
    "a fresh run."
)


def refreshed_run(rng_key, run: AnnealedRun, joint: JointDensity, chain_batch_size) -> AnnealedRun | None:
    """The draws of a run as those of another joint density of the same latents; None, with a warning, if too far."""
    check_refreshable(run)
    found = refreshed(
        rng_key,
        run,
        joint,
        Settings(num_chains=len(run.samples), num_steps=run.num_steps, chain_batch_size=chain_batch_size),
    )
    if found is None:
        warn(FRESH)
    else:
        found.warn()
    return found


def check_same_latents(old: JointDensity, new: JointDensity) -> None:
    """Raise UnsupportedModelError unless two joint densities have the same sites at the same places."""
    if old.sites != new.sites:
        before, after = ({site.name: site.shape for site in joint.sites} for joint in (old, new))
        changed = sorted(name for name in before | after if before.get(name) != after.get(name))
        raise UnsupportedModelError(
            f"refresh keeps the latents of the last run; with these arguments {', '.join(map(repr, changed))} differ: "
            f"unconstrained shapes {before} became {after}. Call run(rng_key, ...) instead."
        )
