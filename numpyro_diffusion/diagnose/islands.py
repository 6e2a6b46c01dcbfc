r"""Particles as chains, so that R-hat and effective sample sizes mean something.

Resampling makes relatives of particles: those with one founding ancestor (a family) need not be independent. Families
are put in random order, each in one piece, and the row is cut into J islands, which are the chains. At most J - 1
families are cut, so the islands share next to no ancestors and R-hat compares populations. Within an island relatives
lie side by side: for families of sizes m and correlation rho between relatives, the autocorrelations of such a row sum
to :math:`(\sum m^2 / N - 1) \rho`, and ArviZ's effective sample size is the usual one of clustered draws. Relatives
that were shuffled would look independent.

Where islands have run side by side (`num_islands`), they are the chains.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from .result_fields import RunFields, TemperedFields
from .weights import normalised

#: Numbers of islands, the first that divides the particles; four is what ArviZ and Stan take.
NUM_ISLANDS = (4, 5, 6, 7, 3, 2)
#: Draws that an island needs: of fewer, R-hat and ESS are noise.
LEAST_DRAWS = 16
#: Draws from which on a particle is a chain of its own, if there are no more than eight.
LONG = 20


class Layout(NamedTuple):
    """How draws, particle after particle in the order of `particles`, are reshaped to [chains, draws].

    `note` says what R-hat and ESS are worth; they are undefined for one draw per chain, which is how they are withheld.
    """

    particles: np.ndarray
    chains: int
    draws: int
    note: str

    @property
    def shape(self) -> tuple[int, int]:
        return self.chains, self.draws


def layout(run: RunFields, num_samples: int = 1) -> Layout:
    """The islands of a run, of `num_samples` successive draws per particle.

    R-hat and ESS are withheld where they would mean nothing: unequal weights (resampling was off, or the run ended
    early), effectively fewer than four families, or fewer than 16 draws per island. Where no number of islands divides
    the particles there is one, which has an ESS and no R-hat. Islands that ran side by side are the chains: within one
    draws weigh alike, between them by the evidence of each.
    """
    count = len(run.samples)
    if isinstance(run, TemperedFields):
        draws, tours = count // run.num_groups, int(np.sum(run.tours))
        note = f"one chain per group of replicas; {tours} replicas came from fresh draws at t = 1 to t = 0."
        return Layout(np.arange(count), run.num_groups, draws, note)
    ancestors = np.arange(count) if run.ancestors is None else np.asarray(run.ancestors)
    particles = _by_family(ancestors, count // run.num_islands)
    total = count * num_samples
    withheld = "R-hat and ESS are withheld:"
    if not weigh_alike(run):
        return Layout(particles, total, 1, f"{withheld} draws weigh unequally (log_weights). Resample them first.")
    if count <= 8 and num_samples >= LONG:
        return Layout(np.arange(count), count, num_samples, "one chain per particle.")
    if total < 2 * LEAST_DRAWS:
        return Layout(particles, total, 1, f"{withheld} {total} draws are too few. Use more num_chains.")
    families = effective_families(ancestors)
    if families < NUM_ISLANDS[0]:
        note = f"{withheld} draws descend from effectively {families:.1f} founding chains. Use more num_chains."
        return Layout(particles, total, 1, note)
    if (islands := run.num_islands) > 1:
        note = f"{islands} islands that ran side by side, a chain each{_shares(run)}."
        if total // islands >= LEAST_DRAWS:
            return Layout(particles, islands, total // islands, note)
        return Layout(particles, total, 1, f"{withheld} {total // islands} draws an island are too few.")
    for islands in NUM_ISLANDS:
        if count % islands == 0 and total // islands >= LEAST_DRAWS:
            note = f"{islands} islands of particles; relatives (of one founding chain) are side by side, in one island."
            return Layout(particles, islands, total // islands, note)
    return Layout(particles, 1, total, f"one island, without R-hat: {count} particles divide into no 2 to 7 islands.")


def weigh_alike(run: RunFields) -> bool:
    """Whether all draws of an island have one weight, as after resampling."""
    log_weights = np.asarray(run.log_weights).reshape(run.num_islands, -1)
    return bool(np.all(np.isfinite(log_weights)) and np.all(log_weights == log_weights[:, :1]))


def _shares(run: RunFields) -> str:
    shares = normalised(run.island_log_evidences)
    if np.any(np.isnan(shares)):
        return ""
    return f"; by evidence they weigh {', '.join(f'{share:.2f}' for share in shares)} (log_weights)"


def effective_families(ancestors) -> float:
    """1 / sum of squared shares of the families, between 1 and N."""
    _, sizes = np.unique(np.asarray(ancestors), return_counts=True)
    # In NumPy: how many families there are is a matter of chance, and JAX would compile for every number of them.
    shares = sizes / sizes.sum()
    return float(1 / np.sum(shares**2))


def _by_family(ancestors, island_size: int) -> np.ndarray:
    """Particles [N], island by island, families in random order: that of founders is one of ever earlier relatives."""
    _, family = np.unique(ancestors, return_inverse=True)
    place = np.random.default_rng(0).permutation(family.max() + 1)
    # Stable: within a family, particles stay beside their nearest relatives.
    return np.lexsort((place[family], ancestors // island_size))


def in_order[Run: RunFields](run: Run, particles: np.ndarray) -> Run:
    """The run with its particles in another order; it must have kept no history."""
    by_particle = {"samples": run.samples, "log_weights": run.log_weights, "ancestors": run.ancestors}
    return dataclasses.replace(run, **{k: None if v is None else v[particles] for k, v in by_particle.items()})
