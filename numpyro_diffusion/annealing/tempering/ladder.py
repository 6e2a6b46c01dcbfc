r"""A ladder of noise levels, each with one replica per group: how replicas move, and how they change places.

Rung k holds a point u_k in the frame of its level, of density :math:`q_k` (see `frame`); above the first rung lies the
start, whose draws are fresh and exact every time. Neighbours exchange *frame coordinates*: x moves with the frame, as
between the levels of an anneal. Such an exchange of u_a and u_b is accepted with probability

.. math:: \min\Big(1, \frac{q_a(u_b) \, q_b(u_a)}{q_a(u_a) \, q_b(u_b)}\Big),

the frames' determinants being part of q. Pairs (0, 1), (2, 3), ... and (1, 2), (3, 4), ... take turns, without chance:
replicas then run through the ladder in one direction until they are refused, instead of diffusing (Okabe et al. 2001;
Syed et al. 2022, arXiv:1905.02939).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...density.density import Density
from ..frame import start, start_log_prob
from ..kernels import Kernel, KernelState
from ..level import Level
from .rungs import Rungs, each


class Ladder(NamedTuple):
    """Replicas [K, G] by rung and group: `state` in the coordinates of their rung's moves.

    `founder` numbers the fresh draw that a replica descends from, by the sweep that drew it; `arrived` says whether it
    has been at the last rung.
    """

    state: KernelState
    founder: jax.Array
    arrived: jax.Array


class Tally(NamedTuple):
    """Sums over sweeps, [K, G]; pair k joins rung k with the one before it, or with the start.

    `turns` of a pair, its probabilities of `exchange`, the two sides of its bridge (see `bridge`), `acceptance` and
    `divergences` of moves at a rung; `tours` [G], replicas that have come from the start to the last rung.
    """

    turns: Any
    exchange: Any
    forward: Any
    reverse: Any
    acceptance: Any
    divergences: Any
    tours: Any


def new_tally(num_rungs: int, num_groups: int) -> Tally:
    """Of no sweeps."""
    return Tally(*[jnp.zeros((num_rungs, num_groups))] * 6, tours=jnp.zeros(num_groups))


@jax.jit
def enter(density: Density, rungs: Rungs, u, rng_key) -> Ladder:
    """A ladder at points u [K, G, d]: nothing of it counts as having come from the start."""
    momentum = jax.random.normal(rng_key, u.shape)
    state = each(Level.enter, density, rungs, u, momentum, batch_size=u.shape[1])
    return Ladder(state, jnp.full(u.shape[:2], -1, int), jnp.ones(u.shape[:2], bool))


class Exchange(NamedTuple):
    """What one turn of half of the pairs did, [K, G] by pair: whether it had its turn, the probability of an exchange,
    and the log ratios log q_b - log q_a of the points at a (`forward`) and q_a - q_b of those at b (`reverse`)."""

    turn: jax.Array
    probability: jax.Array
    forward: jax.Array
    reverse: jax.Array


def exchange(
    density: Density, rungs: Rungs, ladder: Ladder, rng_key, number, frame_kind: str, batch_size: int | None
) -> tuple[Ladder, Exchange]:
    """Let the pairs whose turn it is in sweep `number` change places: one value and gradient for every replica."""
    start_key, momentum_key, accept_key = jax.random.split(rng_key, 3)
    state, (num_rungs, num_groups) = ladder.state, ladder.founder.shape
    keys = jax.random.split(start_key, num_groups)
    fresh, fresh_log_prob = jax.vmap(lambda key: start(density, key, frame_kind))(keys)
    fresh_momentum = jax.random.normal(momentum_key, fresh.shape)
    u = each(Level.leave, density, rungs, state).position

    def rows(first, rest):
        # The start, the rungs, and once more the last one, which has nobody below.
        return jnp.concatenate([first[None], rest, rest[-1:]])

    row = jnp.arange(1, num_rungs + 1)
    partner = row + jnp.where(row % 2 == number % 2, 1, -1)
    points, momenta = rows(fresh, u)[partner], rows(fresh_momentum, state.momentum)[partner]
    moved = each(Level.enter, density, rungs, points, momenta, batch_size=batch_size)
    here = rows(fresh_log_prob, state.logdensity)
    first = jax.vmap(lambda u: start_log_prob(density, u, frame_kind))(u[0])
    above = jnp.concatenate([first[None], moved.logdensity[:-1]])
    forward, reverse = moved.logdensity - here[:-2], above - here[1:-1]
    fine = jnp.isfinite(moved.logdensity) & jnp.all(jnp.isfinite(moved.logdensity_grad), axis=-1)
    fine &= jnp.concatenate([jnp.isfinite(first)[None], fine[:-1]])
    turn = (jnp.arange(num_rungs) % 2 == number % 2)[:, None]
    log_ratio = jnp.where(fine & turn, forward + reverse, -jnp.inf)
    accepted = jnp.log(jax.random.uniform(accept_key, log_ratio.shape)) < log_ratio
    # A rung moves with the pair that it is in: its own, or the one below it, of which the last rung has none.
    takes = jnp.where(
        (partner < row)[:, None], accepted, jnp.concatenate([accepted[1:], jnp.zeros((1, num_groups), bool)])
    )

    def swapped(new, old):
        return jnp.where(takes.reshape(takes.shape + (1,) * (old.ndim - 2)), new, old)

    founder = rows(jnp.full(num_groups, number), ladder.founder)[partner]
    arrived = rows(jnp.zeros(num_groups, bool), ladder.arrived)[partner]
    ladder = jax.tree.map(swapped, Ladder(moved, founder, arrived), ladder)
    probability = jnp.exp(jnp.minimum(log_ratio, 0.0))
    return ladder, Exchange(jnp.broadcast_to(turn, log_ratio.shape), probability, forward, reverse)


def sweep(
    density: Density, kernel: Kernel, rungs: Rungs, ladder: Ladder, rng_key, number, centres, settings
) -> tuple[Ladder, Tally]:
    """One turn of half of the pairs, then the kernel's steps at every rung; `centres` [K] as for `bridge`."""
    swap_key, move_key = jax.random.split(rng_key)
    batch_size = settings.chain_batch_size
    ladder, found = exchange(density, rungs, ladder, swap_key, number, settings.frame, batch_size)
    arrives = ~ladder.arrived[-1]
    keys = jax.random.split(move_key, ladder.founder.shape)

    def move(level, key, state):
        state, info = level.move(kernel, key, state, settings.num_steps)
        return state, info.acceptance_rate.mean(), info.is_divergent.sum()

    state, acceptance, divergences = each(move, density, rungs, keys, ladder.state, batch_size=batch_size)
    sides = jax.nn.sigmoid(found.forward - centres[:, None]), jax.nn.sigmoid(found.reverse + centres[:, None])
    # A point where the other level has no density counts nothing, and is counted.
    forward, reverse = (jnp.where(found.turn, jnp.nan_to_num(side), 0.0) for side in sides)
    new = Tally(found.turn, found.probability, forward, reverse, acceptance, divergences, arrives)
    return Ladder(state, ladder.founder, ladder.arrived.at[-1].set(True)), new


@partial(jax.jit, static_argnames=("num_draws", "thinning", "settings"))
def piece(
    density: Density, kernel: Kernel, rungs: Rungs, ladder: Ladder, rng_key, first, centres, *, num_draws: int,
    thinning: int, settings,
):  # fmt: skip
    """`num_draws` times `thinning` sweeps, the first of them number `first`.

    Returns the ladder, draws x [num_draws, G, *event_shape] and their founders [num_draws, G], and the tally.
    """
    last = rungs.whole(jax.tree.map(lambda a: a[-1], rungs.levels), density)

    def once(carry, number):
        ladder, tally = carry
        key = jax.random.fold_in(rng_key, number)
        ladder, new = sweep(density, kernel, rungs, ladder, key, number, centres, settings)
        return (ladder, jax.tree.map(jnp.add, tally, new)), None

    def draw(carry, number):
        carry, _ = jax.lax.scan(once, carry, number + jnp.arange(thinning))
        ladder = carry[0]
        return carry, (jax.vmap(last.point)(ladder.state.position[-1]), ladder.founder[-1])

    numbers = first + thinning * jnp.arange(num_draws)
    (ladder, tally), (x, founder) = jax.lax.scan(draw, (ladder, new_tally(*ladder.founder.shape)), numbers)
    return ladder, x, founder, tally
