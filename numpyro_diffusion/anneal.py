r"""The loop over noise levels: from the exact start at t = 1 to samples at t = 0.

One compiled program serves all levels; the loop itself runs on the host, which gives progress bars and early failure
for free and costs nothing against the work of a level.
"""

from __future__ import annotations

import math
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from . import population as populations
from .density import Density
from .errors import DiagnosticWarning, ParameterError, ScoreOnlyError
from .frame import FRAMES
from .kernels import BlackJAX, Kernel
from .memory import chains_that_fit
from .reverse import Reverse, reverse_step
from .run import AnnealedRun
from .tuning import WATCHED_SIZE, check_levels, plan


def anneal(
    rng_key: jax.Array,
    density: Density,
    kernel: Kernel | Reverse,
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
    keep_history: bool = False,
    progress_bar: bool = True,
) -> AnnealedRun:
    """Sample a density, composed or not, by annealed MCMC from noise to data, and estimate its evidence.

    Args:
        rng_key: JAX random key.
        density: What to sample at t = 0.
        kernel: ULA, MALA, UHMC, HMC, BlackJAX, or Reverse for reverse diffusion.
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
        chain_batch_size: Chains advanced together; bounds memory. None advances all at once, on a CPU about 500, from
            256 dimensions on no more than fit into the memory that is free.
        keep_history: Keep acceptance and weight increments of every chain at every level (kernels only).
        progress_bar: Show levels, acceptance and ESS.

    Returns:
        AnnealedRun. Where a Metropolis ratio exists (log densities), unadjusted kernels are weighted as well: their
        log evidence is exact in the same sense, at a larger variance.

    Raises:
        ParameterError, ScheduleError: for values out of range.
        ScoreOnlyError: for a score-only density with a Metropolis-adjusted kernel.

    Cost: per chain and level, one evaluation of value and gradient, plus `num_steps` times the kernel's own (MALA and
    ULA 1, HMC and UHMC L), and one for a predictor. The pilot adds 9 on 256 chains.

    References:
        Neal (2001), Annealed importance sampling; Du et al. (2023), arXiv:2302.11552, Algorithms 1-3.
    """
    if not isinstance(density, Density):
        raise TypeError(f"nd.anneal takes a density; got {type(density).__name__}. Wrap functions in nd.as_density.")
    if not isinstance(kernel, Kernel | Reverse):
        raise TypeError(f"nd.anneal takes a kernel such as nd.HMC(); got {kernel!r}.")
    counts = {"num_chains": num_chains, "num_steps": num_steps, "chain_batch_size": chain_batch_size}
    counts["num_pilot_chains"] = num_pilot_chains
    for name, value in counts.items():
        if name in ("chain_batch_size", "num_pilot_chains") and value is None:
            continue
        if not isinstance(value, int | np.integer) or value < 1:
            raise ParameterError(f"{name} must be an integer >= 1; got {value!r}.")
    watched = resample_threshold is None and math.prod(density.event_shape) >= WATCHED_SIZE
    resample_threshold = 0.5 if resample_threshold is None else resample_threshold
    if not 0 <= resample_threshold <= 1:
        raise ParameterError(f"resample_threshold must lie in [0, 1]; got {resample_threshold}.")
    if frame not in FRAMES:
        raise ParameterError(f"frame must be one of {FRAMES}; got {frame!r}.")
    if chain_batch_size is None:
        chain_batch_size = populations.default_batch_size(num_chains)
        if math.prod(density.event_shape) >= WATCHED_SIZE:
            fitting = chains_that_fit(density, chain_batch_size or num_chains)
            chain_batch_size = fitting if fitting < num_chains else chain_batch_size
    if isinstance(kernel, Reverse):
        return _reverse(rng_key, density, kernel, num_chains, levels, chain_batch_size, progress_bar)
    if kernel.is_adjusted and not density.has_log_density:
        raise ScoreOnlyError(
            f"{type(kernel).__name__} accepts by log densities, but {density!r} has only a score. "
            "Use nd.ULA, nd.UHMC or nd.Reverse, or train an energy density."
        )
    weighted = density.has_log_density and not predictor and (kernel.is_adjusted or not isinstance(kernel, BlackJAX))
    pilot_key, start_key, level_key = jax.random.split(rng_key, 3)
    schedule = plan(
        pilot_key, density, kernel, levels,
        frame=frame, level_ess=level_ess, metric=metric, predictor=predictor, num_chains=num_pilot_chains,
    )  # fmt: skip
    population = populations.start(density, start_key, num_chains=num_chains, frame=frame)
    times, mover = schedule.levels, kernel.without_step_size()
    stats, history, collapsed = [], [], False
    with tqdm(total=len(times), disable=not progress_bar, desc="anneal") as bar:
        for i, (t, step_size) in enumerate(zip(times, schedule.step_sizes, strict=True)):
            # Before the last level's steps everything is resampled: equal weights, and the steps part the copies.
            last = i == len(times) - 1 and resample_threshold > 0
            threshold = 2.0 if last else float(resample_threshold)
            if collapsed:
                population, threshold = population._replace(log_weight=jnp.zeros(num_chains)), 0.0
            population, level, chains = populations.advance(
                density, mover, population, jax.random.fold_in(level_key, i), float(times[max(i - 1, 0)]), float(t),
                float(step_size), threshold, schedule.scale(i),
                num_steps=num_steps, frame=frame, weighted=weighted, predictor=predictor and i > 0,
                chain_batch_size=chain_batch_size,
            )  # fmt: skip
            stats.append(level)
            if weighted and watched and not collapsed and float(level.conditional_ess) * num_chains < 2:
                collapsed = True
                _warn_of_collapse(density, i, float(t), times)
            if keep_history:
                history.append(jax.device_get(chains))
            bar.update(1)
            if progress_bar:
                bar.set_postfix(
                    t=f"{t:.3f}", acceptance=f"{float(level.acceptance_rate):.2f}", ess=f"{float(level.ess):.2f}"
                )
    weighted = weighted and not collapsed
    if weighted and not kernel.is_adjusted and resample_threshold > 0:
        population = populations.resample(population, jax.random.fold_in(level_key, len(times)))
    samples = populations.points(density, population, float(times[-1]), frame=frame)
    by_level = {k: np.stack([np.asarray(getattr(s, k)) for s in stats]) for k in stats[0]._fields}
    run = AnnealedRun(
        samples=samples,
        log_weights=population.log_weight if weighted else jnp.zeros(num_chains),
        log_evidence=float(population.evidence()) if weighted else float("nan"),
        log_evidence_error=_evidence_error(population) if weighted else float("nan"),
        levels=times,
        stats=by_level,
        history={k: np.stack([np.asarray(getattr(h, k)) for h in history]) for k in history[0]._fields}
        if history
        else None,
        density=density,
        kernel=kernel,
        is_weighted=weighted,
        num_steps=num_steps,
        evaluations_per_chain=len(times) * (1 + predictor + num_steps * kernel.evaluations_per_step),
        ancestors=population.ancestor,
        scale=schedule.scale(len(times) - 1),
    )
    run.warn()
    return run


def _warn_of_collapse(density, i, t, times):
    warnings.warn(
        f"the weights collapsed at level {i + 1} of {len(times)} (t = {t:.3g}): in {math.prod(density.event_shape)} "
        "dimensions levels must lie closer, or chains be many more. The run goes on without weights and resampling, as "
        "plain annealed MCMC, and has no evidence. levels=None places levels; a resample_threshold keeps the weights.",
        DiagnosticWarning,
        skip_file_prefixes=(str(Path(__file__).parent),),
    )


def _evidence_error(population) -> float:
    """Standard error of log Z from the genealogy: chains of one ancestor count as one (Lee and Whiteley 2018)."""
    weight = jax.nn.softmax(population.log_weight)
    families = jnp.zeros(weight.size).at[population.ancestor].add(weight)
    share = float(jnp.sum(families**2))
    return float(np.sqrt(max(share - 1 / weight.size, 0.0)))


@partial(jax.jit, static_argnames=("num_chains",))
def _reverse_start(density, rng_key, *, num_chains):
    x = jax.vmap(lambda key: density.start(key)[0])(populations.chain_keys(rng_key, num_chains))
    return x.reshape(num_chains, *density.event_shape)


@partial(jax.jit, static_argnames=("chain_batch_size",))
def _reverse_level(density, x, rng_key, t_from, t, *, chain_batch_size):
    keys = populations.chain_keys(rng_key, len(x))

    def step(key, point):
        return reverse_step(density, key, point, t_from, t)

    return populations.map_chains(step, keys, x, chain_batch_size=chain_batch_size)


def _reverse(rng_key, density, kernel, num_chains, levels, chain_batch_size, progress_bar):
    if levels is None or isinstance(levels, int | np.integer):
        levels = density.schedule.levels(250 if levels is None else int(levels))
    levels = check_levels(levels)
    start_key, level_key = jax.random.split(rng_key)
    x = _reverse_start(density, start_key, num_chains=num_chains)
    for i in tqdm(range(1, len(levels)), disable=not progress_bar, desc="reverse"):
        key = jax.random.fold_in(level_key, i)
        x = _reverse_level(density, x, key, *map(float, levels[i - 1 : i + 1]), chain_batch_size=chain_batch_size)
    run = AnnealedRun(
        samples=x,
        log_weights=jnp.zeros(num_chains),
        log_evidence=float("nan"),
        log_evidence_error=float("nan"),
        levels=levels,
        stats={},
        history=None,
        density=density,
        kernel=kernel,
        is_weighted=False,
        num_steps=0,
        evaluations_per_chain=len(levels) - 1,
    )
    run.warn()
    return run
