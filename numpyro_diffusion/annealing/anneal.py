"""`anneal`: a density, composed or not, from noise to data. The loop over its levels is in `descent`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ..density.abstract import check_density
from ..density.density import Density
from ..density.proper import check_proper
from ..diagnose.result import AnnealedRun
from ..disk.runs import sole_writer
from ..errors import (
    ArgumentTypeError,
    ParameterError,
    ScoreOnlyError,
    check_integer,
    check_key,
    check_number,
    check_untraced,
)
from ..program import fingerprint, versions
from . import population as populations
from .ancestral import reverse_run
from .devices import checked_mesh, everywhere, gathered
from .frame import FRAMES
from .history import History, check_place
from .kernels import HMC, BlackJAX, Kernel
from .lapack import single_threaded_lapack
from .loop import descend
from .memory import default_batch_size
from .pilot import WATCHED_SIZE, check_metric, plan
from .population import LevelStats
from .progress import Progress
from .reverse import Reverse
from .saved import Descent, Keeper


@single_threaded_lapack
def anneal(
    rng_key: jax.Array,
    density: Density,
    kernel: Kernel | Reverse | None = None,
    *,
    num_chains: int = 1000,
    num_steps: int = 2,
    levels: Any = None,
    level_ess: float = 0.98,
    resample_threshold: float | None = None,
    frame: str = "whitened",
    metric: str = "frame",
    predictor: bool = False,
    num_pilot_chains: int | None = None,
    chain_batch_size: int | None = None,
    mesh: Mesh | None = None,
    keep_history: bool | str | Path = False,
    checkpoint_path: str | Path | None = None,
    checkpoint_every_seconds: float = 60.0,
    progress_bar: bool = True,
) -> AnnealedRun:
    """Sample a density, composed or not, by annealed MCMC from noise to data, and estimate its evidence.

    Args:
        rng_key: JAX random key.
        density: What to sample at t = 0.
        kernel: HMC() by default; ULA, MALA, UHMC, HMC, BlackJAX, or Reverse for reverse diffusion.
        num_chains: Population size.
        num_steps: Kernel steps per level.
        levels: None places them by conditional ESS in a pilot run; an integer gives that many, geometric in the
            noise-to-signal ratio (the default of Reverse is 250); or an array of times decreasing within [0, 1].
        level_ess: Conditional ESS, as a share in (0, 1), that placed levels keep.
        resample_threshold: Resample when ESS / N falls below it, and always before the last level's steps, so that
            `samples` are equally weighted. 0 never resamples (plain AIS) and leaves the weights in `log_weights`. None
            is 0.5, and from 256 dimensions on watches the weights: where one level leaves less than two chains' worth
            of them, it warns and goes on without weights and resampling, as plain annealed MCMC.
        frame: "whitened" runs in the preconditioned frame, "identity" in x itself.
        metric: "frame" moves in the frame's coordinates; "pilot" in those in which the pilot, or one of its modes, is
            about round, which helps where the frame's Gaussian is far from the density, as in posteriors. Each move
            then takes a random share U(0.5, 1) of the step size.
        predictor: Take a reverse diffusion step before each level. Weights are not defined then.
        num_pilot_chains: Chains of the pilot run that places levels and tunes step sizes; 256 by default. For images,
            where each costs much, 16 do if levels are given.
        chain_batch_size: Chains advanced together, on each device; bounds memory. None advances all at once, on a CPU
            up to 512; from 256 dimensions on no more than fit into the memory that is free, on a CPU up to 64.
        mesh: Devices that share the chains, such as `jax.make_mesh((jax.device_count(),), ("chains",))`, also those of
            several processes after `jax.distributed.initialize()`. A chain's keys depend on its number only, so samples
            are those of one device up to rounding.
        keep_history: Keep acceptance and weight increments of every chain at every level (kernels only): True in
            memory, a path in a Zarr folder there.
        checkpoint_path: File to keep the run's state in. If it exists and belongs to the same arguments, the run goes
            on from there and ends as an uninterrupted one, bit for bit. A finished run is read back.
        checkpoint_every_seconds: The most work a kill can lose, after the pilot.
        progress_bar: Show the pilot, then levels, and acceptance and ESS where there are any.

    An interrupt (Ctrl-C) ends the run early, with a warning: what is returned is then of the density at the noise level
    reached, `is_complete` is False, and its weights are not resampled. A kernel that is not adjusted ends it, too, when
    most of its chains have left the scale of every factor: its steps are too long.

    Returns:
        AnnealedRun. Where a Metropolis ratio exists (log densities), unadjusted kernels are weighted as well: their
        log evidence is exact in the same sense, at a larger variance.

    Raises:
        ParameterError, ScheduleError: for values out of range, and for improper compositions, the exponents of whose
            factors sum to zero or less.
        TracedError: inside jax.jit, vmap, grad or scan.
        ScoreOnlyError: for a score-only density with a Metropolis-adjusted kernel.
        CheckpointError: if `checkpoint_path` cannot be written, is damaged, in use, or belongs to other arguments.

    Cost: per chain and level, one evaluation of value and gradient, plus `num_steps` times the kernel's own (MALA and
    ULA 1, HMC and UHMC L), and one for a predictor. The pilot takes one plus 4 times the kernel's own on each of its
    256 chains (3 times from 256 dimensions on and under metric "pilot"), and to place a level 5 log densities.

    References:
        Neal (2001), Annealed importance sampling; Du et al. (2023), arXiv:2302.11552, Algorithms 1-3.
    """
    check_density("nd.anneal", density)
    kernel = HMC() if kernel is None else kernel
    if not isinstance(kernel, Kernel | Reverse):
        raise ArgumentTypeError(f"nd.anneal takes a kernel such as nd.HMC(); got {kernel!r}.")
    check_untraced("nd.anneal", rng_key, density, kernel)
    rng_key = check_key(rng_key)
    num_chains, num_steps = check_integer("num_chains", num_chains), check_integer("num_steps", num_steps)
    for name, value in {"chain_batch_size": chain_batch_size, "num_pilot_chains": num_pilot_chains}.items():
        if value is not None:
            check_integer(name, value)
    if not isinstance(keep_history, bool | str | Path):
        raise ParameterError(f"keep_history must be True, False or a folder; got {keep_history!r}.")
    check_number("checkpoint_every_seconds", checkpoint_every_seconds, 0.0)
    check_number("level_ess", level_ess, 0.0, 1.0)
    if resample_threshold is not None:
        check_number("resample_threshold", resample_threshold, 0.0, 1.0)
    watched = resample_threshold is None and math.prod(density.event_shape) >= WATCHED_SIZE
    resample_threshold = 0.5 if resample_threshold is None else resample_threshold
    if frame not in FRAMES:
        raise ParameterError(f"frame must be one of {FRAMES}; got {frame!r}.")
    check_metric(metric, density)
    check_proper(density)
    mesh = checked_mesh(mesh, num_chains)
    # What functions of the user's compute is read once, here.
    density, kernel = jax.tree.map(lambda a: a, density), kernel.as_now(math.prod(density.event_shape))
    if chain_batch_size is None:
        chain_batch_size = default_batch_size(density, num_chains if mesh is None else num_chains // mesh.size)
    if isinstance(kernel, Reverse):
        if keep_history or checkpoint_path is not None:
            raise ParameterError("keep_history and checkpoint_path are for kernels; reverse diffusion has neither.")
        run = reverse_run(
            rng_key, density, kernel, levels,
            num_chains=num_chains, chain_batch_size=chain_batch_size, mesh=mesh, progress_bar=progress_bar,
        )  # fmt: skip
        run.warn()
        return run
    if kernel.is_adjusted and not density.has_log_density:
        raise ScoreOnlyError(
            f"{type(kernel).__name__} accepts by log densities, but {density!r} has only a score. "
            "Use nd.ULA, nd.UHMC or nd.Reverse, or train an energy density."
        )
    weighted = density.has_log_density and not predictor and (kernel.is_adjusted or not isinstance(kernel, BlackJAX))
    identity = {} if checkpoint_path is None else {
        "rng_key": fingerprint(rng_key), **density.identity(),
        "kernel": f"{kernel!r} {fingerprint((kernel, kernel.computed))}",
        "num_chains": num_chains, "num_steps": num_steps,
        "levels": fingerprint(levels), "level_ess": level_ess, "resample_threshold": resample_threshold,
        "frame": frame, "metric": metric, "predictor": predictor, "num_pilot_chains": num_pilot_chains,
        "chain_batch_size": chain_batch_size, "keep_history": bool(keep_history), **versions(),
    }  # fmt: skip
    with (
        sole_writer(checkpoint_path if jax.process_index() == 0 else None),
        Progress("anneal", progress_bar) as progress,
    ):
        keeper = Keeper(checkpoint_path, identity, checkpoint_every_seconds, mesh)
        pilot_key, start_key, level_key = jax.random.split(rng_key, 3)
        held, mover, start_key, level_key = everywhere(
            (density, kernel.without_step_size(), start_key, level_key), mesh
        )
        saved = keeper.load()
        check_place(keep_history, saved is None)
        if saved is not None:
            descent, rows = saved
        else:
            levels_and_steps = plan(
                pilot_key, density, kernel, levels,
                frame=frame, level_ess=level_ess, metric=metric, predictor=predictor, num_chains=num_pilot_chains,
                say=progress.say,
            )  # fmt: skip
            population = populations.start(held, start_key, num_chains=num_chains, frame=frame, mesh=mesh)
            descent, rows = Descent(levels_and_steps, population), ()
            keeper.keep(descent, rows)
        history = History(keep_history, num_chains, None if saved is None else descent.num_done, rows)
        descent = descend(
            descent, held, mover, level_key, keeper, history, progress,
            threshold=resample_threshold, watched=watched, weighted=weighted, predictor=predictor,
            num_steps=num_steps, frame=frame, chain_batch_size=chain_batch_size, mesh=mesh,
        )  # fmt: skip
    population, times = descent.population, descent.plan.levels[: descent.num_done]
    weighted, is_complete = weighted and not descent.collapsed, descent.num_done == len(descent.plan.levels)
    if weighted and is_complete and not kernel.is_adjusted and resample_threshold > 0:
        population = populations.resample(population, jax.random.fold_in(level_key, len(times)))
    samples = gathered(populations.points(held, population, float(times[-1]), frame=frame), mesh)
    run = AnnealedRun(
        samples=samples,
        log_weights=population.log_weight if weighted else jnp.zeros(num_chains),
        log_evidence=float(population.evidence()) if weighted else float("nan"),
        log_evidence_error=float(population.evidence_error()) if weighted else float("nan"),
        levels=times,
        stats={k: np.stack([np.asarray(getattr(s, k)) for s in descent.stats]) for k in LevelStats._fields},
        history=history.arrays(descent.num_done),
        density=density,
        kernel=kernel,
        is_weighted=weighted,
        num_steps=num_steps,
        evaluations_per_chain=len(times) * (1 + predictor + num_steps * kernel.evaluations_per_step),
        ancestors=population.ancestor,
        scale=descent.plan.scale(len(times) - 1),
        is_complete=is_complete,
        levels_given=levels is not None,
    )
    run.warn()
    return run
