"""What replica exchange costs beside the evaluations it needs: a row of section `overhead` of `speed.py`."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import numpyro_diffusion as nd
from benchmarks.speed.side_by_side import compared, in_turns
from numpyro_diffusion.annealing.plan import Plan
from numpyro_diffusion.annealing.tempering.engine import Draws
from numpyro_diffusion.annealing.tempering.placing import PILOT_CHAINS
from numpyro_diffusion.annealing.tempering.rungs import each, rungs

GROUPS, STEPS = 4, 1


@partial(jax.jit, static_argnames="repeats")
def evaluated(density, levels, u, *, repeats: int):
    """`repeats` values and gradients at every replica [K, G, d], one after another in one program."""

    def once(u, _):
        value, gradient = each(lambda level, v: jax.value_and_grad(level.log_prob)(v), density, levels, u)
        return u + 1e-6 * gradient, value.sum()

    return jax.lax.scan(once, u, length=repeats)


def overhead(density, levels: np.ndarray, quick: bool) -> dict[str, dict]:
    """Runs of four groups of replicas on the given levels, beside their evaluations."""
    kernel, draws = nd.HMC(0.2), Draws(20 if quick else 200)
    each_piece, warming, counted = draws.pieces(len(levels))
    sweeps = (warming + counted) * each_piece * draws.thinning
    cost = 1 + STEPS * kernel.evaluations_per_step
    # What places the rungs evaluates, too.
    needed = sweeps * cost + round(len(levels) * cost * PILOT_CHAINS / (GROUPS * len(levels)))
    stacked = rungs(density, Plan(levels, np.full(len(levels), 0.2)), "whitened")
    u = 0.3 * jax.random.normal(jax.random.key(0), (len(levels), GROUPS, 2))

    def run():
        return nd.anneal(
            jax.random.key(0), density, kernel, engine="tempering", num_chains=GROUPS, num_steps=STEPS, levels=levels,
            num_samples=draws.num_samples, progress_bar=False,
        ).samples  # fmt: skip

    contenders = {"run": run, "evaluations": partial(evaluated, density, stacked, jnp.asarray(u), repeats=needed)}
    seconds = in_turns(contenders, 3 if quick else 9)
    figures = compared(seconds["run"], seconds["evaluations"], at_most=1.1)
    figures |= {
        "seconds": seconds["run"].min(),
        "ms": 1e3 * seconds["evaluations"].min() / needed,
        "evaluations": needed,
    }
    return {"HMC, tempering": figures}
