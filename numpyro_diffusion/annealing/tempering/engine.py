"""A run by replica exchange: the pilot's plan, rungs along it, sweeps in pieces, and what they found."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...density.density import Density
from ...diagnose.result import TemperedRun
from ...disk.runs import Keeper
from ...errors import InterruptWarning, ParameterError, ScoreOnlyError, check_integer, warn
from ..kernels import Kernel
from ..pilot import planned
from ..progress import Progress
from ..settings import Settings
from .bridge import evidence, log_ratios
from .ladder import enter, piece
from .placing import PILOT_CHAINS, placed
from .rungs import rungs
from .state import TemperingState, packed, stacked, unpacked

KIND = "tempering"


class Usual:
    """What a run has where nothing is asked for: groups, draws of each and sweeps between two, steps of every sweep.

    Replicas come through a ladder by exchanges: at a given number of evaluations one step a sweep brings 1.5 times as
    many down as two.
    """

    num_chains, num_samples, thinning, num_steps = 4, 1000, 5, 1


#: Pieces of a run, each a batch of its error; and the share of sweeps, and sweeps per rung, that go before the first.
PIECES, WARMING, WARMING_SWEEPS = 25, 0.1, 4


class Draws(NamedTuple):
    """How many draws each group keeps, and how many sweeps lie between two of them."""

    num_samples: int = Usual.num_samples
    thinning: int = Usual.thinning

    def pieces(self, num_rungs: int) -> tuple[int, int, int]:
        """Draws of a piece, pieces that warm the ladder up, and pieces that count."""
        each = -(-self.num_samples // PIECES)
        counted = -(-self.num_samples // each)
        least = max(WARMING * counted * each * self.thinning, WARMING_SWEEPS * num_rungs)
        return each, -(-int(least) // (each * self.thinning)), counted


REMEDY = "or leave engine='annealing'."


def check_engine(engine) -> str:
    """The engine, or a ParameterError."""
    if engine not in (known := ("annealing", KIND)):
        raise ParameterError(f"engine must be one of {known}; got {engine!r}.")
    return engine


def drawn_by(engine, num_samples, thinning) -> Draws | None:
    """What tempering is to draw, None for the usual; or None for the engine "annealing", which draws once."""
    given = {"num_samples": num_samples, "thinning": thinning}
    given = {name: check_integer(name, value) for name, value in given.items() if value is not None}
    if check_engine(engine) == KIND:
        return Draws(**given)
    if given:
        raise ParameterError(
            f"nd.anneal draws once of every chain; got {', '.join(given)}. Leave that out, or use engine='tempering', "
            "or nd.AnnealedMCMC, whose chains go on at t = 0."
        )
    return None


def check_supported(density: Density, kernel: Any, settings: Settings, keep_history) -> Kernel:
    """The kernel; what replica exchange cannot do is refused, with what can."""
    if not density.has_log_density:
        raise ScoreOnlyError(
            f"engine='tempering' exchanges replicas by log densities, but {density!r} has only a score. Make an energy "
            f"of it with nd.distil, {REMEDY}"
        )
    if not (isinstance(kernel, Kernel) and kernel.is_adjusted):
        raise ParameterError(
            f"engine='tempering' needs a Metropolis kernel, which leaves densities as they are; got {kernel!r}. "
            f"Use nd.HMC or nd.MALA, {REMEDY}"
        )
    refuse(
        predictor=settings.predictor, mesh=settings.mesh is not None, keep_history=keep_history is not False,
        resample_threshold=settings.resample_threshold is not None, num_islands=settings.num_islands > 1,
    )  # fmt: skip
    return kernel


def refuse(**given) -> None:
    """Raise ParameterError that names the arguments of an anneal that are given."""
    if refused := ", ".join(name for name, is_given in given.items() if is_given):
        raise ParameterError(f"engine='tempering' takes no {refused}. Leave that out, {REMEDY}")


def tempered(
    rng_key, density: Density, kernel: Any, levels, settings: Settings, keeper: Keeper, keep_history: Any = False, *,
    draws: Draws, progress_bar: bool,
) -> TemperedRun:  # fmt: skip
    """The run, of arguments that have been prepared; `settings.num_chains` are groups."""
    kernel = check_supported(density, kernel, settings, keep_history)
    *begin_keys, sweep_key = jax.random.split(rng_key, 4)
    with Progress("temper", progress_bar) as progress:
        state = keeper.load(unpacked)
        if state is None:
            state = _begun(begin_keys, density, kernel, levels, settings, progress)
            keeper.keep(packed, state, now=True)
        state = _sweeps(state, density, kernel, sweep_key, settings, draws, keeper, progress)
    return _result(state, density, kernel, settings, draws, levels_given=levels is not None)


def _begun(rng_keys, density: Density, kernel: Kernel, levels, settings: Settings, progress: Progress):
    """Rungs, and replicas on them that have not moved yet."""
    pilot_key, place_key, enter_key = rng_keys
    settings = dataclasses.replace(settings, num_pilot_chains=settings.num_pilot_chains or PILOT_CHAINS)
    found, pilot = planned(pilot_key, density, kernel, levels, settings, progress.say)
    progress.say("placing rungs")
    chosen = placed(density, kernel.without_step_size(), found, place_key, settings, all_levels=levels is not None)
    ladder = enter(density, rungs(density, chosen.plan, settings.frame), jnp.asarray(chosen.points), enter_key)
    spent = chosen.evaluations + (0 if pilot is None else pilot.evaluations(density, kernel) * pilot.num_chains)
    centres = np.nan_to_num(np.diff(chosen.log_evidence, prepend=0.0))
    return TemperingState(chosen.plan, centres, ladder, spent / settings.num_chains)


def _sweeps(
    state: TemperingState, density, kernel: Kernel, rng_key, settings: Settings, draws: Draws, keeper: Keeper,
    progress: Progress,
) -> TemperingState:  # fmt: skip
    """The state after all pieces, or after those that an interrupt let it have."""
    num_rungs, num_groups = state.ladder.founder.shape
    each, warming, counted = draws.pieces(num_rungs)
    length, settings = each * draws.thinning, settings.in_pieces(density, num_rungs * num_groups)
    mover, levels = kernel.without_step_size(), rungs(density, state.plan, settings.frame)
    progress.begin(warming + counted, state.num_done)
    try:
        for i in range(state.num_done, warming + counted):
            ladder, x, founder, tally = piece(
                density, mover, levels, state.ladder, rng_key, i * length, jnp.asarray(state.centres, dtype=float),
                num_draws=each, thinning=draws.thinning, settings=settings,
            )  # fmt: skip
            tally = jax.tree.map(np.asarray, tally)
            if i < warming:
                state = state._replace(ladder=ladder, warming=(*state.warming, tally))
                if i == warming - 1:
                    state = state._replace(centres=_centred(state))
            else:
                kept = {"tallies": tally, "draws": np.asarray(x), "founders": np.asarray(founder)}
                state = state._replace(ladder=ladder, **{k: (*getattr(state, k), v) for k, v in kept.items()})
            keeper.keep(packed, state, now=i == warming + counted - 1)
            rate = tally.exchange.sum() / np.maximum(tally.turns.sum(), 1)
            progress.step(swaps=f"{rate:.2f}", tours=f"{sum(t.tours.sum() for t in state.tallies):.0f}")
    except KeyboardInterrupt:
        if not state.tallies:
            raise
        keeper.keep(packed, state, now=True)
        again = "Run it again as it was to go on." if keeper.path else "checkpoint_path= makes runs resume."
        text = (
            f"interrupted after {len(state.tallies)} of {counted} pieces of the run: it has "
            f"{len(state.tallies) * each} of {draws.num_samples} draws a group. {again}"
        )
        warn(InterruptWarning(text, len(state.tallies)))
    return state


def _centred(state: TemperingState):
    """Centres from the sweeps that warmed the ladder up, where these say anything."""
    found = log_ratios(stacked(state.warming), state.centres)
    return np.where(np.isfinite(found), found, state.centres)


def _result(state: TemperingState, density, kernel, settings: Settings, draws: Draws, *, levels_given) -> TemperedRun:
    tally, num_rungs = stacked(state.tallies), len(state.plan.levels)
    # [draws, G, ...] to group after group.
    x, founder = (np.concatenate(a)[: draws.num_samples] for a in (state.draws, state.founders))
    num_samples, num_groups = founder.shape
    x, founder = (np.swapaxes(a, 0, 1).reshape(-1, *a.shape[2:]) for a in (x, founder))
    found, turns = evidence(tally, state.centres), tally.turns.sum((0, 2))
    length = draws.pieces(num_rungs)[0] * draws.thinning
    sweeps, per_sweep = len(state.tallies) * length, 1 + settings.num_steps * kernel.evaluations_per_step
    stats = {
        "acceptance_rate": tally.acceptance.sum((0, 2)) / (sweeps * num_groups),
        "step_size": np.asarray(state.plan.step_sizes),
        "swap_rate": tally.exchange.sum((0, 2)) / np.maximum(turns, 1),
        "log_evidence": found.log_evidence, "log_evidence_error": found.error,
        "divergences": tally.divergences.sum((0, 2)),
    }  # fmt: skip
    offset = np.repeat(np.arange(num_groups), num_samples)
    return TemperedRun(
        samples=jnp.asarray(x),
        log_weights=jnp.zeros(len(x)),
        log_evidence=float(found.log_evidence[-1]),
        log_evidence_error=float(found.error[-1]),
        levels=state.plan.levels,
        stats=stats,
        history=None,
        density=density,
        kernel=kernel,
        is_weighted=True,
        num_steps=settings.num_steps,
        evaluations_per_chain=num_rungs * (1 + state.num_done * length * per_sweep),
        # One number per founder, the groups' own.
        ancestors=jnp.asarray(np.unique(founder + 1j * offset, return_inverse=True)[1]),
        scale=state.plan.at(-1).scale,
        is_complete=num_samples == draws.num_samples,
        levels_given=levels_given,
        num_groups=num_groups,
        thinning=draws.thinning,
        num_sweeps=sweeps,
        tours=tally.tours.sum(0).astype(int),
        placing_evaluations=state.placing_evaluations,
    )
