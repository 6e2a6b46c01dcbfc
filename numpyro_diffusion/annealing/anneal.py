"""`anneal`: a density, composed or not, from noise to data. The loop over its levels is in `loop`."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ..checks.calls import checked_call
from ..checks.room import make_room
from ..density.abstract import check_density
from ..density.density import Density
from ..density.path import LEVEL_NODES, divergence_evaluations
from ..density.proper import check_proper
from ..diagnose.result import AnnealedRun
from ..disk.runs import Keeper, sole_writer
from ..errors import ParameterError, check_key, check_number, check_untraced
from ..program import fingerprint, versions
from . import population as populations
from .blas_threads import single_threaded_blas
from .devices import everywhere, gathered
from .effort import expected
from .history import History, check_place
from .kernels import HMC, Kernel, check_kernel
from .loop import KIND, RunState, descend, packed, unpacked
from .ordering import ordered
from .pilot import planned
from .plan import Plan
from .progress import Progress
from .referred import check_reference
from .results import run_of
from .reverse import Reverse
from .settings import Settings
from .tempering.engine import KIND as TEMPERING
from .tempering.engine import Usual, drawn_by, tempered


@checked_call(kernel=HMC)
@single_threaded_blas
def anneal(
    rng_key: jax.Array,
    density: Density,
    kernel: Kernel | Reverse | None = None,
    *,
    engine: str = "annealing",
    num_chains: int | None = None,
    num_samples: int | None = None,
    thinning: int | None = None,
    accuracy: float | None = None,
    num_steps: int | None = None,
    levels: Any = None,
    level_ess: float | None = None,
    resample_threshold: float | None = Settings.resample_threshold,
    frame: str = Settings.frame,
    metric: str = Settings.metric,
    predictor: bool | Density | None = Settings.predictor,
    num_pilot_chains: int | None = None,
    chain_batch_size: int | None = None,
    mesh: Mesh | None = None,
    num_islands: int = Settings.num_islands,
    keep_history: bool | str | Path = False,
    checkpoint_path: str | Path | None = None,
    checkpoint_every_seconds: float = 60.0,
    progress_bar: bool = True,
) -> AnnealedRun:
    """Sample a density, composed or not, by annealed MCMC from noise to data, and estimate its evidence.

    Args:
        rng_key: JAX random key.
        density: What to sample at t = 0.
        kernel: HMC of two leapfrogs by default; ULA, MALA, UHMC, HMC, BlackJAX, or Reverse for reverse diffusion.
        engine: "annealing" takes a population from noise to data, once; "tempering" lets few replicas run up and down a
            ladder of levels and keeps draws at t = 0: many draws in little memory, see `TemperedRun`. It takes
            Metropolis kernels and log densities, and no resample_threshold, predictor, mesh, accuracy, num_islands or
            keep_history.
        num_chains: Population size, 1,000 by default; under tempering the number of independent groups of replicas, 4.
        num_samples: Under tempering draws kept of each group, 1,000 by default.
        thinning: Under tempering sweeps over the ladder between two draws, 5 by default.
        accuracy: Standard error of log Z, in nats, that decides how many levels there are, by what a coarse pilot
            measures; sqrt(2.5 / num_chains) by default, 0.05 with 1,000 chains. Levels are never closer than is of use:
            where modes part early only more chains help, as `verdict` then says. Not beside `levels` or `level_ess`.
            Under metric "pilot" there is none by default, but a level_ess of 0.95 with one step.
        num_steps: Kernel steps per level; 1 by default, 2 where `levels` or `level_ess` are given; under tempering per
            level and sweep, 1.
        levels: None places them in a pilot run; an integer gives that many, geometric in the
            noise-to-signal ratio (the default of Reverse is 250); or an array of times decreasing within [0, 1].
            Where the last is above 0, samples and evidence are of the density at that noise level.
        level_ess: Conditional ESS, as a share in (0, 1), that placed levels keep, in place of `accuracy`.
        resample_threshold: Resample when ESS / N falls below it, and always before the last level's steps, so that
            `samples` are equally weighted. 0 never resamples (plain AIS) and leaves the weights in `log_weights`. None
            is 0.5, and from 256 dimensions on watches the weights: where one level leaves less than two chains' worth
            of them, it warns and goes on without weights and resampling, as plain annealed MCMC.
        frame: "whitened" runs in the preconditioned frame, "identity" in x itself.
        metric: "frame" moves in the frame's coordinates; "pilot" in those in which the pilot, or one of its modes, is
            about round, which helps where the frame's Gaussian is far from the density, as in posteriors. Lengths of
            steps are then random: of HMC by the gradient where a step starts, shorter where the density is narrow.
        predictor: Whether a reverse diffusion step leads to each level (True), a proposal whose weights are known and
            that costs no evaluation (`denoising`), or chains are carried along in the frame (False). None has the pilot
            choose, level by level, where `level_ess` is given, and is False otherwise. From 256 dimensions on
            True is without weights, unless a `resample_threshold` is given. A density, the diffusion model or mixture
            that the composition is made from by bounded factors, such as the mixture of `sculpt` or the model without
            a caption, keeps weights and evidence of images: its reverse diffusion is taken to be right, and only what
            the composition has beside it is weighed (`referred`). That needs `levels`.
        num_pilot_chains: Chains of the pilot run that places levels, tunes step sizes and judges; 256 by default. For
            images, where each costs much, 16 do if levels are given.
        chain_batch_size: Chains advanced together, on each device; bounds memory. None advances all at once, on a CPU
            up to 512; from 256 dimensions on no more than fit into the memory that is free, on a CPU up to 64.
        mesh: Devices that share the chains, such as `jax.make_mesh((jax.device_count(),), ("chains",))`, also those of
            several processes after `jax.distributed.initialize()`. A chain's keys depend on its number only, so samples
            are those of one device up to rounding.
        num_islands: Populations that run side by side, num_chains / num_islands chains each, resampled by themselves;
            a hundred or more, for their weights' tails. The evidence is the mean of theirs, and `log_weights` of an
            island's chains hold its share of it. What islands differ by shows what a single one could not tell.
        keep_history: Keep acceptance and weight increments of every chain at every level: True in memory, a path in a
            Zarr folder there.
        checkpoint_path: File to keep the run's state in. If it exists and belongs to the same arguments, the run goes
            on from there and ends as an uninterrupted one, bit for bit. A finished run is read back.
        checkpoint_every_seconds: The most work a kill can lose, after the pilot.
        progress_bar: Show the pilot and its verdict, then levels, and acceptance and ESS where there are any.

    An interrupt (Ctrl-C) ends the run early, with a warning: what is returned is then of the density at the noise level
    reached, `is_complete` is False, and its weights are not resampled. A kernel that is not adjusted ends it, too, when
    most of its chains have left the scale of every factor: its steps are too long.

    Returns:
        AnnealedRun. Unadjusted kernels are weighted as well, by their Metropolis ratios: their log evidence is exact in
        the same sense, at a larger variance. Score-only densities are weighted by what their log densities gain along
        paths (`density.path`), up to 255 dimensions or where a `resample_threshold` is given.

    Raises:
        ParameterError, ScheduleError: for values out of range, and for improper compositions, the exponents of whose
            factors sum to zero or less.
        TracedError: inside jax.jit, vmap, grad or scan.
        ScoreOnlyError: for a score-only density with a BlackJAX algorithm that accepts by log densities.
        CheckpointError: if `checkpoint_path` cannot be written, is damaged, in use, or belongs to other arguments.

    Cost: per chain and level, one evaluation of value and gradient, plus `num_steps` times the kernel's own (MALA and
    ULA 1, HMC and UHMC L), and one for a predictor where there are no weights. The pilot takes one plus twice the
    kernel's own on each of its 256 chains (4 times where `levels` or `level_ess` are given, 3 times then from 256
    dimensions on and under metric "pilot"), and to place a level up to 12 log densities: `pilot_evaluations`, which
    `evaluations_per_chain` leaves out. With a score only, a level costs three scores and divergences more (d scores up
    to 64 dimensions, else 8), and a step the inner nodes of its line integral.

    References:
        Neal (2001), Annealed importance sampling; Du et al. (2023), arXiv:2302.11552, Algorithms 1-3.
    """
    draws = drawn_by(engine, num_samples, thinning)
    usual = Settings if draws is None else Usual
    num_chains = usual.num_chains if num_chains is None else num_chains
    effort = Settings.of_effort(levels, level_ess, num_steps, accuracy, num_chains, metric)
    if draws is not None:
        if accuracy is not None:
            raise ParameterError(
                f"engine='tempering' is as accurate as its draws are many; got accuracy = {accuracy}. Give num_samples."
            )
        effort = {"num_steps": Usual.num_steps if num_steps is None else num_steps}
        effort |= {} if level_ess is None else {"level_ess": level_ess}
    reference = predictor if isinstance(predictor, Density) else None
    if reference is not None:
        check_density("nd.anneal", density)
        check_reference(density, reference, kernel, levels)
        check_untraced("nd.anneal", reference)
        reference = jax.tree.map(lambda a: a, reference)  # what functions of the user's compute is read once, too
        # Weights that hold are not watched.
        predictor, resample_threshold = True, 0.5 if resample_threshold is None else resample_threshold
    rng_key, density, kernel, settings = prepared(
        "nd.anneal", rng_key, density, kernel, Reverse,
        **effort, num_chains=num_chains, resample_threshold=resample_threshold,
        frame=frame, metric=metric, predictor=predictor, num_pilot_chains=num_pilot_chains,
        chain_batch_size=chain_batch_size, mesh=mesh, num_islands=num_islands,
    )  # fmt: skip
    if not isinstance(keep_history, bool | str | Path):
        raise ParameterError(f"keep_history must be True, False or a folder; got {keep_history!r}.")
    check_number("checkpoint_every_seconds", checkpoint_every_seconds, 0.0)
    identity = {} if checkpoint_path is None else {
        "kind": KIND if draws is None else TEMPERING, "draws": draws,
        "rng_key": fingerprint(rng_key), **density.identity(),
        "kernel": f"{kernel!r} {fingerprint((kernel, kernel.program_digest))}", **settings.identity(),
        "levels": fingerprint(levels), "keep_history": bool(keep_history), **versions(),
        **({} if reference is None else {f"predictor's {name}": what for name, what in reference.identity().items()}),
    }  # fmt: skip
    with sole_writer(checkpoint_path):
        keeper = Keeper(checkpoint_path, identity, checkpoint_every_seconds)
        by_engine = partial(annealed, reference=reference) if draws is None else partial(tempered, draws=draws)
        run = by_engine(rng_key, density, kernel, levels, settings, keeper, keep_history, progress_bar=progress_bar)
    run.warn()
    return run


def prepared(
    purpose: str, rng_key, density: Density, kernel: Any, *others: type[Reverse], **settings
) -> tuple[jax.Array, Density, Kernel | Reverse, Settings]:
    """What a run for `purpose` takes, after all that can be refused at once; `others` may stand in a kernel's place."""
    rng_key = check_key(rng_key)  # first, as who forgets it has all else in the wrong place
    check_density(purpose, density)
    chosen = check_kernel(f"{purpose} takes", kernel, *others)
    check_untraced(purpose, rng_key, density, chosen)
    make_room()
    chosen = chosen.suited(density)
    checked = Settings.checked(**settings).suited(density, chosen)
    check_proper(density)
    # What functions of the user's compute is read once, here.
    return rng_key, jax.tree.map(lambda a: a, density), chosen.frozen(math.prod(density.event_shape)), checked


def annealed(
    rng_key, density: Density, kernel: Kernel | Reverse, levels, settings: Settings, keeper: Keeper | None = None,
    keep_history: bool | str | Path = False, *, progress_bar: bool, reference: Density | None = None,
) -> AnnealedRun:  # fmt: skip
    """The run itself, of arguments that have been `prepared`; `levels` may be a plan, which needs no pilot."""
    keeper, mesh = keeper or Keeper(None, {}, 0.0), settings.mesh
    with Progress("reverse" if isinstance(kernel, Reverse) else "anneal", progress_bar) as progress:
        pilot_key, start_key, level_key = jax.random.split(rng_key, 3)
        given = density, kernel.without_step_size(), start_key, level_key
        held, mover, start_key, level_key = everywhere(given, mesh)
        beside = everywhere(reference, mesh)
        saved = keeper.load(unpacked)
        check_place(keep_history, saved is None)
        if saved is not None:
            state, rows = saved
            # Pieces of another size would round otherwise, and what is free now need not be what was free then.
            settings = settings if settings.chain_batch_size else settings.of_pieces(state.piece)
        else:
            settings, found, verdict = settings.in_pieces(density, settings.num_chains), levels, None
            if not isinstance(levels, Plan):
                found, pilot = planned(pilot_key, density, kernel, levels, settings, progress.say)
                if pilot is not None:
                    assert isinstance(kernel, Kernel)  # reverse diffusion has no pilot
                    verdict = expected(pilot, density, kernel, found, settings, levels_given=levels is not None)
                    progress.tell(str(verdict))
            places: Any = {"num_chains": settings.num_chains, "frame_kind": settings.frame, "mesh": mesh}
            places["num_islands"] = settings.num_islands
            places["tracks"] = isinstance(kernel, Reverse) and kernel.tracks(density)
            population = populations.start(held, start_key, **places)
            state, rows = RunState(found, population, verdict=verdict, piece=settings.chain_batch_size), ()
            keeper.keep(packed, state, rows, mesh, now=True)
        history = History(keep_history, settings.num_chains, state.num_done, rows)
        state = descend(state, held, mover, level_key, settings, keeper, history, progress, beside)
    settings = dataclasses.replace(settings, weighted=settings.weighted and not state.collapsed)
    t, rows = float(state.plan.levels[state.num_done - 1]), history.arrays(state.num_done)
    x = populations.points(held, state.population, t, frame_kind=settings.frame)
    if settings.weighted and state.is_complete and not kernel.is_adjusted and settings.threshold > 0:
        key = jax.random.fold_in(level_key, state.num_done)
        state = state._replace(population=populations.resample(ordered(state.population, x, mesh), key))
        x = populations.points(held, state.population, t, frame_kind=settings.frame)
    samples = gathered(x, mesh)
    known: dict[str, Any] = {"samples": samples, "history": rows, "levels_given": levels is not None}
    return _result(state, density, kernel, settings, reference is not None, **known)


def _result(
    state: RunState, density: Density, kernel: Kernel | Reverse, settings: Settings, is_referred: bool, **known
) -> AnnealedRun:
    done, weighted = state.num_done, settings.weighted
    between = LEVEL_NODES * (1 + divergence_evaluations(math.prod(density.event_shape)))
    if isinstance(kernel, Reverse):
        tracks = kernel.tracks(density)
        known |= {} if tracks else {"stats": {}}
        evaluations = done * (1 + between) if tracks else done - 1
    else:
        evaluations = done * (1 + settings.num_steps * kernel.evaluations_per_step)
        evaluations += done * (bool(settings.predictor) and not weighted)
        evaluations += 2 * (done - 1) * is_referred
        evaluations += done * between * (weighted and not density.has_log_density)
    islands = np.asarray(state.population.island_evidences()) if settings.num_islands > 1 else None
    if islands is not None and not weighted:
        islands = np.full(len(islands), np.nan)
    return run_of(
        state.population, state.plan, state.stats, settings, density=density, kernel=kernel,
        evaluations_per_chain=evaluations, island_log_evidences=islands, verdict=state.verdict, **known,
    )  # fmt: skip
