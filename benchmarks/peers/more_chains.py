"""More chains instead of more levels: as many as the evaluations allow, of which 1,000 samples are kept by `nd.thinned`."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import numpy as np

import numpyro_diffusion as nd
from benchmarks.peers.chains import tempered_smc
from benchmarks.peers.registry import DRAWS
from numpyro_diffusion.diagnose.thinning import chosen

#: How many times more particles tempered SMC has here, at as many times fewer moves.
TIMES = 4


def annealed(rng_key, run: Callable[[int], object], budget: float):
    """(samples [DRAWS, d], evaluations per sample) of `run(num_chains)`, an annealed run or an `nd.AnnealedMCMC`.

    A first run tells what a chain takes, and costs nothing, as with tempered SMC. The pilot is that of any run.
    """

    def cost(found):
        return found.evaluations_per_chain, getattr(found, "annealed", found).pilot_evaluations

    each, pilot = cost(run(DRAWS))
    # A power of two, so that problems share compiled programs.
    times = 2 ** max(int(math.log2((budget - pilot) / each)), 0)
    many = run(times * DRAWS)
    (x,) = jax.tree.leaves(nd.thinned(jax.random.fold_in(rng_key, times), many, DRAWS))
    return x, times * sum(cost(many))


def tempered(rng_key, log_prior, log_likelihood, start, evaluations: int):
    """The same of tempered SMC, from TIMES x DRAWS starts."""
    run_key, thin_key = jax.random.split(rng_key)
    x, spent = tempered_smc(run_key, log_prior, log_likelihood, start, evaluations // TIMES)
    return x[chosen(thin_key, x, np.full(len(x), 1 / len(x)), DRAWS)], TIMES * spent
